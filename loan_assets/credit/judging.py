"""How good a set of probabilities is, and how sure we are: discrimination, calibration, intervals, floors.

Here: figures over labels and probabilities. Not here: fitting (`training`), groups (`fairness`), pictures (`pictures`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loan_assets.policy import Evidence, Floors

Rows = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One figure with the ends of its bootstrap interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.4f} [{self.low:.4f}, {self.high:.4f}]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """Every figure for one set of probabilities.

    `auc`, `average_precision` (PR-AUC) and `ks` rank; `brier`, `calibration_error` (ECE over equal-count bins) and
    `calibration_slope` (of a logistic line on the log-odds, 1 when perfect) judge the probabilities themselves.
    """

    rows: int
    base_rate: float
    auc: Figure
    average_precision: Figure
    ks: Figure
    brier: Figure
    calibration_error: Figure
    calibration_slope: Figure

    def figures(self) -> dict[str, Figure]:
        """The figures by name, in the order they are printed."""
        names = ("auc", "average_precision", "ks", "brier", "calibration_error", "calibration_slope")
        return {name: getattr(self, name) for name in names}


def judge(label: NDArray[np.int64], estimate: Rows, evidence: Evidence) -> Judgement:
    """All figures with bootstrap intervals over clients.

    Args:
        label: 0 or 1, shape (rows,).
        estimate: probability of 1, shape (rows,), strictly between 0 and 1.

    Raises:
        ValueError: when an estimate is NaN or outside (0, 1), which no figure should paper over.
    """
    if not ((estimate > 0) & (estimate < 1)).all():
        raise ValueError(f"{int((~((estimate > 0) & (estimate < 1))).sum())} estimates are not probabilities")
    order = np.argsort(estimate, kind="stable")
    table = _Ordered(label[order].astype("float64"), estimate[order], evidence.calibration_bins)
    here = table.figures(np.ones(len(label)))
    generator = np.random.default_rng(evidence.seed)
    drawn = [
        table.figures(generator.multinomial(len(label), np.full(len(label), 1 / len(label))).astype("float64"))
        for _ in range(evidence.resamples)
    ]
    tail = (1 - evidence.confidence) / 2
    low, high = np.quantile(np.array(drawn), [tail, 1 - tail], axis=0)
    names = ("auc", "average_precision", "ks", "brier", "calibration_error", "calibration_slope")
    figures = {
        name: Figure(value=float(here[i]), low=float(low[i]), high=float(high[i])) for i, name in enumerate(names)
    }
    return Judgement(rows=len(label), base_rate=float(label.mean()), **figures)


def calibration_curve(label: NDArray[np.int64], estimate: Rows, bins: int) -> tuple[Rows, Rows]:
    """Mean estimate and observed rate in equal-count bins of the estimate, each of shape (bins,)."""
    groups = np.array_split(np.argsort(estimate, kind="stable"), bins)
    return np.array([estimate[group].mean() for group in groups]), np.array([label[group].mean() for group in groups])


def refusal_threshold(label: NDArray[np.int64], estimate: Rows, share_over_base_rate: float) -> float:
    """The probability at or above which an applicant is refused, so that refusals match the base rate, to 4 digits."""
    refused = float(label.mean()) * share_over_base_rate
    return round(float(np.quantile(estimate, 1 - refused)), 4)


def below_the_floors(judgement: Judgement, approval_ratios: dict[str, float], floors: Floors) -> tuple[str, ...]:
    """Each floor that is not met, as a sentence; empty when the model may be registered. A NaN never passes."""
    sentences = []
    if not judgement.auc.value >= floors.auc:
        sentences.append(f"AUC {judgement.auc.value:.4f} is below the floor {floors.auc}")
    if not judgement.brier.value <= floors.brier:
        sentences.append(f"Brier score {judgement.brier.value:.4f} is above the ceiling {floors.brier}")
    if not judgement.calibration_error.value <= floors.calibration_error:
        sentences.append(
            f"calibration error {judgement.calibration_error.value:.4f} is above the ceiling {floors.calibration_error}"
        )
    for attribute, ratio in approval_ratios.items():
        if not ratio >= floors.approval_ratio:
            sentences.append(f"the approval ratio by {attribute} is {ratio:.3f}, below {floors.approval_ratio}")
    return tuple(sentences)


class _Ordered:
    """Rows sorted by estimate, so that every resample is a set of weights over one order and costs one pass."""

    def __init__(self, label: Rows, estimate: Rows, bins: int) -> None:
        self.label, self.estimate = label, estimate
        self.log_odds = np.log(estimate / (1 - estimate))
        # Equal estimates form one step of the curve: `ends` marks the last row of each.
        self.ends = np.flatnonzero(np.append(np.diff(estimate) > 0, True))
        self.bins = bins

    def figures(self, weight: Rows) -> Rows:
        """AUC, average precision, KS, Brier, ECE and calibration slope under row weights."""
        positive, negative = weight * self.label, weight * (1 - self.label)
        positives, negatives = positive.sum(), negative.sum()
        below_positive = np.cumsum(positive)[self.ends]
        below_negative = np.cumsum(negative)[self.ends]
        step_positive = np.diff(below_positive, prepend=0.0)
        auc = ((below_negative - np.diff(below_negative, prepend=0.0) / 2) * step_positive).sum() / (
            positives * negatives
        )
        caught = positives - below_positive + step_positive
        flagged = caught + negatives - below_negative + np.diff(below_negative, prepend=0.0)
        precision = np.divide(caught, flagged, out=np.zeros_like(caught), where=flagged > 0)
        average_precision = (precision * step_positive).sum() / positives
        ks = np.abs(below_positive / positives - below_negative / negatives).max()
        brier = (weight * (self.estimate - self.label) ** 2).sum() / weight.sum()
        return np.array([auc, average_precision, ks, brier, self._calibration_error(weight), self._slope(weight)])

    def _calibration_error(self, weight: Rows) -> float:
        """Expected calibration error over bins of equal total weight."""
        share = np.cumsum(weight) / weight.sum()
        starts = np.searchsorted(share, np.arange(self.bins) / self.bins, side="right")
        gap = np.add.reduceat(weight * (self.estimate - self.label), np.minimum(starts, len(weight) - 1))
        return float(np.abs(gap).sum() / weight.sum())

    def _slope(self, weight: Rows) -> float:
        """Slope of the weighted logistic regression of the label on the log-odds, by Newton's method."""
        slope, intercept = 1.0, 0.0
        for _ in range(8):
            fitted = 1 / (1 + np.exp(-(slope * self.log_odds + intercept)))
            pull = weight * (self.label - fitted)
            curve = weight * fitted * (1 - fitted)
            moments = (curve.sum(), (curve * self.log_odds).sum(), (curve * self.log_odds**2).sum())
            gradient = (pull.sum(), (pull * self.log_odds).sum())
            determinant = moments[0] * moments[2] - moments[1] ** 2
            step = (moments[0] * gradient[1] - moments[1] * gradient[0]) / determinant
            intercept += (moments[2] * gradient[0] - moments[1] * gradient[1]) / determinant
            slope += step
            if abs(step) < 1e-9:
                break
        return float(slope)
