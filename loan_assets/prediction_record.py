"""What one logged answer is: a line that says what was asked, what was answered, by which model and when.

Here: the line, its writing and its reading, shared by the box that answers and the graph that reads. Not here: where
days rest (`settings`), or what is concluded from them. Standard library only.

A day is a folder `2026-11-24/` of files, one per writing process, so that writers never meet. A line is eight
hexadecimal digits of CRC-32, a space, and one JSON object: a line that was cut or altered is told from a whole one.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from loan_assets.refusal import Refusal

SUFFIX = ".log"
DAY = "%Y-%m-%d"
BY_APPLICATION, BY_CLIENT = "application", "client"


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictionRecord:
    """One answer.

    `prediction_id` names it for ever; `client_id` is the stable key to which an outcome can be joined later, None where
    the applicant is nobody's client yet. `answered_at` is ISO 8601, UTC. `received` holds the columns as received, by
    the book's names; it is empty for an answer by client number, which is computed from the online features.
    """

    prediction_id: str
    answered_at: str
    asked_by: str
    client_id: int | None
    book: str
    book_digest: str
    model_version: int
    release_digest: str
    default_probability: float
    decision: str
    received: Mapping[str, float]

    def line(self) -> bytes:
        """The record as it is written."""
        content = json.dumps(asdict(self), separators=(",", ":"), allow_nan=False).encode()
        return b"%08x %b\n" % (zlib.crc32(content), content)

    @property
    def day(self) -> str:
        """The day it belongs to, `2026-11-24` style, UTC."""
        return self.answered_at[:10]


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """Lines of one file that are not what was written: cut short, altered, or of another form."""

    file: str
    lines: int


def read_day(folder: Path) -> tuple[list[PredictionRecord], tuple[Damage, ...]]:
    """Every whole record of a day in the order answered, each once, and what could not be read.

    A day without a folder is a day without answers.

    Raises:
        Refusal: when the folder is no folder, or a file in it may not be read.
    """
    records: dict[str, PredictionRecord] = {}
    damages = []
    try:
        files = sorted(path for path in folder.iterdir() if path.suffix == SUFFIX) if folder.exists() else []
        for path in files:
            broken = 0
            for record in _lines(path):
                if record is None:
                    broken += 1
                else:
                    records[record.prediction_id] = record
            if broken:
                damages.append(Damage(file=path.name, lines=broken))
    except OSError as unreadable:
        raise Refusal(
            f"The log of {folder.name} cannot be read at {unreadable.filename}: {unreadable.strerror}.",
            "Mend that place or restore it from a backup, then materialize prediction_log for that day again; "
            "other days are not affected.",
        ) from None
    return sorted(records.values(), key=lambda record: (record.answered_at, record.prediction_id)), tuple(damages)


def day_of(instant: datetime) -> str:
    """The name of the day of an instant given in UTC."""
    return instant.strftime(DAY)


def _lines(path: Path) -> Iterator[PredictionRecord | None]:
    """Each line's record, or None for a line that is not one."""
    with path.open("rb") as file:
        for line in file:
            yield _record(line)


def _record(line: bytes) -> PredictionRecord | None:
    checksum, _, content = line.rstrip(b"\n").partition(b" ")
    try:
        if not line.endswith(b"\n") or int(checksum, 16) != zlib.crc32(content):
            return None
        facts: dict[str, Any] = json.loads(content)
        return PredictionRecord(**facts)
    except (ValueError, TypeError):
        return None
