"""Where pushed statements rest: an append-only record, each event once by its id, in a folder or a bucket.

Here: recording an event for ever and finding those of a month or of clients. Not here: what an event must hold
(`credit.pushed`) or what follows from one (`stream`).

    ids/<h>                          the event, made by whoever is first with its id; h is the SHA-256 of that id
    statements/<month>/<client>/<h>  the same line, by whose and which month's statement it is

An event is taken once both are there and forced to disk; a kill between them leaves an id that only the same event may
use again. A line is eight hexadecimal digits of CRC-32, a space and one JSON object, as in the other logs.
"""

from __future__ import annotations

import hashlib
import uuid
import zlib
from collections.abc import Collection, Iterable
from pathlib import Path

import dagster as dg
from pydantic import PrivateAttr

from loan_assets.books import LoanBook
from loan_assets.bucket import bucket_at
from loan_assets.credit.pushed import PushedStatement
from loan_assets.place import Place, place_at
from loan_assets.refusal import Overtaken, Refusal
from loan_assets.settings import Settings

IDS, STATEMENTS = "ids", "statements"
# From so many clients on a month is listed whole: a bucket answers a thousand names in the time of one.
MANY = 16


class SaysOtherwise(Refusal):
    """An event's id is on record with another content."""


class PushedStatements(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The record below `folder`, with a bucket this machine's copy of what is there."""

    folder: str
    bucket: str = ""
    _opened: Place | None = PrivateAttr(default=None)

    @classmethod
    def over(cls, settings: Settings) -> PushedStatements:
        """The record that the settings name."""
        return cls(folder=str(settings.events), bucket=bucket_at(settings.events_place))

    def record(self, event: PushedStatement, book: LoanBook) -> bool:
        """Write an event down, for ever and forced to disk; returns whether it was not on record before.

        Raises:
            SaysOtherwise: when its id is on record with another content.
            Refusal: when the place cannot be written; nothing was taken, and the same may be sent again.
        """
        content = event.content(book)
        line = b"%08x %b\n" % (zlib.crc32(content), content)
        by_id, by_client = f"{IDS}/{_named(event)}", f"{_of_client(event.month, event.client)}/{_named(event)}"
        if not self._create(by_id, line) and self._read(by_id) != content:
            raise SaysOtherwise(
                "event_id: is on record with another content.", "Send what it said before, or give it an id of its own."
            )
        return self._create(by_client, line)

    def listed(self) -> tuple[str, ...]:
        """The months of which statements were pushed."""
        return self._place.folders(STATEMENTS)

    def months(self) -> dict[str, str]:
        """The same, each with a mark that changes when another one is."""
        found = {}
        for month in self.listed():
            names = "\n".join(self.names_in(month))
            found[month] = hashlib.sha256(names.encode()).hexdigest()[:12]
        return found

    def of_month(self, month: str, book: LoanBook) -> tuple[PushedStatement, ...]:
        """Every event about a month.

        Raises:
            Refusal: when one of them is not what was recorded.
        """
        return self._events(self.names_in(month), book)

    def names_of(self, clients: Collection[int], month: str) -> tuple[str, ...]:
        """The names of the events about some clients' month, by which a new one is noticed."""
        wanted = frozenset(clients)
        if len(wanted) < MANY:
            return tuple(sorted(name for client in wanted for name in self._names(_of_client(month, client))))
        return tuple(name for name in self.names_in(month) if client_of(name) in wanted)

    def names_in(self, month: str) -> tuple[str, ...]:
        """The names of all events about a month."""
        return self._names(f"{STATEMENTS}/{month}")

    def named(self, names: Iterable[str], book: LoanBook) -> tuple[PushedStatement, ...]:
        """Events by their names."""
        return self._events(names, book)

    def _events(self, names: Iterable[str], book: LoanBook) -> tuple[PushedStatement, ...]:
        return tuple(PushedStatement.of_content(self._read(name), book) for name in names)

    @property
    def _place(self) -> Place:
        """One for all that is asked: a bucket's keeps its connections open."""
        if self._opened is None:
            self._opened = place_at(self.bucket or self.folder)
        return self._opened

    def _names(self, prefix: str) -> tuple[str, ...]:
        return tuple(sorted(name for name, _ in self._place.names(prefix)))

    def _create(self, name: str, line: bytes) -> bool:
        """Write an object where none is; returns whether there was none."""
        try:
            self._place.create(name, line)
        except Overtaken:
            return False
        return True

    def _read(self, name: str) -> bytes:
        """What was recorded under a name; a copy that is missing or damaged is brought anew."""
        file = Path(self.folder) / name
        try:
            content = _whole(file.read_bytes())
        except FileNotFoundError:
            content = None
        if content is None and self.bucket and (held := self._place.read(name)) is not None:
            content = _whole(held)
            if content is not None:
                file.parent.mkdir(parents=True, exist_ok=True)
                draft = file.with_name(f".{uuid.uuid4().hex}")
                draft.write_bytes(held)
                draft.replace(file)
        if content is None:
            raise Refusal(
                f"{self.bucket or self.folder}/{name} is not what was recorded there.",
                "Restore the record of pushed statements from a backup; nothing else of it is lost.",
            )
        return content


def client_of(name: str) -> int:
    """Whom an event is about, by its name."""
    return int(name.split("/")[2])


def _whole(line: bytes) -> bytes | None:
    """What a line says; None where it was cut short or altered."""
    checksum, _, content = line.rstrip(b"\n").partition(b" ")
    try:
        is_sound = line.endswith(b"\n") and int(checksum, 16) == zlib.crc32(content)
    except ValueError:
        is_sound = False
    return content if is_sound else None


def _named(event: PushedStatement) -> str:
    return hashlib.sha256(event.event_id.encode()).hexdigest()


def _of_client(month: str, client: int) -> str:
    return f"{STATEMENTS}/{month}/{client}"
