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

    Args:
        month: the newest month of the window.
        months: statements by month; only `month` and those before it are read. A month of the window that is not
            there is missing (NaN) in every feature that reads its amounts; features that count take it as a month in
            which nothing happened.
        profile: the client profiles.

    Returns:
        The table of `books.tables.borrower_features`, features rounded to float32, sorted by client.
    """
    newest = months[month].set_index(book.key.name, drop=False).sort_index()
    clients = newest.index
    received = {
        column.name: profile.set_index(book.key.name)[column.name].reindex(clients).to_numpy()
        for column in profiles(book)
        if column.role is Role.FEATURE
    }
    by_lag = {months_between(earlier, month): table.set_index(book.key.name) for earlier, table in months.items()}
    for column in book.monthly:
        held = by_lag.get(column.lag)
        received[column.name] = (
            np.full(len(clients), np.nan) if held is None else held[column.measure].reindex(clients).to_numpy("float64")
        )
    values = {name: numbers.astype("float32") for name, numbers in compute_features(book, received).items()}
    table = pd.DataFrame({book.key.name: clients.to_numpy(), **values})
    table[EVENT_TIME.name] = newest[EVENT_TIME.name].reset_index(drop=True)
    table[CREATED_TIME.name] = _last_known(by_lag, clients)
    return table[[column.name for column in borrower_features(book)]]


def _last_known(by_lag: Mapping[int, pd.DataFrame], clients: pd.Index[int]) -> pd.Series[pd.Timestamp]:
    """When the last of the statements in each client's window became known: no feature is older than its inputs."""
    stamps = [table[CREATED_TIME.name].reindex(clients) for lag, table in by_lag.items() if lag >= 0]
    return pd.concat(stamps, axis=1).max(axis=1).astype("datetime64[us, UTC]").reset_index(drop=True)


def _ends(book: LoanBook) -> Iterable[str]:
    months = months_of(book)
    return months[0], months[-1]


def _instants(instant: datetime, rows: int) -> pd.Series[pd.Timestamp]:
    return pd.Series(pd.DatetimeIndex([instant] * rows).as_unit("us"), dtype="datetime64[us, UTC]")
