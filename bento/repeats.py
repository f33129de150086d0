"""Requests that their callers named: a repeat is answered from the record and logged once, whichever worker it meets.

Here: which named requests were answered, and with what, for some days. Not here: requests without a name, which cannot
be repeats, or the log.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

FILE = "repeats.db"
SECONDS_A_DAY = 86_400


class NameTaken(ValueError):
    """A request carries the name of another one."""


@dataclass(slots=True)
class Held:
    """A request's name, held against other workers: the recorded answer, or room for one."""

    answer: bytes | None


class Repeats:
    """The answers to named requests, in a SQLite file beside the log that all workers share.

    Several workers may hold different names one after the other, never at once: a transaction spans the look, the
    logging and the keeping, so that two copies of a request that arrive together are answered alike and logged once.
    """

    def __init__(self, folder: Path, days: int) -> None:
        self._days = days
        self._path = folder / FILE
        folder.mkdir(parents=True, exist_ok=True)
        self._database = sqlite3.connect(self._path, isolation_level=None, timeout=5, check_same_thread=False)
        self._database.execute("pragma journal_mode = wal")
        self._database.execute("pragma synchronous = normal")
        columns = "name text primary key, asked blob, at real, answer blob"
        self._database.execute(f"create table if not exists answered ({columns}) without rowid")

    @contextmanager
    def held(self, name: str, asked: bytes) -> Iterator[Held]:
        """Hold a name; what is put into `answer` before the block ends is what every repeat will get.

        Args:
            name: the caller's own name of the request.
            asked: the request itself; a repeat must ask the same.

        Raises:
            NameTaken: when the name belongs to a request that asked something else.
            sqlite3.Error: when the record cannot be read or written.
        """
        digest = blake2b(asked, digest_size=16).digest()
        self._database.execute("begin immediate")
        try:
            found = self._database.execute("select asked, answer from answered where name = ?", (name,)).fetchone()
            if found and found[0] != digest:
                raise NameTaken("this request_id was given to another request before")
            held = Held(answer=found[1] if found else None)
            yield held
            if not found and held.answer is not None:
                row = (name, digest, time.time(), held.answer)
                self._database.execute("insert into answered values (?, ?, ?, ?)", row)
            self._database.execute("commit")
        except BaseException:
            self._database.execute("rollback")
            raise

    def sync(self) -> None:
        """Force what was kept to disk."""
        with sqlite3.connect(self._path, isolation_level=None, timeout=5) as database:
            database.execute("pragma wal_checkpoint(passive)")

    def forget(self) -> None:
        """Forget answers past their days."""
        with sqlite3.connect(self._path, isolation_level=None, timeout=5) as database:
            database.execute("delete from answered where at < ?", (time.time() - self._days * SECONDS_A_DAY,))

    def close(self) -> None:
        """Let go of the file."""
        self._database.close()
