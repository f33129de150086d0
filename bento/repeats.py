"""Requests that their callers named: a repeat is answered from the record and logged once, whichever worker it meets.

Here: which named requests were answered, and with what, for some days. Not here: requests without a name, which cannot
be repeats, or the log.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

FILE = "repeats.db"
SECONDS_A_DAY = 86_400
# Another worker holds the file for a fraction of a millisecond; beyond this something is wrong with it.
LONGEST_WAIT = 2.0
said = logging.getLogger("loan_default")


class NameTaken(ValueError):
    """A request carries the name of another one."""


@dataclass(slots=True)
class Held:
    """A request's name, held against other workers: the recorded answer, or room for one."""

    answer: bytes | None


class Repeats:
    """The answers to named requests, in a SQLite file beside the log that all workers share.

    A transaction spans the look, the logging and the keeping, so that two copies of a request that arrive together are
    answered alike and logged once. A worker that waits for another goes on with other requests meanwhile.
    """

    def __init__(self, folder: Path, days: int) -> None:
        self._days = days
        self._path = folder / FILE
        self._turn, self._alone = asyncio.Lock(), threading.Lock()
        self._open()

    def answer_to(self, name: str, asked: bytes) -> bytes | None:
        """The recorded answer to a request that was asked before; None for a new one.

        Raises:
            NameTaken: when the name belongs to a request that asked something else.
            sqlite3.Error: when the record cannot be read.
        """
        return self._found(name, _digest(asked))

    @asynccontextmanager
    async def held(self, name: str, asked: bytes) -> AsyncIterator[Held]:
        """Hold a name; what is put into `answer` before the block ends is what every repeat will get.

        The block must not wait for anything.

        Args:
            name: the caller's own name of the request.
            asked: the request itself; a repeat must ask the same.

        Raises:
            NameTaken: when the name belongs to a request that asked something else.
            sqlite3.Error: when the record cannot be read or written.
        """
        digest = _digest(asked)
        async with self._turn:
            await self._begun()
            try:
                held = Held(answer=self._found(name, digest))
                is_new = held.answer is None
                yield held
                if is_new and held.answer is not None:
                    row = (name, digest, time.time(), held.answer)
                    self._database.execute("insert into answered values (?, ?, ?, ?)", row)
                self._database.execute("commit")
            except BaseException:
                self._database.execute("rollback")
                raise

    def sync(self) -> None:
        """Force what was kept to disk."""
        self._aside("pragma wal_checkpoint(passive)")

    def forget(self) -> None:
        """Forget answers past their days."""
        self._aside("delete from answered where at < ?", (time.time() - self._days * SECONDS_A_DAY,))

    def close(self) -> None:
        """Let go of the file."""
        with self._alone:
            self._beside.close()
        self._database.close()

    def _aside(self, statement: str, values: tuple[float, ...] = ()) -> None:
        """Do something beside the answering, on a connection of its own: SQLite keeps a file open for each it had."""
        with self._alone:
            self._beside.execute(statement, values)

    def _open(self) -> None:
        """Open the file, made when it is not there."""
        self._database = self._sound()
        self._beside = sqlite3.connect(self._path, isolation_level=None, timeout=1, check_same_thread=False)

    def _sound(self) -> sqlite3.Connection:
        """The file; a damaged one is set aside, for new answers must be given."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        try:
            return self._prepared()
        except sqlite3.DatabaseError as damaged:
            if isinstance(damaged, sqlite3.OperationalError):
                raise
            aside = self._path.with_suffix(f".damaged-{time.time_ns()}")
            self._path.rename(aside)
            for leftover in (f"{FILE}-wal", f"{FILE}-shm"):
                (self._path.parent / leftover).unlink(missing_ok=True)
            said.error("The record of named requests was damaged and set aside as %s.", aside.name)
            return self._prepared()

    def _prepared(self) -> sqlite3.Connection:
        database = sqlite3.connect(self._path, isolation_level=None, timeout=5, check_same_thread=False)
        database.execute("pragma journal_mode = wal")
        database.execute("pragma synchronous = normal")
        columns = "name text primary key, asked blob, at real, answer blob"
        database.execute(f"create table if not exists answered ({columns}) without rowid")
        database.execute("create index if not exists by_age on answered (at)")
        database.execute("pragma busy_timeout = 0")
        return database

    def _found(self, name: str, digest: bytes) -> bytes | None:
        found = self._database.execute("select asked, answer from answered where name = ?", (name,)).fetchone()
        if found and found[0] != digest:
            raise NameTaken("this request_id was given to another request before")
        return bytes(found[1]) if found else None

    async def _begun(self) -> None:
        """Begin a transaction, waiting for other workers without holding up this one."""
        until = time.monotonic() + LONGEST_WAIT
        while True:
            if not self._path.exists():  # somebody has removed it
                self.close()
                self._open()
            try:
                self._database.execute("begin immediate")
                return
            except sqlite3.OperationalError:
                if time.monotonic() > until:
                    raise
                await asyncio.sleep(0.001)


def _digest(asked: bytes) -> bytes:
    return blake2b(asked, digest_size=16).digest()
