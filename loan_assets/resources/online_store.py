"""Where the online table rests: the place an endpoint reads clients' newest features from.

Here: putting a table in force and reading it back. Not here: its format (`online_table`) or the feature store.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg

from loan_assets import online_redis
from loan_assets.books import LoanBook
from loan_assets.books.tables import EVENT_TIME
from loan_assets.online_table import SHELF, OnlineFacts, OnlineTable, read_online, write_online
from loan_assets.resources.versioned_store import VersionedStore

if TYPE_CHECKING:
    import pandas as pd


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
        clients = newest[book.key.name].to_numpy("int64")
        as_of = stated.astype("datetime64[us, UTC]").to_numpy("datetime64[us]").astype("int64")
        features = newest[list(book.feature_names)].to_numpy("float32")
        if online_redis.is_redis(self.root):
            return online_redis.publish(self.root, facts, clients, as_of, features)
        store = VersionedStore(root=Path(self.root), keep=2)
        return store.write(SHELF, lambda folder: write_online(folder, facts, clients, as_of, features)).digest

    def table(self) -> OnlineTable:
        """The table in force, verified."""
        if online_redis.is_redis(self.root):
            return online_redis.read_table(self.root)
        return read_online(Path(self.root))
