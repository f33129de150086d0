"""A history for those who have none: the world changes, stays so for a while, and is what it was again.

Here: which clients of a pool ask on which day, how they and their outcomes change, and the files in which it lies. Not
here: who lives through it (`simulation`), or the form of those files (`histories`).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from loan_assets.books import LoanBook, Role
from loan_assets.credit.quality import REQUEST
from loan_assets.credit.scenarios import sudden_shift
from loan_assets.histories import LABEL, SUFFIX, History

if TYPE_CHECKING:
    import pandas as pd

CHANGED_WORLD = "changed-world"
# The large limits default now, who were the safest: the champion ranks them the wrong way round.
LARGE_DEFAULT, SMALL_DEFAULT = 0.4, 0.06


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """How long a history is, how many ask on each day, and which of its days are those of another world.

    Nine days are enough for a change to be noticed, for seven hundred outcomes of it to settle, and for a challenger to
    be made, tried and put in force; as many again for the first version to be known again and to stay.
    """

    days: int = 22
    rows: int = 200
    changes: int = 4
    returns: int = 13
    # Days from a request to its outcome.
    later: int = 2
    seed: int = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class ExampleHistory:
    """Requests by day, and outcomes by the day on which they arrive, in the book's words."""

    requests: dict[str, pd.DataFrame]
    outcomes: dict[str, pd.DataFrame]

    @property
    def days(self) -> list[str]:
        """The days on which somebody asks, in order."""
        return sorted(self.requests)

    def write(self, folder: Path) -> None:
        """Write it as the files that `histories` reads."""
        places = history_at(folder)
        for place, tables in ((places.predictions, self.requests), (places.labels, self.outcomes)):
            place.mkdir(parents=True, exist_ok=True)
            for day, table in tables.items():
                table.to_parquet(place / f"{day}{SUFFIX}", index=False)


def changed_world(pool: pd.DataFrame, book: LoanBook, first: date, course: Course | None = None) -> ExampleHistory:
    """Another world for some days: amounts are larger, codes worse, and it is the large limits that default.

    Args:
        pool: received columns and outcomes of clients whom no model was trained on; nobody asks twice.
        first: the first day.
    """
    import pandas as pd

    course = course or Course()
    generator = np.random.default_rng(course.seed)
    pool = pool.iloc[generator.permutation(len(pool))].reset_index(drop=True)
    size = min(course.rows, len(pool) // course.days)
    requests, outcomes = {}, {}
    for number in range(course.days):
        rows = pool.iloc[number * size : (number + 1) * size].reset_index(drop=True)
        label = rows.pop(book.label.name).to_numpy()
        if course.changes <= number < course.returns:
            is_large = (rows["credit_limit"] > pool["credit_limit"].median()).to_numpy()
            label = (generator.random(size) < np.where(is_large, LARGE_DEFAULT, SMALL_DEFAULT)).astype("int64")
            rows = sudden_shift(rows, book)
        day = (first + timedelta(days=number)).isoformat()
        told = (first + timedelta(days=number + course.later)).isoformat()
        names = [f"q{number:02}-{row:03}" for row in range(size)]
        rows.insert(0, REQUEST, names)
        rows["event_timestamp"] = pd.Timestamp(f"{day} 09:00", tz="UTC")
        # The endpoint answers in whatever order it is asked.
        requests[day] = rows.iloc[generator.permutation(size)].reset_index(drop=True)
        outcomes[told] = pd.DataFrame(
            {REQUEST: names, LABEL: label, "label_timestamp": pd.Timestamp(f"{told} 12:00", tz="UTC")}
        )
    return ExampleHistory(requests=requests, outcomes=outcomes)


def history_at(folder: Path, until: str = "") -> History:
    """The history in a folder of `predictions/` and `labels/`, and of a `reference.parquet` for a backtest."""
    return History(
        reference=folder / f"reference{SUFFIX}",
        predictions=folder / "predictions",
        labels=folder / "labels",
        until=until,
    )


def known_loans(received: pd.DataFrame, book: LoanBook) -> pd.DataFrame:
    """Loans with their outcomes as the reference of a backtest: key, the columns as received, label."""
    columns = [column.name for column in book.with_role(Role.KEY, Role.FEATURE, Role.PROTECTED, Role.LABEL)]
    return received[columns].rename(columns={book.label.name: LABEL})
