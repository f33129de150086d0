"""What becomes of a pushed statement: on record for good, then served at once, wherever it is met again.

Here: taking events, one client's newest features from what is stored and what was pushed, and bringing them to both
online stores. Not here: what an event is (`credit.pushed`), where it rests (`resources.pushed_statements`), the way in
over HTTP (`webhook`), or how a month comes into the offline table (`assets`).

An event is on record before anything is computed from it, and whoever writes online looks at the record again
afterwards. So of two writers the last one has seen both events, in whatever order they came.
"""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from loan_assets.books import LoanBook, the_book
from loan_assets.books.calendar import month_after, months_of
from loan_assets.books.tables import CREATED_TIME, EVENT_TIME
from loan_assets.credit import pushed
from loan_assets.refusal import BadInput, Overtaken, Refusal
from loan_assets.resources.asset_store import AssetStore
from loan_assets.resources.catalog import months_of_statements
from loan_assets.resources.feature_store import FeatureStoreDoor
from loan_assets.resources.online_store import OnlineTables
from loan_assets.resources.pushed_statements import PushedStatements, SaysOtherwise, client_of
from loan_assets.settings import Settings

if TYPE_CHECKING:
    import pandas as pd

STATEMENTS, PROFILES = "monthly_statements", "client_profiles"
MOST_TRIES = 5
PARQUET = b"PAR1"
said = logging.getLogger("loan_assets.stream")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What became of the events of one batch, by position.

    `taken` are on record since this batch, `known` were before. `refused` says why, `conflicts` are those of them whose
    id is on record with another content. `unserved` says why what is on record is not served yet; empty when it is.
    """

    taken: tuple[int, ...] = ()
    known: tuple[int, ...] = ()
    refused: Mapping[int, str] = field(default_factory=dict)
    conflicts: frozenset[int] = frozenset()
    unserved: str = ""

    def facts(self) -> dict[str, Any]:
        """As it is told over HTTP."""
        refused = [{"position": place, "why": why} for place, why in sorted(self.refused.items())]
        served = {"served": not self.unserved, **({"unserved": self.unserved} if self.unserved else {})}
        return {"taken": len(self.taken), "known": len(self.known), "refused": refused, **served}


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """The record of pushed statements, and the stores that follow it."""

    events: PushedStatements
    store: AssetStore
    features: FeatureStoreDoor
    online: OnlineTables
    book: LoanBook

    @classmethod
    def over(cls, settings: Settings) -> Stream:
        """The stream that the settings name."""
        return cls(
            events=PushedStatements.over(settings),
            store=AssetStore.over(settings),
            features=FeatureStoreDoor.over(settings),
            online=OnlineTables(root=settings.online),
            book=the_book(),
        )

    def take(self, told: Sequence[object], now: datetime) -> Answer:
        """Put the events of a batch on record, each for itself, and serve their clients at once.

        What is on record stays there whatever happens to serving: `unserved` says so, and the same events sent again
        are known, and served.

        Args:
            told: objects as `credit.pushed.understood` takes them.
            now: the instant, UTC.

        Raises:
            Refusal: when the book was not read yet, or the record cannot be written; events before that one are on
                record, and known when they are sent again.
        """
        clients = frozenset(self._profiles()[self.book.key.name].tolist())
        fit, refused = pushed.understood(told, self.book, self._awaited(), clients, now)
        taken: list[int] = []
        known: list[int] = []
        conflicts: set[int] = set()
        for position, event in fit.items():
            try:
                (taken if self.events.record(event, self.book) else known).append(position)
            except SaysOtherwise as other:
                refused[position] = other.cause.rstrip(".")
                conflicts.add(position)
        unserved = ""
        try:
            self.serve({fit[position].client for position in (*taken, *known)})
        except Refusal as refusal:
            unserved = str(refusal)
        return Answer(
            taken=tuple(taken), known=tuple(known), refused=refused, conflicts=frozenset(conflicts), unserved=unserved
        )

    def serve(self, clients: Collection[int]) -> None:
        """Bring the newest features of some clients to the endpoint and to Feast's online store.

        Raises:
            Overtaken: when more is pushed about them all the time.
            Refusal: when a store cannot be written; the same may be tried again.
        """
        if not clients:
            return
        for _ in range(MOST_TRIES):
            seen = self._names(clients)
            rows = self.newest_of(clients, seen)
            self.online.write_over(rows, self.book)
            self.features.push(rows, self.book)
            if self._names(clients) == seen:
                return
        raise Overtaken("More is pushed about these clients all the time.", "Send the same again.")

    def newest_of(self, clients: Collection[int], names: Mapping[str, tuple[str, ...]] | None = None) -> pd.DataFrame:
        """The newest features of some clients from everything that is known, as the offline table will have them.

        Args:
            names: the events about them by month, where they were listed already.

        Returns:
            The columns of `books.tables.borrower_features`, one row a client.
        """
        import pandas as pd

        from loan_assets.credit.statements import features_as_of

        key = self.book.key.name
        months = self._months_with(clients, self._names(clients) if names is None else names)
        stated = pd.concat([table[[key]].assign(month=month) for month, table in sorted(months.items())])
        newest = stated.drop_duplicates(key, keep="last").set_index(key)["month"].sort_index()
        profiles = self._profiles()
        profiles = profiles[profiles[key].isin(clients)]
        rows = []
        for month, whose in newest.groupby(newest):
            known = {earlier: _of(table, key, whose.index) for earlier, table in months.items() if earlier <= month}
            rows.append(features_as_of(str(month), known, profiles, self.book))
        versions = pd.concat(rows, ignore_index=True).sort_values([key, CREATED_TIME.name])
        return versions.drop_duplicates(key, keep="last").reset_index(drop=True)

    def ahead_of(self, newest: pd.DataFrame, names: Mapping[str, tuple[str, ...]] | None = None) -> pd.DataFrame:
        """The rows that are not these, or newer, because of what was pushed and is not offline yet.

        The record is never behind the offline table. So a row of the same two instants that says something else is
        ahead as well: a late month that became known before the newest one changes features and neither instant.

        Args:
            newest: one row a client, as `FeatureStoreDoor.newest` gives them.
            names: all events by month, where they were listed already.

        Returns:
            As `newest_of`; no rows when there are none.
        """
        key, times = self.book.key.name, [EVENT_TIME.name, CREATED_TIME.name]
        names = self._names() if names is None else names
        if not names:
            return newest.iloc[:0]
        rows = self.newest_of(_clients_of(names), names)
        held = newest.set_index(key).reindex(rows[key])
        event, created = (held[name].to_numpy("datetime64[us]") for name in times)
        own_event, own_created = (rows[name].to_numpy("datetime64[us]") for name in times)
        says, said_there = (table[list(self.book.feature_names)].to_numpy("float32") for table in (rows, held))
        is_other = ((says != said_there) & ~(np.isnan(says) & np.isnan(said_there))).any(axis=1)
        is_known_later = (own_created > created) | ((own_created == created) & is_other)
        ahead: pd.DataFrame = rows[(own_event > event) | ((own_event == event) & is_known_later)]
        return ahead.reset_index(drop=True)

    def put_in_force(self, newest: pd.DataFrame) -> str:
        """Have the endpoint answer from these rows, and from what was pushed and is not among them; returns the digest.

        Args:
            newest: one row a client, as `FeatureStoreDoor.materialize` gives them.

        Raises:
            Refusal: when a store cannot be written.
        """
        import pandas as pd

        seen = self._names()
        key, ahead = self.book.key.name, self.ahead_of(newest, seen)
        kept = newest[~newest[key].isin(ahead[key])]
        digest = self.online.publish(pd.concat([kept, ahead], ignore_index=True) if len(ahead) else newest, self.book)
        # Feast has only what is offline; and more may have been pushed while the table was put in force.
        more = {month: tuple(set(names) - set(seen.get(month, ()))) for month, names in self._names().items()}
        self.serve({*ahead[key].tolist(), *_clients_of(more)})
        return digest

    def warm(self) -> None:
        """Load what a first event would wait for: Feast takes seconds to import."""
        try:
            self.features.read_online([1], self.book)
            self._profiles()
        except Refusal as reason:  # told again to whoever pushes
            said.warning("Nothing can be pushed yet: %s", reason)

    def _profiles(self) -> pd.DataFrame:
        import pandas as pd

        found: pd.DataFrame = self.store.read(PROFILES, pd.DataFrame)
        return found

    def _awaited(self) -> tuple[str, ...]:
        """The months of which statements are taken: those that are closed, and the one after the newest of them."""
        import pandas as pd

        last = months_of(self.book)[-1]
        for month in sorted(set(self.store.partitions(STATEMENTS)) - set(months_of(self.book))):
            if pushed.is_closed(self.store.read(f"{STATEMENTS}/{month}", pd.DataFrame)):
                last = max(last, month)
        known = months_of_statements(self.book).get_partition_keys()
        return tuple(month for month in known if month <= month_after(last, 1))

    def _names(self, clients: Collection[int] | None = None) -> dict[str, tuple[str, ...]]:
        """The names of the events about some clients, or about all, by month."""
        of = self.events.names_in if clients is None else partial(self.events.names_of, clients)
        found = {month: of(month) for month in self.events.listed()}
        return {month: names for month, names in found.items() if names}

    def _months_with(self, clients: Collection[int], names: Mapping[str, tuple[str, ...]]) -> dict[str, pd.DataFrame]:
        """Every month's statements of some clients: what is stored, and what was pushed since."""
        import pandas as pd

        key, stored = self.book.key.name, set(self.store.partitions(STATEMENTS))
        read = partial(self.store.read, wanted=pd.DataFrame)
        months = {}
        for month in sorted(stored | set(names)):
            filed = _of(read(f"{STATEMENTS}/{month}"), key, clients) if month in stored else None
            events = self.events.named(names.get(month, ()), self.book)
            months[month] = pushed.month_with(filed, events, month, self.book)
        return months


def _clients_of(names: Mapping[str, tuple[str, ...]]) -> frozenset[int]:
    return frozenset(client_of(name) for of_month in names.values() for name in of_month)


def _of(table: pd.DataFrame, key: str, clients: Collection[int]) -> pd.DataFrame:
    return table[table[key].isin(clients)]


def events_in(file: str) -> list[object]:
    """The events of a file as they were written, `-` being standard input: JSON lines, or Parquet.

    A line that is not JSON is an entry that will be refused by its position.

    Raises:
        BadInput: when it cannot be read, or holds nothing.
    """
    try:
        content = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as unreadable:
        raise BadInput(f"{file} cannot be read: {unreadable.strerror}.", "Name a file, or - for input.") from None
    told = _rows_of(content) if content.startswith(PARQUET) else [_object_in(line) for line in content.splitlines()]
    if told is None:
        raise BadInput(f"{file} is not whole: it cannot be read as Parquet.", "Write it again.")
    if not told:
        raise BadInput(f"{file} holds no event.", "Give one JSON object a line, or Parquet.")
    return told


def _object_in(line: bytes) -> object:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _rows_of(content: bytes) -> list[object] | None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return [*pq.read_table(io.BytesIO(content)).to_pylist()]
    except (pa.ArrowInvalid, OSError):
        return None
