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

    `seen` is the newest event that was read, `checks` the last verdict of each day, `answered` the last day of the
    episode that was answered and the version it was about.
    """

    seen: int
    checks: tuple[Check, ...] = ()
    answered_day: str = ""
    answered_version: int = 0

    def after(self, checks: Iterable[Check], seen: int) -> Watch:
        """The watch after more checks, in the order made: the last one of a day counts."""
        by_day = {check.day: check for check in (*self.checks, *checks)}
        kept = sorted(by_day.values(), key=lambda check: check.day)[-REMEMBERED_DAYS:]
        return replace(self, seen=max(seen, self.seen), checks=tuple(kept))

    def answered(self, episode: Episode) -> Watch:
        """The watch after a retraining was asked for."""
        return replace(self, answered_day=episode.days[-1], answered_version=episode.model_version)

    def to_json(self) -> str:
        """The watch as a sensor's cursor."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Watch:
        """Read what `to_json` wrote."""
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
    if len(episode.days) < vigilance.consecutive:
        return False
    is_answered = watch.answered_version == episode.model_version and episode.days[0] <= watch.answered_day
    return not is_answered
