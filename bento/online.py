"""Where a client's newest features come from: the online table in files or in Redis, followed as it is replaced.

Here: looking clients up and telling which features are past their life on the book's own clock. Not here: the table's
forms (`loan_assets.online_table`, `loan_assets.online_redis`).
"""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from datetime import time as midnight
from functools import lru_cache
from http import HTTPStatus
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bento.requests import AGAIN, Problem
from bento.scorer import Asked, Scorer
from loan_assets import online_redis
from loan_assets.books import LoanBook
from loan_assets.online_table import (
    EPOCH,
    OnlineFacts,
    OnlineTable,
    UnknownClients,
    instant_of,
    pointer_of,
    read_online,
    read_pushed,
)
from loan_assets.policy import POLICY
from loan_assets.prediction_record import BY_CLIENT
from loan_assets.refusal import Refusal

SECONDS_BEFORE_TRYING_AGAIN = 10.0
MICROSECOND = timedelta(microseconds=1)
Rows = tuple[NDArray[np.int64], NDArray[np.float32]]
said = logging.getLogger("loan_default")


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """A table that was taken over: what is said of it, before when its rows are stale, and its digest."""

    facts: OnlineFacts
    stale_before: int
    digest: str
    table: OnlineTable | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pushed:
    """Rows that were pushed over a table, by client, and how many bytes of their file hold them."""

    digest: str = ""
    rows: Mapping[int, np.void] = field(default_factory=dict)
    whole: int = 0
    is_sound: bool = True


class Online(ABC):
    """The online table in force, the last sound one for as long as a newer one is damaged."""

    def __init__(self, book: LoanBook) -> None:
        self._book = book
        self._taken: Taken | None = None
        self._seen: str | None = None
        self._tried = -SECONDS_BEFORE_TRYING_AGAIN
        self.why_not = "no online table has been looked for yet"
        self.refusals = 0
        self.look()

    def look(self) -> None:
        """Take over a table that was put in force since; a damaged one is passed over."""
        is_new = False
        try:
            pointer = self._pointer()
            if self._taken is not None and pointer in (None, self._taken.digest):
                return
            if pointer == self._seen and time.monotonic() - self._tried < SECONDS_BEFORE_TRYING_AGAIN:
                return
            is_new, self._seen, self._tried = pointer != self._seen, pointer, time.monotonic()
            facts, table = self._read(pointer)
            # The book's clock: its decision day, or the newest statement where months have arrived since.
            decided = datetime.combine(self._book.as_of, midnight.min, UTC)
            today = max(decided, datetime.fromisoformat(facts.features_as_of))
            stale_before = (today - self._book.feature_life - EPOCH) // MICROSECOND
            # One reference, so that no request sees half of one table and half of another.
            self._taken = Taken(facts=facts, stale_before=stale_before, digest=pointer or "", table=table)
        except Exception as reason:  # whatever a reader raises at bytes that make no sense
            known = isinstance(reason, Refusal)
            self.why_not = str(reason) if known else f"the online table cannot be read ({type(reason).__name__})"
            if self._taken is not None and is_new:
                self.refusals += 1
                said.error("An online table was passed over, the one before goes on answering: %s", self.why_not)

    async def asked(
        self, clients: Sequence[int], scorer: Scorer, *, answers_stale: bool = POLICY.endpoint.answers_stale
    ) -> Asked:
        """The newest features of clients, in the order asked.

        Raises:
            Problem: 404 naming the entries that are no clients, 503 where there is no table or it was computed by
                another book, or where features are past their life and the policy does not answer from such.
        """
        taken = self._taken
        if taken is None:
            raise _unavailable(self.why_not)
        facts = taken.facts
        if (facts.book_digest, facts.features) != (scorer.book.digest, scorer.release.facts.features):
            raise _unavailable(
                f"the online table was computed by book {facts.book_digest}, the release was trained on "
                f"{scorer.book.digest}; run `loan-assets run`"
            )
        try:
            as_of, features = await self._rows(clients, taken)
        except Refusal as refusal:
            raise _unavailable(str(refusal)) from None
        except UnknownClients as unknown:
            key = self._book.key.name
            entries = ", ".join(f"{key}s[{position}]" for position in unknown.positions[:10])
            more = f" and {len(unknown.positions) - 10} more" if len(unknown.positions) > 10 else ""
            raise Problem(HTTPStatus.NOT_FOUND, f"{entries}{more}: not a client of the bank") from None
        stated = as_of.tolist()
        stale = [instant < taken.stale_before for instant in stated]
        if not answers_stale and any(stale):
            raise _unavailable(
                f"features of {sum(stale)} of the clients are older than {self._book.feature_life.days} days"
            )
        return Asked(
            by=BY_CLIENT,
            features=features,
            received=(),
            clients=clients,
            as_of=[_said(instant) for instant in stated],
            stale=stale,
        )

    async def close(self) -> None:  # noqa: B027 - files need no farewell
        """Let go of connections."""

    @abstractmethod
    def _pointer(self) -> str | None:
        """The digest of the table in force."""

    @abstractmethod
    def _read(self, pointer: str | None) -> tuple[OnlineFacts, OnlineTable | None]:
        """What is said of the table in force, and the table where it is held here."""

    @abstractmethod
    async def _rows(self, clients: Sequence[int], taken: Taken) -> Rows:
        """The instants and features of clients."""


class OnlineInFiles(Online):
    """The table below a folder, in memory, and the rows that were pushed since, by client."""

    def __init__(self, root: Path, book: LoanBook) -> None:
        self._root = root
        self._pushed = Pushed()
        super().__init__(book)

    def look(self) -> None:
        """Take over a table that was put in force since, then the rows that were pushed since."""
        super().look()
        if (taken := self._taken) is None:
            return
        before = self._pushed if self._pushed.digest == taken.digest else Pushed(digest=taken.digest)
        try:
            rows, whole = read_pushed(self._root, taken.digest, len(taken.facts.features), before.whole)
        except Refusal as reason:
            if before.is_sound:
                self.refusals += 1
                said.error("Rows that were pushed are passed over: %s", reason)
            self._pushed = replace(before, is_sound=False)
            return
        self._pushed = Pushed(digest=taken.digest, rows={**before.rows, **rows}, whole=whole) if rows else before

    def _pointer(self) -> str | None:
        return pointer_of(self._root)

    def _read(self, pointer: str | None) -> tuple[OnlineFacts, OnlineTable | None]:  # noqa: ARG002 - files know it
        table = read_online(self._root)
        return table.facts, table

    async def _rows(self, clients: Sequence[int], taken: Taken) -> Rows:
        table = taken.table
        assert table is not None  # held here
        rows, pushed = table.rows_of(clients), self._pushed
        as_of, features = table.as_of[rows], table.features[rows]
        if pushed.rows and pushed.digest == taken.digest:
            for place, client in enumerate(clients):
                if (row := pushed.rows.get(client)) is not None:
                    as_of[place], features[place] = row["as_of"], row["features"]
        return as_of, features


class OnlineInRedis(Online):
    """The table in Redis: followed by the look-around, asked by requests without holding up the others."""

    def __init__(self, place: str, book: LoanBook) -> None:
        from redis.asyncio import Redis

        self._place = place
        self._server = online_redis.connected(place, seconds=2.0)
        patience = online_redis.PATIENCE
        self._asking: Any = Redis.from_url(place, socket_timeout=patience, socket_connect_timeout=patience)
        super().__init__(book)

    def _pointer(self) -> str | None:
        with online_redis.told(self._place):
            return online_redis.pointer_of(self._server)

    def _read(self, pointer: str | None) -> tuple[OnlineFacts, OnlineTable | None]:
        if pointer is None:
            raise Refusal("No online table is in force in Redis.", "Materialize online_features.")
        with online_redis.told(self._place):
            return online_redis.read_facts(self._server, pointer), None

    async def _rows(self, clients: Sequence[int], taken: Taken) -> Rows:
        with online_redis.told(self._place):
            values = await self._asking.mget(online_redis.keys_of(taken.digest, clients))
        return online_redis.rows_from(values, len(taken.facts.features))

    async def close(self) -> None:
        """Let go of connections."""
        await self._asking.aclose()
        self._server.close()


def online_at(place: str, book: LoanBook) -> Online:
    """The online table at a folder or a Redis URL."""
    if online_redis.is_redis(place):
        return OnlineInRedis(place, book)
    return OnlineInFiles(Path(place), book)


def _unavailable(why: str) -> Problem:
    return Problem(HTTPStatus.SERVICE_UNAVAILABLE, why, AGAIN)


@lru_cache(maxsize=4_096)
def _said(microseconds: int) -> str:
    """An instant in ISO 8601; statements share a few instants, so each is worded once."""
    return instant_of(microseconds).isoformat()
