"""What the journal of decisions says in figures: drift, verdicts, who is champion since when, what is left to spend.

Here: figures read off steps. Not here: how a step is taken (`reign`), or figures of runs and of data (`run_figures`,
`asset_figures`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime
from typing import Any

from prometheus_client.core import Metric

from loan_assets.credit.succession import CANARY, PROMOTE, REJECT, SHADOW, WAIT, Kind
from loan_assets.figures import counters, gauge, gauges
from loan_assets.policy import Policy
from loan_assets.resources.decisions import FIRST, GATE, MOVED, PERSON, WATCH, Step

BETTER, UNDECIDED, ON_STAGE = "better", "undecided", "on_stage"
NOTHING_NEW, UNFAIR, BELOW_FLOOR = "nothing_new", "unfair", "below_floor"
UNLIKE, NOT_BETTER = "unlike_at_endpoint", "not_better"
# Every verdict of the gate with every cause that it can have.
VERDICTS = (
    (PROMOTE, BETTER),
    (WAIT, UNDECIDED),
    (SHADOW, ON_STAGE),
    (CANARY, ON_STAGE),
    *((REJECT, cause) for cause in (NOTHING_NEW, UNFAIR, BELOW_FLOOR, UNLIKE, NOT_BETTER)),
)
SUCCEEDED = (Kind.PROMOTE, Kind.ROLLBACK)


def decided(
    steps: Sequence[Step], policy: Policy, now: datetime, deliveries: Sequence[float], outcomes: Sequence[float]
) -> Iterator[Metric]:
    """The figures of a journal.

    Args:
        steps: oldest first.
        now: UTC.
        deliveries: when loan books arrived, in seconds since 1970.
        outcomes: when outcomes did.
    """
    kinds = Counter(action.kind for step in steps for action in step.actions)
    counted: dict[tuple[str, ...], float] = {(str(kind.value),): float(kinds[kind]) for kind in Kind}
    yield counters("loan_decisions", "Decisions on record, by kind", ("kind",), counted)
    said = "Judgements of the gate, by verdict and cause"
    verdicts = Counter(verdict_of(step, policy) for step in steps if step.kind == GATE)
    yield counters("loan_gate_verdicts", said, ("verdict", "cause"), {one: float(verdicts[one]) for one in VERDICTS})
    limit = policy.vigilance.retrain_above
    yield gauge("loan_drift_limit", "The share of columns over their limit that policy allows", limit)
    yield gauge("loan_retrainings_budget", "Retrainings that a month may hold", policy.succession.budget)
    if steps:
        yield from _watched(steps, now)
        yield from _reigning(steps, policy, now)
        yield from _moved(steps, now, deliveries, outcomes)


def _watched(steps: Sequence[Step], now: datetime) -> Iterator[Metric]:
    """The days that were looked at, and what their checks said of the champion and of former ones."""
    watched = [step for step in steps if step.kind == WATCH]
    checks = [step for step in watched if step.evidence.get("shares")]
    if checks:
        newest = checks[-1].evidence["shares"]
        shares: dict[tuple[str, ...], float] = {(number,): float(share) for number, share in newest.items()}
        said = "Share of columns that moved, at the newest check, by the version that they are compared with"
        yield gauges("loan_drift_score", said, ("version",), shares)
    own = [step for step in checks if str(step.situation.champion) in step.evidence["shares"]]
    if own:
        share = own[-1].evidence["shares"][str(own[-1].situation.champion)]
        yield gauge("evidently_data_drift_score", "Share of columns that moved, at the newest check", float(share))
    yield counters("loan_drift_checks", "Checks on record", (), {(): float(len(checks))})
    breaches = steps[-1].situation.consecutive
    yield gauge("loan_drift_consecutive_breaches", "Checks in a row over the limit", breaches)
    # Where none ever was, since there was something to look at.
    looked = (now - _at((watched or steps[:1])[-1])).total_seconds()
    yield gauge("loan_last_watch_seconds", "Seconds since a day was looked at", looked)


def _reigning(steps: Sequence[Step], policy: Policy, now: datetime) -> Iterator[Metric]:
    """The champion, who is on trial, and what is left to answer a change with."""
    situation = steps[-1].situation
    yield gauge("loan_champion_version", "Version in force by the journal", situation.champion)
    yield gauge("loan_question_open", "1 while a change is being answered", float(situation.episode is not None))
    challenger = situation.challenger
    on_trial = challenger.number if challenger else 0
    yield gauge("loan_challenger_version", "Version on trial, 0 where none is", on_trial)
    month, today = policy.succession.budget_days, now.date()
    spent = [day for day in situation.retrained if (today - date.fromisoformat(day)).days < month]
    left = max(policy.succession.budget - len(spent), 0)
    yield gauge("loan_retrainings_left", "Retrainings that the month's budget still holds", left)


def _moved(
    steps: Sequence[Step], now: datetime, deliveries: Sequence[float], outcomes: Sequence[float]
) -> Iterator[Metric]:
    """What was put in force when, how long that took, and what still waits for it."""
    moves = [step for step in steps if step.kind == MOVED]
    if moves:
        since = (now - _at(moves[-1])).total_seconds()
        yield gauge("loan_champion_age_seconds", "Seconds since the champion was put in force", since)
        took = moves[-1].evidence["seconds"]
        yield gauge("loan_move_seconds", "From the last decision to its champion in force", took)
    returns = [move for move in moves if _is_return(steps, move)]
    if returns:
        took = returns[-1].evidence["seconds"]
        yield gauge("loan_time_to_revert_seconds", "From a return to its version in force", took)
    leads = (lead_seconds(steps, move, deliveries, outcomes) for move in reversed(moves))
    lead = next((one for one in leads if one is not None), None)
    if lead is not None:
        said = "From the arrival of the data that the newest model was ordered on to its being in force"
        yield gauge("loan_lead_time_seconds", said, lead)
    due = [step for step in steps if any(action.kind in SUCCEEDED for action in step.actions)]
    is_late = bool(due) and not any(move.number > due[-1].number for move in moves)
    waits = (now - _at(due[-1])).total_seconds() if is_late else 0.0
    yield gauge("loan_decided_not_in_force_seconds", "Seconds that a decided champion has waited", waits)


def verdict_of(step: Step, policy: Policy) -> tuple[str, str]:
    """What the gate said in a step, and why, out of `VERDICTS`."""
    evidence: Mapping[str, Any] = step.evidence
    verdict = evidence.get("verdict")
    if verdict is None:
        return REJECT, NOTHING_NEW
    other = {PROMOTE: BETTER, WAIT: UNDECIDED, SHADOW: ON_STAGE, CANARY: ON_STAGE}.get(verdict)
    if other is not None:
        return verdict, other
    against, served = (evidence.get("trial") or {}).get("against") or (), evidence.get("served") or {}
    if any(said.startswith("the approval ratio") for said in against):
        return REJECT, UNFAIR
    if against:
        return REJECT, BELOW_FLOOR
    is_unlike = served.get("farthest", 0.0) > policy.promotion.farthest
    return REJECT, UNLIKE if is_unlike else NOT_BETTER


def lead_seconds(
    steps: Sequence[Step], move: Step, deliveries: Sequence[float], outcomes: Sequence[float]
) -> float | None:
    """From the arrival of the data that a model was ordered on to its being in force; None for a return.

    The first model is ordered by a delivery, each later one by the step that ordered its retraining on the outcomes
    that had arrived by then; one that a person put in force by that word, on either.
    """
    step = steps[move.evidence["decided_in"] - 1]
    if not any(action.kind is Kind.PROMOTE for action in step.actions):
        return None
    arrivals = {FIRST: deliveries, PERSON: (*deliveries, *outcomes)}.get(step.kind, outcomes)
    if step.kind == GATE:
        ordered = (one for one in reversed(steps[: step.number]) if _orders(one))
        step = next(ordered, step)
    before = [arrival for arrival in arrivals if arrival <= _at(step).timestamp()]
    return _at(move).timestamp() - max(before) if before else None


def _orders(step: Step) -> bool:
    return any(action.kind is Kind.RETRAIN for action in step.actions)


def _is_return(steps: Sequence[Step], move: Step) -> bool:
    """Whether a move carried out a return."""
    decided_in = steps[move.evidence["decided_in"] - 1]
    return any(action.kind is Kind.ROLLBACK for action in decided_in.actions)


def _at(step: Step) -> datetime:
    return datetime.fromisoformat(step.at)
