"""The box's log: every answer is written before it is given, by one writer per process, a folder a day.

Here: appending lines. Not here: what a line says (`loan_assets.prediction_record`).
"""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime
from pathlib import Path

from loan_assets.prediction_record import SUFFIX, PredictionRecord


class CannotRecord(RuntimeError):
    """The log cannot be written; without a record no answer is given."""


class PredictionLog:
    """Appends records below `folder`, safe from several threads.

    Lines of one call go out in one write. They are in the operating system's hands before the answer leaves: a killed
    process loses none of them.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._name = f"{os.getpid()}-{uuid.uuid4().hex[:8]}{SUFFIX}"
        self._lock = threading.Lock()
        self._day = ""
        self._file = -1
        self._torn = False

    def append(self, records: Sequence[PredictionRecord]) -> None:
        """Write the records to the day of the first one.

        Raises:
            CannotRecord: when the disk is full or the place may not be written.
        """
        if not records:
            return
        content = b"".join(record.line() for record in records)
        try:
            with self._lock:
                file = self._opened(records[0].day)
                # After a line that was cut short by a full disk, the next one starts on a line of its own.
                written = os.write(file, b"\n" + content if self._torn else content)
                cut = written != len(content) + self._torn
                self._torn = cut or (self._torn and not written)
                if cut:
                    raise CannotRecord("the prediction log cannot be written: no space left on its disk")
        except OSError as error:
            raise CannotRecord(f"the prediction log cannot be written: {error.strerror}") from None

    def _opened(self, day: str) -> int:
        if day != self._day:
            if self._file >= 0:
                os.close(self._file)
                self._file, self._day = -1, ""
            place = self._folder / day
            place.mkdir(parents=True, exist_ok=True)
            self._file = os.open(place / self._name, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
            self._day, self._torn = day, False
        return self._file


def clock(rehearsed: str | None = None) -> Callable[[], datetime]:
    """What tells the time of an answer, UTC; with a rehearsed day, that day at the present time of day."""
    if not rehearsed:
        return lambda: datetime.now(UTC)
    day = date.fromisoformat(rehearsed)
    return lambda: datetime.combine(day, datetime.now(UTC).timetz())
