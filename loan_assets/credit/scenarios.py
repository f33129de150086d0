"""How the world could move: received columns as they would arrive after a change, still within the book's contract.

Here: named changes to a table of applications, for rehearsals. Not here: sending them (`rehearsal`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from loan_assets.books import Column, LoanBook, Role

if TYPE_CHECKING:
    import pandas as pd

# Debts grow by three fifths and everybody falls one step behind: the scale of a deep recession's first year.
GROWTH = 1.6


def quiet(applications: pd.DataFrame, book: LoanBook) -> pd.DataFrame:  # noqa: ARG001 - one form for every scenario
    """Nothing changes."""
    return applications


def sudden_shift(applications: pd.DataFrame, book: LoanBook) -> pd.DataFrame:
    """Every amount of every statement grows by three fifths, every coded month moves to the next worse code."""
    moved = {}
    for column in book.with_role(Role.FEATURE):
        if column.measure is not None:
            moved[column.name] = _moved(applications[column.name], column)
    return applications.assign(**moved)


SCENARIOS: dict[str, Callable[[pd.DataFrame, LoanBook], pd.DataFrame]] = {
    "quiet": quiet,
    "sudden-shift": sudden_shift,
}


def _moved(values: pd.Series[float], column: Column) -> pd.Series[float]:
    if column.levels is None:
        return (values * GROWTH).clip(column.low, column.high)
    codes = np.array(sorted(column.levels))
    next_worse = np.minimum(np.searchsorted(codes, values) + 1, len(codes) - 1)
    return values * 0 + codes[next_worse]
