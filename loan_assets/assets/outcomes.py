"""Outcomes: how what was answered turned out, as it arrives, and what of it may be learned from.

Here: the two daily assets and their check. Not here: how an arrival is judged (`credit.label_quality`), where files
land (`resources.outcome_landing`), or what follows (`assets.succession`).
"""

import dagster as dg

from loan_assets.books import the_book
from loan_assets.credit.daily import Arrived, judged_arrival
from loan_assets.credit.quality import QUARANTINED
from loan_assets.policy_file import the_policy
from loan_assets.resources.catalog import DAYS
from loan_assets.resources.live_history import Memory
from loan_assets.resources.outcome_landing import ArrivedFile, OutcomeLanding

BOOK = the_book()
POLICY = the_policy()


@dg.asset(kinds={"fsspec"}, partitions_def=DAYS, backfill_policy=dg.BackfillPolicy.single_run())
def outcomes(context: dg.AssetExecutionContext, outcome_landing: OutcomeLanding) -> dict[str, ArrivedFile]:
    """What was told on a day about earlier applications: who defaulted and who paid, byte for byte as it came.

    Late, partial, repeated and corrected outcomes are all taken in; a day without a file is a day without news.
    """
    arrived = {day: outcome_landing.read(day) for day in context.partition_keys}
    for day, file in arrived.items():
        facts: dict[str, int | str | bool] = {
            "bytes": len(file.content or b""),
            "sha256": file.sha256,
            "has_arrived": file.content is not None,
        }
        put = outcome_landing.arrived_at(day)
        if put is not None:
            facts["arrived_at"] = put.isoformat(timespec="milliseconds")
        context.add_asset_metadata(facts, partition_key=day)
    return arrived


@dg.asset(kinds={"numpy"}, partitions_def=DAYS, backfill_policy=dg.BackfillPolicy.single_run(), deps=["batch_quality"])
def outcome_quality(
    context: dg.AssetExecutionContext, memory: Memory, outcomes: dict[str, ArrivedFile]
) -> dict[str, Arrived]:
    """Whether a day's outcomes may be learned from: each of a known request, none contradicted, as a whole plausible.

    What is broken is set aside with its reason and teaches nothing; the champion stays as it is.
    """
    history, judged = memory.of(BOOK), {}
    first = history.first_version()
    remembered = history.labels_before(min(context.partition_keys))
    for day in sorted(context.partition_keys):
        told, unreadable = outcomes[day].table()
        ledger = history.ledger(day, outcomes_before=day)
        judged[day] = judged_arrival(day, told, ledger, first, remembered, POLICY, unreadable)
        remembered = judged[day].memory
        facts = {
            "status": judged[day].status,
            "dagster/row_count": judged[day].rows,
            "taken_over": len(judged[day].taken),
            "released": list(judged[day].released),
            "reasons": list(judged[day].reasons),
            "set_aside": list(judged[day].set_aside),
        }
        context.add_asset_metadata(facts, partition_key=day)
    return judged


@dg.asset_check(asset=outcome_quality, partitions_def=DAYS)
def outcomes_can_be_trusted(outcome_quality: dict[str, Arrived]) -> dg.AssetCheckResult:
    """No day's outcomes were set aside as a whole."""
    refused = {day: one.reasons for day, one in outcome_quality.items() if one.status == QUARANTINED}
    said = "; ".join(f"{day}: {', '.join(reasons)}" for day, reasons in refused.items())
    return dg.AssetCheckResult(
        passed=not refused,
        severity=dg.AssetCheckSeverity.WARN,
        description=said or None,
        metadata={"days": len(outcome_quality)},
    )
