"""How a version does once outcomes settle: whether its scores mean what they meant, and whether another does better.

Here: the two tests on scores and outcomes, and the figures with intervals that people read. Not here: where outcomes
come from (`outcomes`) or what follows (`succession`).

A score's meaning is the straight line from its log-odds to the log-odds of default, slope 1 and intercept 0 where it is
calibrated. A version ranks worse when the slope falls; the base rate moves when the intercept does. The line of the
newest arrivals is compared with the line of all before them by a likelihood ratio, over windows of every length, since
nobody knows when the world changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
Labels = NDArray[np.int64]
# Log-odds beyond these would let one surprising client outweigh a hundred others.
FARTHEST = 6.0
# How loosely a window's own line is held to the line before it: two units of slope, two of log-odds.
LOOSE = np.diag([0.25, 0.25])
# One strange arrival is weather; it takes two to speak of a change.
SHORTEST = 2
# The logistic function is 0 or 1 to the last bit beyond this.
FARTHEST_SCORE = 40.0
# Newton's method doubles its digits with every step; halved steps add a few at the start.
MOST_STEPS = 50
SMALLEST_STEP = 1e-9
# Deviations at the ends of a 95 % interval.
TWO_SIDED = 1.959964


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A line over log-odds fitted to outcomes, and how much is known about it (Fisher information, 2 by 2)."""

    slope: float
    intercept: float
    information: Numbers

    @property
    def place(self) -> Numbers:
        """Slope and intercept as a vector."""
        return np.array([self.slope, self.intercept])


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """The window of newest arrivals that fits the line before it least.

    `evidence` is twice the log likelihood ratio, about chi-squared with two degrees of freedom where nothing changed.
    `position` is where the window begins among the arrivals. `slope` is the window's slope over that before it;
    `rate_ratio` is the window's default rate over what the line before expects of the same clients.
    """

    evidence: float
    position: int
    rows: int
    slope: float
    rate_ratio: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """The area under the ROC curve with the ends of its 95 % interval (DeLong)."""

    auc: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two versions on the same rows; gains are of the second over the first, `*_z` in standard errors.

    `loss` is the mean logarithmic loss, in nats; a positive `loss_gain` means that the second loses less.
    """

    rows: int
    auc_first: float
    auc_second: float
    auc_z: float
    loss_first: float
    loss_second: float
    loss_z: float

    @property
    def auc_gain(self) -> float:
        """How much better the second ranks."""
        return self.auc_second - self.auc_first

    @property
    def loss_gain(self) -> float:
        """How much less the second loses."""
        return self.loss_first - self.loss_second


def line_through(log_odds: Numbers, label: Labels, before: Line | None = None) -> Line:
    """The line that makes the outcomes likeliest, held loosely to another one where a few rows could run away.

    Args:
        log_odds: shape (rows,).
        label: 0 or 1, shape (rows,).
        before: the line to hold to, slope 1 and intercept 0 where none is given.
    """
    held = before.place if before is not None else np.array([1.0, 0.0])
    return _fitted(log_odds, label, held, LOOSE)


def latest_change(arrivals: Sequence[tuple[Numbers, Labels]], baseline: Line, longest: int) -> Change | None:
    """The change that the newest arrivals speak of most, however weakly; None where there are no arrivals.

    Args:
        arrivals: log-odds and outcomes of each arrival, oldest first.
        baseline: the line of everything before them.
        longest: the longest window, in arrivals.
    """
    known = _strings(arrivals, baseline)
    found: list[Change] = []
    for position in range(len(arrivals) - 1, max(len(arrivals) - longest, 0) - 1, -1):
        log_odds = np.concatenate([one for one, _ in arrivals[position:]])
        label = np.concatenate([two for _, two in arrivals[position:]])
        if len(label):
            found.append(_change(log_odds, label, known[position], position))
    sustained = [change for change in found if len(arrivals) - change.position >= SHORTEST]
    if not sustained:
        return None
    strongest = max(sustained, key=lambda change: change.evidence)
    # Where the newest arrival alone is stranger still, the change began with it.
    return replace(strongest, position=max(found, key=lambda change: change.evidence).position)


def ranking_of(log_odds: Numbers, label: Labels) -> Ranking | None:
    """How well scores rank, None where only one outcome is there."""
    if not 0 < label.sum() < len(label):
        return None
    auc, for_bad, for_good = _placements(log_odds, label)
    error = float(np.sqrt(_spread(for_bad) + _spread(for_good)))
    return Ranking(auc=auc, low=max(auc - TWO_SIDED * error, 0.0), high=min(auc + TWO_SIDED * error, 1.0))


def compare(first: Numbers, second: Numbers, label: Labels) -> Comparison | None:
    """Two versions' log-odds for the same rows, side by side; None where only one outcome is there."""
    if not 0 < label.sum() < len(label):
        return None
    auc_first, bad_first, good_first = _placements(first, label)
    auc_second, bad_second, good_second = _placements(second, label)
    error = np.sqrt(_spread(bad_second - bad_first) + _spread(good_second - good_first))
    gains = losses(first, label) - losses(second, label)
    gain_error = np.sqrt(_spread(gains))
    return Comparison(
        rows=len(label),
        auc_first=auc_first,
        auc_second=auc_second,
        auc_z=float((auc_second - auc_first) / error) if error > 0 else 0.0,
        loss_first=float(losses(first, label).mean()),
        loss_second=float(losses(second, label).mean()),
        loss_z=float(gains.mean() / gain_error) if gain_error > 0 else 0.0,
    )


def losses(log_odds: Numbers, label: Labels) -> Numbers:
    """Each row's logarithmic loss in nats, shape (rows,)."""
    bounded = np.clip(log_odds, -FARTHEST, FARTHEST)
    return np.asarray(np.logaddexp(0.0, bounded) - label * bounded)


def _strings(arrivals: Sequence[tuple[Numbers, Labels]], baseline: Line) -> list[Line]:
    """What was known before each arrival: the baseline, and then every arrival added to it."""
    lines = [baseline]
    for log_odds, label in arrivals[:-1]:
        lines.append(_with_more(lines[-1], log_odds, label))
    return lines


def _with_more(line: Line, log_odds: Numbers, label: Labels) -> Line:
    return _fitted(log_odds, label, line.place, line.information) if len(label) else line


def _change(log_odds: Numbers, label: Labels, before: Line, position: int) -> Change:
    alone = _fitted(log_odds, label, before.place, LOOSE)
    together = _fitted(log_odds, label, before.place, before.information)
    moved = together.place - before.place
    kept = _likelihood(log_odds, label, together.place) - 0.5 * float(moved @ before.information @ moved)
    evidence = 2 * (_likelihood(log_odds, label, alone.place) - kept)
    expected = float(_rate(log_odds, before.place).mean())
    return Change(
        evidence=evidence,
        position=position,
        rows=len(label),
        slope=alone.slope / before.slope if before.slope else 0.0,
        rate_ratio=float(label.mean()) / expected if expected else 0.0,
    )


def _fitted(log_odds: Numbers, label: Labels, held: Numbers, firmness: Numbers) -> Line:
    """Newton's method on the log likelihood less the penalty for leaving `held`.

    The sum is strictly concave, so that a step that is halved until it climbs arrives from wherever it started; whole
    steps circle for ever where defaults are rarer than the line before made them.
    """
    inputs = np.column_stack([np.clip(log_odds, -FARTHEST, FARTHEST), np.ones(len(label))])

    def height(place: Numbers) -> float:
        moved = place - held
        return _likelihood(log_odds, label, place) - 0.5 * float(moved @ firmness @ moved)

    place, reached = held.copy(), height(held)
    information = firmness
    for _ in range(MOST_STEPS):
        rate = 1 / (1 + np.exp(-np.clip(inputs @ place, -FARTHEST_SCORE, FARTHEST_SCORE)))
        information = (inputs * (rate * (1 - rate))[:, None]).T @ inputs + firmness
        step = np.linalg.solve(information, inputs.T @ (label - rate) - firmness @ (place - held))
        there = height(place + step)
        while there < reached and float(np.abs(step).max()) >= SMALLEST_STEP:
            step = step / 2
            there = height(place + step)
        if float(np.abs(step).max()) < SMALLEST_STEP:
            break
        place, reached = place + step, there
    return Line(slope=float(place[0]), intercept=float(place[1]), information=information)


def _rate(log_odds: Numbers, place: Numbers) -> Numbers:
    return np.asarray(1 / (1 + np.exp(-(np.clip(log_odds, -FARTHEST, FARTHEST) * place[0] + place[1]))))


def _likelihood(log_odds: Numbers, label: Labels, place: Numbers) -> float:
    score = np.clip(log_odds, -FARTHEST, FARTHEST) * place[0] + place[1]
    return float((label * score - np.logaddexp(0.0, score)).sum())


def _placements(scores: Numbers, label: Labels) -> tuple[float, Numbers, Numbers]:
    """The AUC, each defaulter's share of payers below, and each payer's share of defaulters above (ties count half)."""
    bad, good = np.sort(scores[label == 1]), np.sort(scores[label == 0])
    order_bad, order_good = scores[label == 1], scores[label == 0]

    def middle(sorted_scores: Numbers, asked: Numbers) -> Numbers:
        below = np.searchsorted(sorted_scores, asked, side="left")
        upto = np.searchsorted(sorted_scores, asked, side="right")
        return np.asarray((below + upto) / 2 / len(sorted_scores))

    for_bad = middle(good, order_bad)
    for_good = 1 - middle(bad, order_good)
    return float(for_bad.mean()), for_bad, for_good


def _spread(values: Numbers) -> float:
    """The variance of a mean."""
    return float(values.var(ddof=1) / len(values)) if len(values) > 1 else 0.0
