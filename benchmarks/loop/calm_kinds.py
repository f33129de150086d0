"""Kinds of history in which the world stays as good as it was: quiet ones, spikes, inputs that move without harm.

Here: one function a kind, its docstring the story, and its verdict. Not here: how worlds and faults work, or the other
kinds. Those kept aside are never looked at while a policy is tuned.
"""

from __future__ import annotations

import worlds
from catalogue import aside, tuned
from expected import no_reason_to_promote, nothing, outside
from timeline import Timeline
from verdicts import Verdict
from worlds import BILLS, PAYMENTS

MONEY = ["credit_limit", *BILLS, *PAYMENTS]

# Quiet ----------------------------------------------------------------------------------------------------------------


@tuned("quiet")
def quiet(timeline: Timeline) -> Verdict:
    """Nothing happens."""
    return nothing(timeline)


@tuned("quiet")
def quiet_with_scattered_labels(timeline: Timeline) -> Verdict:
    """Nothing happens; outcomes come after two to ten days, three in ten never."""
    timeline.labels_come_after(2, 10)
    timeline.labels_are_partial(0.7)
    return nothing(timeline)


@aside("quiet")
def quiet_with_late_labels(timeline: Timeline) -> Verdict:
    """Nothing happens; outcomes come after ten days."""
    timeline.labels_come_after(10)
    return nothing(timeline)


@aside("quiet")
def quiet_weekends(timeline: Timeline) -> Verdict:
    """Two days in seven bring half of the applications."""
    timeline.thin_out([day for day in range(timeline.days) if day % 7 >= 5], 0.5)
    return nothing(timeline)


@tuned("quiet")
def paydays(timeline: Timeline) -> Verdict:
    """On two days in ten everybody pays and owes a third more."""
    timeline.visit(worlds.paydays, [day for day in range(timeline.days) if day % 10 >= 8])
    return nothing(timeline)


@aside("quiet")
def seasons(timeline: Timeline) -> Verdict:
    """Amounts rise and fall by four in a hundred every two weeks, and a few more or fewer default."""
    for day in range(timeline.days):
        height = (0.0, 0.5, 1.0, 0.5, 0.0, -0.5, -1.0, -0.5)[day // 2 % 8]
        timeline.visit(worlds.scaled(1 + 0.04 * height, [*BILLS, *PAYMENTS]), [day])
        timeline.visit(worlds.rate_moves(0.06 * height), [day])
    return nothing(timeline)


# Spikes ---------------------------------------------------------------------------------------------------------------


@tuned("spike")
def one_day_spike(timeline: Timeline) -> Verdict:
    """For one day all amounts are half as large again."""
    timeline.visit(worlds.scaled(1.5, MONEY), [timeline.change_day])
    return nothing(timeline)


@aside("spike")
def three_day_spike(timeline: Timeline) -> Verdict:
    """For three days all amounts are half as large again; an alarm is in order, a new model is not."""
    days = range(timeline.change_day, timeline.change_day + 3)
    timeline.visit(worlds.scaled(1.5, MONEY), days)
    return no_reason_to_promote(timeline, days.start)


@tuned("spike")
def three_bad_days(timeline: Timeline) -> Verdict:
    """For three days a new core system reports other things, which harms; it is over before any outcome is in."""
    days = range(timeline.change_day, timeline.change_day + 3)
    timeline.visit(worlds.new_core_system, days)
    return no_reason_to_promote(timeline, days.start)


@aside("spike")
def one_unlucky_day(timeline: Timeline) -> Verdict:
    """Of those who applied on one day, twice as many default; an alarm may be raised, or that day doubted."""
    timeline.visit(worlds.rate_moves(1.0), [timeline.change_day])
    told = timeline.change_day + timeline.delay
    return Verdict(
        never_promote=nothing(timeline).never_promote,
        calm=outside(timeline, range(told, told + 5)),
        refusable=(told,),
    )


# Inputs move, nothing is harmed ---------------------------------------------------------------------------------------


@tuned("harmless")
def inflation(timeline: Timeline) -> Verdict:
    """All amounts are four tenths larger from one day to the next; who defaults is told as well as before."""
    timeline.change(worlds.scaled(1.4, MONEY), timeline.change_day, cause="inputs", harms=False)
    return no_reason_to_promote(timeline, timeline.change_day)


@aside("harmless")
def another_clientele(timeline: Timeline) -> Verdict:
    """Older, more often married and better-off clients come."""
    timeline.change(worlds.another_clientele, timeline.change_day, cause="inputs", harms=False)
    return no_reason_to_promote(timeline, timeline.change_day)


@aside("harmless")
def slow_inflation(timeline: Timeline) -> Verdict:
    """Over a month more and more clients have amounts half as large again."""
    timeline.change(worlds.scaled(1.5, MONEY), timeline.change_day, ramp=30, cause="inputs", harms=False)
    return no_reason_to_promote(timeline, timeline.change_day)
