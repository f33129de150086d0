"""The scorecard: every figure by which a model is accepted or refused, gathered once per version.

Here: which figures, over which rows, at which threshold. Not here: how one figure is computed (`judging`, `fairness`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from loan_assets.books import LoanBook
from loan_assets.books.tables import EVENT_TIME
from loan_assets.credit.fairness import GroupOutcome, approval_ratios, groups_of, outcomes_by_group
from loan_assets.credit.judging import Judgement, below_the_floors, calibration_curve, judge, refusal_threshold
from loan_assets.credit.performance import line_through
from loan_assets.credit.scoring import FlatTrees, is_refused, probability
from loan_assets.credit.training import HOLDOUT, LOGGED, TRAIN, FittedModel, dataset_digest, inputs_of, out_of_fold
from loan_assets.credit.versions import Origin
from loan_assets.policy import Policy
from loan_assets.prediction_record import DAY
from loan_assets.refusal import Refusal

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True, kw_only=True)
class Scorecard:
    """How good a model is, with intervals, by group and by feature.

    `out_of_fold` judges the recipe on the training part, each row by a model that did not see it; `holdout` judges this
    very model on the frozen fifth. For a challenger they are the rows of the new world that it learned from and the
    later ones, where both outcomes are among them; its groups are compared at the gate. `threshold` refuses as many as
    default. `importance` is the AUC lost on the rows learned from when one feature is shuffled. `below_the_floors` is
    empty when the model may be registered. `origin` is the version's `Origin` as text.
    """

    model_digest: str
    dataset_digest: str
    out_of_fold: Judgement
    holdout: Judgement | None
    threshold: float
    groups: tuple[GroupOutcome, ...]
    approval_ratios: dict[str, float]
    importance: dict[str, float]
    below_the_floors: tuple[str, ...]
    origin: str


def draw_up(
    model: FittedModel, training_set: pd.DataFrame, profiles: pd.DataFrame, book: LoanBook, policy: Policy
) -> tuple[Scorecard, dict[str, bytes]]:
    """Judge a model and draw what was found.

    Args:
        model: the fitted model.
        training_set: the table it was fitted on.
        profiles: one row a client with the audited columns, in any order.

    Returns:
        The scorecard, and its pictures by file name.

    Raises:
        Refusal: when the training set is not the one that the model was trained on.
    """
    _refuse_other_data(model, training_set)
    inputs = inputs_of(training_set, book)
    label = training_set[book.label.name].to_numpy()
    seen = (training_set["part"] == TRAIN).to_numpy()
    held = (training_set["part"] == HOLDOUT).to_numpy()
    estimate = out_of_fold(inputs[seen], label[seen], book, policy.boosting, policy.splits)
    judgement = judge(label[seen], estimate, policy.evidence)
    unseen = probability(model.trees.log_odds(inputs[held].astype("float32")))
    threshold = refusal_threshold(label[seen], estimate, policy.refused_share_over_base_rate)
    ordered = profiles.set_index(book.key.name).reindex(training_set[book.key.name]).reset_index()
    outcomes = outcomes_by_group(
        groups_of(ordered[seen], book), label[seen], is_refused(estimate, threshold), policy.floors.smallest_group
    )
    ratios = approval_ratios(outcomes)
    card = Scorecard(
        model_digest=model.model_digest,
        dataset_digest=model.dataset_digest,
        out_of_fold=judgement,
        holdout=judge(label[held], unseen, policy.evidence),
        threshold=threshold,
        groups=outcomes,
        approval_ratios=ratios,
        importance=_importance(model.trees, inputs[seen], label[seen], book, policy),
        below_the_floors=below_the_floors(judgement, ratios, policy.floors),
        origin=Origin(
            recipe="the book",
            rows=model.rows,
            normal=line_through(np.log(estimate / (1 - estimate)), label[seen]),
        ).to_json(),
    )
    return card, _pictures(card, label[seen], estimate, policy)


def draw_up_challenger(
    model: FittedModel, training_set: pd.DataFrame, book: LoanBook, policy: Policy
) -> tuple[Scorecard, dict[str, bytes]]:
    """Judge a model that was made for a world that has changed, on the logged applications of that world alone.

    Raises:
        Refusal: when the training set is not the one that the model was trained on.
    """
    _refuse_other_data(model, training_set)
    origin, threshold = model.origin, model.threshold
    assert origin is not None
    assert threshold is not None
    day = training_set[EVENT_TIME.name].dt.strftime(DAY)
    is_new = (training_set["part"] == LOGGED) & (day >= origin.since)
    label = training_set[book.label.name].to_numpy()
    inputs = inputs_of(training_set, book)
    seen, held = (is_new & (day <= origin.learned_until)).to_numpy(), (is_new & (day > origin.learned_until)).to_numpy()
    unseen = probability(model.trees.log_odds(inputs[held].astype("float32")), model.calibration)
    card = Scorecard(
        model_digest=model.model_digest,
        dataset_digest=model.dataset_digest,
        out_of_fold=judge(label[seen], model.estimates, policy.evidence),
        holdout=judge(label[held], unseen, policy.evidence) if len(np.unique(label[held])) > 1 else None,
        threshold=threshold,
        groups=(),
        approval_ratios={},
        importance=_importance(model.trees, inputs[seen], label[seen], book, policy),
        below_the_floors=(),
        origin=origin.to_json(),
    )
    return card, _pictures(card, label[seen], model.estimates, policy)


def _refuse_other_data(model: FittedModel, training_set: pd.DataFrame) -> None:
    if dataset_digest(training_set) != model.dataset_digest:
        raise Refusal(
            f"The model was trained on data {model.dataset_digest[:12]}, which is not the training set in force.",
            "Materialize default_model first, then scorecard.",
        )


def rows_of(card: Scorecard) -> list[dict[str, Any]]:
    """The figures as rows of a table: out of fold and holdout side by side."""
    held = card.holdout.figures() if card.holdout else {}
    return [
        {"figure": name, "out of fold": str(figure), "holdout": str(held.get(name, "not yet"))}
        for name, figure in card.out_of_fold.figures().items()
    ]


def rows_of_groups(card: Scorecard) -> list[dict[str, Any]]:
    """The groups as rows of a table."""
    return [
        {
            "attribute": outcome.attribute,
            "group": outcome.group,
            "rows": outcome.rows,
            "approved": round(outcome.approved, 4),
            "payers refused": round(outcome.payers_refused, 4),
            "defaulters approved": round(outcome.defaulters_approved, 4),
            "judged": outcome.is_judged,
        }
        for outcome in card.groups
    ]


def metrics_of(card: Scorecard) -> dict[str, float]:
    """The figures as flat metrics: `oof_auc`, `holdout_brier`, `approval_ratio_sex` and so on."""
    metrics = {f"oof_{name}": figure.value for name, figure in card.out_of_fold.figures().items()}
    if card.holdout is not None:
        metrics |= {f"holdout_{name}": figure.value for name, figure in card.holdout.figures().items()}
    metrics |= {f"approval_ratio_{name}": ratio for name, ratio in card.approval_ratios.items()}
    return metrics | {"threshold": card.threshold}


def _importance(
    trees: FlatTrees, inputs: NDArray[np.float64], label: NDArray[np.int64], book: LoanBook, policy: Policy
) -> dict[str, float]:
    """AUC lost when one feature is shuffled, averaged over the policy's repeats, largest first."""
    from sklearn.metrics import roc_auc_score

    generator = np.random.default_rng(policy.evidence.seed)
    rows = generator.choice(len(label), min(len(label), policy.evidence.importance_rows), replace=False)
    sample, outcome = inputs[rows].astype("float32"), label[rows]
    whole = roc_auc_score(outcome, trees.log_odds(sample))
    lost = {}
    for position, name in enumerate(book.feature_names):
        drops = []
        for _ in range(policy.evidence.importance_repeats):
            shuffled = sample.copy()
            shuffled[:, position] = generator.permutation(shuffled[:, position])
            drops.append(whole - roc_auc_score(outcome, trees.log_odds(shuffled)))
        lost[name] = float(np.mean(drops))
    return dict(sorted(lost.items(), key=lambda item: -item[1]))


def _pictures(
    card: Scorecard, label: NDArray[np.int64], estimate: NDArray[np.float64], policy: Policy
) -> dict[str, bytes]:
    from loan_assets.credit import pictures

    expected, observed = calibration_curve(label, estimate, policy.evidence.calibration_bins)
    found = card.out_of_fold
    drawn = {
        "ranking.png": pictures.ranking(label, estimate, found.auc.value, found.ks.value),
        "calibration.png": pictures.calibration(expected, observed, found.calibration_error.value),
        "importance.png": pictures.importance(card.importance),
    }
    if card.groups:
        drawn["approvals.png"] = pictures.approvals(card.groups, policy.floors.approval_ratio)
    return drawn
