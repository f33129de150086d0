"""Versions that anybody can follow, one split on the latest bill, and applications for them.

Here: such versions and rows. Not here: what is made of them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from loan_assets.books import LoanBook, Role
from loan_assets.credit.ledger import Rows
from loan_assets.credit.performance import Line
from loan_assets.credit.scoring import Calibration, FlatTrees
from loan_assets.credit.straying import Reference
from loan_assets.credit.versions import Version
from loan_assets.policy import POLICY

# The third feature of the book.
BILL = 2
STUMP = FlatTrees(
    feature=np.full(3, BILL, dtype=np.int32),
    threshold=np.array([100_000.0, 0.0, 0.0]),
    left=np.array([1, 1, 2], dtype=np.int32),
    right=np.array([2, 1, 2], dtype=np.int32),
    missing_left=np.array([True, True, True]),
    value=np.array([0.0, 1.0, -1.0]),
    cover=np.array([2, 1, 1]),
    roots=np.array([0], dtype=np.int32),
    baseline=np.array([0.0]),
    depth=np.array([1], dtype=np.int32),
)


def stump(number: int, *, slope: float = 1.0, intercept: float = 0.0, threshold: float = 0.5) -> Version:
    """Log-odds of 1 for bills up to 100,000 and of -1 for larger ones, before the calibration."""
    return Version(
        number=number,
        recipe="stump",
        trees=STUMP,
        calibration=Calibration(slope=slope, intercept=intercept),
        threshold=threshold,
        reference=Reference.of({}, [], POLICY.vigilance),
        normal=Line(slope=1.0, intercept=0.0, information=np.eye(2)),
        rows=0,
        learned_until=-1,
    )


def bills(
    large: NDArray[np.bool_], book: LoanBook, label: NDArray[np.int64] | None = None, **given: NDArray[np.float64]
) -> Rows:
    """Applications of which only the size of the bill is known, and the columns that are given."""
    features = np.zeros((len(large), len(book.features)), dtype=np.float32)
    features[:, BILL] = np.where(large, 200_000, 50_000)
    watched = [column.name for column in book.with_role(Role.FEATURE, Role.PROTECTED)]
    return Rows(
        features=features,
        label=np.zeros(len(large), dtype=np.int64) if label is None else label,
        received={name: given.get(name, np.full(len(large), np.nan)) for name in watched},
        day=np.zeros(len(large), dtype=np.int64),
    )
