"""The ledger knows each request and each outcome from its day on, once, and by the latest word."""

from collections.abc import Iterable

import numpy as np
import pandas as pd
import pytest

from loan_assets.books import LoanBook
from loan_assets.credit.ledger import UNKNOWN, Ledger, Rows, joined
from loan_assets.credit.scoring import probability
from loan_assets_tests.credit.stumps import stump

MONDAY, TUESDAY, WEDNESDAY, THURSDAY = "2026-01-05", "2026-01-06", "2026-01-07", "2026-01-08"
STUMPED = stump(1)


@pytest.fixture
def clients(received: pd.DataFrame, book: LoanBook) -> Rows:
    """Four clients, the second and fourth with a small bill."""
    table = received.head(4).assign(bill_amount_1=[200_000, 50_000, 300_000, 80_000])
    return Rows.of(table, book)


def four(clients: Rows, number: int) -> Rows:
    """The four clients again, told apart by their age."""
    return Rows(
        features=clients.features,
        label=clients.label,
        received={**clients.received, "age": np.arange(4.0) + 10 * number},
    )


@pytest.fixture
def ledger(clients: Rows, book: LoanBook) -> Ledger:
    """Three days of the four clients; on each the first row is unfit. No outcome has come yet."""
    begun = Ledger(book=book)
    healthy = np.array([False, True, True, True])
    for number, date in enumerate((MONDAY, TUESDAY, WEDNESDAY)):
        begun.ask(date, [f"{number}{row}" for row in range(4)], four(clients, number), healthy)
    return begun


def ages(rows: Rows) -> list[float]:
    return list(rows.received["age"])


def told(ledger: Ledger, date: str, *outcomes: tuple[str, int] | tuple[str, int, str]) -> None:
    ledger.settle(date, [(one[0], one[1], one[2] if len(one) == 3 else f"{date} 12:00") for one in outcomes])


def labels(ledger: Ledger) -> list[list[int]]:
    return [list(asked.label) for asked in ledger.days]


def unknown_but(**known: int) -> list[list[int]]:
    """What is known when only these outcomes are, as `r12=1` for the request "12"."""
    table = [[UNKNOWN] * 4 for _ in range(3)]
    for name, label in known.items():
        table[int(name[1])][int(name[2])] = label
    return table


# --- requests


def test_a_day_is_known_once_it_was_asked(clients: Rows, book: LoanBook) -> None:
    begun = Ledger(book=book)
    assert (len(begun.since("", labelled=False)), len(begun.asked(["00"], STUMPED))) == (0, 0)
    assert begun.first_asked([MONDAY]) == ""
    begun.ask(MONDAY, ["00", "01", "02", "03"], clients, np.ones(4, dtype=bool))
    assert (len(begun.since("", labelled=False)), len(begun.asked(["00"], STUMPED))) == (4, 1)
    assert len(begun.since("", labelled=True)) == 0


def test_an_outcome_that_comes_before_its_request_is_not_kept_for_it(clients: Rows, book: LoanBook) -> None:
    begun = Ledger(book=book)
    told(begun, MONDAY, ("00", 1))
    begun.ask(TUESDAY, ["00", "01", "02", "03"], clients, np.ones(4, dtype=bool))
    assert list(begun.days[0].label) == [UNKNOWN] * 4
    told(begun, WEDNESDAY, ("00", 0, "2026-01-01 00:00"))
    assert begun.days[0].label[0] == 0


def test_a_repeated_request_keeps_its_first_place(ledger: Ledger, clients: Rows) -> None:
    ledger.ask(THURSDAY, ["11", "30", "31", "32"], clients, np.ones(4, dtype=bool))
    told(ledger, THURSDAY, ("11", 1))
    assert labels(ledger)[:3] == unknown_but(r11=1)
    assert list(ledger.days[3].label) == [UNKNOWN] * 4
    assert list(ledger.days[3].healthy) == [False, True, True, True]
    assert list(ledger.asked(["11"], STUMPED)["day"]) == [TUESDAY]


def test_requests_are_told_with_their_day_score_and_columns_and_strangers_are_left_out(
    ledger: Ledger, book: LoanBook
) -> None:
    asked = ledger.asked(["21", "never", "02"], stump(3, slope=0.5, intercept=0.25))
    assert list(asked["request_id"]) == ["21", "02"]
    assert list(asked["day"]) == [WEDNESDAY, MONDAY]
    assert list(asked["score"]) == list(probability(np.array([0.75, -0.25])))
    assert list(asked["bill_amount_1"]) == [50_000, 300_000]
    assert "age" not in asked


def test_a_version_scores_a_day_once_and_versions_are_told_apart(ledger: Ledger) -> None:
    first = ledger.scored(0, STUMPED)
    assert ledger.scored(0, STUMPED) is first
    assert list(first) == [-1, 1, -1, 1]
    assert list(ledger.scored(0, stump(2, slope=2.0))) == [-2, 2, -2, 2]


def test_text_infinity_and_what_is_not_there_are_missing(received: pd.DataFrame, book: LoanBook) -> None:
    table = received.head(5).drop(columns=["client_id", "sex"])
    table["bill_amount_1"] = ["50000", "plenty", np.inf, None, -np.inf]
    rows = Rows.of(table.assign(age=[True, 41, "42", "4e1", ""]), book)
    np.testing.assert_array_equal(rows.received["bill_amount_1"], [50_000, *[np.nan] * 4])
    np.testing.assert_array_equal(rows.received["age"][1:], [41, 42, 40, np.nan])
    assert np.isnan(rows.received["sex"]).all()
    bill = book.feature_names.index("latest_bill")
    np.testing.assert_array_equal(rows.features[:, bill], [50_000, *[np.nan] * 4])
    assert not np.isinf(rows.features).any()
    assert list(rows.label) == [UNKNOWN] * 5


def test_features_are_those_of_the_book_in_its_order(received: pd.DataFrame, book: LoanBook) -> None:
    from loan_assets.books import compute_features

    rows = Rows.of(received.head(50), book, received["defaulted"].to_numpy()[:50])
    one = {column.name: float(received[column.name].iloc[7]) for column in book.received}
    expected = compute_features(book, one)
    np.testing.assert_array_equal(rows.features[7], np.array([expected[name] for name in book.feature_names], "f4"))
    assert rows.features.dtype == np.float32
    assert list(rows.label) == list(received["defaulted"][:50])


# --- outcomes


def test_outcomes_of_one_kind_alone_are_not_enough_to_learn_from(ledger: Ledger) -> None:
    told(ledger, TUESDAY, ("01", 0), ("02", 0))
    assert ledger.count_since(MONDAY, least_of_each=1) == 0
    told(ledger, THURSDAY, ("13", 1))
    assert ledger.count_since(MONDAY, least_of_each=1) == 3


def test_outcomes_are_known_from_the_day_on_which_they_came(ledger: Ledger) -> None:
    told(ledger, TUESDAY, ("01", 1), ("02", 0))
    assert ledger.count_since(MONDAY) == 2
    told(ledger, THURSDAY, ("13", 1), ("03", 0))
    assert labels(ledger) == unknown_but(r01=1, r02=0, r13=1, r03=0)
    assert {date: len(ledger.arrival(date, STUMPED)[1]) for date in (MONDAY, TUESDAY, WEDNESDAY, THURSDAY)} == {
        MONDAY: 0,
        TUESDAY: 2,
        WEDNESDAY: 0,
        THURSDAY: 2,
    }


def test_of_two_instants_the_later_one_counts_whatever_came_first(ledger: Ledger) -> None:
    told(ledger, WEDNESDAY, ("01", 1, "2026-01-07 09:00"), ("02", 0, "2026-01-07 08:00"))
    told(ledger, THURSDAY, ("01", 0, "2026-01-07 08:59"), ("02", 1, "2026-01-07 08:01"))
    assert labels(ledger) == unknown_but(r01=1, r02=1)


def test_of_two_outcomes_of_one_instant_the_one_that_came_last_counts(ledger: Ledger) -> None:
    told(ledger, WEDNESDAY, ("01", 1, "2026-01-07 09:00"))
    told(ledger, THURSDAY, ("01", 0, "2026-01-07 09:00"))
    assert labels(ledger) == unknown_but(r01=0)


def test_an_old_word_of_a_request_that_was_heard_of_changes_nothing_even_after_a_correction(ledger: Ledger) -> None:
    for date, label, at in ((TUESDAY, 1, "03"), (WEDNESDAY, 0, "05"), (THURSDAY, 1, "04")):
        told(ledger, date, ("01", label, f"2026-01-{at}"))
    assert labels(ledger) == unknown_but(r01=0)


def test_a_repeated_or_corrected_outcome_arrived_on_its_first_day_only(ledger: Ledger) -> None:
    told(ledger, TUESDAY, ("01", 1), ("02", 0))
    told(ledger, THURSDAY, ("01", 0), ("02", 0), ("12", 1))
    first, later = ledger.arrival(TUESDAY, STUMPED), ledger.arrival(THURSDAY, STUMPED)
    assert [list(part) for part in first] == [[1, -1], [0, 0]]
    assert [list(part) for part in later] == [[-1], [1]]
    assert ledger.count_since(MONDAY) == 3


def test_an_outcome_told_twice_in_one_arrival_is_one_outcome(ledger: Ledger) -> None:
    told(ledger, TUESDAY, ("01", 1, "2026-01-06 10:00"), ("01", 0, "2026-01-06 11:00"))
    assert [list(part) for part in ledger.arrival(TUESDAY, STUMPED)] == [[1], [0]]


def test_outcomes_of_strangers_change_nothing(ledger: Ledger) -> None:
    told(ledger, THURSDAY, ("never asked", 1))
    assert labels(ledger) == unknown_but()
    assert len(ledger.arrival(THURSDAY, STUMPED)[0]) == 0
    assert ledger.count_since(MONDAY) == 0


def test_outcomes_of_unfit_requests_are_in_no_arrival_and_no_training_rows(ledger: Ledger) -> None:
    told(ledger, THURSDAY, ("00", 1), ("10", 0), ("20", 0), ("21", 1))
    assert [list(part) for part in ledger.arrival(THURSDAY, STUMPED)] == [[1], [1]]
    assert ages(ledger.since(MONDAY, labelled=True)) == [21]
    assert len(ledger.before(WEDNESDAY)) == 0
    assert ledger.count_since(MONDAY) == 1


def everything(ledger: Ledger, days: Iterable[int] = range(3)) -> None:
    told(ledger, THURSDAY, *((f"{day}{row}", row % 2) for day in days for row in range(4)))


def test_an_arrival_can_leave_out_early_days_and_spells_to_their_last_day(ledger: Ledger) -> None:
    everything(ledger)
    count = {
        (asked_from, passed): len(ledger.arrival(THURSDAY, STUMPED, asked_from, passed)[1])
        for asked_from in ("", TUESDAY)
        for passed in ((), ((MONDAY, TUESDAY),), ((WEDNESDAY, WEDNESDAY),))
    }
    assert list(count.values()) == [9, 3, 6, 6, 3, 3]
    two_spells = ((MONDAY, MONDAY), (WEDNESDAY, THURSDAY))
    assert len(ledger.arrival(THURSDAY, STUMPED, "", two_spells)[1]) == 3


def test_rows_before_a_day_and_since_it_are_all_rows_with_outcomes_oldest_first(ledger: Ledger) -> None:
    everything(ledger)
    before, since = ledger.before(TUESDAY), ledger.since(TUESDAY, labelled=True)
    assert (ages(before), ages(since)) == ([1, 2, 3], [11, 12, 13, 21, 22, 23])
    assert (list(before.day), list(since.day)) == ([0] * 3, [1] * 3 + [2] * 3)
    assert list(since.label) == [1, 0, 1] * 2
    assert ledger.count_since(TUESDAY) == 6


def test_applications_count_before_their_outcome_is_known_only_where_that_is_asked_for(ledger: Ledger) -> None:
    told(ledger, THURSDAY, ("12", 1))
    assert ages(ledger.since(TUESDAY, labelled=False)) == [11, 12, 13, 21, 22, 23]
    assert ages(ledger.since(TUESDAY, labelled=True)) == [12]
    assert len(ledger.before(TUESDAY)) == 0


def test_outcomes_of_several_days_are_placed_by_their_middle(ledger: Ledger) -> None:
    told(ledger, WEDNESDAY, ("00", 1), ("01", 0), ("11", 1), ("12", 1))
    told(ledger, THURSDAY, ("21", 0))
    assert ledger.first_asked([WEDNESDAY, THURSDAY]) == TUESDAY
    assert ledger.first_asked([THURSDAY]) == WEDNESDAY


def test_an_arrival_without_healthy_rows_places_nothing(ledger: Ledger) -> None:
    told(ledger, WEDNESDAY, ("00", 1))
    told(ledger, THURSDAY, ("02", 1))
    assert ledger.first_asked([WEDNESDAY, THURSDAY]) == MONDAY
    assert ledger.first_asked([WEDNESDAY]) == WEDNESDAY


def test_an_arrival_is_placed_by_what_counts_of_it(ledger: Ledger) -> None:
    told(ledger, WEDNESDAY, ("00", 1), ("01", 0), ("03", 1), ("21", 1))
    told(ledger, THURSDAY, ("11", 0))
    assert ledger.first_asked([WEDNESDAY, THURSDAY]) == MONDAY
    assert ledger.first_asked([WEDNESDAY, THURSDAY], TUESDAY) == WEDNESDAY
    assert ledger.first_asked([WEDNESDAY, THURSDAY], "", [(MONDAY, MONDAY)]) == WEDNESDAY
    assert ledger.first_asked([WEDNESDAY, THURSDAY], "", [(MONDAY, MONDAY), (WEDNESDAY, WEDNESDAY)]) == TUESDAY


# --- rows


def test_nothing_joined_has_the_columns_of_everything(book: LoanBook, ledger: Ledger) -> None:
    nothing, something = joined([], book), ledger.since(MONDAY, labelled=False)
    assert (len(nothing), nothing.features.shape[1]) == (0, something.features.shape[1])
    assert set(nothing.received) == set(something.received)
    assert ages(joined([something, ledger.before(MONDAY)], book)) == ages(something)


def test_chosen_rows_keep_all_that_is_known_of_them(ledger: Ledger) -> None:
    everything(ledger)
    rows = ledger.since(MONDAY, labelled=True)
    chosen = rows.where(rows.label == 0)
    assert (ages(chosen), list(chosen.day), list(chosen.label)) == ([2, 12, 22], [0, 1, 2], [0, 0, 0])
    assert list(chosen.features[:, 2]) == [300_000] * 3


def test_rows_of_no_day_can_be_chosen_from(clients: Rows) -> None:
    chosen = clients.where(np.array([True, False, True, False]))
    assert (len(chosen), len(chosen.day)) == (2, 0)
