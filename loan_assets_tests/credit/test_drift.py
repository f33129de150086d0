"""Drift as Evidently measures it and as we measure it, and the days that cannot be measured."""

from contextlib import nullcontext

import numpy as np
import pandas as pd
import pytest

from loan_assets.books import LoanBook, Role
from loan_assets.credit import drift
from loan_assets.credit.daily import Feed, applications_of, judged_batch, kept_of
from loan_assets.credit.drift import (
    DRIFTED,
    STEADY,
    TOO_FEW,
    UNFIT,
    DriftReport,
    Learned,
    report_on,
    watched,
)
from loan_assets.credit.norms import norms_of
from loan_assets.credit.scenarios import SCENARIOS, sudden_shift
from loan_assets.policy import POLICY


@pytest.fixture(scope="module")
def reference(received: pd.DataFrame, book: LoanBook) -> pd.DataFrame:
    return received.sample(24_000, random_state=5)[[column.name for column in watched(book)]]


@pytest.fixture(scope="module")
def unseen(received: pd.DataFrame, reference: pd.DataFrame) -> pd.DataFrame:
    return received.drop(reference.index)[reference.columns].reset_index(drop=True)


def day(applications: pd.DataFrame) -> pd.DataFrame:
    names = [f"answer-{number}/0" for number in range(len(applications))]
    return applications.assign(asked_by="application", prediction_id=names, request_id=names)


def report(answers: pd.DataFrame, reference: pd.DataFrame, book: LoanBook) -> DriftReport:
    norms = norms_of(reference, book, POLICY.quality)
    asked = applications_of(answers)
    batch, feed = judged_batch("2026-02-02", asked if len(asked) else None, Feed(), norms, book, POLICY)
    judged = kept_of(batch, asked if len(asked) else None, feed)
    champion = Learned.of(1, "0" * 64, reference, book, POLICY)
    return report_on("2026-02-02", answers, judged, champion, (), book, POLICY)


def test_a_quiet_day_is_steady_and_a_shifted_one_is_not(
    reference: pd.DataFrame, unseen: pd.DataFrame, book: LoanBook
) -> None:
    quiet = report(day(unseen.head(1_500)), reference, book)
    assert (quiet.verdict, quiet.score, len(quiet.columns)) == (STEADY, 0.0, 23)
    shifted = report(day(sudden_shift(unseen.head(1_500), book)), reference, book)
    assert shifted.verdict == DRIFTED
    assert shifted.score is not None
    assert shifted.score > 0.5
    assert {"sex", "age", "marital_status"} <= {one.column for one in shifted.columns}
    assert not next(one for one in shifted.columns if one.column == "age").has_drifted


def test_the_same_day_gives_the_same_report_to_the_byte(
    reference: pd.DataFrame, unseen: pd.DataFrame, book: LoanBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    once, again = (report(day(unseen.head(1_500)), reference, book) for _ in range(2))
    assert once == again
    assert len(once.page) > 1_000_000
    # Also where Evidently draws each column by itself, which its page does not show.
    monkeypatch.setattr(drift, "_without_pictures_of_columns", nullcontext)
    assert report(day(unseen.head(1_500)), reference, book) == once


def test_a_column_has_moved_beyond_its_own_limit_for_a_day_of_that_size(
    reference: pd.DataFrame, unseen: pd.DataFrame, book: LoanBook
) -> None:
    limits = {}
    for rows in (100, 1_500):
        found = report(day(sudden_shift(unseen.head(rows), book)), reference, book)
        assert found.verdict == DRIFTED
        assert all(one.has_drifted == (one.distance > one.limit) for one in found.columns)
        limits[rows] = {one.column: one.limit for one in found.columns}
    assert all(limits[100][name] > limits[1_500][name] for name in ("age", "bill_amount_1", "education"))
    assert min(limits[1_500].values()) >= POLICY.vigilance.number_moved


def test_a_small_day_is_no_check(reference: pd.DataFrame, unseen: pd.DataFrame, book: LoanBook) -> None:
    few = report(day(sudden_shift(unseen.head(POLICY.vigilance.smallest_day - 1), book)), reference, book)
    assert (few.verdict, few.score) == (TOO_FEW, None)
    none = report(day(unseen.head(0)), reference, book)
    assert (none.verdict, none.rows) == (TOO_FEW, 0)


@pytest.mark.parametrize("column", ["bill_amount_2", "age"])
def test_a_broken_feed_is_named_and_not_measured(
    column: str, reference: pd.DataFrame, unseen: pd.DataFrame, book: LoanBook
) -> None:
    for broken in (unseen.assign(**{column: np.nan}), unseen.drop(columns=column)):
        found = report(day(broken.head(1_500)), reference, book)
        assert (found.verdict, found.score, found.page) == (UNFIT, None, b"")
        assert all(failure.startswith(f"{column}: ") for failure in found.failures)
    thousandfold = report(day(unseen.head(1_500).assign(credit_limit=unseen["credit_limit"] * 10)), reference, book)
    assert thousandfold.verdict == UNFIT


def test_a_single_bad_row_is_set_aside_and_the_day_is_measured(
    reference: pd.DataFrame, unseen: pd.DataFrame, book: LoanBook
) -> None:
    found = report(day(unseen.head(1_500).replace({"age": {30: np.inf}})), reference, book)
    assert found.verdict == STEADY
    assert len(found.set_aside) == 1
    assert found.set_aside[0].startswith("age: ")


def test_a_lender_that_sends_no_protected_attribute_is_watched_on_the_rest(
    reference: pd.DataFrame, unseen: pd.DataFrame, book: LoanBook
) -> None:
    protected = [column.name for column in book.with_role(Role.PROTECTED)]
    found = report(day(unseen.head(1_500).assign(**dict.fromkeys(protected, np.nan))), reference, book)
    assert (found.verdict, found.left_out) == (STEADY, tuple(sorted(protected)))
    assert len(found.columns) == 20


def test_answers_by_client_number_are_counted_and_not_compared(
    reference: pd.DataFrame, unseen: pd.DataFrame, book: LoanBook
) -> None:
    by_client = day(unseen.head(300)).assign(**dict.fromkeys(unseen.columns, np.nan), asked_by="client")
    found = report(pd.concat([day(unseen.head(1_000)), by_client]), reference, book)
    assert (found.answers, found.rows, found.verdict) == (1_300, 1_000, STEADY)


def test_a_shifted_world_still_keeps_the_contract_of_the_book(received: pd.DataFrame, book: LoanBook) -> None:
    from loan_assets.credit.conformance import breaches

    for change in SCENARIOS.values():
        changed = change(received.head(3_000), book).astype(received.dtypes.to_dict())
        assert breaches(changed, book.received) == ()
