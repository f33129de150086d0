"""The box's log: every answer is written before it is given, by one writer per process, a folder a day.

Here: appending lines, forcing them to disk, keeping files and the whole log within bounds. Not here: what a line says
(`loan_assets.prediction_record`).
"""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime
from pathlib import Path

from loan_assets.policy import POLICY, Endpoint
from loan_assets.prediction_record import SUFFIX, PredictionRecord


class CannotRecord(RuntimeError):
    """The log cannot be written; without a record no answer is given."""


class PredictionLog:
    """Appends records below `folder`, safe from several threads.

    Lines of one call go out in one write. They are in the operating system's hands before the answer leaves, so a
    killed process loses none; `sync`, called every half second, is what a power failure can take back to.
    """

    def __init__(self, folder: Path, limits: Endpoint = POLICY.endpoint) -> None:
        self._folder, self._limits = folder, limits
        self._lock = threading.Lock()
        self._day = ""
        self._file = -1
        self._size = 0
        self._torn = False
        self._full: list[int] = []
        self._failed = False
        self.backlog = 0
        self.bytes = 0
        self.measure()

    def append(self, records: Sequence[PredictionRecord]) -> None:
        """Write the records to the day of the first one.

        Raises:
            CannotRecord: when the disk is full, the place may not be written, or the log is as large as it may grow.
        """
        if not records:
            return
        content = b"".join([record.line() for record in records])
        if self.bytes + len(content) > self._limits.log_bytes:
            self._failed = True
            raise CannotRecord(
                f"the prediction log has reached its limit of {self._limits.log_bytes:,} bytes; archive its older days"
            )
        try:
            with self._lock:
                file = self._opened(records[0].answered_at[:10])
                # After a line that was cut short by a full disk, the next one starts on a line of its own.
                written = os.write(file, b"\n" + content if self._torn else content)
                cut = written != len(content) + self._torn
                self._torn = cut or (self._torn and not written)
                self._size += written
                self.backlog += written
                self.bytes += written
                self._failed = cut
                if cut:
                    raise CannotRecord("the prediction log cannot be written: no space left on its disk")
        except OSError as error:
            self._failed = True
            raise CannotRecord(f"the prediction log cannot be written: {error.strerror}") from None

    def sync(self) -> None:
        """Force what was written to disk, and close files that are full.

        Raises:
            OSError: when the disk fails; what was written stays in the backlog.
        """
        with self._lock:
            # A second handle: the file may be closed by a new day while this one waits for the disk.
            files = [*self._full, *([os.dup(self._file)] if self._file >= 0 else [])]
            self._full, covered = [], self.backlog
        try:
            while files:
                os.fdatasync(files[0])
                os.close(files.pop(0))
        except OSError:
            with self._lock:
                self._full += files  # to be tried again
            raise
        with self._lock:
            self.backlog -= covered

    def measure(self) -> None:
        """Count the bytes on disk again, those of other writers included."""
        found = 0
        for day in self._folder.glob("*-*-*"):
            try:
                found += sum(entry.stat().st_size for entry in os.scandir(day))
            except OSError:  # an archived day may go while it is counted; a place that is no folder holds no lines
                continue
        self.bytes = found
        if self._failed:
            self._failed = not self._has_room()

    def is_writable(self) -> bool:
        """Whether the next answer can be recorded, as far as is known: the last one could, or there is room again."""
        place = self._folder
        while not place.exists():
            place = place.parent
        return not self._failed and place.is_dir() and os.access(place, os.W_OK)

    def _has_room(self) -> bool:
        """Whether there is room again for the answers to a large request."""
        try:
            disk = os.statvfs(self._folder)
        except OSError:
            return False
        free = min(disk.f_bavail * disk.f_frsize, self._limits.log_bytes - self.bytes)
        return free > self._limits.largest_body * 4

    def close(self) -> None:
        """Force everything to disk and let go of the file."""
        self.sync()
        with self._lock:
            if self._file >= 0:
                os.close(self._file)
            self._file, self._day = -1, ""

    def _opened(self, day: str) -> int:
        is_gone = self._file >= 0 and os.fstat(self._file).st_nlink == 0  # somebody has removed the day
        if day != self._day or is_gone or self._size >= self._limits.log_file_bytes:
            if self._file >= 0:
                self._full.append(self._file)
                self._file, self._day = -1, ""
            place = self._folder / day
            place.mkdir(parents=True, exist_ok=True)
            name = f"{os.getpid()}-{uuid.uuid4().hex[:12]}{SUFFIX}"
            self._file = os.open(place / name, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o640)
            self._day, self._size, self._torn = day, 0, False
        return self._file


def clock(rehearsed: str | None = None) -> Callable[[], datetime]:
    """What tells the time of an answer, UTC; with a rehearsed day, that day at the present time of day.

    Args:
        rehearsed: `2026-11-24` style, or the path of a file that says a day and is read anew for every answer: one
            endpoint lives through many days then, as a real one does.
    """
    if not rehearsed:
        return lambda: datetime.now(UTC)
    told = Path(rehearsed)
    if told.is_file():
        return lambda: datetime.combine(date.fromisoformat(told.read_text().strip()), datetime.now(UTC).timetz())
    day = date.fromisoformat(rehearsed)
    return lambda: datetime.combine(day, datetime.now(UTC).timetz())
