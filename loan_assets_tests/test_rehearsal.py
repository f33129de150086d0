"""Requests in the form that the endpoint takes, whatever file they come from."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from msgspec.structs import replace

from loan_assets.books import LoanBook, Role
from loan_assets.prediction_record import PredictionRecord
from loan_assets.refusal import Refusal
from loan_assets.rehearsal import days_to_rehearse, days_up_to_today, named_requests
from loan_assets.resources.asset_store import AssetStore, _save
from loan_assets.settings import Settings
from loan_assets_tests.test_prediction_record import RECORD


@pytest.fixture
def requests(received: pd.DataFrame, book: LoanBook) -> pd.DataFrame:
    columns = [column.name for column in book.with_role(Role.KEY, Role.FEATURE, Role.PROTECTED)]
    return received[columns].head(3).assign(request_id=["c", "a", "b"], event_timestamp=pd.Timestamp("2026-02-01"))


def test_each_request_goes_under_its_own_name_and_the_file_s_order_plays_no_part(
    requests: pd.DataFrame, book: LoanBook
) -> None:
    bodies = named_requests(requests, book)
    assert [body["request_id"] for body in bodies] == ["a", "b", "c"]
    assert named_requests(requests.iloc[::-1], book) == bodies
    assert bodies[2]["applications"][0][book.key.name] == requests[book.key.name].iloc[0]


def test_what_the_book_does_not_know_and_the_outcome_are_left_out(requests: pd.DataFrame, book: LoanBook) -> None:
    (sent,) = named_requests(requests.head(1).assign(**{"a stranger": 1, book.label.name: 1}), book)[0]["applications"]
    assert set(sent) == {column.name for column in book.with_role(Role.KEY, Role.FEATURE, Role.PROTECTED)}


def test_numbers_as_text_are_numbers_and_what_is_none_is_left_for_the_endpoint_to_name(
    requests: pd.DataFrame, book: LoanBook
) -> None:
    as_text = requests.assign(credit_limit=requests["credit_limit"].astype(str))
    assert named_requests(as_text, book) == named_requests(requests, book)
    for value in (np.nan, np.inf, "plenty"):
        spoilt = requests.assign(credit_limit=[value, *requests["credit_limit"][1:]])
        assert ["credit_limit" in body["applications"][0] for body in named_requests(spoilt, book)] == [
            True,
            True,
            False,
        ]


def test_a_client_number_is_a_whole_one_and_may_be_missing(requests: pd.DataFrame, book: LoanBook) -> None:
    key = book.key.name
    (sent,) = named_requests(requests.head(1).astype({key: "float64"}), book)[0]["applications"]
    assert isinstance(sent[key], int)
    (sent,) = named_requests(requests.head(1).drop(columns=key), book)[0]["applications"]
    assert key not in sent


def test_a_request_without_a_name_is_sent_without_one(requests: pd.DataFrame, book: LoanBook) -> None:
    assert "request_id" not in named_requests(requests.drop(columns="request_id"), book)[0]
    named = named_requests(requests.assign(request_id=pd.Series(["a", None, "b"], dtype="object")), book)
    assert sum("request_id" in body for body in named) == 2


def test_days_are_rehearsed_that_lie_together_and_have_no_real_answer(tmp_path: Path) -> None:
    settings = Settings.from_environment({"LOAN_HOME": str(tmp_path)})
    latest = days_up_to_today(9)

    def answered(day: str, *records: PredictionRecord) -> None:
        (settings.predictions / day).mkdir(parents=True, exist_ok=True)
        (settings.predictions / day / "1.log").write_bytes(b"".join(record.line() for record in records))

    rehearsed = replace(RECORD, request_id="another", rehearsal="once")
    assert days_to_rehearse(settings, latest, 3) == latest[-3:]
    answered(latest[-1], rehearsed)
    assert days_to_rehearse(settings, latest, 3) == latest[-3:]
    answered(latest[-1], rehearsed, RECORD)
    assert days_to_rehearse(settings, latest, 3) == latest[-4:-1]
    answered(latest[-4], RECORD)
    assert days_to_rehearse(settings, latest, 2) == latest[-3:-1]
    assert days_to_rehearse(settings, latest, 3) == latest[-7:-4]
    with pytest.raises(Refusal, match=f"No 6 days in a row from {latest[0]} on are without real answers"):
        days_to_rehearse(settings, latest, 6)
    # Of one the log was moved away, on another nobody asked.
    log = pd.DataFrame({"request_id": ["a", "b"]})
    for day, table in ((latest[-6], log), (latest[-8], log.iloc[:0])):
        AssetStore.over(settings).store.write(f"prediction_log/{day}", partial(_save, table))
    assert days_to_rehearse(settings, latest, 3) == latest[-9:-6]


def test_days_before_the_log_begins_are_not_rehearsed(tmp_path: Path) -> None:
    settings = Settings.from_environment({"LOAN_HOME": str(tmp_path)})
    with pytest.raises(Refusal, match="No 1 days in a row from 1999-12-31 on"):
        days_to_rehearse(settings, ["1999-12-31"], 1)
