"""Drift as Evidently measures it and as we measure it, and the days that cannot be measured."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from loan_assets.books import LoanBook, Role
from loan_assets.credit.drift import (
    DRIFTED,
    STEADY,
    TOO_FEW,
    UNFIT,
    DriftReport,
    by_evidently,
    distance,
    has_moved,
    report_on,
    watched,
)
from loan_assets.credit.scenarios import SCENARIOS, sudden_shift
from loan_assets.policy import POLICY

RELEASE = (1, "0" * 64)


@pytest.fixture(scope="module")
def reference(received: pd.DataFrame, book: LoanBook) -> pd.DataFrame:
    return received.sample(24_000, random_state=5)[[column.name for column in watched(book)]]


@pytest.fixture(scope="module")
def unseen(received: pd.DataFrame, reference: pd.DataFrame) -> pd.DataFrame:
    return received.drop(reference.index)[reference.columns].reset_index(drop=True)


def day(applications: pd.DataFrame) -> pd.DataFrame:
    return applications.assign(asked_by="application")


def report(answers: pd.DataFrame, reference: pd.DataFrame, book: LoanBook) -> DriftReport:
    return report_on("2026-02-02", answers, reference, RELEASE, book, POLICY.vigilance)


def test_our_distances_are_evidently_s(reference: pd.DataFrame, unseen: pd.DataFrame, book: LoanBook) -> None:
    for current in (unseen.head(1_500), sudden_shift(unseen.head(1_500), book)):
        theirs, page = by_evidently(current, reference, watched(book), POLICY.vigilance)
        assert page.lstrip().startswith(b"<")
        for column in watched(book):
            ours = distance(
                current[column.name].to_numpy("float64"), reference[column.name].to_numpy("float64"), column
            )
            assert ours == pytest.approx(theirs[column.name], abs=1e-12), column.name


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
    reference: pd.DataFrame, unseen: pd.DataFrame, book: LoanBook
) -> None:
    once, again = (report(day(unseen.head(1_500)), reference, book) for _ in range(2))
    assert once == again
    assert len(once.page) > 1_000_000


def test_numbers_and_codes_move_at_thresholds_of_their_own(book: LoanBook) -> None:
    limits = replace(POLICY.vigilance, number_moved=0.2, code_moved=0.4)
    columns = {column.name: column for column in watched(book)}
    assert not has_moved(0.19, columns["bill_amount_1"], limits)
    assert has_moved(0.2, columns["bill_amount_1"], limits)
    assert not has_moved(0.2, columns["education"], limits)
    assert has_moved(0.4, columns["education"], limits)


def test_a_small_day_is_no_check(reference: pd.DataFrame, unseen: pd.DataFrame, book: LoanBook) -> None:
    few = report(day(sudden_shift(unseen.head(POLICY.vigilance.smallest_day - 1), book)), reference, book)
    assert (few.verdict, few.score) == (TOO_FEW, None)
    none = report(day(unseen.head(0)), reference, book)
    assert (none.verdict, none.rows) == (TOO_FEW, 0)


@pytest.mark.parametrize("column", ["bill_amount_2", "age"])
def test_a_column_that_is_empty_all_day_is_named_before_it_is_measured(
    column: str, reference: pd.DataFrame, unseen: pd.DataFrame, book: LoanBook
) -> None:
    for broken in (unseen.assign(**{column: np.nan}), unseen.drop(columns=column)):
        found = report(day(broken.head(1_500)), reference, book)
        assert (found.verdict, found.score) == (UNFIT, None)
        assert found.failures == (f"{column} is empty in all 1,500 rows",)


def test_an_infinite_number_is_a_fault_of_quality(
    reference: pd.DataFrame, unseen: pd.DataFrame, book: LoanBook
) -> None:
    found = report(day(unseen.head(1_500).replace({"age": {30: np.inf}})), reference, book)
    assert found.failures == ("age holds an infinite number",)


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
    by_client = unseen.head(300).assign(**dict.fromkeys(unseen.columns, np.nan), asked_by="client")
    found = report(pd.concat([day(unseen.head(1_000)), by_client]), reference, book)
    assert (found.answers, found.rows, found.verdict) == (1_300, 1_000, STEADY)


def test_a_shifted_world_still_keeps_the_contract_of_the_book(received: pd.DataFrame, book: LoanBook) -> None:
    from loan_assets.credit.conformance import breaches

    for change in SCENARIOS.values():
        changed = change(received.head(3_000), book).astype(received.dtypes.to_dict())
        assert breaches(changed, book.received) == ()


def test_a_hundred_quiet_days_of_a_thousand_ask_for_no_retraining(
    reference: pd.DataFrame, unseen: pd.DataFrame, book: LoanBook
) -> None:
    """By our distances, which are Evidently's."""
    generator = np.random.default_rng(20)
    then = {column.name: reference[column.name].to_numpy("float64") for column in watched(book)}
    scores = []
    for _ in range(100):
        drawn = unseen.iloc[generator.choice(len(unseen), 1_000, replace=False)]
        moved = [
            has_moved(distance(drawn[c.name].to_numpy("float64"), then[c.name], c), c, POLICY.vigilance)
            for c in watched(book)
        ]
        scores.append(float(np.mean(moved)))
    assert max(scores) <= POLICY.vigilance.retrain_above


def test_a_report_is_stored_and_read_back_whole(
    reference: pd.DataFrame, unseen: pd.DataFrame, book: LoanBook, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("report")
    found = replace(report(day(unseen.head(10)), reference, book), page=b"<html></html>", left_out=("age",))
    found.save(folder)
    assert DriftReport.load(folder) == found
