"""Whether a policy did with a history what the verdict asks for, and what came of it.

Here: `Deeds` (what a policy did, day by day), the failures as sentences, and the figures of the scorecard. Not here:
running a policy (`run`, `rivals`) or the table (`scorecard`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from histories import History
from sklearn.metrics import roc_auc_score
from verdicts import Change, Span

NOT_WORSE = 0.005  # AUC: what two equal models differ by on a few thousand clients
FEWEST_TO_COMPARE = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Deeds:
    """What a policy did, by day number. `champion[day]` is who serves from the next day on.

    `quarantined` and `not_ok` are days of applications, `refused` days of labels; None where a policy sets nothing
    aside at all.
    """

    alarms: tuple[int, ...]
    retrainings: tuple[int, ...]
    promotions: tuple[int, ...]
    rollbacks: tuple[int, ...]
    champion: tuple[str, ...]
    first: str
    quarantined: tuple[int, ...] | None = None
    not_ok: tuple[int, ...] | None = None
    refused: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """One policy on one history. Delays are in days beyond what nobody can know sooner; None where it never came."""

    history: str
    kind: str
    family: str
    rows_a_day: int
    policy: str
    missed: tuple[str, ...]
    set_aside_wrongly: tuple[str, ...] | None
    auc: float
    auc_after: float | None
    calm_days: int
    false_alarms: int
    wrong_promotions: int
    worse_promotions: int
    promotions: int
    retrainings: int
    broken_days: int
    broken_found: int
    healthy_lost: int
    broken_labels: int
    broken_labels_found: int
    healthy_labels_lost: int
    alarm_after_inputs: tuple[int | None, ...]
    alarm_after_concept: tuple[int | None, ...]
    back_after_inputs: tuple[int | None, ...]
    back_after_concept: tuple[int | None, ...]
    seconds: float


def judge(history: History, policy: str, deeds: Deeds, scores: pd.DataFrame, worse: int, seconds: float) -> Judged:
    """All figures of one policy on one history."""
    verdict = history.verdict
    must = (*verdict.quarantined, *verdict.not_used)
    lost = set(deeds.quarantined or ()) - set(must)
    labels_lost = set(deeds.refused or ()) - {*verdict.refused, *verdict.refusable}
    auc, after = realised(history, scores)
    return Judged(
        history=history.name,
        kind=history.kind,
        family=history.family,
        rows_a_day=history.rows_a_day,
        policy=policy,
        missed=missed(history, deeds),
        set_aside_wrongly=set_aside_wrongly(history, deeds),
        auc=auc,
        auc_after=after,
        calm_days=sum(span.last - span.first + 1 for span in verdict.calm),
        false_alarms=len(_within(deeds.alarms, verdict.calm)),
        wrong_promotions=len(_within(deeds.promotions, verdict.never_promote)),
        worse_promotions=worse,
        promotions=len(deeds.promotions),
        retrainings=len(deeds.retrainings),
        broken_days=len(must),
        broken_found=len(must) - len(_unfound(history, deeds)),
        healthy_lost=len(lost),
        broken_labels=len(verdict.refused),
        broken_labels_found=len(set(verdict.refused) & set(deeds.refused or ())),
        healthy_labels_lost=len(labels_lost),
        alarm_after_inputs=_alarm_delays(history, deeds, "inputs"),
        alarm_after_concept=_alarm_delays(history, deeds, "concept"),
        back_after_inputs=_back_delays(history, deeds, "inputs"),
        back_after_concept=_back_delays(history, deeds, "concept"),
        seconds=seconds,
    )


def missed(history: History, deeds: Deeds) -> tuple[str, ...]:
    """What the verdict asks of alarms, promotions and rollbacks and did not get, as sentences; empty when right."""
    verdict, said = history.verdict, []
    for span in verdict.alarm:
        if not _within(deeds.alarms, (span,)):
            said.append(f"no alarm on days {_words(span)} (alarms: {_days(deeds.alarms)})")
    for span in verdict.promote:
        if not _within(deeds.promotions, (span,)):
            said.append(f"no promotion on days {_words(span)} (promotions: {_days(deeds.promotions)})")
    for span in verdict.rollback:
        if _back(deeds, span.first, span.last) is None:
            said.append(f"the first model was not back on days {_words(span)}")
    if false := _within(deeds.alarms, verdict.calm):
        said.append(f"false alarm on {_days(false)}")
    if wrong := _within(deeds.promotions, verdict.never_promote):
        said.append(f"promoted on {_days(wrong)}, when nothing should be")
    return tuple(said)


def set_aside_wrongly(history: History, deeds: Deeds) -> tuple[str, ...] | None:
    """Broken days that were used and healthy ones that were not, as sentences; None where nothing is ever set aside."""
    if deeds.quarantined is None or deeds.refused is None:
        return None
    verdict, said = history.verdict, []
    if used := _unfound(history, deeds):
        said.append(f"broken applications used on {_days(used)}")
    if lost := sorted(set(deeds.quarantined) - {*verdict.quarantined, *verdict.not_used}):
        said.append(f"healthy applications set aside on {_days(lost)}")
    if used := sorted(set(verdict.refused) - set(deeds.refused)):
        said.append(f"broken labels used on {_days(used)}")
    if lost := sorted(set(deeds.refused) - {*verdict.refused, *verdict.refusable}):
        said.append(f"healthy labels set aside on {_days(lost)}")
    return tuple(said)


def realised(history: History, scores: pd.DataFrame) -> tuple[float, float | None]:
    """AUC of the scores that were given, on all requests and on those since the first change that harms."""
    joined = history.truth().merge(scores.drop_duplicates("request_id"), on="request_id", how="left")
    if joined["score"].isna().any():
        raise ValueError(f"{history.name}: {int(joined['score'].isna().sum())} requests have no score")
    start = min((change.first for change in history.changes if change.harms), default=None)
    after = None if start is None else _auc(joined[joined["day"] >= start])
    return _auc(joined), after


def stretches(serving: tuple[str, ...]) -> list[tuple[str, str, Span]]:
    """Every change of model: who served before, who after, and for how long."""
    found = []
    starts = [day for day in range(1, len(serving)) if serving[day] != serving[day - 1]]
    for start, end in zip(starts, [*starts, len(serving)][1:], strict=True):
        found.append((serving[start - 1], serving[start], Span(first=start, last=end - 1)))
    return found


def is_worse(label: pd.Series, before: np.ndarray, after: np.ndarray) -> bool:
    """Whether the new model ranked the clients whom it served worse than the one before would have; False if few."""
    if len(label) < FEWEST_TO_COMPARE or label.nunique() < 2:
        return False
    return bool(roc_auc_score(label, after) < roc_auc_score(label, before) - NOT_WORSE)


def _auc(rows: pd.DataFrame) -> float:
    return float(roc_auc_score(rows["label"], rows["score"]))


def _unfound(history: History, deeds: Deeds) -> list[int]:
    """Broken days that were used: an "insufficient" day counts as set aside only where rows were too few or none."""
    verdict = history.verdict
    unfound = set(verdict.quarantined) - set(deeds.quarantined or ())
    return sorted(unfound | (set(verdict.not_used) - set(deeds.not_ok or ())))


def _alarm_delays(history: History, deeds: Deeds, cause: str) -> tuple[int | None, ...]:
    """For each sudden harmful change, days until an alarm, counted from its first day or from its first outcome."""
    delays = []
    for change, until in _with_ends(history):
        if change.harms and change.cause == cause and not change.ramp:
            known = change.first + (history.soonest if cause == "concept" else 0)
            alarms = [day for day in deeds.alarms if known <= day <= until]
            delays.append(alarms[0] - known if alarms else None)
    return tuple(delays)


def _back_delays(history: History, deeds: Deeds, cause: str) -> tuple[int | None, ...]:
    """For each rollback that is asked for, days since the old world, or its first outcome, is back."""
    if not history.verdict.rollback:
        return ()
    change = next(change for change in history.changes if change.ends)
    if change.cause != cause:
        return ()
    known = change.last + 1 + (history.delay if cause == "concept" else 0)
    was_replaced = any(champion != deeds.first for champion in deeds.champion[: change.last])
    day = _back(deeds, change.last + 1, _with_ends(history)[0][1])
    return (day - known if day is not None and was_replaced else None,)


def _with_ends(history: History) -> list[tuple[Change, int]]:
    """Each change with the last day on which what is done counts as an answer to it."""
    starts = [change.first for change in history.changes]
    return [(change, end - 1) for change, end in zip(history.changes, [*starts, history.days][1:], strict=True)]


def _back(deeds: Deeds, first: int, last: int) -> int | None:
    """The first day of a span at whose end the first model is the champion again."""
    if all(champion == deeds.first for champion in deeds.champion[:first]):
        return None
    days = range(first, min(last, len(deeds.champion) - 1) + 1)
    return next((day for day in days if deeds.champion[day] == deeds.first), None)


def _within(days: tuple[int, ...], spans: tuple[Span, ...]) -> list[int]:
    return [day for day in days if any(day in span for span in spans)]


def _words(span: Span) -> str:
    return f"{span.first} to {span.last}"


def _days(days: tuple[int, ...] | list[int]) -> str:
    return ", ".join(str(day) for day in days) or "none"
