"""What Prometheus reads of the platform: drift, decisions, the model's age, retrainings left, runs and their failures.

Here: figures read off the journal and Dagster's runs when they are asked for, labels from closed lists only. Not here:
the endpoint's figures (`bento.metrics`), alert rules (`deploy/monitoring`) or who serves this page (`webhook`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import date, datetime, timedelta

import dagster as dg
from prometheus_client import CollectorRegistry, Gauge, generate_latest

from loan_assets.credit.succession import Kind
from loan_assets.policy import Policy
from loan_assets.resources.decisions import MOVED, WATCH, Step

# What happened within it counts as recent.
RECENT = timedelta(hours=1)
GOING_ON = {
    "queued": (dg.DagsterRunStatus.QUEUED,),
    "executed": (dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING),
}


def page(steps: Sequence[Step], instance: dg.DagsterInstance | None, policy: Policy, now: datetime) -> bytes:
    """The platform's figures as Prometheus reads them.

    Args:
        steps: the journal, oldest first.
        instance: Dagster's history, None where there is none yet.
        now: UTC.
    """
    registry = CollectorRegistry()

    def gauge(name: str, said: str, value: float) -> None:
        Gauge(name, said, registry=registry).set(value)

    if steps:
        _decided(steps, policy, now, gauge)
    counted = Gauge("loan_decisions", "Decisions on record, by kind", ("kind",), registry=registry)
    kinds = Counter(action.kind for step in steps for action in step.actions)
    for kind in Kind:
        counted.labels(kind.value).set(kinds[kind])
    if instance is not None:
        going = Gauge("loan_runs", "Runs queued and executed now", ("state",), registry=registry)
        for state, statuses in GOING_ON.items():
            going.labels(state).set(instance.get_runs_count(dg.RunsFilter(statuses=list(statuses))))
        failed = dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE], updated_after=now - RECENT)
        gauge("loan_failed_runs", "Runs that failed within the last hour", instance.get_runs_count(failed))
    return bytes(generate_latest(registry))


def _decided(steps: Sequence[Step], policy: Policy, now: datetime, gauge: Callable[[str, str, float], None]) -> None:
    """What the journal says of drift, the champion and the question that is open."""
    last, situation = steps[-1], steps[-1].situation
    watched = [step for step in steps if step.kind == WATCH]
    checks = [step for step in watched if str(step.situation.champion) in (step.evidence.get("shares") or {})]
    if checks:
        newest = checks[-1]
        share = newest.evidence["shares"][str(newest.situation.champion)]
        gauge("evidently_data_drift_score", "Share of columns that moved, at the newest check", float(share))
    gauge("loan_drift_consecutive_breaches", "Checks in a row over the limit", situation.consecutive)
    gauge("loan_drift_limit", "The limit that policy sets", policy.vigilance.retrain_above)
    if watched:
        looked = datetime.fromisoformat(watched[-1].at)
        gauge("loan_last_watch_seconds", "Seconds since a day was looked at", (now - looked).total_seconds())
    gauge("loan_champion_version", "Version in force by the journal", situation.champion)
    moves = [step for step in steps if step.kind == MOVED]
    if moves:
        since = datetime.fromisoformat(moves[-1].at)
        gauge("loan_champion_age_seconds", "Seconds since the champion was put in force", (now - since).total_seconds())
        gauge("loan_move_seconds", "From the last decision to its champion in force", moves[-1].evidence["seconds"])
    returns = [move for move in moves if _is_return(steps, move)]
    if returns:
        gauge("loan_time_to_revert_seconds", "From a return to its version in force", returns[-1].evidence["seconds"])
    is_late = last.kind != MOVED and any(action.kind in (Kind.PROMOTE, Kind.ROLLBACK) for action in last.actions)
    waits = (now - datetime.fromisoformat(last.at)).total_seconds() if is_late else 0.0
    gauge("loan_decided_not_in_force_seconds", "Seconds that a decided champion has waited", waits)
    gauge("loan_question_open", "1 while a change is being answered", float(situation.episode is not None))
    challenger = situation.challenger
    gauge("loan_challenger_version", "Version on trial, 0 where none is", challenger.number if challenger else 0)
    month, today = policy.succession.budget_days, now.date()
    spent = [day for day in situation.retrained if (today - date.fromisoformat(day)).days < month]
    left = max(policy.succession.budget - len(spent), 0)
    gauge("loan_retrainings_left", "Retrainings that the month's budget still holds", left)


def _is_return(steps: Sequence[Step], move: Step) -> bool:
    """Whether a move carried out a return."""
    decided = steps[move.evidence["decided_in"] - 1]
    return any(action.kind is Kind.ROLLBACK for action in decided.actions)
