"""A history in files is read in every dialect, and a file that cannot be used is named."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from loan_assets.books import LoanBook
from loan_assets.day_file import read_day
from loan_assets.histories import History
from loan_assets.refusal import Refusal
from loan_assets_tests.conftest import Lived
from loan_assets_tests.small_history import DAYS, Tables, day_name, history_in

Change = Callable[[pd.DataFrame], pd.DataFrame]


@pytest.fixture
def small(lived: Lived, tmp_path: Path) -> Path:
    """Three days of the history, to be spoilt."""
    return lived.tables.first_days(3).write(tmp_path / "in")


def with_reference(folder: Path, change: Change) -> History:
    path = folder / "reference.parquet"
    change(pd.read_parquet(path)).to_parquet(path, index=False)
    return history_in(folder)


def refused(history: History, book: LoanBook) -> str:
    with pytest.raises(Refusal) as refusal:
        history.known(book)
    assert "reference.parquet" in refusal.value.cause
    return refusal.value.cause


def test_days_run_from_the_first_to_the_last_without_gaps(lived: Lived) -> None:
    assert history_in(lived.folder).days() == tuple(day_name(number) for number in range(DAYS))
    assert history_in(lived.folder, until=day_name(4)).days() == tuple(day_name(number) for number in range(5))


def test_a_day_without_traffic_and_one_with_late_outcomes_only_are_days_too(small: Path) -> None:
    (small / "predictions" / f"{day_name(1)}.parquet").unlink()
    told = pd.DataFrame({"request_id": ["q00-000"], "label": [0], "label_timestamp": ["2026-01-10"]})
    told.to_parquet(small / "labels" / f"{day_name(5)}.parquet")
    assert history_in(small).days() == tuple(day_name(number) for number in range(6))


def test_the_books_words_and_the_other_key_name_are_read_as_the_sources(
    lived: Lived, small: Path, book: LoanBook, tmp_path: Path
) -> None:
    words = {str(column.source): column.name for column in book.received} | {book.key.name: "customer_id"}
    tables = lived.tables.first_days(3)
    other = Tables(
        reference=tables.reference.rename(columns=words),
        predictions={day: table.rename(columns=words) for day, table in tables.predictions.items()},
    ).write(tmp_path / "other")
    here, there = history_in(small), history_in(other)
    pd.testing.assert_frame_equal(here.known(book)[0], there.known(book)[0])
    for one, two in zip(here.over(here.days(), book), there.over(there.days(), book), strict=True):
        assert one.requests is not None
        assert two.requests is not None
        pd.testing.assert_frame_equal(one.requests, two.requests)


def test_a_reference_that_is_not_there_is_named(small: Path, book: LoanBook) -> None:
    (small / "reference.parquet").unlink()
    assert "is not there" in refused(history_in(small), book)


def test_a_reference_that_was_cut_short_is_named(small: Path, book: LoanBook) -> None:
    whole = (small / "reference.parquet").read_bytes()
    (small / "reference.parquet").write_bytes(whole[: len(whole) // 2])
    assert "cannot be read as Parquet" in refused(history_in(small), book)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda rows: rows.drop(columns="LIMIT_BAL"), "credit_limit (LIMIT_BAL)"),
        (lambda rows: rows.drop(columns="label"), "defaulted"),
        (lambda rows: rows.assign(LIMIT_BAL=["plenty of it", *rows["LIMIT_BAL"][1:].astype(str)]), "credit_limit"),
        (lambda rows: rows.assign(label=[2, *rows["label"][1:]]), "defaulted"),
        (lambda rows: rows.assign(label=rows["label"].where(rows.index > 0)), "defaulted"),
        (lambda rows: rows.iloc[:0], "no rows"),
    ],
)
def test_a_reference_that_breaks_the_book_is_refused_by_column_and_never_by_value(
    small: Path, book: LoanBook, change: Change, said: str
) -> None:
    cause = refused(with_reference(small, change), book)
    assert said in cause
    assert "plenty" not in cause


def test_a_folder_without_days_and_a_file_named_by_no_day_are_refused(small: Path) -> None:
    (small / "labels" / "tuesday.parquet").touch()
    with pytest.raises(Refusal, match=r"tuesday\.parquet is named by no day"):
        history_in(small).days()
    (small / "labels" / "tuesday.parquet").unlink()
    for path in (small / "predictions").iterdir():
        path.unlink()
    with pytest.raises(Refusal, match="predictions holds no day"):
        history_in(small).days()
    (small / "predictions").rmdir()
    with pytest.raises(Refusal, match="predictions is no folder"):
        history_in(small).days()


def test_an_end_that_is_no_day_or_before_the_first_is_refused(small: Path) -> None:
    for until in ("tomorrow", "2025-01-01"):
        with pytest.raises(Refusal, match="--until"):
            history_in(small, until=until).days()


def test_a_file_is_opened_on_its_day_and_not_before(small: Path, book: LoanBook) -> None:
    history = history_in(small)
    days = history.over(history.days(), book)
    assert next(days).requests is not None
    (small / "predictions" / f"{day_name(1)}.parquet").write_bytes(b"PAR1")
    spoilt = next(days)
    assert spoilt.requests is None
    assert f"{day_name(1)}.parquet cannot be read as Parquet" in spoilt.unreadable_requests
    assert next(days).requests is not None


def test_a_column_that_is_there_under_both_names_is_set_aside_by_name(small: Path, book: LoanBook) -> None:
    path = small / "predictions" / f"{day_name(0)}.parquet"
    rows = pd.read_parquet(path)
    rows.assign(credit_limit=rows["LIMIT_BAL"] * 2).to_parquet(path, index=False)
    first = next(history_in(small).over([day_name(0)], book))
    assert "credit_limit more than once" in first.unreadable_requests


def test_a_day_is_named_in_one_way_only(small: Path) -> None:
    path = small / "predictions" / f"{day_name(0)}.parquet"
    path.rename(path.with_name(f"{day_name(0).replace('-', '')}.parquet"))
    with pytest.raises(Refusal, match="named by no day"):
        history_in(small).days()


@pytest.mark.parametrize("kind", ["int64", "int32", "dictionary", "with an empty one", "fractions"])
def test_a_request_is_called_the_same_in_every_file(kind: str, tmp_path: Path) -> None:
    numbers: dict[str, Any] = {
        "int64": pa.array([7, 8, 9], pa.int64()),
        "int32": pa.array([7, 8, 9], pa.int32()),
        "dictionary": pa.array(["7", "8", "9"]).dictionary_encode(),
        "with an empty one": pa.array([7, 8, 9, None], pa.int64()),
        "fractions": pa.array([7.0, 8.0, 9.0]),
    }
    path = tmp_path / "day.parquet"
    pq.write_table(pa.table({"request_id": numbers[kind]}), path)
    assert list(read_day(path, "the day", "")["request_id"])[:3] == ["7", "8", "9"]
