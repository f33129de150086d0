"""Where the box finds what it needs and leaves what it answers: every environment variable of the box, read once.

Here: places. Not here: limits (`loan_assets.policy`) or how many workers start (`service`).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from loan_assets.bucket import bucket_at, folder_or_bucket, is_bucket


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where the box finds what it needs, and leaves what it answers."""

    box: Path
    releases: Path | None
    online: str
    predictions: Path
    tokens: Path | None
    releases_bucket: str = ""
    predictions_bucket: str = ""
    rehearsed_day: str | None = None
    rehearsal: str = ""

    @classmethod
    def from_environment(cls, box: Path) -> Places:
        """Read LOAN_RELEASES and LOAN_TOKENS, which may be left out, LOAN_ONLINE and LOAN_PREDICTIONS.

        Releases and predictions are folders, or places in a bucket: LOAN_SPOOL is then the folder for copies of the
        former and for those of the latter that wait to be shipped, `spool` by default.

        LOAN_REHEARSAL is a rehearsal's name, LOAN_REHEARSED_DAY the day under which it is logged, or a file that says
        it.

        Raises:
            BadInput: when LOAN_RELEASES or LOAN_PREDICTIONS begins with a protocol that is not known.
        """
        given = {name: value for name, value in os.environ.items() if value.strip()}
        for name in ("LOAN_RELEASES", "LOAN_PREDICTIONS"):
            folder_or_bucket(given.get(name, ""), name)
        releases, tokens = given.get("LOAN_RELEASES", ""), given.get("LOAN_TOKENS")
        predictions, spool = given.get("LOAN_PREDICTIONS", "predictions"), Path(given.get("LOAN_SPOOL", "spool"))
        return cls(
            box=box,
            releases=spool / "releases" if is_bucket(releases) else Path(releases) if releases else None,
            online=given.get("LOAN_ONLINE", "online"),
            predictions=spool / "predictions" if is_bucket(predictions) else Path(predictions),
            tokens=Path(tokens) if tokens else None,
            releases_bucket=bucket_at(releases),
            predictions_bucket=bucket_at(predictions),
            rehearsed_day=given.get("LOAN_REHEARSED_DAY"),
            rehearsal=given.get("LOAN_REHEARSAL", ""),
        )
