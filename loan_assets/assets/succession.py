"""Succession: what was decided on each day, how the challenger did, and which version is champion.

Here: the decisions as assets, with their evidence. Not here: the rule (`credit.succession`), how a step is taken and
written down (`reign`), or what starts these runs (`sensors`): from a decision to a new model leads no edge.
"""

from dataclasses import dataclass

import dagster as dg

from loan_assets.books import the_book
from loan_assets.credit.drift import DriftReport
from loan_assets.policy_file import the_policy
from loan_assets.reign import Reign
from loan_assets.resources.asset_store import AssetStore
from loan_assets.resources.catalog import DAYS, picture, table_of
from loan_assets.resources.decisions import MOVED, Decisions, Step
from loan_assets.resources.live_history import Memory
from loan_assets.resources.registry import CHAMPION, GATE, Registry

BOOK = the_book()
POLICY = the_policy()


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionOfDay:
    """The step of the journal in which a day was decided; 0 where it had been too late."""

    step: int
    champion: int
    challenger: int
    consecutive: int
    actions: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the gate said last: about whom, on how many rows, and why; empty where nobody is on trial."""

    step: int
    challenger: int
    verdict: str
    metric: str
    rows: int
    actions: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Champion:
    """The version in force, and how long its taking over took from the decision on."""

    version: int
    digest: str
    decided_in: int
    seconds: float


@dg.asset(
    kinds={"numpy"},
    partitions_def=DAYS,
    backfill_policy=dg.BackfillPolicy.single_run(),
    deps=["drift_report", "outcome_quality", "live_performance"],
)
def retrain_decision(
    context: dg.AssetExecutionContext,
    registry: Registry,
    decisions: Decisions,
    memory: Memory,
    io_manager: dg.ResourceParam[AssetStore],
) -> dict[str, DecisionOfDay]:
    """What follows from a day: an alarm, a retraining, the return of a former champion, or nothing, and why.

    Three checks in a row over the limit raise an alarm, and so do outcomes that no longer fit the scores; a retraining
    waits for enough outcomes of the new world and for its budget.
    """
    from loan_assets.credit.pictures import distances

    reign = Reign(decisions=decisions, registry=registry, history=memory.of(BOOK))
    decided = {}
    for day in sorted(context.partition_keys):
        shares = {}
        if io_manager.holds(f"drift_report/{day}"):
            report: DriftReport = io_manager.read(f"drift_report/{day}", DriftReport)
            shares = dict(report.shares)
        step = reign.watch(day, shares)
        decided[day] = _told(step)
        facts: dict[str, dg.MetadataValue | int | str | list[str]] = {
            "champion": decided[day].champion,
            "challenger": decided[day].challenger,
            "checks_in_a_row_over_the_limit": decided[day].consecutive,
            "decisions": list(decided[day].actions),
            "step": decided[day].step,
        }
        if step is not None and step.evidence.get("shares"):
            limit = POLICY.vigilance.retrain_above
            shown = {f"version {number}": (share, limit) for number, share in step.evidence["shares"].items()}
            drawn = distances(shown, "Share of columns over their limit, by version (mark: policy)")
            facts["columns_over_their_limit"] = picture(drawn, f"share of columns over their limit on {day}")
        context.add_asset_metadata(facts, partition_key=day)
    return decided


@dg.asset(kinds={"numpy", "mlflow"}, deps=["model_release", "outcome_quality"])
def gate_verdict(
    context: dg.AssetExecutionContext, registry: Registry, decisions: Decisions, memory: Memory
) -> Verdict:
    """The challenger against the champion on outcomes later than any it learned from; floors and groups included.

    It is promoted, refused with the reason, or waits for more outcomes. The champion stays until it is beaten.
    """
    from loan_assets.credit.pictures import distances

    step = Reign(decisions=decisions, registry=registry, history=memory.of(BOOK)).judge()
    if step is None:
        context.add_output_metadata({"verdict": "nobody is on trial"})
        return Verdict(step=0, challenger=0, verdict="", metric="", rows=0, actions=())
    trial = step.evidence.get("trial") or {"metric": "", "rows": 0, "champion": 0.0, "challenger": 0.0, "against": ()}
    verdict, number = str(step.evidence.get("verdict", "reject")), int(step.evidence["challenger"])
    said = "; ".join(action.cause for action in step.actions)
    standing = {"promote": f"promoted: {said}", "wait": "on trial", "shadow": "in shadow", "canary": "a canary"}
    registry.judge(number, standing.get(verdict, f"refused: {said}"))
    rows = [{"figure": name, "value": str(value)} for name, value in trial.items()]
    limit = POLICY.succession.first_z
    gains = {name: (float(trial[name]), limit) for name in ("auc_z", "all_auc_z", "all_loss_z") if name in trial}
    drawn = distances(gains, "Gains over the champion in standard errors")
    context.add_output_metadata(
        {
            "verdict": verdict,
            "challenger": number,
            "why": said or "it waits for more outcomes",
            "trial": table_of(rows),
            "gains_in_standard_errors": picture(drawn, "the challenger's gains in standard errors"),
        }
    )
    return Verdict(
        step=step.number,
        challenger=number,
        verdict=verdict,
        metric=str(trial["metric"]),
        rows=int(trial["rows"]),
        actions=tuple(str(action.kind) for action in step.actions),
    )


@dg.asset(kinds={"mlflow"}, deps=["gate_verdict"])
def champion(context: dg.AssetExecutionContext, registry: Registry, decisions: Decisions, memory: Memory) -> Champion:
    """The version that answers: pointer and alias follow the last decision, a return as much as a promotion.

    Its release is verified before anything moves. Serving swaps to it within a second or two, without a failed request.
    """
    history = memory.of(BOOK)
    moved = Reign(decisions=decisions, registry=registry, history=history).put_in_force()
    in_force = history.releases.champion()
    took_over = next((step.evidence for step in reversed(decisions.steps()) if step.kind == MOVED), {})
    seconds = float(took_over.get("seconds", 0.0))
    context.add_output_metadata(
        {
            "version": in_force.version,
            "digest": in_force.digest,
            "was_moved": moved is not None,
            "version_before": int(took_over.get("before", 0)),
            "seconds_from_decision": seconds,
        }
    )
    return Champion(
        version=in_force.version,
        digest=in_force.digest,
        decided_in=int(took_over.get("decided_in", 0)),
        seconds=seconds,
    )


@dg.asset_check(asset=champion, blocking=True)
def champion_was_judged(registry: Registry, champion: Champion) -> dg.AssetCheckResult:
    """The champion carries the evidence it was admitted on and the gate's word; half-registered versions are listed."""
    held = registry.aliases().get(CHAMPION)
    tags = registry.tags(held) if held is not None else {}
    lacking = sorted({GATE, "model_digest", "dataset_digest", "oof_auc"} - set(tags))
    wrong = f"version {held}, the champion, lacks {', '.join(lacking)} among its evidence" if lacking else ""
    if held != champion.version:
        wrong = f"the registry's champion is {held}, the one in force is {champion.version}"
    return dg.AssetCheckResult(
        passed=not wrong,
        description=wrong or None,
        metadata={"champion": held or 0, "half_registered": list(registry.half_registered())},
    )


def _told(step: Step | None) -> DecisionOfDay:
    if step is None:
        return DecisionOfDay(step=0, champion=0, challenger=0, consecutive=0, actions=())
    challenger = step.situation.challenger
    return DecisionOfDay(
        step=step.number,
        champion=step.situation.champion,
        challenger=challenger.number if challenger else 0,
        consecutive=int(step.evidence.get("consecutive", 0)),
        actions=tuple(f"{action.kind} {action.version}: {action.cause}" for action in step.actions),
    )
