"""A model version in memory, as far as decisions about it need: how it scores, and what it learned from.

Here: one frozen version. Not here: how it is fitted (`candidates`), released (`release`) or registered.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from loan_assets.credit.performance import Comparison, Line
from loan_assets.credit.scoring import Calibration, FlatTrees, probability
from loan_assets.credit.straying import Reference

Numbers = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Version:
    """A version that can score.

    `reference` is what it learned from, for drift. `normal` is what its scores meant on rows that it was not trained
    on, the line from which a change is told. `threshold` is the probability at or above which it refuses. `recipe` and
    `rows` say how it was made, and of how many rows; `learned_until` is the ledger's last day among them.
    `chosen_by` is the champion of the time against its recipe on those rows, cross-validated.
    """

    number: int
    recipe: str
    trees: FlatTrees
    calibration: Calibration
    threshold: float
    reference: Reference
    normal: Line
    rows: int
    learned_until: int
    chosen_by: Comparison | None = None

    def log_odds(self, features: NDArray[np.float32]) -> Numbers:
        """Calibrated log-odds of default, shape (rows,)."""
        raw = self.trees.log_odds(features)
        return raw * self.calibration.slope + self.calibration.intercept

    def score(self, features: NDArray[np.float32]) -> Numbers:
        """Probability of default, shape (rows,), to the bit as a release of this version gives it."""
        return probability(self.trees.log_odds(features), self.calibration)

    def called(self, number: int) -> Version:
        """The same version under its number in the registry."""
        return replace(self, number=number)
