"""Events that say a client's month: what is refused and how it is told, and what a month becomes of them."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import permutations
from typing import Any

import numpy as np
import pandas as pd
import pytest

from loan_assets.books import LoanBook, tables
from loan_assets.books.calendar import months_of
from loan_assets.credit import statements
from loan_assets.credit.conformance import breaches
from loan_assets.credit.pushed import PushedStatement, is_closed, month_with, said_by_file, understood

NOW = datetime(2026, 1, 1, tzinfo=UTC)
MONTHS = ("2005-08", "2005-09", "2005-10")
CLIENTS = frozenset({1, 2, 3})
GOOD = {
    "event_id": "core-1",
    "client_id": 2,
    "month": "2005-10",
    "known_at": "2005-11-02T10:30:00+01:00",
    "pay_status": 1,
    "bill_amount": -12.5,
    "payment_amount": 77_777,
}


def read(book: LoanBook, *told: object) -> tuple[dict[int, PushedStatement], dict[int, str]]:
    return understood(told, book, MONTHS, CLIENTS, NOW)


def event(book: LoanBook, **changed: Any) -> PushedStatement:
    fit, unfit = read(book, {**GOOD, **changed})
    assert not unfit
    return fit[0]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"bill_amount": None}, "bill_amount: is missing"),
        ({"bill": 1.0}, "holds other fields than event_id, client_id, month, known_at, pay_status, bill_amount, pay"),
        ({"event_id": ""}, "event_id: is not 1 to 200 printable characters"),
        ({"event_id": "77777\n"}, "event_id: is not 1 to 200 printable characters"),
        ({"event_id": "7" * 201}, "event_id: is not 1 to 200 printable characters"),
        ({"client_id": 77_777}, "client_id: is no client of the bank"),
        ({"client_id": True}, "client_id: is no client of the bank"),
        ({"client_id": "2"}, "client_id: is no client of the bank"),
        ({"month": "2005-77777"}, "month: is none of which statements are taken, 2005-08 to 2005-10"),
        ({"month": 77_777}, "month: is none of which statements are taken"),
        ({"known_at": "2005-11-02T10:30:00"}, "known_at: is no instant in ISO 8601 with its offset"),
        ({"known_at": 77_777}, "known_at: is no instant"),
        ({"known_at": "0001-01-01T00:00:00+23:00"}, "known_at: is no instant"),
        ({"known_at": "9999-12-31T23:59:59-01:00"}, "known_at: is no instant"),
        ({"known_at": "2005-10-31T00:00:00Z"}, "known_at: is not after the month's statement day began"),
        ({"known_at": "2026-01-01T00:02:00Z"}, "known_at: lies in the future"),
        ({"bill_amount": "77777"}, "bill_amount: is no number that can be read exactly"),
        ({"payment_amount": True}, "payment_amount: is no number"),
        ({"bill_amount": float("inf")}, "breaks the contract: bill_amount: is infinite"),
        ({"bill_amount": float("nan")}, "breaks the contract: bill_amount: is empty"),
        ({"pay_status": 77_777}, "breaks the contract: pay_status: has a code outside the book"),
        ({"pay_status": 1.5}, "breaks the contract: pay_status: is not a whole number"),
        ({"payment_amount": -77_777}, "breaks the contract: payment_amount: is below 0"),
        ({"payment_amount": 10**400}, "payment_amount: is no number that can be read exactly"),
    ],
)
def test_what_an_event_lacks_is_told_by_field_and_never_by_value(
    book: LoanBook, changed: dict[str, Any], said: str
) -> None:
    fit, unfit = read(book, {**GOOD, **changed})
    assert not fit
    assert unfit[0].startswith(said)
    assert "77777" not in unfit[0].removeprefix(said)


def test_of_a_batch_the_good_ones_are_taken_and_the_bad_ones_listed_by_position(book: LoanBook) -> None:
    told = [{**GOOD, "event_id": f"core-{number}", "client_id": number % 3 + 1} for number in range(40)]
    told[7]["pay_status"], told[23]["payment_amount"], told[30] = 44, -1, "no object"  # type: ignore[call-overload]
    fit, unfit = read(book, *told)
    assert list(unfit) == [7, 23, 30]
    assert sorted(fit) == [place for place in range(40) if place not in unfit]


def test_the_same_facts_are_the_same_content_however_they_are_written(book: LoanBook) -> None:
    one = event(book)
    other = event(book, known_at="2005-11-02T09:30:00Z", pay_status=1.0, payment_amount=77_777.0)
    assert one.content(book) == other.content(book)
    assert event(book, known_at=datetime(2005, 11, 2, 9, 30, tzinfo=UTC)).content(book) == one.content(book)
    assert PushedStatement.of_content(one.content(book), book) == one
    assert event(book, bill_amount=-0.0).content(book) == event(book, bill_amount=0).content(book)


def three_months(received: pd.DataFrame, book: LoanBook) -> dict[str, pd.DataFrame]:
    few = received[received["client_id"].isin(CLIENTS)]
    return {month: statements.month_of_statements(few, month, book) for month in months_of(book)}


def test_a_month_keeps_what_its_file_said_and_every_version_that_came_later_in_any_order(
    received: pd.DataFrame, book: LoanBook
) -> None:
    filed = three_months(received, book)["2005-09"]
    events = [
        event(book, event_id="a", month="2005-09", bill_amount=1.0),
        event(book, event_id="b", month="2005-09", bill_amount=2.0, known_at="2005-10-01T00:00:00Z"),
        event(book, event_id="c", month="2005-09", bill_amount=3.0, client_id=1),
        # At one instant about one client the greater id counts, whichever came first.
        event(book, event_id="d", month="2005-09", bill_amount=4.0, client_id=1),
    ]
    wanted = month_with(filed, events, "2005-09", book)
    assert wanted["bill_amount"].tolist() == [*filed["bill_amount"], 4.0, 2.0, 1.0]
    assert not breaches(wanted, tables.statements(book), ["client_id", "created_timestamp"])
    pd.testing.assert_frame_equal(said_by_file(wanted), filed)
    for order in permutations(events):
        month: pd.DataFrame | None = filed
        for count in range(1, len(order) + 1):  # as stored after each of them, with all that were pushed by then
            month = month_with(month, order[:count], "2005-09", book)
        assert month is not None
        pd.testing.assert_frame_equal(month, wanted)


def test_a_month_without_a_file_is_open_and_holds_what_was_pushed_until_its_file_comes(
    received: pd.DataFrame, book: LoanBook
) -> None:
    october = month_with(None, [event(book)], "2005-10", book)
    assert (len(october), is_closed(october)) == (1, False)
    assert not breaches(october, tables.statements(book), ["client_id", "created_timestamp"])
    few = received[received["client_id"].isin(CLIENTS)]
    measures = few[["client_id"]].assign(pay_status=0, bill_amount=1.0, payment_amount=2.0)
    closed = month_with(statements.dated(measures, "2005-10", book), [event(book)], "2005-10", book)
    assert (len(closed), is_closed(closed), closed["client_id"].value_counts()[2]) == (4, True, 2)


def test_features_have_a_row_for_every_instant_at_which_something_became_known(
    received: pd.DataFrame, book: LoanBook
) -> None:
    months, profiles = three_months(received, book), statements.profiles_of(received, book)
    before = statements.features_as_of("2005-09", months, profiles, book)
    late = event(book, event_id="l", month="2005-08", bill_amount=900.0, known_at="2005-10-05T00:00:00Z")
    later = event(book, event_id="m", month="2005-09", bill_amount=800.0, known_at="2005-10-06T00:00:00Z")
    known = {**months, "2005-08": month_with(months["2005-08"], [late], "2005-08", book)}
    known["2005-09"] = month_with(months["2005-09"], [later], "2005-09", book)
    after = statements.features_as_of("2005-09", known, profiles, book)
    assert not breaches(after, tables.borrower_features(book), ["client_id", "created_timestamp"])
    pd.testing.assert_frame_equal(said_by_file(after).reset_index(drop=True), before)
    first, second, third = (row for _, row in after[after["client_id"] == 2].iterrows())
    assert [str(row["created_timestamp"])[:10] for row in (first, second, third)] == [
        "2005-09-30",
        "2005-10-05",
        "2005-10-06",
    ]
    limit = float(received.loc[received["client_id"] == 2, "credit_limit"].iloc[0])
    own = received[received["client_id"] == 2].iloc[0]
    assert second["latest_bill"] == own["bill_amount_1"]
    assert second["utilisation_change"] == np.float32((own["bill_amount_1"] - 900.0) / limit)
    assert third["latest_bill"] == 800.0
    assert third["utilisation_change"] == np.float32((800.0 - 900.0) / limit)
    august = statements.features_as_of("2005-08", known, profiles, book)
    assert august["client_id"].tolist() == [1, 2, 2, 3]  # what came in October about September is not August's


def test_a_statement_that_came_after_the_next_month_s_tells_that_month_s_features_from_then_on(
    received: pd.DataFrame, book: LoanBook
) -> None:
    months, profiles = three_months(received, book), statements.profiles_of(received, book)
    missing = months["2005-08"][months["2005-08"]["client_id"] != 2]
    late = event(book, month="2005-08", bill_amount=900.0, known_at="2005-10-05T00:00:00Z")
    known = {**months, "2005-08": month_with(missing, [late], "2005-08", book)}
    gap, whole = (
        row for _, row in statements.features_as_of("2005-09", known, profiles, book).query("client_id == 2").iterrows()
    )
    assert np.isnan(gap["utilisation_change"])
    assert np.isfinite(whole["utilisation_change"])
