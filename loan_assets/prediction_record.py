"""What one logged answer is: a line that says what was asked, what was answered and why, by which model and when.

Here: the line, its writing and its reading, shared by the box that answers and the graph that reads. Not here: where
days rest (`settings`), or what is concluded from them.

A day is a folder `2026-11-24/` of files, one at a time per writing process, so that writers never meet. A line is eight
hexadecimal digits of CRC-32, a space, and one JSON object: a line that was cut or altered is told from a whole one.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import msgspec

from loan_assets.refusal import Refusal

SUFFIX = ".log"
DAY = "%Y-%m-%d"
# What was sent: an application's fields, a client's number, or features that the caller had computed itself.
BY_APPLICATION, BY_CLIENT = "application", "client"
CHAMPION, CANARY = "champion", "canary"


class Shadow(msgspec.Struct, frozen=True, kw_only=True):
    """What a challenger in shadow would have answered."""

    model_version: int
    release_digest: str
    default_probability: float
    decision: str


class PredictionRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One answer.

    `request_id` and `row` name it for ever; `client_id` is the stable key to which an outcome can be joined later, None
    where the applicant is nobody's client yet. `answered_at` is ISO 8601, UTC. `received` holds the columns as
    received, by the book's names; it is empty for an answer by client number. `features` are what was scored, in the
    book's order, None where missing; `features_as_of` is the instant of a client's newest statement, None for an
    application.
    `arm` is `champion` or `canary`; `rehearsal` names the rehearsal that asked, and is empty for a real request;
    `caller` is whose token was shown, where tokens are asked for.
    """

    request_id: str
    row: int
    answered_at: str
    route: str
    asked_by: str
    client_id: int | None
    book: str
    book_digest: str
    model_version: int
    release_digest: str
    arm: str
    default_probability: float
    decision: str
    reasons: tuple[str, ...]
    received: dict[str, float]
    features: tuple[float | None, ...]
    features_as_of: str | None = None
    is_stale: bool = False
    shadow: Shadow | None = None
    rehearsal: str = ""
    caller: str = ""

    def line(self) -> bytes:
        """The record as it is written."""
        content = _ENCODE(self)
        return b"%08x %b\n" % (zlib.crc32(content), content)

    @property
    def prediction_id(self) -> str:
        """The name of this one answer; two callers may give their requests the same name."""
        asked = f"{self.caller}:{self.request_id}" if self.caller else self.request_id
        return f"{asked}/{self.row}"

    @property
    def day(self) -> str:
        """The day it belongs to, `2026-11-24` style, UTC."""
        return self.answered_at[:10]


_ENCODE = msgspec.json.Encoder().encode
_DECODE = msgspec.json.Decoder(PredictionRecord).decode


class Damage(msgspec.Struct, frozen=True, kw_only=True):
    """Lines of one file that are not what was written: cut short, altered, or of another form."""

    file: str
    lines: int


def read_day(folder: Path) -> tuple[list[PredictionRecord], tuple[Damage, ...]]:
    """Every whole record of a day in the order answered, each once, and what could not be read.

    A day without a folder is a day without answers. Of a prediction found twice the later one counts: the earlier was
    written by a process that was killed before it could answer.

    Raises:
        Refusal: when the folder is no folder, or a file in it may not be read.
    """
    records: dict[str, PredictionRecord] = {}
    damages = []
    with _told(folder):
        for path in _files_of(folder):
            broken = 0
            for record in _lines(path):
                if record is None:
                    broken += 1
                    continue
                known = records.get(record.prediction_id)
                if known is None or known.answered_at <= record.answered_at:
                    records[record.prediction_id] = record
            if broken:
                damages.append(Damage(file=path.name, lines=broken))
    return sorted(records.values(), key=lambda record: (record.answered_at, record.prediction_id)), tuple(damages)


def has_real_answer(folder: Path) -> bool:
    """Whether a day has an answer that was not rehearsed; nothing is read beyond the first.

    Raises:
        Refusal: as `read_day`.
    """
    with _told(folder):
        lines = (record for path in _files_of(folder) for record in _lines(path))
        return any(record is not None and not record.rehearsal for record in lines)


def real_or_rehearsed(records: Sequence[PredictionRecord]) -> list[PredictionRecord]:
    """The real answers among a day's records; on a day without any, those of its newest rehearsal."""
    real = [record for record in records if not record.rehearsal]
    if real or not records:
        return real
    newest = max(records, key=lambda record: record.answered_at).rehearsal
    return [record for record in records if record.rehearsal == newest]


def day_of(instant: datetime) -> str:
    """The name of the day of an instant given in UTC."""
    return instant.strftime(DAY)


def _files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix == SUFFIX) if folder.exists() else []


@contextmanager
def _told(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as unreadable:
        raise Refusal(
            f"The log of {folder.name} cannot be read at {unreadable.filename}: {unreadable.strerror}.",
            "Mend that place or restore it from a backup, then materialize prediction_log for that day again; "
            "other days are not affected.",
        ) from None


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
        return _DECODE(content)
    except (ValueError, msgspec.MsgspecError):
        return None
