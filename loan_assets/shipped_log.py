"""The endpoint's log in a bucket: shipped in parts by the boxes that write it, put together by the platform that reads.

Here: what is shipped, under which names, and bringing a day back. Not here: the lines (`prediction_record`), or who
writes them first, to a disk of its own (`bento`).

    <day>/<file>/<offset>   whole lines of one file from a byte on, in the order of their offsets

A part is created once and never written again. Any process of a box may ship any file, those of one that was killed
too: of two that ship the same bytes the slower one finds the part there and goes on after it.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path

from loan_assets.bucket import Bucket
from loan_assets.prediction_record import SUFFIX
from loan_assets.refusal import Overtaken, Refusal

DAYS = "????-??-??"
# Large enough to be few, small enough to be held in memory.
LARGEST_PART = 8_000_000


@dataclass
class ShippedLog:
    """The log below `folder` and its parts in `bucket`."""

    bucket: Bucket
    folder: Path
    _shipped: dict[str, int] = field(default_factory=dict)

    def ship(self) -> int:
        """Ship every whole line that is not there yet; returns how many bytes of lines wait, those just shipped not.

        Raises:
            Refusal: when the store is away; what was not shipped is kept and shipped later.
        """
        waiting = 0
        for file in sorted(self.folder.glob(f"{DAYS}/*{SUFFIX}")):
            name = file.relative_to(self.folder).as_posix()
            while content := self._next_part(name, file):
                self._ship_part(name, content)
            waiting += file.stat().st_size - self._shipped[name]
        return waiting

    def forget(self, before: str) -> None:
        """Remove the days before one from this disk, those of them of which every whole line was shipped."""
        for place in sorted(self.folder.glob(DAYS)):
            files = sorted(place.glob(f"*{SUFFIX}"))
            if place.name < before and not any(
                self._next_part(file.relative_to(self.folder).as_posix(), file) for file in files
            ):
                shutil.rmtree(place, ignore_errors=True)

    def bring(self, day: str) -> Path:
        """The folder of a day here, with every part that was shipped.

        Raises:
            Refusal: when the store is away, or a part before another is missing.
        """
        place = self.folder / day
        for listed in self.bucket.names(day):
            _, name, offset = listed.name.split("/")
            file = place / name
            there = file.stat().st_size if file.exists() else 0
            if int(offset) < there:
                continue
            if int(offset) > there:
                raise Refusal(
                    f"{self.bucket.url}/{day}/{name} lacks what is between byte {there} and {int(offset)}.",
                    "Restore the part from a backup; other days are not affected.",
                )
            place.mkdir(parents=True, exist_ok=True)
            held = self.bucket.read(listed.name)
            with file.open("ab") as target:
                target.write(held.data if held else b"")
        return place

    def _next_part(self, name: str, file: Path) -> bytes:
        """The whole lines of a file that were not shipped yet, up to the largest part; nothing where there are none."""
        if name not in self._shipped:
            self._shipped[name] = self._end(name)
        with file.open("rb") as source:
            source.seek(self._shipped[name])
            content = source.read(LARGEST_PART)
        return content[: content.rfind(b"\n") + 1]

    def _ship_part(self, name: str, content: bytes) -> None:
        try:
            self.bucket.create(f"{name}/{self._shipped[name]:015d}", content)
        except Overtaken:
            self._shipped[name] = self._end(name)
        else:
            self._shipped[name] += len(content)

    def _end(self, name: str) -> int:
        """How many bytes of a file were shipped."""
        parts = list(self.bucket.names(name))
        return int(parts[-1].name.rsplit("/", 1)[-1]) + parts[-1].size if parts else 0
