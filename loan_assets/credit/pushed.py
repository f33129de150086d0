"""Statements that are pushed as they happen: one client's month, told by an event with a name of its own.

Here: what an event must hold, and how events become rows of a month's table. Not here: where they rest
(`resources.pushed_statements`), what is served of them (`stream`), or the rules of a statement (`conformance`).

A month's file says what was known on the month's statement day. An event becomes known later, and restates it: both
stay, each with the instant it became known, and the newest known is the one in force.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from loan_assets.books import Column, Kind, LoanBook, Role
from loan_assets.books.calendar import statement_day
from loan_assets.books.tables import CREATED_TIME, EVENT_TIME, statements
from loan_assets.refusal import Refusal

if TYPE_CHECKING:
    import pandas as pd

EVENT_ID, MONTH, KNOWN_AT = "event_id", "month", "known_at"
LONGEST_ID = 200
# Clocks of two machines may differ by this; nothing is known later than now.
SKEW = timedelta(minutes=1)
EXACT = 2**53
BREAKS = "breaks the contract: "


class Unfit(ValueError):
    """Why an event cannot be taken: names of fields, never a value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PushedStatement:
    """One client's statement for a month; `known_at` is when the bank came to know it, UTC."""

    event_id: str
    client: int
    month: str
    known_at: datetime
    measures: Mapping[str, float]

    def content(self, book: LoanBook) -> bytes:
        """The event as it is recorded: the same facts give the same bytes, however they were written."""
        facts = {
            EVENT_ID: self.event_id,
            book.key.name: self.client,
            MONTH: self.month,
            KNOWN_AT: self.known_at.isoformat(timespec="microseconds"),
            **self.measures,
        }
        return json.dumps(facts, sort_keys=True, separators=(",", ":")).encode()

    @classmethod
    def of_content(cls, content: bytes, book: LoanBook) -> PushedStatement:
        """Read what `content` gave."""
        facts = json.loads(content)
        return cls(
            event_id=facts[EVENT_ID],
            client=facts[book.key.name],
            month=facts[MONTH],
            known_at=datetime.fromisoformat(facts[KNOWN_AT]),
            measures={column.name: facts[column.name] for column in measures_of(book)},
        )


def measures_of(book: LoanBook) -> tuple[Column, ...]:
    """What a statement says beside whose it is and when."""
    return tuple(column for column in statements(book) if column.role not in (Role.KEY, Role.EVENT_TIME))


def understood(
    told: Sequence[object], book: LoanBook, months: Collection[str], clients: Collection[int], now: datetime
) -> tuple[dict[int, PushedStatement], dict[int, str]]:
    """The events that can be taken, and why the others cannot, each by its position.

    Args:
        told: objects of plain values as they were sent: `event_id`, the key, `month` (`2005-10`), `known_at` (ISO 8601
            with its offset, or an instant) and every measure of the book, nothing else.
        months: the months of which statements are taken.
        clients: the bank's clients.
        now: the instant, UTC; nothing is known later.
    """
    shaped: dict[int, PushedStatement] = {}
    unfit: dict[int, str] = {}
    for position, one in enumerate(told):
        try:
            shaped[position] = _shaped(one, book, months, clients, now)
        except Unfit as reason:
            unfit[position] = str(reason)
    broken = _breaking(list(shaped.items()), book)
    fit = {position: _exact(one, book) for position, one in shaped.items() if position not in broken}
    return fit, dict(sorted({**unfit, **broken}.items()))


def _shaped(
    one: object, book: LoanBook, months: Collection[str], clients: Collection[int], now: datetime
) -> PushedStatement:
    """An event whose fields are there and of their kinds; the book's rules are not yet asked."""
    if not isinstance(one, Mapping):
        raise Unfit("is not an object")
    key, measures = book.key.name, measures_of(book)
    fields = (EVENT_ID, key, MONTH, KNOWN_AT, *(column.name for column in measures))
    missing = [name for name in fields if one.get(name) is None]
    if missing:
        raise Unfit("; ".join(f"{name}: is missing" for name in missing))
    if len(one) > len(fields):
        raise Unfit(f"holds other fields than {', '.join(fields)}")
    name, client, month = one[EVENT_ID], one[key], one[MONTH]
    if not isinstance(name, str) or not name.isprintable() or not 1 <= len(name.strip()) <= len(name) <= LONGEST_ID:
        raise Unfit(f"{EVENT_ID}: is not 1 to {LONGEST_ID} printable characters")
    if not isinstance(client, int) or isinstance(client, bool) or client not in clients:
        raise Unfit(f"{key}: is no client of the bank")
    if not isinstance(month, str) or month not in months:
        raise Unfit(f"{MONTH}: is none of which statements are taken, {min(months)} to {max(months)}")
    numbers = [column.name for column in measures if not _is_number(one[column.name])]
    if numbers:
        raise Unfit("; ".join(f"{wrong}: is no number that can be read exactly" for wrong in numbers))
    known_at = _instant(one[KNOWN_AT], month, now)
    held = {column.name: one[column.name] for column in measures}
    return PushedStatement(event_id=name, client=client, month=month, known_at=known_at, measures=held)


def _is_number(value: object) -> bool:
    is_whole = isinstance(value, int) and not isinstance(value, bool) and abs(value) <= EXACT
    return is_whole or isinstance(value, float)


def _instant(told: object, month: str, now: datetime) -> datetime:
    """When an event became known, UTC."""
    wrong = Unfit(f"{KNOWN_AT}: is no instant in ISO 8601 with its offset, like 2005-11-03T09:30:00Z")
    try:
        # A column of instants in Parquet gives them as such.
        known = datetime.fromisoformat(told) if isinstance(told, str) else told
        if not isinstance(known, datetime) or known.tzinfo is None:
            raise wrong
        # In UTC the first and the last hours of the calendar may lie outside of it.
        known = known.astimezone(UTC)
    except (ValueError, OverflowError):
        raise wrong from None
    if known <= statement_day(month):
        # What was known on the day itself, the month's file says.
        raise Unfit(f"{KNOWN_AT}: is not after the month's statement day began (UTC midnight)")
    if known > now + SKEW:
        raise Unfit(f"{KNOWN_AT}: lies in the future")
    return known


def _breaking(events: Sequence[tuple[int, PushedStatement]], book: LoanBook) -> dict[int, str]:
    """Which events break the book's contract and how; halves are judged again until the rows are known."""
    import pandas as pd

    from loan_assets.credit.conformance import conform_columns

    if not events:
        return {}
    columns = [column for column in statements(book) if column.role is not Role.EVENT_TIME]
    rows = [{book.key.name: one.client, **one.measures} for _, one in events]
    try:
        # No key: a batch may hold a client more than once.
        conform_columns(pd.DataFrame(rows, dtype="object"), columns, "", "a statement", "")
    except Refusal as broken:
        if len(events) == 1:
            return {events[0][0]: BREAKS + broken.cause.partition(BREAKS)[2].rstrip(".").replace(" (1 row)", "")}
        half = len(events) // 2
        return {**_breaking(events[:half], book), **_breaking(events[half:], book)}
    return {}


def _exact(one: PushedStatement, book: LoanBook) -> PushedStatement:
    """An event whose measures are stored as the book stores them."""
    held: dict[str, float] = {
        column.name: int(one.measures[column.name])
        if column.kind is Kind.INTEGER
        else float(one.measures[column.name]) + 0.0  # no negative nought
        for column in measures_of(book)
    }
    return PushedStatement(
        event_id=one.event_id, client=one.client, month=one.month, known_at=one.known_at, measures=held
    )


def month_with(
    filed: pd.DataFrame | None, events: Iterable[PushedStatement], month: str, book: LoanBook
) -> pd.DataFrame:
    """A month's statements: what its file said, then every later version that was pushed, by client and instant.

    Args:
        filed: the table of the month as it is stored or read from its file, None where there is none; rows that were
            pushed are left out of it, for the events are what says them.
        events: those of the month, in any order. Where two say the same client's month at the same instant, the one
            with the greater event id counts, so that the order of arrival does not.
    """
    import pandas as pd

    from loan_assets.credit.conformance import STORED_AS

    versions = {(one.client, one.known_at): one for one in sorted(events, key=lambda one: one.event_id)}
    columns = statements(book)
    rows = [
        {book.key.name: one.client, EVENT_TIME.name: statement_day(month), CREATED_TIME.name: known, **one.measures}
        for (_, known), one in sorted(versions.items())
    ]
    pushed = pd.DataFrame(rows, columns=[column.name for column in columns]).astype(
        {column.name: STORED_AS[column.kind] for column in columns}
    )
    if filed is None:
        return pushed
    base = said_by_file(filed)
    return pd.concat([base, pushed], ignore_index=True) if rows else base.reset_index(drop=True)


def said_by_file(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of a month that its file said: those known on the statement day itself."""
    return table[table[CREATED_TIME.name] == table[EVENT_TIME.name]]


def is_closed(table: pd.DataFrame) -> bool:
    """Whether a month's file has arrived; of an open month only what was pushed is there."""
    return len(said_by_file(table)) > 0
