"""When drift asks for a retraining: three checks in a row over the limit, once per episode.

Here: what is remembered of the checks and the rule over it, without a clock. Not here: how a check is made (`drift`) or
how a run is started (`sensors`).

A check is a day's drift report. Making it again replaces it; a day without enough data is no check. Only checks against
the model version in force count. An episode that was answered is not answered again until a calm check has ended it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace

from loan_assets.policy import Vigilance

REMEMBERED_DAYS = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One day's verdict: its score against one model version, None where it counts as no check."""

    day: str
    model_version: int
    score: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """What is remembered between two looks.

    `seen` is the newest event that was read, `checks` the last verdict of each day. An episode that was answered is
    kept by the version it was about and its last day then, however long it goes on; `is_over` says that a calm check
    against that version has ended it.
    """

    seen: int
    checks: tuple[Check, ...] = ()
    answered_day: str = ""
    answered_version: int = 0
    is_over: bool = False

    def after(self, checks: Iterable[Check], seen: int, vigilance: Vigilance) -> Watch:
        """The watch after more checks, in the order made: the last one of a day counts."""
        by_day = {check.day: check for check in (*self.checks, *checks)}
        known = sorted(by_day.values(), key=lambda check: check.day)
        is_over = self.is_over or any(self._is_ended_by(check, vigilance) for check in known)
        return replace(self, seen=max(seen, self.seen), checks=tuple(known[-REMEMBERED_DAYS:]), is_over=is_over)

    def answered(self, episode: Episode) -> Watch:
        """The watch after a retraining was asked for."""
        return replace(self, answered_day=episode.days[-1], answered_version=episode.model_version, is_over=False)

    def has_answered(self, episode: Episode) -> bool:
        """Whether the episode goes on from the one that was answered."""
        if episode.model_version != self.answered_version:
            return False
        return not self.is_over or episode.days[0] <= self.answered_day

    def _is_ended_by(self, check: Check, vigilance: Vigilance) -> bool:
        if check.model_version != self.answered_version or check.score is None:
            return False
        return check.day >= self.answered_day and not check.score > vigilance.retrain_above

    def to_json(self) -> str:
        """The watch as a sensor's cursor."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Watch:
        """Read what `to_json` wrote, now or before `is_over` was kept: the checks in it still say whether it is."""
        facts = json.loads(text)
        return cls(**{**facts, "checks": tuple(Check(**check) for check in facts["checks"])})


@dataclass(frozen=True, slots=True, kw_only=True)
class Episode:
    """The days in a row, up to the newest check, on which the score was over the limit."""

    model_version: int
    days: tuple[str, ...] = field(default=())


def open_episode(watch: Watch, model_version: int, vigilance: Vigilance) -> Episode:
    """The episode that the newest checks against this version are in; without days where the newest check is calm."""
    days: list[str] = []
    for check in reversed(watch.checks):
        if check.model_version != model_version or check.score is None:
            continue
        if not check.score > vigilance.retrain_above:
            break
        days.append(check.day)
    return Episode(model_version=model_version, days=tuple(reversed(days)))


def asks_for_retraining(watch: Watch, episode: Episode, vigilance: Vigilance) -> bool:
    """Whether the episode is long enough and was not answered before."""
    return len(episode.days) >= vigilance.consecutive and not watch.has_answered(episode)
