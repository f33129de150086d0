"""Boosted trees with a calibration line as one scikit-learn classifier, in which form a challenger is tracked.

Here: the estimator. Not here: how the line is found (`candidates`) or applied when serving (`scoring`). scikit-learn is
imported with this module.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin

from loan_assets.credit.scoring import Calibration, probability


class CalibratedBoosting(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A fitted `boosting` pipeline whose log-odds are stretched by `slope` and moved by `intercept`."""

    def __init__(self, boosting: Any, slope: float = 1.0, intercept: float = 0.0) -> None:
        self.boosting = boosting
        self.slope = slope
        self.intercept = intercept
        self.classes_ = np.array([0, 1])

    def fit(self, inputs: NDArray[np.float64], label: NDArray[np.int64]) -> CalibratedBoosting:
        """Fit the trees anew; the line stays, for it was found on rows that they had not seen."""
        self.boosting.fit(inputs, label)
        return self

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def predict_proba(self, inputs: NDArray[np.float64]) -> NDArray[np.float64]:
        """Probabilities of paying and of default, shape (rows, 2)."""
        line = Calibration(slope=self.slope, intercept=self.intercept)
        default = probability(self.boosting.decision_function(inputs), line)
        return np.column_stack([1 - default, default])

    def predict(self, inputs: NDArray[np.float64]) -> NDArray[np.int64]:
        """1 where default is likelier than not, shape (rows,)."""
        return (self.predict_proba(inputs)[:, 1] > 0.5).astype("int64")
