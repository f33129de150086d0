"""The forms that verdicts take: nothing may happen, something must be repaired, something must be set aside.

Here: functions from a timeline to a `Verdict`. Not here: which kind of history asks for which.

Deadlines are those of a careful bank: an alarm from inputs on the fourth day of a sudden change, from outcomes six days
after the first of them came; a new model ten days after the first outcomes of the new world, twelve where the inputs
said nothing; the old model back four days after a temporary change of inputs ended, six after the first outcomes of the
old world where the inputs said nothing. A ramp adds its length.
"""

from __future__ import annotations

from timeline import Timeline
from verdicts import Change, Span, Verdict


def nothing(timeline: Timeline) -> Verdict:
    """No alarm and no promotion, ever."""
    always = Span(first=0, last=timeline.days - 1)
    return Verdict(never_promote=(always,), calm=(always,))


def broken(timeline: Timeline, days: range, *, few: bool = False) -> Verdict:
    """These days are set aside and nothing else happens."""
    return Verdict(
        never_promote=(Span(first=0, last=timeline.days - 1),),
        calm=outside(timeline, days),
        quarantined=() if few else tuple(days),
        not_used=tuple(days) if few else (),
    )


def refused(timeline: Timeline, days: range, *, may: bool = False) -> Verdict:
    """The labels of these days are set aside, or may be, and nothing else happens."""
    return Verdict(
        never_promote=(Span(first=0, last=timeline.days - 1),),
        calm=outside(timeline, days),
        refused=() if may else tuple(days),
        refusable=tuple(days) if may else (),
    )


def no_reason_to_promote(timeline: Timeline, first: int) -> Verdict:
    """From a day on the inputs look different; an alarm may be raised, but the old model ranks as well as any."""
    return Verdict(never_promote=(Span(first=0, last=timeline.days - 1),), calm=(Span(first=0, last=first - 1),))


def repaired(timeline: Timeline, change: Change, *, patience: int = 0) -> Verdict:
    """The change is noticed and something new serves in time, but not before outcomes of the new world came."""
    told = change.first + timeline.soonest
    settled = change.first + change.ramp + timeline.delay + patience
    silent = change.cause != "inputs"
    by = settled + 6 if silent else change.first + change.ramp + patience + 3
    return Verdict(
        promote=(Span(first=told, last=settled + (12 if silent else 10)),),
        never_promote=(Span(first=0, last=told - 1),),
        alarm=(Span(first=told if silent else change.first, last=by),),
        calm=(Span(first=0, last=change.first - 1),),
    )


def repaired_and_undone(timeline: Timeline, change: Change) -> Verdict:
    """As `repaired`, and the old model is back soon after the change has gone; nothing new is promoted then."""
    first = repaired(timeline, change)
    known = change.last + 1 + (timeline.delay if change.cause != "inputs" else 0)
    back = Span(first=change.last + 1, last=known + (6 if change.cause != "inputs" else 4))
    return Verdict(
        promote=first.promote,
        never_promote=(*first.never_promote, Span(first=known + 2, last=timeline.days - 1)),
        alarm=first.alarm,
        calm=first.calm,
        rollback=(back,),
        is_temporary=True,
    )


def outside(timeline: Timeline, days: range) -> tuple[Span, ...]:
    """The days before and after some."""
    spans = (Span(first=0, last=days.start - 1), Span(first=days.stop, last=timeline.days - 1))
    return tuple(span for span in spans if span.first <= span.last)


def with_broken_days(verdict: Verdict, *, quarantined: range = range(0), refused: range = range(0)) -> Verdict:
    """A verdict in which some days must be set aside as well."""
    return Verdict(
        promote=verdict.promote,
        never_promote=verdict.never_promote,
        alarm=verdict.alarm,
        calm=verdict.calm,
        quarantined=tuple(quarantined),
        refused=tuple(refused),
    )


def one_and_then(one: Verdict, another: Verdict) -> Verdict:
    """Two changes one after the other: what the first asks for, then what the second asks for."""
    return Verdict(
        promote=(*one.promote, *another.promote),
        never_promote=one.never_promote,
        alarm=(*one.alarm, *another.alarm),
        calm=one.calm,
    )
