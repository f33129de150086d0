"""What a good policy does with a history, as data: by when it must act, and when it must not.

Here: `Span`, `Verdict` and `Change`; days are numbered from 0. Not here: histories (`timeline`, `kinds`) or the judging
of a policy's decisions (`judged`).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Days from `first` to `last`, both included."""

    first: int
    last: int

    def __contains__(self, day: int) -> bool:
        return self.first <= day <= self.last


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One true change of the world.

    `last` is its last day, the end of the history where it stays; `ramp` is over how many days it sets in. `cause` says
    where it shows first: inputs, concept (only in outcomes) or rate (only in how many default). `harms` is whether the
    old model ranks worse in it and a new one would rank better.
    """

    cause: str
    first: int
    last: int
    ramp: int
    harms: bool
    ends: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What must happen, and what must not; what is not named is free.

    `promote`: in each span something new must be promoted. `alarm`: in each span there must be an alarm. `rollback`: in
    each span the model that the history began with must be back. `never_promote` and `calm`: in no such span may
    anything be promoted, or an alarm be raised. `quarantined` are the days whose applications must be set aside,
    `not_used` those which are too few or none, where "insufficient" will do as well; no other day may be quarantined.
    `refused` are the days (of arrival) whose labels must be set aside, `refusable` those which may be; no other.
    `is_temporary`: the old world comes back.
    """

    promote: tuple[Span, ...] = ()
    never_promote: tuple[Span, ...] = ()
    alarm: tuple[Span, ...] = ()
    calm: tuple[Span, ...] = ()
    rollback: tuple[Span, ...] = ()
    quarantined: tuple[int, ...] = ()
    not_used: tuple[int, ...] = ()
    refused: tuple[int, ...] = ()
    refusable: tuple[int, ...] = ()
    is_temporary: bool = False
