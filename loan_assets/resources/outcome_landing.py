"""Where outcomes arrive: a Parquet file a day, named by the day of arrival, in a folder or under any fsspec prefix.

Here: listing and fetching what has arrived, byte for byte. Not here: whether it may be learned from
(`credit.label_quality`) or what starts when a file arrives (`sensors`).

    2026-11-29.parquet    request_id, label, label_timestamp
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import dagster as dg

from loan_assets.bucket import files_at
from loan_assets.day_file import read_day
from loan_assets.refusal import Refusal
from loan_assets.resources.landing import CHANGES
from loan_assets.resources.loan_source import told
from loan_assets.settings import without_secrets

if TYPE_CHECKING:
    import pandas as pd

NAMED = re.compile(r"(\d{4}-\d{2}-\d{2})\.parquet")
# What file systems call the instant of the last change.
WRITTEN = ("mtime", "LastModified", "last_modified", "modified", "updated")
CONTENT, FACTS = "arrived.parquet", "arrived.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrivedFile:
    """The outcomes that arrived on a day as they came; `content` is None where no file did."""

    day: str
    content: bytes | None

    def table(self) -> tuple[pd.DataFrame | None, str]:
        """What the file says, or why it cannot be read: one bad file does not stop the loop."""
        if self.content is None:
            return None, ""
        try:
            return read_day(io.BytesIO(self.content), f"the outcomes of {self.day}", ""), ""
        except Refusal as unreadable:
            return None, unreadable.cause

    @property
    def sha256(self) -> str:
        """The file's digest; empty where there is none."""
        return hashlib.sha256(self.content).hexdigest() if self.content is not None else ""

    def save(self, folder: Path) -> None:
        """Write the file as it came, and what it is."""
        if self.content is not None:
            (folder / CONTENT).write_bytes(self.content)
        (folder / FACTS).write_text(json.dumps({"day": self.day, "sha256": self.sha256}) + "\n")

    @classmethod
    def load(cls, folder: Path) -> ArrivedFile:
        """Read what `save` wrote."""
        facts, file = json.loads((folder / FACTS).read_text()), folder / CONTENT
        return cls(day=facts["day"], content=file.read_bytes() if file.exists() else None)


class OutcomeLanding(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The folder or prefix `place`."""

    place: str

    def arrivals(self) -> dict[str, str]:
        """The days for which a file is there, each with a mark that changes when the file does.

        Raises:
            Refusal: when the place cannot be listed.
        """
        with told(without_secrets(self.place), "Mend LOAN_OUTCOMES; nothing that has arrived is lost."):
            files, path = files_at(self.place)
            found = files.ls(path, detail=True, refresh=True) if files.exists(path) else []
        arrived = {}
        for file in found:
            named = NAMED.fullmatch(PurePosixPath(str(file["name"])).name)
            if named is None or file.get("type") != "file":
                continue
            changed = next((file[key] for key in CHANGES if key in file), "")
            arrived[named.group(1)] = hashlib.sha256(f"{file.get('size')} {changed}".encode()).hexdigest()[:12]
        return arrived

    def read(self, day: str) -> ArrivedFile:
        """A day's file as it came.

        Raises:
            Refusal: when the place cannot be read.
        """
        with told(without_secrets(self.place), "Mend LOAN_OUTCOMES; nothing that has arrived is lost."):
            files, path = files_at(self.place)
            file = f"{path.rstrip('/')}/{day}.parquet"
            content = files.cat_file(file) if files.exists(file) else None
        return ArrivedFile(day=day, content=content)

    def arrived_at(self, day: str) -> datetime | None:
        """The instant at which a day's file was put there, UTC; None where there is none, or the place does not say.

        Raises:
            Refusal: when the place cannot be read.
        """
        with told(without_secrets(self.place), "Mend LOAN_OUTCOMES; nothing that has arrived is lost."):
            files, path = files_at(self.place)
            file = f"{path.rstrip('/')}/{day}.parquet"
            facts = files.info(file) if files.exists(file) else {}
        put = next((facts[key] for key in WRITTEN if facts.get(key)), None)
        if put is None or isinstance(put, datetime):
            return put
        return datetime.fromtimestamp(put, UTC) if isinstance(put, int | float) else datetime.fromisoformat(str(put))
