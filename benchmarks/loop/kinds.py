"""The kinds of history: what happens in each, and what a good policy does with it.

Here: one function a kind, its docstring the story, and the verdict that it returns. Not here: how worlds and faults
work (`worlds`, `faults`). Kinds kept aside are never looked at while a policy is tuned.

D is the label delay. Deadlines are those of a careful bank: an alarm from inputs on the fourth day of a sudden change,
from outcomes six days after the first of them came; a new model ten to twelve days after the first outcome of the new
world; the old one back four days after a temporary change of inputs ended, D + 6 after one that only outcomes show.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import faults
import worlds
from timeline import Timeline
from verdicts import Change, Span, Verdict
from worlds import BILLS, PAYMENTS

MONEY = ["credit_limit", *BILLS, *PAYMENTS]
RENUMBERED = {-2: 1, -1: 2} | {status: status + 2 for status in range(1, 8)} | {8: 9}
BILLS_SENT = [f"BILL_AMT{month}" for month in range(1, 7)]
PAYMENTS_SENT = [f"PAY_AMT{month}" for month in range(1, 7)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of history. `write` puts it on a timeline and says what is expected."""

    name: str
    family: str
    story: str
    kept_aside: bool
    write: Callable[[Timeline], Verdict]


KINDS: dict[str, Kind] = {}


def kind(family: str, *, kept_aside: bool) -> Callable[[Callable[[Timeline], Verdict]], Callable[[Timeline], Verdict]]:
    """Enter a function in the list of kinds, under its own name."""

    def enter(write: Callable[[Timeline], Verdict]) -> Callable[[Timeline], Verdict]:
        name, story = write.__name__, str(write.__doc__)
        KINDS[name] = Kind(name=name, family=family, story=story, kept_aside=kept_aside, write=write)
        return write

    return enter


tuned, aside = partial(kind, kept_aside=False), partial(kind, kept_aside=True)


def nothing(timeline: Timeline) -> Verdict:
    """No alarm and no promotion, ever."""
    always = Span(first=0, last=timeline.days - 1)
    return Verdict(never_promote=(always,), calm=(always,))


def broken(timeline: Timeline, days: range, *, few: bool = False) -> Verdict:
    """These days are set aside and nothing else happens."""
    return Verdict(
        never_promote=(Span(first=0, last=timeline.days - 1),),
        calm=_outside(timeline, days),
        quarantined=() if few else tuple(days),
        not_used=tuple(days) if few else (),
    )


def refused(timeline: Timeline, days: range, *, may: bool = False) -> Verdict:
    """The labels of these days are set aside, or may be, and nothing else happens."""
    return Verdict(
        never_promote=(Span(first=0, last=timeline.days - 1),),
        calm=_outside(timeline, days),
        refused=() if may else tuple(days),
        refusable=tuple(days) if may else (),
    )


def no_reason_to_promote(timeline: Timeline, first: int) -> Verdict:
    """From a day on the inputs look different; an alarm may be raised, but the old model ranks as well as any."""
    return Verdict(never_promote=(Span(first=0, last=timeline.days - 1),), calm=(Span(first=0, last=first - 1),))


def repaired(timeline: Timeline, change: Change, *, patience: int = 0) -> Verdict:
    """The change is noticed and something new serves in time, but not before outcomes of the new world came."""
    settled = change.first + timeline.delay
    full = change.ramp + patience
    silent = change.cause != "inputs"
    return Verdict(
        promote=(Span(first=settled, last=settled + full + (12 if silent else 10)),),
        never_promote=(Span(first=0, last=settled - 1),),
        alarm=(Span(first=change.first, last=change.first + full + (timeline.delay + 6 if silent else 3)),),
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


def _outside(timeline: Timeline, days: range) -> tuple[Span, ...]:
    spans = (Span(first=0, last=days.start - 1), Span(first=days.stop, last=timeline.days - 1))
    return tuple(span for span in spans if span.first <= span.last)


# Quiet ------------------------------------------------------------------------------------------------------------


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


# Spikes -----------------------------------------------------------------------------------------------------------


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
    """Of those who applied on one day, twice as many default; nobody else does."""
    timeline.visit(worlds.rate_moves(1.0), [timeline.change_day])
    return nothing(timeline)


# Inputs move, nothing is harmed -----------------------------------------------------------------------------------


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


# Inputs move, and the model is harmed -----------------------------------------------------------------------------


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


# The relation changes, inputs are silent --------------------------------------------------------------------------


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


# Only the rate moves ----------------------------------------------------------------------------------------------


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


# Changes that go away ---------------------------------------------------------------------------------------------


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


# Broken feeds of applications -------------------------------------------------------------------------------------


def _days(timeline: Timeline, number: int) -> range:
    return range(timeline.change_day, timeline.change_day + number)


@tuned("broken feed")
def empty_column(timeline: Timeline) -> Verdict:
    """One day a column arrives without a value."""
    timeline.break_feed(faults.emptied("BILL_AMT1"), _days(timeline, 1))
    return broken(timeline, _days(timeline, 1))


@aside("broken feed")
def constant_column(timeline: Timeline) -> Verdict:
    """For four days every client is said to have paid the minimum."""
    timeline.break_feed(faults.constant("PAY_0", 0), _days(timeline, 4))
    return broken(timeline, _days(timeline, 4))


@tuned("broken feed")
def thousandfold(timeline: Timeline) -> Verdict:
    """For five days the payments arrive in thousandths."""
    timeline.break_feed(faults.in_another_unit(PAYMENTS_SENT, 1_000), _days(timeline, 5))
    return broken(timeline, _days(timeline, 5))


@aside("broken feed")
def in_thousands(timeline: Timeline) -> Verdict:
    """For four days limits and bills arrive in thousands."""
    columns = ["LIMIT_BAL", *BILLS_SENT]
    timeline.break_feed(faults.in_another_unit(columns, 0.001), _days(timeline, 4))
    return broken(timeline, _days(timeline, 4))


@tuned("broken feed")
def bills_and_payments_swapped(timeline: Timeline) -> Verdict:
    """For three days the newest bill and the newest payment stand under each other's name."""
    timeline.break_feed(faults.swapped("BILL_AMT1", "PAY_AMT1"), _days(timeline, 3))
    return broken(timeline, _days(timeline, 3))


@aside("broken feed")
def limit_and_bill_swapped(timeline: Timeline) -> Verdict:
    """For one day limit and newest bill stand under each other's name."""
    timeline.break_feed(faults.swapped("LIMIT_BAL", "BILL_AMT1"), _days(timeline, 1))
    return broken(timeline, _days(timeline, 1))


@tuned("broken feed")
def unseen_codes(timeline: Timeline) -> Verdict:
    """For three days a third of the clients have an education that nobody defined."""
    timeline.break_feed(faults.unseen("EDUCATION", 9, 0.33), _days(timeline, 3))
    return broken(timeline, _days(timeline, 3))


@aside("broken feed")
def unseen_statuses(timeline: Timeline) -> Verdict:
    """One day the clients behind with payment have a status of 99."""
    fault = faults.unseen("PAY_0", 99, 0.2)
    timeline.break_feed(fault, _days(timeline, 1))
    return broken(timeline, _days(timeline, 1))


@tuned("broken feed")
def requests_twice(timeline: Timeline) -> Verdict:
    """One day four in ten requests are in the file two times."""
    timeline.break_feed(faults.twice(0.4), _days(timeline, 1))
    return broken(timeline, _days(timeline, 1))


@aside("broken feed")
def sent_again(timeline: Timeline) -> Verdict:
    """On two days the file of the day before arrives once more."""
    timeline.send_again(_days(timeline, 2))
    return broken(timeline, _days(timeline, 2))


@tuned("broken feed")
def cut_short(timeline: Timeline) -> Verdict:
    """For two days a tenth of the file arrives."""
    timeline.break_feed(faults.cut(0.1), _days(timeline, 2))
    return broken(timeline, _days(timeline, 2), few=True)


@aside("broken feed")
def holes(timeline: Timeline) -> Verdict:
    """For four days six columns are empty in four rows of ten."""
    columns = ["LIMIT_BAL", "PAY_2", "BILL_AMT2", "BILL_AMT3", "PAY_AMT1", "AGE"]
    timeline.break_feed(faults.patchy(columns, 0.4), _days(timeline, 4))
    return broken(timeline, _days(timeline, 4))


# Broken feeds of outcomes -----------------------------------------------------------------------------------------


@tuned("broken labels")
def all_paid(timeline: Timeline) -> Verdict:
    """For four days every outcome that arrives is a payment."""
    timeline.break_labels(faults.all_the_same(0), _days(timeline, 4))
    return refused(timeline, _days(timeline, 4))


@aside("broken labels")
def all_defaulted(timeline: Timeline) -> Verdict:
    """One day every outcome that arrives is a default."""
    timeline.break_labels(faults.all_the_same(1), _days(timeline, 1))
    return refused(timeline, _days(timeline, 1))


@tuned("broken labels")
def labels_flipped(timeline: Timeline) -> Verdict:
    """For five days paid and defaulted are exchanged."""
    timeline.break_labels(faults.flipped, _days(timeline, 5))
    return refused(timeline, _days(timeline, 5))


@aside("broken labels")
def labels_shuffled(timeline: Timeline) -> Verdict:
    """For four days outcomes belong to other clients."""
    timeline.break_labels(faults.shuffled, _days(timeline, 4))
    return refused(timeline, _days(timeline, 4))


@tuned("broken labels")
def labels_half_missing(timeline: Timeline) -> Verdict:
    """For five days half of the outcomes are missing, whichever they are."""
    timeline.break_labels(faults.half_missing, _days(timeline, 5))
    return refused(timeline, _days(timeline, 5), may=True)


@aside("broken labels")
def defaults_missing(timeline: Timeline) -> Verdict:
    """For four days nearly all defaults are left out."""
    timeline.break_labels(faults.defaults_missing, _days(timeline, 4))
    return refused(timeline, _days(timeline, 4))


@tuned("broken labels")
def labels_of_strangers(timeline: Timeline) -> Verdict:
    """For three days a tenth more outcomes come, of requests that nobody made."""
    timeline.break_labels(faults.with_strangers, _days(timeline, 3))
    return refused(timeline, _days(timeline, 3), may=True)


@aside("broken labels")
def labels_of_another_system(timeline: Timeline) -> Verdict:
    """For two days all outcomes are those of requests that nobody made."""
    timeline.break_labels(faults.of_unknown_requests, _days(timeline, 2))
    return refused(timeline, _days(timeline, 2))


@tuned("broken labels")
def labels_contradictory(timeline: Timeline) -> Verdict:
    """For two days half of the requests are said to have been paid and to have defaulted."""
    timeline.break_labels(faults.contradictory, _days(timeline, 2))
    return refused(timeline, _days(timeline, 2))


@aside("broken labels")
def labels_corrected(timeline: Timeline) -> Verdict:
    """For two days every outcome is a payment; five days later the right ones come."""
    days = _days(timeline, 2)
    timeline.break_labels(faults.all_the_same(0), days)
    timeline.correct(days, days.start + 5)
    return refused(timeline, days)


# Nothing arrives --------------------------------------------------------------------------------------------------


@tuned("missing")
def days_without_traffic(timeline: Timeline) -> Verdict:
    """On three days, and on one more later, nobody applies."""
    days = [*_days(timeline, 3), timeline.change_day + 15]
    timeline.thin_out(days, 0.0)
    return Verdict(
        never_promote=(Span(first=0, last=timeline.days - 1),),
        calm=(Span(first=0, last=timeline.days - 1),),
        not_used=tuple(days),
    )


@aside("missing")
def label_outage(timeline: Timeline) -> Verdict:
    """For ten days no outcome arrives, and then all at once."""
    timeline.labels_wait(timeline.change_day, timeline.change_day + 9)
    return nothing(timeline)


# Several at once --------------------------------------------------------------------------------------------------


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


def one_and_then(one: Verdict, another: Verdict) -> Verdict:
    """Two changes one after the other: what the first asks for, then what the second asks for."""
    return Verdict(
        promote=(*one.promote, *another.promote),
        never_promote=one.never_promote,
        alarm=(*one.alarm, *another.alarm),
        calm=one.calm,
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
