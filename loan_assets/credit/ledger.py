"""What was asked and how it ended, as known at the end of a day: the memory from which every decision is made.

Here: requests with the columns as received, their features, whether they may be learned from, and outcomes as they
arrive. Not here: whether a batch or an arrival is fit (`quality`, `label_quality`), or files and stores.

Days are appended in order and nothing is known before its day: a decision made from the ledger cannot look ahead.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from loan_assets.books import LoanBook, Role, compute_features
from loan_assets.credit.scoring import probability as probability_of

if TYPE_CHECKING:
    import pandas as pd

    from loan_assets.credit.versions import Version

Numbers = NDArray[np.float64]
UNKNOWN = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Applications: features (rows, features), the received columns that are watched, and outcomes where known."""

    features: NDArray[np.float32]
    label: NDArray[np.int64]
    received: Mapping[str, Numbers] = field(default_factory=dict)
    day: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))

    def __len__(self) -> int:
        return len(self.features)

    def where(self, chosen: NDArray[np.bool_]) -> Rows:
        """The chosen rows, in order."""
        return Rows(
            features=self.features[chosen],
            label=self.label[chosen],
            received={name: values[chosen] for name, values in self.received.items()},
            day=self.day[chosen] if len(self.day) else self.day,
        )

    @classmethod
    def of(cls, received: pd.DataFrame, book: LoanBook, label: NDArray[np.int64] | None = None) -> Rows:
        """Applications in the book's words, as text or numbers; what is no number is missing."""
        columns = numbers_of(received, book)
        return cls(
            features=features_of(columns, book),
            label=np.full(len(received), UNKNOWN) if label is None else label,
            received={column.name: columns[column.name] for column in book.with_role(Role.FEATURE, Role.PROTECTED)},
        )


@dataclass(slots=True, kw_only=True)
class Asked:
    """One day's requests. `label` is `UNKNOWN` until an outcome arrived; `scores` are log-odds by version."""

    day: int
    date: str
    rows: Rows
    healthy: NDArray[np.bool_]
    label: NDArray[np.int64]
    scores: dict[int, Numbers] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class Ledger:
    """Everything known so far. `arrived` names, per arrival day, the rows whose outcome came first on that day."""

    book: LoanBook
    days: list[Asked] = field(default_factory=list)
    place: dict[str, tuple[int, int]] = field(default_factory=dict)
    arrived: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    told: dict[str, str] = field(default_factory=dict)

    def ask(self, date: str, ids: Sequence[str], rows: Rows, healthy: NDArray[np.bool_]) -> Asked:
        """Append a day's requests, each id once; one asked on an earlier day tells nothing new and is set aside."""
        number = len(self.days)
        is_new = np.array([request not in self.place for request in ids], dtype=bool)
        asked = Asked(day=number, date=date, rows=rows, healthy=healthy & is_new, label=np.full(len(rows), UNKNOWN))
        self.days.append(asked)
        for row, request in enumerate(ids):
            self.place.setdefault(request, (number, row))
        return asked

    def settle(self, date: str, outcomes: Sequence[tuple[str, int, str]]) -> None:
        """Take over outcomes (request, outcome, instant) that arrived on a day; of two the one of the later instant."""
        new = self.arrived.setdefault(date, [])
        for request, label, at in outcomes:
            place = self.place.get(request)
            if place is None or at < self.told.get(request, ""):
                continue
            day, row = place
            if self.days[day].label[row] == UNKNOWN:
                new.append(place)
            self.days[day].label[row] = label
            self.told[request] = at

    def asked(self, requests: Sequence[str], version: Version) -> pd.DataFrame:
        """Those of the requests that are known: request_id, day, a version's score, and the columns as received."""
        import pandas as pd

        places = {request: self.place[request] for request in requests if request in self.place}
        days = sorted({day for day, _ in places.values()})
        scores = {day: probability_of(self.scored(day, version)) for day in days}
        names = [column.name for column in self.book.with_role(Role.FEATURE)]
        return pd.DataFrame(
            {
                "request_id": list(places),
                "day": [self.days[day].date for day, _ in places.values()],
                "score": [float(scores[day][row]) for day, row in places.values()],
                **{
                    name: [float(self.days[day].rows.received[name][row]) for day, row in places.values()]
                    for name in names
                },
            }
        )

    def arrival(
        self, date: str, version: Version, asked_from: str = "", passed: Sequence[tuple[str, str]] = ()
    ) -> tuple[Numbers, NDArray[np.int64]]:
        """A version's log-odds and the outcomes of the healthy requests whose outcome came first on a day.

        Args:
            asked_from: leave out what was asked before that day.
            passed: leave out what was asked between the first and the last day of each.
        """
        places = self._heard(date, asked_from, passed)
        scores = np.array([self.scored(day, version)[row] for day, row in places], dtype="float64")
        label = np.array([self.days[day].label[row] for day, row in places], dtype=np.int64)
        return scores, label

    def scored(self, day: int, version: Version) -> Numbers:
        """A version's log-odds for a day's requests, computed once."""
        asked = self.days[day]
        if version.number not in asked.scores:
            asked.scores[version.number] = version.log_odds(asked.rows.features)
        return asked.scores[version.number]

    def since(self, date: str, *, labelled: bool) -> Rows:
        """The healthy requests from a day on, oldest first; all of them, or those with an outcome."""
        return self._gathered((one for one in self.days if one.date >= date), labelled=labelled)

    def before(self, date: str) -> Rows:
        """The healthy requests before a day whose outcome is known."""
        return self._gathered((one for one in self.days if one.date < date), labelled=True)

    def count_since(self, date: str, least_of_each: int = 0) -> int:
        """How many healthy requests from a day on have an outcome; none while one of the two is too rare to learn."""
        labels = [one.label[one.healthy & (one.label != UNKNOWN)] for one in self.days if one.date >= date]
        count, bad = sum(len(label) for label in labels), sum(int(label.sum()) for label in labels)
        return count if min(bad, count - bad) >= least_of_each else 0

    def first_asked(self, arrivals: Sequence[str], asked_from: str = "", passed: Sequence[tuple[str, str]] = ()) -> str:
        """The earliest day from which an outcome came on one of these days, by the middle of the first of them.

        Outcomes of one arrival may belong to several days: half of them were asked before the day returned.

        Args:
            asked_from: as for `arrival`.
            passed: as for `arrival`.
        """
        for date in arrivals:
            days = sorted(day for day, _ in self._heard(date, asked_from, passed))
            if days:
                return self.days[days[len(days) // 2]].date
        return self.days[-1].date if self.days else ""

    def _heard(self, date: str, asked_from: str, passed: Sequence[tuple[str, str]]) -> list[tuple[int, int]]:
        """Day and row of the healthy requests whose outcome came first on a day, and that are to count."""
        return [
            (day, row)
            for day, row in self.arrived.get(date, ())
            if self.days[day].healthy[row] and _counts(self.days[day].date, asked_from, passed)
        ]

    def _gathered(self, days: Iterator[Asked], *, labelled: bool) -> Rows:
        parts: list[Rows] = []
        for one in days:
            chosen = one.healthy & (one.label != UNKNOWN) if labelled else one.healthy
            rows = Rows(
                features=one.rows.features,
                label=one.label,
                received=one.rows.received,
                day=np.full(len(one.rows), one.day),
            )
            parts.append(rows.where(chosen))
        return joined(parts, self.book)


def _counts(date: str, asked_from: str, passed: Sequence[tuple[str, str]]) -> bool:
    return date >= asked_from and not any(first <= date <= last for first, last in passed)


def joined(parts: Sequence[Rows], book: LoanBook) -> Rows:
    """Rows after one another."""
    watched = [column.name for column in book.with_role(Role.FEATURE, Role.PROTECTED)]
    if not parts:
        return Rows(
            features=np.empty((0, len(book.features)), dtype=np.float32),
            label=np.empty(0, dtype=np.int64),
            received={name: np.empty(0) for name in watched},
        )
    return Rows(
        features=np.concatenate([part.features for part in parts]),
        label=np.concatenate([part.label for part in parts]),
        received={name: np.concatenate([part.received[name] for part in parts]) for name in watched},
        day=np.concatenate([part.day for part in parts]),
    )


def numbers_of(received: pd.DataFrame, book: LoanBook) -> dict[str, Numbers]:
    """The watched columns as doubles; a column that is not there, and a value that is no finite number, is missing."""
    import pandas as pd

    columns = {}
    for column in book.with_role(Role.FEATURE, Role.PROTECTED):
        if column.name not in received.columns:
            columns[column.name] = np.full(len(received), np.nan)
            continue
        values = pd.to_numeric(received[column.name], errors="coerce").to_numpy(dtype="float64", na_value=np.nan)
        columns[column.name] = np.where(np.isfinite(values), values, np.nan)
    return columns


def features_of(columns: Mapping[str, Numbers], book: LoanBook) -> NDArray[np.float32]:
    """Every feature of the book, shape (rows, features), as the endpoint computes them."""
    with np.errstate(all="ignore"):
        computed = compute_features(book, columns)
        stacked = [np.asarray(computed[name], dtype="float64") for name in book.feature_names]
        return np.column_stack(stacked).astype("float32")
