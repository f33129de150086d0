"""Monitoring: what the endpoint answered each day, and whether its applicants still look like those of the training.

Here: the two daily assets and their checks. Not here: how drift is measured (`credit.drift`), what follows from it
(`sensors`), or who writes the log (`bento`).
"""

import dagster as dg
import pandas as pd

from loan_assets.books import tables, the_book
from loan_assets.credit.drift import DRIFTED, TOO_FEW, UNFIT, DriftReport, Learned, report_on
from loan_assets.policy import POLICY
from loan_assets.refusal import Refusal
from loan_assets.release import REFERENCE
from loan_assets.resources.asset_store import AssetStore, read_table
from loan_assets.resources.catalog import DAYS, picture, table_of, table_type
from loan_assets.resources.prediction_logs import PredictionLogs
from loan_assets.resources.release_store import ReleaseStore

BOOK = the_book()


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


@dg.asset(
    kinds={"evidently"},
    partitions_def=DAYS,
    backfill_policy=dg.BackfillPolicy.single_run(),
    deps=["model_release"],
)
def drift_report(
    context: dg.AssetExecutionContext, release_store: ReleaseStore, prediction_log: dict[str, pd.DataFrame]
) -> dict[str, DriftReport]:
    """Each day's applications beside the champion's training data: how far every column has moved, and the score.

    The score is the share of columns over their limit, which is wider the fewer applications the day had. A day with
    too few says so and counts as no check; a broken feed is named and not measured.
    """
    from loan_assets.credit.pictures import distances

    unread = [day for day in context.partition_keys if day not in prediction_log]
    if unread:
        raise Refusal(
            f"The log of {', '.join(unread)} is not stored.", "Materialize prediction_log for these days, then this."
        )
    champion = release_store.champion()
    received = read_table(release_store.folder_of(champion.version, champion.digest) / REFERENCE)
    learned = Learned.of(champion.version, champion.digest, received, BOOK, POLICY)
    reports = {}
    for day in context.partition_keys:
        report = report_on(day, prediction_log[day], learned, BOOK, POLICY)
        reports[day] = report
        facts: dict[str, dg.MetadataValue | int | str | float | list[str]] = {
            "verdict": report.verdict,
            "model_version": report.model_version,
            "rows": report.rows,
            "answers": report.answers,
            "columns_left_out": list(report.left_out),
            "quality_failures": list(report.failures),
            "rows_set_aside": list(report.set_aside),
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
def the_feed_is_whole(drift_report: dict[str, DriftReport]) -> dg.AssetCheckResult:
    """No day's applications are the picture of a broken feed: empty, constant, swapped or rescaled columns, repeats."""
    unfit = {day: report.failures for day, report in drift_report.items() if report.verdict == UNFIT}
    said = "; ".join(f"{day}: {', '.join(failures)}" for day, failures in unfit.items())
    return dg.AssetCheckResult(passed=not unfit, description=said or None, metadata={"days": len(drift_report)})


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
