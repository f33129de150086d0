"""What a course of versions was worth on a replay: its scores against the outcomes that are known at the end.

Here: realised ranking, as a whole and week by week, of this policy, of never retraining and of the plain rule. Not
here: the courses themselves (`backtest`, `plain_rule`) or the page that shows them (`timeline`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loan_assets.credit.backtest import DayDecided, Replay
from loan_assets.credit.ledger import UNKNOWN, Numbers
from loan_assets.credit.performance import Comparison, Ranking, compare, ranking_of
from loan_assets.credit.plain_rule import Course, never_retrained, plain_rule

WEEK = 7
# With fewer outcomes the interval of an AUC is as wide as a third of its range.
FEWEST = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class DayKnown:
    """A day's requests with a known outcome, and their log-odds by the three courses, each of shape (rows,)."""

    date: str
    label: NDArray[np.int64]
    policy: Numbers
    never: Numbers
    plain: Numbers


@dataclass(frozen=True, slots=True, kw_only=True)
class Week:
    """The requests of the seven days up to a day: rankings where both outcomes are there, and default rates."""

    rows: int
    policy: Ranking | None = None
    never: Ranking | None = None
    plain: Ranking | None = None
    observed: float | None = None
    expected: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Realised:
    """What the three courses were worth; `over_*` are the policy's gains on the same rows, None for one outcome."""

    rows: int
    policy: float | None
    never: float | None
    plain: float | None
    over_never: Comparison | None
    over_plain: Comparison | None
    plain_course: Course
    weeks: tuple[Week, ...]


def realised(replay: Replay, days: Sequence[DayDecided]) -> Realised:
    """Judge a replay that has been lived through."""
    dates, first = [day.date for day in days], replay.versions[1]
    never = never_retrained(replay.ledger, first, dates)
    plain = plain_rule(replay.ledger, replay.reference, first, dates, replay.book, replay.policy.boosting)
    known = _known(replay, days, never, plain)
    label, policy, by_never, by_plain = _together(known)
    over_never, over_plain = compare(by_never, policy, label), compare(by_plain, policy, label)
    return Realised(
        rows=len(label),
        policy=None if over_never is None else over_never.auc_second,
        never=None if over_never is None else over_never.auc_first,
        plain=None if over_plain is None else over_plain.auc_first,
        over_never=over_never,
        over_plain=over_plain,
        plain_course=plain,
        weeks=tuple(_week(known[max(0, end - WEEK + 1) : end + 1]) for end in range(len(known))),
    )


def _known(replay: Replay, days: Sequence[DayDecided], never: Course, plain: Course) -> list[DayKnown]:
    labels = {one.date: one.label for one in replay.ledger.days}
    found = []
    for day, first, other in zip(days, never.days, plain.days, strict=True):
        label = labels.get(day.date, np.empty(0, dtype=np.int64))
        known = label != UNKNOWN
        found.append(
            DayKnown(
                date=day.date,
                label=label[known],
                policy=_log_odds(day.scores[known]),
                never=first.scores[known],
                plain=other.scores[known],
            )
        )
    return found


def _week(known: Sequence[DayKnown]) -> Week:
    label, policy, never, plain = _together(known)
    if len(label) < FEWEST:
        return Week(rows=len(label))
    return Week(
        rows=len(label),
        policy=ranking_of(policy, label),
        never=ranking_of(never, label),
        plain=ranking_of(plain, label),
        observed=float(label.mean()),
        expected=float((1 / (1 + np.exp(-policy))).mean()),
    )


def _together(known: Sequence[DayKnown]) -> tuple[NDArray[np.int64], Numbers, Numbers, Numbers]:
    return (
        np.concatenate([one.label for one in known]),
        np.concatenate([one.policy for one in known]),
        np.concatenate([one.never for one in known]),
        np.concatenate([one.plain for one in known]),
    )


def _log_odds(probability: Numbers) -> Numbers:
    return np.asarray(np.log(probability) - np.log1p(-probability))
