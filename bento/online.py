"""Where a client's newest features come from: the online table beside the box, followed as it is replaced.

Here: looking clients up and telling which features are past their life on the book's own clock. Not here: the table's
form (`loan_assets.online_table`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from datetime import time as midnight
from http import HTTPStatus
from pathlib import Path

from bento.requests import Problem
from bento.scorer import Asked, Scorer
from loan_assets.books import LoanBook
from loan_assets.online_table import EPOCH, OnlineTable, UnknownClients, instant_of, pointer_of, read_online
from loan_assets.policy import POLICY
from loan_assets.prediction_record import BY_CLIENT
from loan_assets.refusal import Refusal

SECONDS_BEFORE_TRYING_AGAIN = 10.0
MICROSECOND = timedelta(microseconds=1)
said = logging.getLogger("loan_default")


class Online:
    """The online table below `root`, the last sound one for as long as a newer one is damaged."""

    def __init__(self, root: Path, book: LoanBook) -> None:
        self._root, self._book = root, book
        self._table: OnlineTable | None = None
        self._stale_before = 0
        self._seen: str | None = None
        self._tried = -SECONDS_BEFORE_TRYING_AGAIN
        self.why_not = "no online table has been looked for yet"
        self.refusals = 0
        self.look()

    def look(self) -> None:
        """Take over a table that was put in force since; a damaged one is passed over."""
        try:
            pointer = pointer_of(self._root)
            if self._table is not None and pointer in (None, self._seen):
                return
            if pointer == self._seen and time.monotonic() - self._tried < SECONDS_BEFORE_TRYING_AGAIN:
                return
            is_new, self._seen, self._tried = pointer != self._seen, pointer, time.monotonic()
            table = read_online(self._root)
        except (Refusal, OSError, ValueError, KeyError, TypeError) as reason:
            if self._table is None:
                self.why_not = str(reason) if isinstance(reason, Refusal) else "the online table cannot be read"
            elif is_new:
                self.refusals += 1
                said.error("An online table was passed over, the one before goes on answering: %s", reason)
            return
        # The book's clock: its decision day, or the newest statement where months have arrived since.
        today = max(
            datetime.combine(self._book.as_of, midnight.min, UTC), datetime.fromisoformat(table.facts.features_as_of)
        )
        self._stale_before = (today - self._book.feature_life - EPOCH) // MICROSECOND
        self._table = table

    def asked(
        self, clients: Sequence[int], scorer: Scorer, *, answers_stale: bool = POLICY.endpoint.answers_stale
    ) -> Asked:
        """The newest features of clients, in the order asked.

        Raises:
            Problem: 404 naming the entries that are no clients, 503 where there is no table or it was computed by
                another book, or where features are past their life and the policy does not answer from such.
        """
        table = self._table
        if table is None:
            raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, self.why_not)
        if (table.facts.book_digest, table.facts.features) != (scorer.book.digest, scorer.release.facts.features):
            raise Problem(
                HTTPStatus.SERVICE_UNAVAILABLE,
                f"the online table was computed by book {table.facts.book_digest}, the release was trained on "
                f"{scorer.book.digest}; run `loan-assets run`",
            )
        try:
            rows = table.rows_of(clients)
        except UnknownClients as unknown:
            key = self._book.key.name
            entries = ", ".join(f"{key}s[{position}]" for position in unknown.positions[:10])
            more = f" and {len(unknown.positions) - 10} more" if len(unknown.positions) > 10 else ""
            raise Problem(HTTPStatus.NOT_FOUND, f"{entries}{more}: not a client of the bank") from None
        stated = table.as_of[rows].tolist()
        stale = [instant < self._stale_before for instant in stated]
        if not answers_stale and any(stale):
            raise Problem(
                HTTPStatus.SERVICE_UNAVAILABLE,
                f"features of {sum(stale)} of the clients are older than {self._book.feature_life.days} days",
            )
        return Asked(
            by=BY_CLIENT,
            features=table.features[rows],
            received=(),
            clients=clients,
            as_of=[_said(instant) for instant in stated],
            stale=stale,
        )


_SAID: dict[int, str] = {}


def _said(microseconds: int) -> str:
    """An instant in ISO 8601; statements share a few instants, so each is worded once."""
    if microseconds not in _SAID:
        if len(_SAID) > 10_000:
            _SAID.clear()
        _SAID[microseconds] = instant_of(microseconds).isoformat()
    return _SAID[microseconds]
