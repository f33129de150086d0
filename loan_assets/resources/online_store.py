"""Where the online table rests: the place an endpoint reads clients' newest features from.

Here: putting a table in force and reading it back. Not here: its format (`online_table`) or the feature store.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from loan_assets import online_redis
from loan_assets.books import LoanBook
from loan_assets.books.tables import EVENT_TIME
from loan_assets.online_table import (
    PUSHED,
    SHELF,
    OnlineFacts,
    OnlineTable,
    facts_in_force,
    packed,
    pointer_of,
    pushed_file,
    pushed_line,
    read_online,
    read_pushed,
    require_book,
    write_online,
)
from loan_assets.refusal import Refusal
from loan_assets.resources.versioned_store import VersionedStore
from loan_assets.sealed import sync

if TYPE_CHECKING:
    import pandas as pd

TAIL = 65_536


class OnlineTables(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The online table at `root`, a folder or a Redis URL; the one before stays for a while."""

    root: str

    def publish(self, newest: pd.DataFrame, book: LoanBook) -> str:
        """Put a table in force whole or not at all; returns its digest.

        Args:
            newest: the book's key, `event_timestamp` and every feature, one row a client.
        """
        stated = newest[EVENT_TIME.name]
        facts = OnlineFacts(
            book=book.name,
            book_digest=book.digest,
            features=book.feature_names,
            features_as_of=stated.max().isoformat(),
        )
        clients, as_of, features = _arrays(newest, book)
        if online_redis.is_redis(self.root):
            return online_redis.publish(self.root, facts, clients, as_of, features)
        store = VersionedStore(root=Path(self.root), keep=2)
        digest = store.write(
            SHELF,
            lambda folder: write_online(folder, facts, clients, as_of, features),
            first=lambda digest: _lay_back(Path(self.root), digest, clients, packed(as_of, features)),
        ).digest
        kept = {folder.name for folder in store.versions(SHELF)}
        for beside in (Path(self.root) / PUSHED).glob("*.log"):
            if beside.stem not in kept:
                beside.unlink(missing_ok=True)
        return digest

    def write_over(self, rows: pd.DataFrame, book: LoanBook) -> None:
        """Let endpoints answer for some clients from these rows, from their next look-around on.

        Args:
            rows: as for `publish`; clients that the table in force knows.

        Raises:
            Refusal: when no table of this book is in force, or the place cannot be written.
        """
        clients, as_of, features = _arrays(rows, book)
        if online_redis.is_redis(self.root):
            online_redis.write_over(self.root, book.digest, clients, as_of, features)
            return
        root = Path(self.root)
        written: str | None = ""
        lines = [pushed_line(*pair) for pair in zip(clients.tolist(), packed(as_of, features), strict=True)]
        while (digest := pointer_of(root)) != written:
            facts = facts_in_force(root) if digest else None
            require_book(facts, book.digest)
            assert digest is not None  # there are facts of it
            _append(pushed_file(root, digest), b"".join(lines))
            written = digest

    def table(self) -> OnlineTable:
        """The table in force, verified, with what was pushed since: what endpoints answer from."""
        if online_redis.is_redis(self.root):
            return online_redis.read_table(self.root)
        table = read_online(Path(self.root))
        rows, _ = read_pushed(Path(self.root), table.digest, len(table.facts.features))
        return table.with_rows(rows) if rows else table


def _arrays(rows: pd.DataFrame, book: LoanBook) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Client numbers, the instants of their newest statements in microseconds, and features."""
    stated = rows[EVENT_TIME.name].astype("datetime64[us, UTC]").to_numpy("datetime64[us]").astype("int64")
    return rows[book.key.name].to_numpy("int64"), stated, rows[list(book.feature_names)].to_numpy("float32")


def _lay_back(root: Path, digest: str, clients: NDArray[np.int64], rows: NDArray[np.void]) -> None:
    """Before a table comes into force again: its own rows over those that were pushed over it when it was in force.

    They are appended. An endpoint that never left this table, because the one between was over too soon or could not
    be read, goes on from where it had read to; taking lines away would leave it with what it had.
    """
    if pointer_of(root) == digest:
        return  # what was pushed since it came into force counts
    try:
        pushed, _ = read_pushed(root, digest, rows["features"].shape[1])
    except Refusal:
        pushed_file(root, digest).unlink()  # nobody answers from it, and it would stand in the way of this table
        return
    if pushed:
        own = dict(zip(clients.tolist(), rows, strict=True))
        _append(pushed_file(root, digest), b"".join(pushed_line(client, own[client]) for client in pushed))


def _append(file: Path, lines: bytes) -> None:
    """Append whole lines and force them to disk; what a kill left of another line goes first."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(file.with_name(".lock")), file.open("a+b") as log:
        # A line is far shorter than this, so that what a kill left of one begins within it.
        start = max(log.seek(0, os.SEEK_END) - TAIL, 0)
        log.seek(start)
        log.truncate(start + log.read().rfind(b"\n") + 1)
        log.write(lines)
        log.flush()
        os.fsync(log.fileno())
    sync(file.parent)
