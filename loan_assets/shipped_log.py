"""The endpoint's log in a bucket: shipped in parts by the boxes that write it, put together by the platform that reads.

Here: what is shipped, under which names, and bringing a day back. Not here: the lines (`prediction_record`), or who
writes them first, to a disk of its own (`bento`).

    <day>/<file>/<offset>   whole lines of one file from a byte on, in the order of their offsets

A part is created once and never written again. Any process of a box may ship any file, those of one that was killed
too: of two that ship the same bytes the slower one finds the part there and goes on after it.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from loan_assets.bucket import Bucket, Listed
from loan_assets.prediction_record import SUFFIX
from loan_assets.refusal import Overtaken, Refusal

DAYS = "????-??-??"
# Large enough to be few, small enough to be held in memory.
LARGEST_PART = 8_000_000
# A file that nobody has written for so long is finished.
SECONDS_AT_REST = 86_400.0
# With less than this free, of the disk and of what the log may take, what was shipped goes before its time.
ROOM = 0.1


@dataclass
class ShippedLog:
    """The log below `folder` and its parts in `bucket`."""

    bucket: Bucket
    folder: Path
    _shipped: dict[str, int] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def ship(self) -> int:
        """Ship every whole line that is not there yet; returns how many bytes of lines wait, those just shipped not.

        Raises:
            Refusal: when the store is away; what was not shipped is kept and shipped later.
        """
        with self._lock:
            return self._ship()

    def _ship(self) -> int:
        waiting = 0
        for file in sorted(self.folder.glob(f"{DAYS}/*{SUFFIX}")):
            name = file.relative_to(self.folder).as_posix()
            while content := self._next_part(name, file):
                self._ship_part(name, content)
            waiting += max(_size(file) - self._shipped[name], 0)
        return waiting

    def forget(self, before: str) -> None:
        """Remove the days before one from this disk, those of them of which every whole line was shipped.

        A day that somebody still writes, as a rehearsal does, is left alone.
        """
        with self._lock:
            for place in sorted(self.folder.glob(DAYS)):
                files = sorted(place.glob(f"*{SUFFIX}"))
                is_written = any(time.time() - _written_at(file) < SECONDS_AT_REST for file in files)
                if place.name >= before or is_written:
                    continue
                if not any(self._next_part(file.relative_to(self.folder).as_posix(), file) for file in files):
                    shutil.rmtree(place, ignore_errors=True)

    def make_room(self, full: int, most: int) -> None:
        """Remove files known here as shipped, the oldest first, while the disk or the log's share of it is short.

        Args:
            full: the size in bytes from which on nobody writes a file any more; smaller ones stay.
            most: what the log may take on this disk, in bytes.
        """
        with self._lock:
            there = {file: _size(file) for file in self.folder.glob(f"{DAYS}/*{SUFFIX}")}
            if not there:
                return
            disk = os.statvfs(self.folder)
            on_disk = int(ROOM * disk.f_blocks - disk.f_bavail) * disk.f_frsize
            short_by = max(on_disk, sum(there.values()) - int((1 - ROOM) * most))
            for file, size in sorted(there.items(), key=lambda one: (one[0].parent.name, one[0].name)):
                if short_by <= 0:
                    return
                if size >= full and self._shipped.get(file.relative_to(self.folder).as_posix(), 0) >= size:
                    file.unlink(missing_ok=True)
                    short_by -= size

    def bring(self, day: str) -> Path:
        """The folder of a day here, with every part that was shipped.

        Raises:
            Refusal: when the store is away, or a part before another is missing.
        """
        from filelock import FileLock  # only the platform brings days back; the box does not carry it

        place = self.folder / day
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / f".{day}.lock"):
            for listed in self.bucket.names(day):
                self._bring_part(place, listed)
        return place

    def _bring_part(self, place: Path, listed: Listed) -> None:
        """Put a part where it belongs in its file here, anew where a kill has left only some of it."""
        _, name, said = listed.name.split("/")
        file, offset = place / name, int(said)
        there = file.stat().st_size if file.exists() else 0
        if there >= offset + listed.size:
            return
        if there < offset:
            raise Refusal(
                f"{self.bucket.url}/{place.name}/{name} lacks what is between byte {there} and {offset}.",
                "Restore the part from a backup; other days are not affected.",
            )
        place.mkdir(parents=True, exist_ok=True)
        held = self.bucket.read(listed.name)
        with file.open("r+b" if file.exists() else "wb") as target:
            target.truncate(offset)
            target.seek(offset)
            target.write(held.data if held else b"")

    def _next_part(self, name: str, file: Path) -> bytes:
        """The whole lines of a file that were not shipped yet, up to the largest part; nothing where there are none."""
        if name not in self._shipped:
            self._shipped[name] = self._end(name)
        try:
            with file.open("rb") as source:
                source.seek(self._shipped[name])
                content = source.read(LARGEST_PART)
        except FileNotFoundError:  # shipped, and removed by another process of this box
            return b""
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


def _size(file: Path) -> int:
    """The bytes of a file; none where another process has removed it."""
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


def _written_at(file: Path) -> float:
    """When a file was last written, in seconds; long ago where another process has removed it."""
    try:
        return file.stat().st_mtime
    except FileNotFoundError:
        return 0.0
