"""What the usual rule would have done on the same replay, and what never retraining would have: two courses to compare.

Here: the rule with fixed limits that most drift tools ship, lived through day by day. Not here: our own rule
(`succession`), or what either was worth (`realised`).

A column has moved at a distance of 0.1, the default of Evidently; a fifth of the columns on three days in a row ask for
a model of everything that has an outcome by then, which serves from the next day on, unseen. The count begins again.
Requests are taken as they came, unfit ones too; outcomes count from the day they arrived on, as last corrected.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loan_assets.books import LoanBook
from loan_assets.credit.ledger import Asked, Ledger, Numbers, Rows
from loan_assets.credit.scoring import FlatTrees
from loan_assets.credit.straying import Scale
from loan_assets.credit.training import fit, flatten
from loan_assets.credit.versions import Version
from loan_assets.policy import Boosting

MOVED, SHARE, IN_A_ROW = 0.1, 0.2, 3
Place = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class DayServed:
    """One day of a course: who served, the share of columns that had moved (None without requests), every log-odds."""

    date: str
    version: int
    share: float | None
    scores: Numbers


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """What a rule did: its days in order, and those at whose end a new version took over."""

    days: tuple[DayServed, ...]
    promoted: tuple[str, ...] = ()


def never_retrained(ledger: Ledger, first: Version, dates: Sequence[str]) -> Course:
    """The first version serves for ever."""
    asked = {one.date: one for one in ledger.days}
    nothing = np.empty(0)
    return Course(
        days=tuple(
            DayServed(
                date=date,
                version=1,
                share=None,
                scores=ledger.scored(asked[date].day, first) if date in asked else nothing,
            )
            for date in dates
        )
    )


def plain_rule(
    ledger: Ledger, reference: Rows, first: Version, dates: Sequence[str], book: LoanBook, boosting: Boosting
) -> Course:
    """Live through the days of a replay by the plain rule.

    Args:
        reference: the rows that the first version was trained on, with outcomes.
        dates: every day of the replay, without gaps, oldest first.
    """
    asked = {one.date: one for one in ledger.days}
    trees, version, run = first.trees, 1, 0
    days: list[DayServed] = []
    promoted: list[str] = []
    known: list[Place] = []
    seen: set[str] = set()
    for date in dates:
        today = asked.get(date)
        share = None if today is None else _share(today, first.reference.scales, seen)
        scores = np.empty(0) if today is None else _scored(ledger, today, first, trees, version)
        days.append(DayServed(date=date, version=version, share=share, scores=scores))
        known += ledger.arrived.get(date, [])
        run = run + 1 if share is not None and share > SHARE else 0
        if run == IN_A_ROW:
            trees, version, run = _of_everything(ledger, reference, known, book, boosting), version + 1, 0
            promoted.append(date)
    return Course(days=tuple(days), promoted=tuple(promoted))


def _share(today: Asked, scales: Sequence[Scale], seen: set[str]) -> float | None:
    """The share of columns that have moved; one that is empty today and was not before has moved, too."""
    if not len(today.rows):
        return None
    received = today.rows.received
    seen |= {name for name, values in received.items() if np.isfinite(values).any()}
    moved = [not scale.distance(received[scale.column.name]) < MOVED for scale in scales if scale.column.name in seen]
    return float(np.mean(moved)) if moved else None


def _scored(ledger: Ledger, today: Asked, first: Version, trees: FlatTrees, version: int) -> Numbers:
    return ledger.scored(today.day, first) if version == 1 else trees.log_odds(today.rows.features)


def _of_everything(
    ledger: Ledger, reference: Rows, known: Sequence[Place], book: LoanBook, boosting: Boosting
) -> FlatTrees:
    """A model of the reference and of every request whose outcome is known."""
    by_day: dict[int, list[int]] = {}
    for day, row in known:
        by_day.setdefault(day, []).append(row)
    features, label = [reference.features], [reference.label]
    for day, rows in sorted(by_day.items()):
        features.append(ledger.days[day].rows.features[rows])
        label.append(ledger.days[day].label[rows])
    return flatten(fit(_finite(np.concatenate(features)), np.concatenate(label), book, boosting))


def _finite(features: NDArray[np.float32]) -> NDArray[np.float64]:
    """What an unfit row makes infinite is missing: this rule sets no row aside."""
    return np.where(np.isfinite(features), features, np.nan).astype("float64")
