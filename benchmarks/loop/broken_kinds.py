"""Kinds of history in which what arrives is broken, or does not arrive, and the world stays as it was.

Here: one function a kind, its docstring the story, and its verdict. Not here: how worlds and faults work, or the other
kinds. Those kept aside are never looked at while a policy is tuned.
"""

from __future__ import annotations

import faults
from catalogue import aside, tuned
from expected import broken, nothing, refused
from timeline import Timeline
from verdicts import Span, Verdict

BILLS_SENT = [f"BILL_AMT{month}" for month in range(1, 7)]
PAYMENTS_SENT = [f"PAY_AMT{month}" for month in range(1, 7)]

# Broken feeds of applications -----------------------------------------------------------------------------------------


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


# Broken feeds of outcomes ---------------------------------------------------------------------------------------------


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


# Nothing arrives ------------------------------------------------------------------------------------------------------


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
