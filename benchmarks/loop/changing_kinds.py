"""Kinds of history in which the world changes: for good, for a while, once, twice, with a broken feed on top.

Here: one function a kind, its docstring the story, and its verdict. Not here: how worlds and faults work, or the other
kinds. Those kept aside are never looked at while a policy is tuned.
"""

from __future__ import annotations

import faults
import worlds
from catalogue import aside, tuned
from expected import one_and_then, repaired, repaired_and_undone, with_broken_days
from timeline import Timeline
from verdicts import Span, Verdict

RENUMBERED = {-2: 1, -1: 2} | {status: status + 2 for status in range(1, 8)} | {8: 9}

# Inputs move, and the model is harmed ---------------------------------------------------------------------------------


@tuned("harmful inputs")
def new_core_system(timeline: Timeline) -> Verdict:
    """A new core system: bills say what is left of the limit, who pays the minimum counts as one month behind."""
    change = timeline.change(worlds.new_core_system, timeline.change_day, cause="inputs", harms=True)
    return repaired(timeline, change)


@aside("harmful inputs")
def statuses_renumbered(timeline: Timeline) -> Verdict:
    """A new system has other codes: nothing due is 1, paid in full 2, the months behind follow."""
    change = timeline.change(worlds.recoded(RENUMBERED), timeline.change_day, cause="inputs", harms=True)
    return repaired(timeline, change)


@aside("harmful inputs")
def what_is_left(timeline: Timeline) -> Verdict:
    """Statements say what is left of the limit and what is still due; outcomes come after two days."""
    timeline.labels_come_after(2)
    change = timeline.change(worlds.what_is_left, timeline.change_day, cause="inputs", harms=True)
    return repaired(timeline, change)


@tuned("harmful inputs")
def bank_taken_over(timeline: Timeline) -> Verdict:
    """Half of the applicants are a taken-over bank's, of another kind and with other reasons to default."""
    change = timeline.change(worlds.taken_over, timeline.change_day, cause="inputs", harms=True)
    return repaired(timeline, change)


@tuned("harmful inputs")
def branches_migrate(timeline: Timeline) -> Verdict:
    """Branch by branch, over twelve days, the bank moves to the new core system."""
    change = timeline.change(worlds.new_core_system, timeline.change_day, ramp=12, cause="inputs", harms=True)
    return repaired(timeline, change)


@aside("harmful inputs")
def bank_taken_over_slowly(timeline: Timeline) -> Verdict:
    """A taken-over bank's clients become half of the applicants over two weeks."""
    change = timeline.change(worlds.taken_over, timeline.change_day, ramp=14, cause="inputs", harms=True)
    return repaired(timeline, change)


# The relation changes, inputs are silent ------------------------------------------------------------------------------


@tuned("concept")
def payment_holiday(timeline: Timeline) -> Verdict:
    """Delays are forgiven and tell little; those deep in debt default."""
    change = timeline.change(worlds.follows(worlds.payment_holiday), timeline.change_day, cause="concept", harms=True)
    return repaired(timeline, change)


@aside("concept")
def lost_jobs(timeline: Timeline) -> Verdict:
    """Graduates lose their jobs: among them it is the careful who default."""
    change = timeline.change(worlds.follows(worlds.lost_jobs), timeline.change_day, cause="concept", harms=True)
    return repaired(timeline, change)


@tuned("concept")
def lost_deposits_slowly(timeline: Timeline) -> Verdict:
    """Over ten days those who paid in full become the risky ones."""
    change = timeline.change(
        worlds.follows(worlds.lost_deposits), timeline.change_day, ramp=10, cause="concept", harms=True
    )
    return repaired(timeline, change)


@aside("concept")
def large_lines_fail_late(timeline: Timeline) -> Verdict:
    """Large unused limits are drawn before a default; outcomes come after ten days."""
    timeline.labels_come_after(10)
    change = timeline.change(worlds.follows(worlds.large_lines_fail), timeline.change_day, cause="concept", harms=True)
    return repaired(timeline, change)


@aside("concept")
def lost_jobs_slowly(timeline: Timeline) -> Verdict:
    """Graduates lose their jobs over two weeks; outcomes come after two to eight days, a fifth never."""
    timeline.labels_come_after(2, 8)
    timeline.labels_are_partial(0.8)
    change = timeline.change(
        worlds.follows(worlds.lost_jobs), timeline.change_day, ramp=14, cause="concept", harms=True
    )
    return repaired(timeline, change, patience=3)


# Only the rate moves --------------------------------------------------------------------------------------------------


def _rate(timeline: Timeline, log_odds: float) -> Verdict:
    """A recalibrated model may be promoted, once outcomes are in; nothing must be."""
    timeline.change(worlds.rate_moves(log_odds), timeline.change_day, cause="rate", harms=False)
    return Verdict(
        never_promote=(Span(first=0, last=timeline.change_day + timeline.delay - 1),),
        calm=(Span(first=0, last=timeline.change_day - 1),),
    )


@tuned("rate")
def more_default(timeline: Timeline) -> Verdict:
    """The odds of default double for everybody; who is riskier than whom stays."""
    return _rate(timeline, 0.7)


@aside("rate")
def fewer_default(timeline: Timeline) -> Verdict:
    """The odds of default fall to half for everybody."""
    return _rate(timeline, -0.7)


# Changes that go away -------------------------------------------------------------------------------------------------


@tuned("temporary")
def new_core_system_for_a_while(timeline: Timeline) -> Verdict:
    """For three weeks the bank tries the new core system, and goes back."""
    first = timeline.change_day
    change = timeline.change(worlds.new_core_system, first, first + 20, cause="inputs", harms=True)
    return repaired_and_undone(timeline, change)


@aside("temporary")
def bank_taken_over_for_a_while(timeline: Timeline) -> Verdict:
    """For three weeks half of the applicants come from a bank that is then sold again."""
    first = timeline.change_day
    change = timeline.change(worlds.taken_over, first, first + 20, cause="inputs", harms=True)
    return repaired_and_undone(timeline, change)


@aside("temporary")
def payment_holiday_for_a_while(timeline: Timeline) -> Verdict:
    """For three weeks delays are forgiven."""
    first = timeline.change_day
    world = worlds.follows(worlds.payment_holiday)
    change = timeline.change(world, first, first + 20, cause="concept", harms=True)
    return repaired_and_undone(timeline, change)


@tuned("temporary")
def large_lines_fail_for_a_while(timeline: Timeline) -> Verdict:
    """For sixteen days large unused limits are drawn before a default; outcomes come after two days."""
    timeline.labels_come_after(2)
    first = timeline.change_day
    change = timeline.change(worlds.follows(worlds.large_lines_fail), first, first + 15, cause="concept", harms=True)
    return repaired_and_undone(timeline, change)


@aside("temporary")
def renumbered_twice(timeline: Timeline) -> Verdict:
    """For sixteen days the codes are others, then not, then again for ten; outcomes come after two days."""
    timeline.labels_come_after(2)
    first = timeline.change_day
    change = timeline.change(worlds.recoded(RENUMBERED), first, first + 15, cause="inputs", harms=True)
    verdict = repaired_and_undone(timeline, change)
    timeline.change(worlds.recoded(RENUMBERED), first + 26, first + 35, cause="inputs", harms=True)
    return Verdict(
        promote=verdict.promote,
        never_promote=(*verdict.never_promote[:-1], Span(first=first + 18, last=first + 25)),
        alarm=verdict.alarm,
        calm=verdict.calm,
        rollback=verdict.rollback,
        is_temporary=True,
    )


# Several at once ------------------------------------------------------------------------------------------------------


@tuned("combined")
def broken_during_change(timeline: Timeline) -> Verdict:
    """A new core system, and from its second day on a column is empty for three days."""
    change = timeline.change(worlds.new_core_system, timeline.change_day, cause="inputs", harms=True)
    days = range(timeline.change_day + 1, timeline.change_day + 4)
    timeline.break_feed(faults.emptied("PAY_AMT3"), days)
    return with_broken_days(repaired(timeline, change, patience=4), quarantined=days)


@aside("combined")
def labels_broken_during_change(timeline: Timeline) -> Verdict:
    """Delays are forgiven, and on three of the first days that would show it every outcome is a payment."""
    change = timeline.change(worlds.follows(worlds.payment_holiday), timeline.change_day, cause="concept", harms=True)
    arriving = timeline.change_day + timeline.delay
    days = range(arriving + 1, arriving + 4)
    timeline.break_labels(faults.all_the_same(0), days)
    return with_broken_days(repaired(timeline, change, patience=4), refused=days)


@aside("combined")
def outage_during_change(timeline: Timeline) -> Verdict:
    """A bank is taken over, and for ten days no outcome arrives."""
    change = timeline.change(worlds.taken_over, timeline.change_day, cause="inputs", harms=True)
    timeline.labels_wait(timeline.change_day + 3, timeline.change_day + 12)
    verdict = repaired(timeline, change)
    late = Span(first=timeline.change_day + 13, last=timeline.change_day + 22)
    return Verdict(
        promote=(late,),
        never_promote=(Span(first=0, last=timeline.change_day + 12),),
        alarm=verdict.alarm,
        calm=verdict.calm,
    )


@tuned("combined")
def one_change_after_another(timeline: Timeline) -> Verdict:
    """A new core system; twenty days later delays are forgiven as well."""
    # The outcomes are drawn first: they follow what clients do, however it is reported.
    hidden = worlds.follows(worlds.payment_holiday)
    then = timeline.change(hidden, timeline.change_day + 20, cause="concept", harms=True)
    first = timeline.change(worlds.new_core_system, timeline.change_day, cause="inputs", harms=True)
    return one_and_then(repaired(timeline, first), repaired(timeline, then))


@aside("combined")
def two_concepts(timeline: Timeline) -> Verdict:
    """Delays are forgiven; twenty days later large unused limits are drawn before a default instead."""
    start, middle = timeline.change_day, timeline.change_day + 20
    first = timeline.change(worlds.follows(worlds.payment_holiday), start, middle - 1, cause="concept", harms=True)
    then = timeline.change(worlds.follows(worlds.large_lines_fail), middle, cause="concept", harms=True)
    return one_and_then(repaired(timeline, first), repaired(timeline, then))
