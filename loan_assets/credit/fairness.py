"""Whether groups are treated alike, judged on the favourable outcome: approval.

Here: rates by group of each audited attribute. Not here: the policy's floor or what follows from missing it.
Ratios are read on approvals because the same decisions read on refusals give another verdict.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from loan_assets.books import LoanBook

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupOutcome:
    """How one group fares: share approved, share of later payers refused, share of later defaulters approved."""

    attribute: str
    group: str
    rows: int
    approved: float
    payers_refused: float
    defaulters_approved: float
    is_judged: bool


def groups_of(profiles: pd.DataFrame, book: LoanBook) -> dict[str, pd.Series[str]]:
    """For each audited column, the group of every row in words; ages become bands."""
    import pandas as pd

    bands = {band.column: band.starts for band in book.age_bands}
    named: dict[str, pd.Series[str]] = {}
    for column in book.audited:
        values = profiles[column.name]
        if column.name in bands:
            starts = bands[column.name]
            words = [f"{low}-{high - 1}" for low, high in pairwise(starts)] + [f"{starts[-1]}+"]
            named[column.name] = pd.cut(values, [*starts, np.inf], right=False, labels=words).astype(str)
        else:
            named[column.name] = values.map(column.levels or {}).astype(str)
    return named


def outcomes_by_group(
    groups: Mapping[str, pd.Series[str]], label: NDArray[np.int64], refused: NDArray[np.bool_], smallest: int
) -> tuple[GroupOutcome, ...]:
    """Rates for every group of every attribute; groups under `smallest` rows are shown and not judged.

    Args:
        groups: attribute to the group of each row.
        label: 1 where the client defaulted, shape (rows,).
        refused: the decision, shape (rows,).
    """
    from fairlearn.metrics import MetricFrame, count, false_negative_rate, false_positive_rate, selection_rate

    rows = []
    for attribute, group in groups.items():
        # fairlearn's positive class is the refusal here, so its false positives are payers who were refused.
        frame = MetricFrame(
            metrics={
                "rows": count,
                "refused": selection_rate,
                "payers_refused": false_positive_rate,
                "defaulters_approved": false_negative_rate,
            },
            y_true=label,
            y_pred=refused.astype("int64"),
            sensitive_features=group.to_numpy(),
        ).by_group
        for name, rates in frame.iterrows():
            rows.append(
                GroupOutcome(
                    attribute=attribute,
                    group=str(name),
                    rows=int(rates["rows"]),
                    approved=float(1 - rates["refused"]),
                    payers_refused=float(rates["payers_refused"]),
                    defaulters_approved=float(rates["defaulters_approved"]),
                    is_judged=bool(rates["rows"] >= smallest),
                )
            )
    return tuple(rows)


def approval_ratios(outcomes: tuple[GroupOutcome, ...]) -> dict[str, float]:
    """For each attribute, the lowest approval rate over the highest, among the groups large enough to judge."""
    ratios = {}
    for attribute in dict.fromkeys(outcome.attribute for outcome in outcomes):
        rates = [outcome.approved for outcome in outcomes if outcome.attribute == attribute and outcome.is_judged]
        if len(rates) > 1:
            ratios[attribute] = min(rates) / max(rates) if max(rates) > 0 else float("nan")
    return ratios


def approval_ratio(group: NDArray[np.object_], refused: NDArray[np.bool_], smallest: int) -> tuple[float, float]:
    """One attribute's ratio where no outcome is known yet, and its standard error; 1 and 0 where a group is alone.

    Args:
        group: the group of each row in words, shape (rows,).
        refused: the decision, shape (rows,).
        smallest: groups of fewer rows are not judged.
    """
    names, place = np.unique(group.astype(str), return_inverse=True)
    rows = np.bincount(place)
    approved = 1 - np.bincount(place, weights=refused) / rows
    judged = (rows >= smallest) & (names != "nan")
    if judged.sum() < 2 or approved[judged].max() == 0:
        return 1.0, 0.0
    low, high = approved[judged].argmin(), approved[judged].argmax()
    (worst, best), (few, many) = approved[judged][[low, high]], rows[judged][[low, high]]
    relative = (1 - worst) / max(worst * few, 1e-9) + (1 - best) / (best * many)
    return float(worst / best), float(worst / best * np.sqrt(relative))
