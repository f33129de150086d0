"""Model: what the bank knew on each decision day, the model fitted to it, and how far that model can be trusted.

Here: the join, the fit and the judgement as assets. Not here: how a model is fitted (`credit.training`), judged
(`credit.judging`, `credit.fairness`) or tracked (`resources.experiments`).
"""

from functools import partial

import dagster as dg
import pandas as pd

from loan_assets.books import tables, the_book
from loan_assets.credit.scorecards import (
    Scorecard,
    draw_up,
    draw_up_challenger,
    metrics_of,
    rows_of,
    rows_of_groups,
)
from loan_assets.credit.training import FittedModel
from loan_assets.policy_file import the_policy
from loan_assets.reign import Reign
from loan_assets.resources.catalog import picture, table_of, table_type
from loan_assets.resources.decisions import Decisions
from loan_assets.resources.experiments import MODEL_DIGEST, Experiments, Trial
from loan_assets.resources.feature_store import FeatureStoreDoor
from loan_assets.resources.live_history import Memory
from loan_assets.resources.registry import Registry

BOOK = the_book()
POLICY = the_policy()
KEY = BOOK.key.name
LABEL = BOOK.label.name


@dg.asset(
    kinds={"feast", "duckdb", "parquet"},
    deps=["feature_definitions", "prediction_log", "batch_quality", "outcome_quality"],
    dagster_type=table_type("TrainingSet", tables.training_set(BOOK), [KEY, "request_id"]),
)
def training_set(
    context: dg.AssetExecutionContext, feature_store: FeatureStoreDoor, memory: Memory, default_outcomes: pd.DataFrame
) -> pd.DataFrame:
    """For every decision, the features known on that day and the outcome that followed; a frozen fifth is held out.

    Joined point in time: a statement dated later, or dated earlier but learned later, changes nothing. Logged
    applications whose outcome has settled follow, with the features as logged. No protected attribute is a column. The
    digest of this table is the identity of the data a model was trained on.
    """
    from loan_assets.credit.training import HOLDOUT, LOGGED, dataset_digest, part_of_each_row

    decisions = default_outcomes[[KEY, tables.EVENT_TIME.name, LABEL]]
    joined = feature_store.as_known_at(decisions, BOOK)
    joined.insert(2, "part", part_of_each_row(joined[LABEL].to_numpy(), POLICY.splits))
    settled = memory.of(BOOK).settled().assign(part=LOGGED)
    joined = pd.concat([joined.assign(request_id="").astype({KEY: "float64"}), settled][: 2 if len(settled) else 1])
    joined = joined.reset_index(drop=True)[[column.name for column in tables.training_set(BOOK)]]
    context.add_output_metadata(
        {
            "dataset_digest": dataset_digest(joined),
            "held_out": int((joined["part"] == HOLDOUT).sum()),
            "logged": int((joined["part"] == LOGGED).sum()),
            "base_rate": round(float(joined[LABEL].mean()), 4),
            "features": len(BOOK.features),
            "known_by": BOOK.as_of.isoformat(),
        }
    )
    return joined


@dg.asset_check(asset=training_set, additional_ins={"default_outcomes": dg.AssetIn()}, blocking=True)
def every_decision_has_its_features(training_set: pd.DataFrame, default_outcomes: pd.DataFrame) -> dg.AssetCheckResult:
    """The join lost no decision, repeated none, kept their order, and found every feature within its life."""
    delivered = training_set.loc[training_set["request_id"] == ""]
    astray = len(set(delivered[KEY]) ^ set(default_outcomes[KEY])) + int(delivered[KEY].duplicated().sum())
    in_order = delivered[KEY].tolist() == default_outcomes[KEY].tolist()
    missing = int(delivered[list(BOOK.feature_names)].isna().to_numpy().sum())
    wrong = [f"{astray:,} decisions lost, added or repeated"] if astray else []
    wrong += ["the decisions are in another order"] if not in_order and not astray else []
    wrong += [f"{missing:,} feature values are missing"] if missing else []
    return dg.AssetCheckResult(
        passed=not wrong,
        description="; ".join(wrong) or None,
        metadata={"in_order": in_order, "missing_values": missing},
    )


@dg.asset(kinds={"scikitlearn", "mlflow", "onnx"})
def default_model(
    context: dg.AssetExecutionContext,
    experiments: Experiments,
    registry: Registry,
    decisions: Decisions,
    memory: Memory,
    training_set: pd.DataFrame,
) -> FittedModel:
    """The model: gradient-boosted trees that may only grow more worried as delays grow, fitted on four fifths.

    Where a retraining was decided it is the challenger for the world that has changed: of the champion recalibrated,
    old rows at a tenth or a fiftieth, or new rows alone, what cross-validation on the new rows prefers. Tracked in
    MLflow with settings, data digest and pictures, and copied into two portable forms that are compared with
    scikit-learn on every row. The same data give the same model, to the byte.
    """
    from loan_assets.credit.pictures import histogram
    from loan_assets.credit.retraining import made_to_order
    from loan_assets.credit.scoring import probability
    from loan_assets.credit.training import inputs_of, settings_of, train

    history = memory.of(BOOK)
    order = Reign(decisions=decisions, registry=registry, history=history).order()
    if order is None:
        pipeline, model = train(training_set, BOOK, POLICY.boosting)
    else:
        standing = history.version(order.champion)
        kept = partial(experiments.boosting_of, registry.tags(order.champion)[MODEL_DIGEST])
        pipeline, model = made_to_order(training_set, order, standing, kept, BOOK, POLICY)
    inputs = inputs_of(training_set, BOOK)
    estimates = probability(model.trees.log_odds(inputs.astype("float32")), model.calibration)
    drawn = histogram(estimates, "Scores of every client", "probability of default")
    run_id = experiments.log(
        Trial(
            pipeline=pipeline,
            example=inputs[:5],
            parameters=settings_of(POLICY.boosting),
            metrics={"rows": model.rows, "flat_gap": model.flat_gap, "onnx_gap": model.onnx_gap},
            tags={
                "recipe": model.origin.recipe if model.origin else "the book",
                "dataset_digest": model.dataset_digest,
                MODEL_DIGEST: model.model_digest,
                "book": BOOK.name,
                "book_digest": BOOK.digest,
            },
            pictures={"scores.png": drawn},
            files={"model.onnx": model.onnx},
        )
    )
    context.add_output_metadata(
        {
            "mlflow_run": run_id,
            "recipe": model.origin.recipe if model.origin else "the book",
            "ordered_on": order.day if order else "",
            "model_digest": model.model_digest,
            "dataset_digest": model.dataset_digest,
            "rows": model.rows,
            "trees": len(model.trees.roots),
            "flat_gap": model.flat_gap,
            "onnx_gap": model.onnx_gap,
            "scores": picture(drawn, "scores of every client"),
        }
    )
    return model


@dg.asset_check(asset=default_model, blocking=True)
def copies_agree_with_scikit_learn(default_model: FittedModel) -> dg.AssetCheckResult:
    """The flat trees and the ONNX copy give scikit-learn's probability on every row, within the policy's parity."""
    parity = POLICY.parity
    gaps = {
        "flat trees": (default_model.flat_gap, parity.flat_trees),
        "ONNX copy": (default_model.onnx_gap, parity.onnx),
    }
    wrong = [
        f"the {copy} is {gap:.1e} off where {allowed:.0e} is allowed"
        for copy, (gap, allowed) in gaps.items()
        if not gap <= allowed
    ]
    return dg.AssetCheckResult(
        passed=not wrong,
        description="; ".join(wrong) or None,
        metadata={
            "flat_gap": default_model.flat_gap,
            "flat_gap_allowed": parity.flat_trees,
            "onnx_gap": default_model.onnx_gap,
            "onnx_gap_allowed": parity.onnx,
        },
    )


@dg.asset(kinds={"scikitlearn", "fairlearn", "mlflow"})
def scorecard(
    context: dg.AssetExecutionContext,
    experiments: Experiments,
    default_model: FittedModel,
    training_set: pd.DataFrame,
    client_profiles: pd.DataFrame,
) -> Scorecard:
    """How good the model is and how sure we are: out of fold, on the frozen holdout, by group and by feature.

    Decisions are taken at the threshold that refuses as many applicants as default. Groups are compared on approval,
    the favourable outcome; protected attributes are read here and nowhere before.
    """
    if default_model.origin is None:
        card, pictures = draw_up(default_model, training_set, client_profiles, BOOK, POLICY)
    else:
        card, pictures = draw_up_challenger(default_model, training_set, BOOK, POLICY)
    experiments.add(default_model.model_digest, metrics_of(card), pictures)
    context.add_output_metadata(
        {
            "auc": card.out_of_fold.auc.value,
            "auc_low": card.out_of_fold.auc.low,
            "auc_high": card.out_of_fold.auc.high,
            "holdout_auc": card.holdout.auc.value if card.holdout else "not yet",
            "threshold": card.threshold,
            "figures": table_of(rows_of(card)),
            "groups": table_of(rows_of_groups(card)),
            **{name.removesuffix(".png"): picture(png, name) for name, png in pictures.items()},
        }
    )
    return card


@dg.asset_check(asset=scorecard)
def figures_meet_the_floors(scorecard: Scorecard) -> dg.AssetCheckResult:
    """Ranking, calibration and treatment of groups are all above what the policy demands for registration."""
    return dg.AssetCheckResult(
        passed=not scorecard.below_the_floors, description="; ".join(scorecard.below_the_floors) or None
    )


@dg.asset_check(asset=scorecard)
def groups_are_treated_alike(scorecard: Scorecard) -> dg.AssetCheckResult:
    """For every audited attribute, the least approved group is approved at least four fifths as often as the most."""
    floor = POLICY.floors.approval_ratio
    low = {attribute: ratio for attribute, ratio in scorecard.approval_ratios.items() if not ratio >= floor}
    return dg.AssetCheckResult(passed=not low, metadata={**scorecard.approval_ratios, "floor": floor})
