"""How answers turn out in life: performance by the version that answered, and how groups fare.

Here: figures over logged answers and the outcomes known by a day. Not here: what follows from them (`succession`), or
the figures themselves (`performance`, `fairness`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from loan_assets.books import LoanBook
from loan_assets.credit.daily import performance_of
from loan_assets.credit.fairness import approval_ratio, groups_of, outcomes_by_group
from loan_assets.credit.ledger import UNKNOWN, Ledger
from loan_assets.credit.quality import REQUEST
from loan_assets.policy import Policy

if TYPE_CHECKING:
    import pandas as pd

OUTCOME, ARRIVED = "outcome", "arrived_on"


@dataclass(frozen=True, slots=True, kw_only=True)
class LivePerformance:
    """Figures by the version that answered: of the outcomes that arrived on a day, and of all known by its end."""

    day: str
    outcomes: int
    of_the_day: Mapping[int, Mapping[str, float]]
    of_all: Mapping[int, Mapping[str, float]]

    def rows_of(self, which: str) -> list[dict[str, Any]]:
        """The figures as rows of a table; `which` is `day` or `all`."""
        found = self.of_the_day if which == "day" else self.of_all
        return [
            {"version": version, **{name: round(value, 4) for name, value in figures.items()}}
            for version, figures in found.items()
        ]

    def intervals(self) -> dict[str, tuple[float, float, float]]:
        """AUC with the ends of its interval by version, of all outcomes known."""
        return {
            f"version {version}": (figures["auc"], figures["auc_low"], figures["auc_high"])
            for version, figures in self.of_all.items()
            if "auc" in figures
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupInLife:
    """One group: applications, share approved, and of those whose outcome is known, payers refused."""

    attribute: str
    group: str
    applications: int
    approved: float
    outcomes: int
    payers_refused: float | None
    is_judged: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveFairness:
    """How groups fare; `errors` are the standard errors of the approval ratios."""

    day: str
    applications: int
    groups: tuple[GroupInLife, ...]
    approval_ratios: Mapping[str, float]
    errors: Mapping[str, float]

    def rows(self) -> list[dict[str, Any]]:
        """The groups as rows of a table."""
        return [
            {
                "attribute": one.attribute,
                "group": one.group,
                "applications": one.applications,
                "approved": round(one.approved, 4),
                "outcomes known": one.outcomes,
                "payers refused": "not yet" if one.payers_refused is None else f"{one.payers_refused:.4f}",
                "judged": one.is_judged,
            }
            for one in self.groups
        ]

    def surely_below(self, floor: float) -> dict[str, float]:
        """The ratios that lie below a floor by more than two standard errors."""
        return {name: ratio for name, ratio in self.approval_ratios.items() if ratio + 2 * self.errors[name] < floor}


def answers_with_outcomes(ledger: Ledger, answers: pd.DataFrame) -> pd.DataFrame:
    """Logged applications with `outcome` (`UNKNOWN` where none is known) and the day on which it first came."""
    if not len(answers):
        return answers
    first = {place: day for day, places in ledger.arrived.items() for place in places}
    outcome, arrived = np.full(len(answers), UNKNOWN), np.full(len(answers), "", dtype=object)
    for row, request in enumerate(answers[REQUEST].astype(str)):
        place = ledger.place.get(request)
        if place is not None and place in first:
            outcome[row], arrived[row] = ledger.days[place[0]].label[place[1]], first[place]
    return answers.assign(**{OUTCOME: outcome, ARRIVED: arrived})


def performance_by_version(day: str, answers: pd.DataFrame) -> LivePerformance:
    """Figures over what `answers_with_outcomes` gave."""
    known = answers.loc[answers[OUTCOME] != UNKNOWN] if len(answers) else answers
    of_all: dict[int, dict[str, float]] = {}
    of_the_day: dict[int, dict[str, float]] = {}
    for version in sorted(int(number) for number in known["model_version"].unique()) if len(known) else ():
        theirs = known.loc[known["model_version"] == version]
        of_all[version] = _performance(theirs)
        new = theirs.loc[theirs[ARRIVED] == day]
        if len(new):
            of_the_day[version] = _performance(new)
    return LivePerformance(day=day, outcomes=len(known), of_the_day=of_the_day, of_all=of_all)


def fairness_of(day: str, answers: pd.DataFrame, book: LoanBook, policy: Policy) -> LiveFairness:
    """How the groups of each audited attribute fare; who sent none of it is in no group."""
    ratios: dict[str, float] = {}
    errors: dict[str, float] = {}
    groups: list[GroupInLife] = []
    for attribute, group in groups_of(answers, book).items() if len(answers) else ():
        given = answers[attribute].notna().to_numpy()
        if not given.any():
            continue
        theirs, named = answers.loc[given], group[given]
        refused = (theirs["decision"] == "refuse").to_numpy()
        smallest = policy.floors.smallest_group
        ratios[attribute], errors[attribute] = approval_ratio(named.to_numpy(), refused, smallest)
        known = (theirs[OUTCOME] != UNKNOWN).to_numpy()
        settled = {}
        if known.any():
            label = theirs[OUTCOME].to_numpy("int64")[known]
            told = outcomes_by_group({attribute: named[known]}, label, refused[known], smallest)
            settled = {one.group: one for one in told}
        for name in sorted(named.unique()):
            mine = (named == name).to_numpy()
            end = settled.get(str(name))
            groups.append(
                GroupInLife(
                    attribute=attribute,
                    group=str(name),
                    applications=int(mine.sum()),
                    approved=float(1 - refused[mine].mean()),
                    outcomes=end.rows if end else 0,
                    payers_refused=end.payers_refused if end else None,
                    is_judged=bool(mine.sum() >= smallest),
                )
            )
    return LiveFairness(day=day, applications=len(answers), groups=tuple(groups), approval_ratios=ratios, errors=errors)


def _performance(answers: pd.DataFrame) -> dict[str, float]:
    estimate = answers["default_probability"].to_numpy("float64")
    return performance_of(np.log(estimate) - np.log1p(-estimate), answers[OUTCOME].to_numpy("int64"))
