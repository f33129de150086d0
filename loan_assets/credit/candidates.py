"""What could replace the champion: candidates from what is known, the choice among them, and their trial.

Here: recipes, fitting them on rows from before and after a change, choosing one, and judging it on rows that neither it
nor the choice has seen. Not here: when that is done (`succession`) or how trees are fitted (`training`).

After a change there is little of the new world and much of the old. How much the old is still worth depends on the
change, and is not known: each recipe is one answer, and cross-validation on the new world's rows chooses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from loan_assets.books import LoanBook
from loan_assets.credit.drift import watched
from loan_assets.credit.fairness import approval_ratio, groups_of
from loan_assets.credit.judging import refusal_threshold
from loan_assets.credit.ledger import Rows
from loan_assets.credit.performance import Comparison, Line, compare, line_through, losses
from loan_assets.credit.scoring import Calibration, FlatTrees, is_refused, probability
from loan_assets.credit.straying import Reference
from loan_assets.credit.training import fit, flatten
from loan_assets.credit.versions import Version
from loan_assets.policy import Boosting, Policy, Succession

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

Numbers = NDArray[np.float64]


class Scorer(Protocol):
    """What can be replaced: trees, and the calibrated log-odds that they give."""

    @property
    def trees(self) -> FlatTrees:
        """The trees alone."""

    def log_odds(self, features: NDArray[np.float32]) -> Numbers:
        """Calibrated log-odds of default, shape (rows,)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a candidate is made: `old_weight` is what a row from before the change counts, None where none is fitted."""

    name: str
    old_weight: float | None


# From the least to the most that is given up of what was known.
RECIPES = (
    Recipe(name="recalibrated", old_weight=None),
    Recipe(name="old rows at a tenth", old_weight=0.1),
    Recipe(name="old rows at a fiftieth", old_weight=0.02),
    Recipe(name="new rows only", old_weight=0.0),
)

# In a world that has got a model of its own already, more rows of it are worth a fit, not another line.
REFITS = RECIPES[1:]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A challenger against the champion on the newest rows with outcomes, none of which it was trained on.

    `metric` is what the verdict rests on: `auc` for a refitted model, `log_loss` for a recalibrated one, which ranks
    as before. `*_z` are gains in standard errors; `all_*_z` count the cross-validated rows of the choice as well, which
    the champion has not seen either. `against` says what speaks against it besides, empty where nothing.
    """

    metric: str
    champion: float
    challenger: float
    rows: int
    auc_gain: float = 0.0
    auc_z: float = 0.0
    loss_gain: float = 0.0
    loss_z: float = 0.0
    all_auc_z: float = 0.0
    all_loss_z: float = 0.0
    against: tuple[str, ...] = ()

    @property
    def z(self) -> float:
        """The gain in the metric, in standard errors."""
        return self.loss_z if self.metric == "log_loss" else self.auc_z


def fitted(
    recipe: Recipe, old: Rows, new: Rows, champion: Scorer, book: LoanBook, policy: Policy
) -> tuple[FlatTrees, Calibration]:
    """One candidate: its trees and the line that calibrates them."""
    pipeline = pipeline_of(recipe, old, new, book, policy)
    if pipeline is None:
        return champion.trees, _line(champion.trees.log_odds(new.features), new.label)
    return flatten(pipeline), Calibration()


def pipeline_of(recipe: Recipe, old: Rows, new: Rows, book: LoanBook, policy: Policy) -> Pipeline | None:
    """What a recipe fits; None for the one that keeps the champion's trees."""
    if recipe.old_weight is None:
        return None
    if not recipe.old_weight:
        small = _for_few_rows(len(new), policy)
        return fit(new.features.astype("float64"), new.label, book, small)
    features = np.concatenate([old.features, new.features]).astype("float64")
    weight = np.concatenate([np.full(len(old), recipe.old_weight), np.ones(len(new))])
    label = np.concatenate([old.label, new.label])
    return fit(features, label, book, policy.boosting, weight)


def chosen(
    recipes: Sequence[Recipe], old: Rows, new: Rows, champion: Scorer, book: LoanBook, policy: Policy
) -> tuple[Recipe, FlatTrees, Calibration, Comparison | None, Numbers]:
    """The recipe that cross-validation on the new rows prefers, fitted on all of them and calibrated.

    Where the champion's own trees are among the recipes, only what is better by a standard error replaces them. What
    is returned last is the champion against the recipe on the new rows, each scored by a model that did not see it,
    and these scores as log-odds, shape (rows,).
    """
    if recipes[0].old_weight is None:
        # What has to be flattened further, or turned round, ranks no longer; another line does not mend it.
        _, line = fitted(recipes[0], old, new, champion, book, policy)
        recipes = recipes if len(recipes) == 1 or line.slope >= policy.succession.least_slope else recipes[1:]
    estimates = _estimates(recipes, old, new, champion, book, policy)
    lost = {name: losses(estimate, new.label) for name, (estimate, _) in estimates.items()}
    best = min(recipes, key=lambda recipe: float(lost[recipe.name].mean()))
    gain = lost[recipes[0].name] - lost[best.name]
    error = float(gain.std(ddof=1) / np.sqrt(len(gain)))
    if recipes[0].old_weight is None and gain.mean() <= policy.succession.standard_errors * error:
        best = recipes[0]
    trees, calibration = fitted(best, old, new, champion, book, policy)
    estimate, line = estimates[best.name]
    against_champion = compare(champion.log_odds(new.features), estimate, new.label)
    return best, trees, calibration if best.old_weight is None else line, against_champion, estimate


def _estimates(
    recipes: Sequence[Recipe], old: Rows, new: Rows, champion: Scorer, book: LoanBook, policy: Policy
) -> dict[str, tuple[Numbers, Calibration]]:
    """Each recipe's calibrated log-odds for every new row, from a model that did not see it, and the calibration."""
    from sklearn.model_selection import StratifiedKFold

    succession = policy.succession
    sample = _sample(old, succession.old_rows_tried, succession.seed)
    thinned = len(old) / len(sample) if len(sample) else 1.0
    raw = {recipe.name: np.empty(len(new)) for recipe in recipes}
    folds = StratifiedKFold(succession.folds, shuffle=True, random_state=succession.seed)
    for _, held in folds.split(new.features, new.label):
        seen = new.where(~np.isin(np.arange(len(new)), held))
        for recipe in recipes:
            tried = recipe if not recipe.old_weight else replace(recipe, old_weight=recipe.old_weight * thinned)
            trees, calibration = fitted(tried, sample, seen, champion, book, policy)
            raw[recipe.name][held] = trees.log_odds(new.features[held]) * calibration.slope + calibration.intercept
    lines = {
        recipe.name: Calibration() if recipe.old_weight is None else _line(raw[recipe.name], new.label)
        for recipe in recipes
    }
    return {name: (raw[name] * lines[name].slope + lines[name].intercept, lines[name]) for name in raw}


@dataclass(frozen=True, kw_only=True)
class Made:
    """A challenger as fitted: `learned_until` is the last day among its rows, `estimates` are cross-validated."""

    recipe: Recipe
    trees: FlatTrees
    calibration: Calibration
    threshold: float
    normal: Line
    rows: int
    learned_until: int
    chosen_by: Comparison | None
    estimates: Numbers


def learned(
    recipes: Sequence[Recipe], old: Rows, new: Rows, champion: Scorer, book: LoanBook, policy: Policy
) -> tuple[Made, Rows, Rows]:
    """What the older part of the new world teaches, that part, and the newer part, on which it is to be tried.

    Args:
        old: rows from before the change, with outcomes.
        new: rows from after the change with outcomes, oldest first.
    """
    is_train = new.day <= _last_day_to_learn_from(new.day, new.label, policy.succession)
    train, held = new.where(is_train), new.where(~is_train)
    recipe, trees, calibration, chosen_by, estimates = chosen(recipes, old, train, champion, book, policy)
    made = Made(
        recipe=recipe,
        trees=trees,
        calibration=calibration,
        threshold=refusal_threshold(train.label, probability(estimates), policy.refused_share_over_base_rate),
        normal=line_through(trees.log_odds(held.features) * calibration.slope + calibration.intercept, held.label),
        rows=len(train),
        learned_until=int(train.day[-1]),
        chosen_by=chosen_by if recipes is RECIPES else None,
        estimates=estimates,
    )
    return made, train, held


def challenger(
    number: int,
    recipes: Sequence[Recipe],
    old: Rows,
    new: Rows,
    seen_since: Rows,
    champion: Version,
    book: LoanBook,
    policy: Policy,
) -> tuple[Version, Rows]:
    """A challenger, and the rows on which it is to be tried.

    Args:
        number: its version number.
        old: rows from before the change, with outcomes.
        new: rows from after the change with outcomes, oldest first.
        seen_since: all healthy applications from after the change; its reference for drift.
    """
    made, _, held = learned(recipes, old, new, champion, book, policy)
    version = Version(
        number=number,
        recipe=made.recipe.name,
        trees=made.trees,
        calibration=made.calibration,
        threshold=made.threshold,
        reference=Reference.of(newest(seen_since, policy).received, watched(book), policy.vigilance),
        normal=made.normal,
        rows=made.rows,
        learned_until=made.learned_until,
        chosen_by=made.chosen_by,
    )
    return version, held


def _last_day_to_learn_from(day: NDArray[np.int64], label: NDArray[np.int64], succession: Succession) -> int:
    """The day after which about a share of the rows was asked; a day is not split.

    Where no day leaves about half to learn from, with some of either outcome, everything is learned from and the trial
    waits for the next day.
    """
    days, place, counts = np.unique(day, return_inverse=True, return_counts=True)
    rows, bad = np.cumsum(counts), np.cumsum(np.bincount(place, weights=label))
    learned = rows[:-1] / len(day)
    enough = np.minimum(bad, rows - bad)[:-1] >= succession.least_of_each_part
    sensible = np.flatnonzero((learned >= succession.least_learned) & enough)
    if not len(sensible):
        return int(days[-1])
    return int(days[sensible[int(np.abs(learned[sensible] - (1 - succession.held_out)).argmin())]])


def trial(candidate: Version, champion: Version, held: Rows, recent: Rows, book: LoanBook, policy: Policy) -> Trial:
    """Champion and challenger on held-out rows; `recent` are applications on which groups are compared.

    While too few rows of either outcome are there to say anything, the trial has no rows.
    """
    if _rarer_outcome(held.label) < policy.succession.least_of_each_part:
        return Trial(metric="auc", champion=0.0, challenger=0.0, rows=0)
    found = compare(champion.log_odds(held.features), candidate.log_odds(held.features), held.label)
    assert found is not None  # either outcome is there
    recalibrates = candidate.recipe == RECIPES[0].name
    against = (
        *_below_the_floors(candidate, found, held, policy.succession),
        *_unfair(candidate, champion, recent, book, policy),
    )
    return Trial(
        metric="log_loss" if recalibrates else "auc",
        champion=found.loss_first if recalibrates else found.auc_first,
        challenger=found.loss_second if recalibrates else found.auc_second,
        rows=found.rows,
        auc_gain=found.auc_gain,
        auc_z=found.auc_z,
        loss_gain=found.loss_gain,
        loss_z=found.loss_z,
        all_auc_z=_together(found, candidate.chosen_by, "auc_z"),
        all_loss_z=_together(found, candidate.chosen_by, "loss_z"),
        against=against,
    )


def _rarer_outcome(label: NDArray[np.int64]) -> int:
    """How many rows have the outcome that fewer have."""
    return int(min(label.sum(), len(label) - label.sum()))


def _together(held: Comparison, cross_validated: Comparison | None, name: str) -> float:
    """The standardised gain over both sets of rows."""
    if cross_validated is None:
        return float(getattr(held, name))
    one, other = getattr(held, name), getattr(cross_validated, name)
    rows = held.rows + cross_validated.rows
    return float((one * held.rows**0.5 + other * cross_validated.rows**0.5) / rows**0.5)


def newest(rows: Rows, policy: Policy) -> Rows:
    """The applications of the last days: a world that is still on its way is described by where it has got to."""
    return rows.where(rows.day > rows.day[-1] - policy.succession.reference_days)


def _below_the_floors(candidate: Version, found: Comparison, held: Rows, succession: Succession) -> tuple[str, ...]:
    wrong = []
    rate = float(held.label.mean())
    blind = float(-(rate * np.log(rate) + (1 - rate) * np.log(1 - rate)))
    if not found.auc_second >= succession.floor_auc:
        wrong.append(f"AUC {found.auc_second:.3f} is below the floor {succession.floor_auc}")
    if not found.loss_second <= blind + succession.blind_margin:
        wrong.append(f"it loses more ({found.loss_second:.3f}) than the base rate alone ({blind:.3f})")
    if candidate.calibration.slope < succession.least_slope:
        wrong.append(f"its scores had to be flattened to {candidate.calibration.slope:.2f}")
    return tuple(wrong)


def _unfair(candidate: Version, champion: Version, recent: Rows, book: LoanBook, policy: Policy) -> tuple[str, ...]:
    """Attributes by which the challenger treats groups surely below four fifths, and worse than the champion."""
    import pandas as pd

    audited = [column.name for column in book.audited]
    profiles = pd.DataFrame({name: recent.received[name] for name in audited})
    refused = {
        version.number: is_refused(version.score(recent.features), version.threshold)
        for version in (champion, candidate)
    }
    wrong = []
    for attribute, group in groups_of(profiles, book).items():
        if np.isnan(recent.received[attribute]).all():
            continue
        now, error = approval_ratio(group.to_numpy(), refused[candidate.number], policy.floors.smallest_group)
        before, _ = approval_ratio(group.to_numpy(), refused[champion.number], policy.floors.smallest_group)
        if now + 2 * error < policy.floors.approval_ratio and now < before - policy.succession.approval_margin:
            wrong.append(f"the approval ratio by {attribute} is {now:.3f}, the champion's {before:.3f}")
    return tuple(wrong)


def _for_few_rows(rows: int, policy: Policy) -> Boosting:
    """Fewer and coarser trees where few rows speak."""
    succession, boosting = policy.succession, policy.boosting
    leaf = int(np.clip(rows // succession.leaves_of_few, succession.smallest_leaf_of_few, boosting.smallest_leaf))
    trees = succession.trees_of_few if rows < succession.few_rows else succession.trees_of_more
    return replace(boosting, trees=min(boosting.trees, trees), smallest_leaf=leaf)


def _line(log_odds: Numbers, label: NDArray[np.int64]) -> Calibration:
    """The calibration of log-odds on rows that the trees have not seen."""
    line = line_through(log_odds, label)
    return Calibration(slope=line.slope, intercept=line.intercept)


def _sample(rows: Rows, most: int, seed: int) -> Rows:
    if len(rows) <= most:
        return rows
    chosen_rows = np.zeros(len(rows), dtype=bool)
    chosen_rows[np.random.default_rng(seed).choice(len(rows), most, replace=False)] = True
    return rows.where(chosen_rows)
