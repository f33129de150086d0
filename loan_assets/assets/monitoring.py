"""Monitoring: what the endpoint answered, whether applicants still look like those learned from, how it turned out.

Here: the daily assets and their checks. Not here: how drift is measured (`credit.drift`), what follows from it
(`assets.succession`), or who writes the log (`bento`).
"""

import dagster as dg
import pandas as pd

from loan_assets.books import tables, the_book
from loan_assets.credit.daily import JudgedBatch, applications_of, judged_batch, kept_of
from loan_assets.credit.drift import DRIFTED, TOO_FEW, DriftReport, Learned, report_on
from loan_assets.credit.in_life import (
    LiveFairness,
    LivePerformance,
    answers_with_outcomes,
    fairness_of,
    performance_by_version,
)
from loan_assets.credit.norms import norms_of
from loan_assets.credit.quality import QUARANTINED
from loan_assets.credit.training import TRAIN, part_of_each_row
from loan_assets.policy_file import the_policy
from loan_assets.refusal import Refusal
from loan_assets.release import REFERENCE
from loan_assets.resources.asset_store import AssetStore, read_table
from loan_assets.resources.catalog import DAYS, picture, table_of, table_type
from loan_assets.resources.decisions import Decisions
from loan_assets.resources.live_history import Memory
from loan_assets.resources.prediction_logs import PredictionLogs
from loan_assets.resources.release_store import ReleaseStore

BOOK = the_book()
POLICY = the_policy()


@dg.asset(
    kinds={"pandas", "parquet"},
    partitions_def=DAYS,
    backfill_policy=dg.BackfillPolicy.single_run(),
    dagster_type=table_type("PredictionLog", tables.predictions(BOOK), ["prediction_id"], may_be_empty=True),
)
def prediction_log(context: dg.AssetExecutionContext, predictions: PredictionLogs) -> dict[str, pd.DataFrame]:
    """Every answer the endpoint gave on a day: what was asked, the score, the decision, the version, the instant.

    Lines that were cut short or altered are counted and named, never guessed at; the rest of the day stands.
    """
    days = {}
    for day in context.partition_keys:
        days[day], damages = predictions.read(day, BOOK)
        refused = days[day]["decision"] == "refuse"
        context.add_asset_metadata(
            {
                "refused_share": round(float(refused.mean()), 4) if len(refused) else 0.0,
                "versions": sorted(int(version) for version in days[day]["model_version"].unique()),
                "unreadable_lines": sum(damage.lines for damage in damages),
                "unreadable_in": [damage.file for damage in damages],
            },
            partition_key=day,
        )
    return days


@dg.asset_check(asset=prediction_log, partitions_def=DAYS)
def every_line_of_the_log_was_read(
    prediction_log: dict[str, pd.DataFrame], predictions: PredictionLogs
) -> dg.AssetCheckResult:
    """No line of the day's log was cut short or altered."""
    damaged = {f"{day}/{one.file}": one.lines for day in prediction_log for one in predictions.read(day, BOOK)[1]}
    return dg.AssetCheckResult(
        passed=not damaged,
        severity=dg.AssetCheckSeverity.WARN,
        description="; ".join(f"{file}: {lines} lines" for file, lines in damaged.items()) or None,
        metadata={"unreadable_lines": sum(damaged.values())},
    )


@dg.asset(kinds={"numpy"}, partitions_def=DAYS, backfill_policy=dg.BackfillPolicy.single_run(), deps=["raw_loan_book"])
def batch_quality(
    context: dg.AssetExecutionContext,
    memory: Memory,
    io_manager: dg.ResourceParam[AssetStore],
    prediction_log: dict[str, pd.DataFrame],
) -> dict[str, JudgedBatch]:
    """Whether a day's applications are a fair picture of applicants, and which of them may be learned from.

    A broken feed (empty, constant, swapped or rescaled columns, codes that nobody defined, repeats, a cut) is set aside
    with its reasons: it is neither compared nor learned from.
    """
    norms = norms_of(_training_part(io_manager), BOOK, POLICY.quality)
    feed = memory.of(BOOK).feed_before(min(context.partition_keys))
    judged = {}
    for day in sorted(_read(context, prediction_log)):
        applications = applications_of(prediction_log[day])
        requests = applications if len(applications) else None
        batch, feed = judged_batch(day, requests, feed, norms, BOOK, POLICY)
        judged[day] = kept_of(batch, requests, feed)
        facts = {
            "status": batch.status,
            "dagster/row_count": batch.rows,
            "healthy": len(judged[day].healthy),
            "reasons": list(batch.reasons),
            "rows_set_aside": list(batch.set_aside),
            "columns_left_out": list(batch.left_out),
        }
        context.add_asset_metadata(facts, partition_key=day)
    return judged


@dg.asset_check(asset=batch_quality, partitions_def=DAYS)
def the_feed_is_whole(batch_quality: dict[str, JudgedBatch]) -> dg.AssetCheckResult:
    """No day's applications are the picture of a broken feed: empty, constant, swapped or rescaled columns, repeats."""
    unfit = {day: batch.reasons for day, batch in batch_quality.items() if batch.status == QUARANTINED}
    said = "; ".join(f"{day}: {', '.join(reasons)}" for day, reasons in unfit.items())
    return dg.AssetCheckResult(passed=not unfit, description=said or None, metadata={"days": len(batch_quality)})


@dg.asset(
    kinds={"evidently"},
    partitions_def=DAYS,
    backfill_policy=dg.BackfillPolicy.single_run(),
    deps=["champion"],
)
def drift_report(
    context: dg.AssetExecutionContext,
    release_store: ReleaseStore,
    decisions: Decisions,
    prediction_log: dict[str, pd.DataFrame],
    batch_quality: dict[str, JudgedBatch],
) -> dict[str, DriftReport]:
    """Each day's applications beside the champion's training data: how far every column has moved, and the score.

    The score is the share of columns over their limit, which is wider the fewer applications the day had. A day with
    too few says so and counts as no check; a broken feed is named and not measured.
    """
    from loan_assets.credit.pictures import distances

    last = decisions.last()
    former = last.situation.archived if last else ()
    champion, *others = [_learned(release_store, number) for number in (release_store.champion().version, *former)]
    reports = {}
    for day in _read(context, prediction_log):
        report = report_on(day, prediction_log[day], batch_quality[day], champion, others, BOOK, POLICY)
        reports[day] = report
        facts: dict[str, dg.MetadataValue | int | str | float | list[str] | dict[str, float]] = {
            "verdict": report.verdict,
            "model_version": report.model_version,
            "rows": report.rows,
            "answers": report.answers,
            "columns_left_out": list(report.left_out),
            "quality_failures": list(report.failures),
            "rows_set_aside": list(report.set_aside),
            "share_by_version": {str(number): share for number, share in report.shares.items()},
        }
        if report.score is not None:
            rows = [
                {
                    "column": one.column,
                    "distance": round(one.distance, 4),
                    "limit": round(one.limit, 4),
                    "over the limit": one.has_drifted,
                }
                for one in report.columns
            ]
            drawn = distances({one.column: (one.distance, one.limit) for one in report.columns})
            facts |= {
                "score": report.score,
                "columns": table_of(rows),
                "distances": picture(drawn, f"how far each column has moved on {day}"),
            }
        context.add_asset_metadata(facts, partition_key=day)
    return reports


@dg.asset_check(asset=drift_report, partitions_def=DAYS)
def applicants_resemble_the_training(
    drift_report: dict[str, DriftReport], io_manager: dg.ResourceParam[AssetStore]
) -> dg.AssetCheckResult:
    """The share of columns that moved stays within the policy's limit, on every day with enough applications."""
    drifted = {day: report.score for day, report in drift_report.items() if report.verdict == DRIFTED}
    unjudged = [day for day, report in drift_report.items() if report.verdict == TOO_FEW]
    links = {
        f"{page} of {day}": path
        for day, report in drift_report.items()
        for page, path in io_manager.links_to(f"drift_report/{day}", report).items()
    }
    return dg.AssetCheckResult(
        passed=not drifted,
        severity=dg.AssetCheckSeverity.WARN,
        description="; ".join(f"{day}: score {score:.2f}" for day, score in drifted.items()) or None,
        metadata={"limit": POLICY.vigilance.retrain_above, "days_without_enough_data": unjudged, **links},
    )


@dg.asset(
    kinds={"numpy"}, partitions_def=DAYS, backfill_policy=dg.BackfillPolicy.single_run(), deps=["outcome_quality"]
)
def live_performance(context: dg.AssetExecutionContext, memory: Memory) -> dict[str, LivePerformance]:
    """How good the scores turned out to be, by the version that answered: AUC, Brier score, base rate, with intervals.

    Of the outcomes that arrived on the day, and of all that are known by its end.
    """
    from loan_assets.credit.pictures import intervals

    history, found = memory.of(BOOK), {}
    for day in sorted(context.partition_keys):
        answers = answers_with_outcomes(history.ledger(day), history.answers(day))
        found[day] = performance_by_version(day, answers)
        facts: dict[str, dg.MetadataValue | int] = {
            "outcomes": found[day].outcomes,
            "of_the_day": table_of(found[day].rows_of("day")),
            "of_all_days": table_of(found[day].rows_of("all")),
        }
        drawn = found[day].intervals()
        if drawn:
            facts["ranking"] = picture(intervals(drawn, "AUC by version that answered"), f"AUC known by {day}")
        context.add_asset_metadata(facts, partition_key=day)
    return found


@dg.asset(
    kinds={"fairlearn"}, partitions_def=DAYS, backfill_policy=dg.BackfillPolicy.single_run(), deps=["outcome_quality"]
)
def live_fairness(context: dg.AssetExecutionContext, memory: Memory) -> dict[str, LiveFairness]:
    """How groups fare at the endpoint: who is approved now, and, once outcomes settle, who was wrongly refused.

    Over the applications of the last month; groups with few of them are shown and not judged.
    """
    history, found = memory.of(BOOK), {}
    for day in sorted(context.partition_keys):
        answers = answers_with_outcomes(history.ledger(day), history.answers(day, POLICY.succession.budget_days))
        found[day] = fairness_of(day, answers, BOOK, POLICY)
        ratios = {f"approval_ratio_{name}": ratio for name, ratio in found[day].approval_ratios.items()}
        errors = {f"standard_error_of_{name}": error for name, error in found[day].errors.items()}
        facts = {"applications": found[day].applications, "groups": table_of(found[day].rows()), **ratios, **errors}
        context.add_asset_metadata(facts, partition_key=day)
    return found


@dg.asset_check(asset=live_fairness, partitions_def=DAYS)
def groups_are_approved_alike(live_fairness: dict[str, LiveFairness]) -> dg.AssetCheckResult:
    """By every audited attribute, the least approved group is approved at least four fifths as often as the most."""
    floor = POLICY.floors.approval_ratio
    low = {
        f"{day} {attribute}": ratio
        for day, one in live_fairness.items()
        for attribute, ratio in one.surely_below(floor).items()
    }
    return dg.AssetCheckResult(
        passed=not low,
        severity=dg.AssetCheckSeverity.WARN,
        description="; ".join(f"{said}: {ratio:.3f}" for said, ratio in low.items()) or None,
        metadata={"floor": floor},
    )


def _read(context: dg.AssetExecutionContext, prediction_log: dict[str, pd.DataFrame]) -> list[str]:
    """The days of a run, all of whose logs are stored."""
    unread = [day for day in context.partition_keys if day not in prediction_log]
    if unread:
        raise Refusal(
            f"The log of {', '.join(unread)} is not stored.", "Materialize prediction_log for these days, then this."
        )
    return list(context.partition_keys)


def _learned(releases: ReleaseStore, number: int) -> Learned:
    digest, folder = releases.shelf_of(number)
    return Learned.of(number, digest, read_table(folder / REFERENCE), BOOK, POLICY)


def _training_part(store: AssetStore) -> pd.DataFrame:
    """The delivered rows that the first model learned from, in the order delivered."""
    received: pd.DataFrame = store.read("raw_loan_book", pd.DataFrame)
    part = part_of_each_row(received[BOOK.label.name].to_numpy(), POLICY.splits)
    learned_from: pd.DataFrame = received.loc[part == TRAIN].reset_index(drop=True)
    return learned_from
