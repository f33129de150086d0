"""What others deliver into a bucket: the book, months of statements and outcomes, told apart when they change."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest

from loan_assets.books import LoanBook
from loan_assets.bucket import Bucket
from loan_assets.refusal import Refusal
from loan_assets.resources.landing import Landing
from loan_assets.resources.loan_source import LoanSource
from loan_assets.resources.outcome_landing import OutcomeLanding
from loan_assets_tests.services import free_port


def parquet(table: pd.DataFrame) -> bytes:
    written = io.BytesIO()
    table.to_parquet(written, index=False)
    return written.getvalue()


def test_a_book_is_read_from_a_bucket(bucket: str, received: pd.DataFrame, book: LoanBook) -> None:
    packaged, _ = LoanSource(location="packaged").read(book)
    Bucket(bucket).write("book.parquet", parquet(packaged))
    frame, provenance = LoanSource(location=f"{bucket}/book.parquet").read(book)
    assert len(frame) == len(received)
    assert (provenance.location, provenance.format) == (f"{bucket}/book.parquet", "parquet")
    with pytest.raises(Refusal, match="There is no file at"):
        LoanSource(location=f"{bucket}/nowhere.parquet").read(book)


def test_months_that_arrive_in_a_bucket_are_listed_with_a_mark_that_changes(bucket: str) -> None:
    landing = Landing(place=bucket)
    assert landing.arrivals() == {}
    Bucket(bucket).write("statements-2005-10.csv", b"id\n1\n")
    Bucket(bucket).write("readme.txt", b"not a month")
    ((first,),) = landing.arrivals().values()
    assert (first.month, first.path) == ("2005-10", f"{bucket}/statements-2005-10.csv")
    Bucket(bucket).write("statements-2005-10.csv", b"id\n2\n")
    ((second,),) = landing.arrivals().values()
    assert second.mark != first.mark


def test_outcomes_that_arrive_in_a_bucket_are_read_and_told_apart_when_they_change(bucket: str) -> None:
    landing = OutcomeLanding(place=bucket)
    assert landing.arrivals() == {}
    assert landing.read("2026-11-24").content is None
    for label in (0, 1):
        table = pd.DataFrame(
            {"request_id": ["a"], "label": [label], "label_timestamp": pd.Timestamp("2026-11-24 12:00Z")}
        )
        before = landing.arrivals()
        Bucket(bucket).write("2026-11-24.parquet", parquet(table))
        assert landing.arrivals().keys() == {"2026-11-24"}
        assert landing.arrivals() != before
        told, unreadable = landing.read("2026-11-24").table()
        assert unreadable == ""
        assert told is not None
        assert told["label"].tolist() == [label]


def test_when_outcomes_were_put_there_is_known_of_a_folder_and_of_a_bucket(bucket: str, tmp_path: Path) -> None:
    before = datetime.now(UTC) - timedelta(seconds=2)
    (tmp_path / "2026-11-24.parquet").write_bytes(b"as it came")
    Bucket(bucket).write("2026-11-24.parquet", b"as it came")
    for place in (str(tmp_path), bucket):
        landing = OutcomeLanding(place=place)
        put = landing.arrived_at("2026-11-24")
        assert put is not None
        assert before < put < datetime.now(UTC) + timedelta(seconds=2), place
        assert landing.arrived_at("2026-11-25") is None


def test_a_store_that_is_away_is_named_with_what_to_do(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    with pytest.raises(Refusal, match=f"{bucket}/away cannot be read") as refused:
        OutcomeLanding(place=f"{bucket}/away").arrivals()
    assert "LOAN_OUTCOMES" in refused.value.next_step
