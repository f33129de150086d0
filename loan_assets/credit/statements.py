"""From one wide row a client to monthly statements, and back to a trailing window as of any month.

Here: reshaping in plain pandas, and whose statements a month may hold. Not here: what is computed from a window
(`books`) or how months are stored.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

import numpy as np
import pandas as pd

from loan_assets.books import LoanBook, Role, compute_features
from loan_assets.books.calendar import MONTH, decision_day, months_between, months_of, statement_day
from loan_assets.books.tables import CREATED_TIME, EVENT_TIME, borrower_features, outcomes, profiles, statements
from loan_assets.refusal import Refusal


def month_of_statements(received: pd.DataFrame, month: str, book: LoanBook) -> pd.DataFrame:
    """One statement a client for one month, in source row order.

    Both timestamps come from the month itself, never from a clock, so that the same delivery gives the same bytes.
    """
    newest = book.last_month.strftime(MONTH)
    lag = months_between(month, newest)
    measures = {
        column.measure: received[column.name] for column in book.monthly if column.lag == lag and column.measure
    }
    if not measures:
        raise Refusal(
            f"The book {book.name} carries no statements for {month}; it covers {' to '.join(_ends(book))}.",
            "Materialize a month that it covers.",
        )
    return dated(received[[book.key.name]].assign(**measures), month, book)


def dated(measures: pd.DataFrame, month: str, book: LoanBook) -> pd.DataFrame:
    """A month's key and measures as its statements: both instants are those of the month."""
    known = _instants(statement_day(month), len(measures))
    table = measures.reset_index(drop=True).assign(**{EVENT_TIME.name: known, CREATED_TIME.name: known})
    return table[[column.name for column in statements(book)]]


def other_clients(table: pd.DataFrame, clients: pd.Series[int], may_leave: float) -> str | None:
    """What is wrong with whose statements a month holds, in counts; None when they are the book's clients.

    Args:
        table: a month's rows.
        clients: every client of the book.
        may_leave: the largest share of them without a row.
    """
    here, known = set(table[clients.name]), set(clients)
    strangers, left = len(here - known), len(known - here)
    wrong = [f"statements of {strangers:,} clients that the book does not know"] if strangers else []
    if left > may_leave * len(known):
        wrong.append(f"none of {left:,} of its {len(known):,} clients, where {may_leave:.0%} may have left")
    return " and ".join(wrong) or None


def profiles_of(received: pd.DataFrame, book: LoanBook) -> pd.DataFrame:
    """One profile a client, protected columns included, in source row order."""
    return received[[column.name for column in profiles(book)]].copy()


def outcomes_of(received: pd.DataFrame, book: LoanBook) -> pd.DataFrame:
    """One outcome a client: what became of the decision taken on the book's as-of date."""
    decided = decision_day(book)
    table = pd.DataFrame(
        {
            book.key.name: received[book.key.name],
            EVENT_TIME.name: _instants(decided, len(received)),
            "settled_timestamp": _instants(decided + book.outcome_after, len(received)),
            book.label.name: received[book.label.name],
        }
    )
    return table[[column.name for column in outcomes(book)]]


def features_as_of(
    month: str, months: Mapping[str, pd.DataFrame], profile: pd.DataFrame, book: LoanBook
) -> pd.DataFrame:
    """Every feature of every client with a statement in `month`, over the window that ends with it.

    A client has a row for each instant at which something in the window became known, from the month's own statement
    onwards: what a statement that came late, or said something else, has changed is a later row.

    Args:
        month: the newest month of the window.
        months: statements by month; only `month` and those before it are read. A month of the window that is not
            there is missing (NaN) in every feature that reads its amounts; features that count take it as a month in
            which nothing happened.
        profile: the client profiles.

    Returns:
        The table of `books.tables.borrower_features`, features rounded to float32, sorted by client and instant.
    """
    window = _window(month, months, book)
    versions = [_as_known_by(by, window, profile, book) for by in _instants_of_change(window, book)]
    if len(versions) == 1:
        return versions[0]
    order = [book.key.name, CREATED_TIME.name]
    return pd.concat(versions, ignore_index=True).sort_values(order, ignore_index=True)


def rows_as_of(month: str, months: Mapping[str, pd.DataFrame], book: LoanBook) -> int:
    """How many rows `features_as_of` gives, for who has them computed elsewhere."""
    return sum(len(by) for by in _instants_of_change(_window(month, months, book), book))


def months_read(month: str, months: Iterable[str], book: LoanBook) -> dict[int, str]:
    """Which of some months lie in the window that ends with one, by how many months before it they lie."""
    lags = {months_between(earlier, month): earlier for earlier in months}
    return {lag: earlier for lag, earlier in lags.items() if 0 <= lag < book.window}


def _window(month: str, months: Mapping[str, pd.DataFrame], book: LoanBook) -> dict[int, pd.DataFrame]:
    return {lag: months[earlier] for lag, earlier in months_read(month, months, book).items()}


def _instants_of_change(window: Mapping[int, pd.DataFrame], book: LoanBook) -> list[pd.Series[pd.Timestamp]]:
    """When what is known of a client changed, by client: the first instant of each, then the second of those with two.

    Nothing is told of a client before its statement of the newest month is known.
    """
    key, created = book.key.name, CREATED_TIME.name
    first = window[0].groupby(key)[created].min()
    changes = pd.concat([table[[key, created]] for table in window.values()]).drop_duplicates()
    since = first.reindex(changes[key]).to_numpy("datetime64[us]")
    changes = changes[changes[created].to_numpy("datetime64[us]") >= since].sort_values([key, created])
    turn = changes.groupby(key).cumcount()
    return [changes[turn == number].set_index(key)[created] for number in range(int(turn.max()) + 1)]


def _as_known_by(
    by: pd.Series[pd.Timestamp], window: Mapping[int, pd.DataFrame], profile: pd.DataFrame, book: LoanBook
) -> pd.DataFrame:
    """The features of some clients from what was known of each by an instant of its own.

    Args:
        by: the instants, by client in ascending order.
        window: statements by how many months before the newest they lie.
    """
    key, clients = book.key.name, by.index
    by_lag = {lag: _newest_known(table, by, key) for lag, table in window.items()}
    received = {
        column.name: profile.set_index(key)[column.name].reindex(clients).to_numpy()
        for column in profiles(book)
        if column.role is Role.FEATURE
    }
    for column in book.monthly:
        held = by_lag.get(column.lag)
        received[column.name] = (
            np.full(len(clients), np.nan) if held is None else held[column.measure].reindex(clients).to_numpy("float64")
        )
    values = {name: numbers.astype("float32") for name, numbers in compute_features(book, received).items()}
    table = pd.DataFrame({key: clients.to_numpy(), **values})
    table[EVENT_TIME.name] = by_lag[0][EVENT_TIME.name].reindex(clients).reset_index(drop=True)
    # No feature is older than its inputs.
    table[CREATED_TIME.name] = by.astype("datetime64[us, UTC]").reset_index(drop=True)
    return table[[column.name for column in borrower_features(book)]]


def _newest_known(table: pd.DataFrame, by: pd.Series[pd.Timestamp], key: str) -> pd.DataFrame:
    """Each client's newest version of a month's statement among those known by an instant, by client."""
    limits = by.reindex(table[key]).to_numpy(
        "datetime64[us]"
    )  # none for others' statements, which no instant is before
    known = table[table[CREATED_TIME.name].to_numpy("datetime64[us]") <= limits]
    newest = known.sort_values(CREATED_TIME.name, kind="stable").drop_duplicates(key, keep="last")
    return newest.set_index(key)


def _ends(book: LoanBook) -> Iterable[str]:
    months = months_of(book)
    return months[0], months[-1]


def _instants(instant: datetime, rows: int) -> pd.Series[pd.Timestamp]:
    return pd.Series(pd.DatetimeIndex([instant] * rows).as_unit("us"), dtype="datetime64[us, UTC]")
