"""Bad deliveries: each is refused with the file, the rows, the column and the rule, and never a value."""

import zipfile
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from loan_assets.books import LoanBook
from loan_assets.refusal import Refusal
from loan_assets.resources.loan_source import LoanSource

CANARY = 987_654_321


def in_source_words(frame: pd.DataFrame, book: LoanBook) -> pd.DataFrame:
    return frame.rename(columns={column.name: str(column.source) for column in book.received})


def refusal_of(frame: pd.DataFrame, book: LoanBook, folder: Path) -> str:
    path = folder / "delivery.csv"
    in_source_words(frame, book).to_csv(path, index=False)
    with pytest.raises(Refusal) as refused:
        LoanSource(location=str(path)).read(book)
    said = str(refused.value)
    assert "delivery.csv" in said
    assert str(CANARY) not in said
    return said


BROKEN: dict[str, tuple[Callable[[pd.DataFrame], pd.DataFrame], tuple[str, ...]]] = {
    "a missing column": (
        lambda frame: frame.drop(columns="pay_status_3"),
        ("lacks pay_status_3 (PAY_3)", "30,000 rows"),
    ),
    "a truncated file": (lambda frame: frame.head(29_000), ("29,000 rows", "30,000.00 was published")),
    "no rows": (lambda frame: frame.head(0), ("has no rows",)),
    "a repeated key": (
        lambda frame: frame.assign(client_id=frame["client_id"].replace(2, 1)),
        ("client_id: repeats (2 rows)",),
    ),
    "a code outside the book": (
        lambda frame: frame.assign(education=frame["education"].mask(frame.index < 3, CANARY)),
        ("education: has a code outside the book (3 rows)",),
    ),
    "a re-coded column": (
        lambda frame: frame.assign(sex=frame["sex"] - 1),
        ("sex: has a code outside the book (11,888 rows)",),
    ),
    "two codes exchanged": (
        lambda frame: frame.assign(sex=3 - frame["sex"]),
        ("the count of client_id among sex 1 is 18,112.00 where 11,888.00 was published",),
    ),
    "another unit": (
        lambda frame: frame.assign(bill_amount_1=(frame["bill_amount_1"] / 30).round()),
        ("the mean of bill_amount_1 is",),
    ),
    "months that moved by one": (
        lambda frame: frame.assign(pay_status_1=frame["pay_status_2"]),
        ("the mean of pay_status_1 is -0.13",),
    ),
    "outcomes of other clients": (
        lambda frame: frame.assign(defaulted=frame["defaulted"].sample(frac=1, random_state=0).to_numpy()),
        ("the mean of credit_limit among defaulted 1 is",),
    ),
    "keys rounded by a spreadsheet": (
        lambda frame: frame.assign(client_id=frame["client_id"] * 1e15),
        ("client_id: is too large to be read exactly (29,991 rows)",),
    ),
    "empty cells": (
        lambda frame: frame.assign(credit_limit=frame["credit_limit"].mask(frame.index < 5)),
        ("credit_limit: is empty (5 rows)",),
    ),
    "infinite numbers": (
        lambda frame: frame.assign(bill_amount_2=frame["bill_amount_2"].mask(frame.index < 4, float("inf"))),
        ("bill_amount_2: is infinite (4 rows)",),
    ),
    "words for numbers": (
        lambda frame: frame.assign(age=frame["age"].astype(object).mask(frame.index < 2, f"age {CANARY}")),
        ("age: is not a number (2 rows)",),
    ),
    "fractions of a month": (
        lambda frame: frame.assign(pay_status_1=frame["pay_status_1"] + 0.5),
        ("pay_status_1: is not a whole number (30,000 rows)",),
    ),
    "amounts out of range": (
        lambda frame: frame.assign(payment_amount_1=frame["payment_amount_1"].mask(frame.index < 1, -CANARY)),
        ("payment_amount_1: is below 0 (1 row)",),
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_delivery_is_refused_by_column_rule_and_rows(
    kind: str, received: pd.DataFrame, book: LoanBook, tmp_path: Path
) -> None:
    breaking, said = BROKEN[kind]
    found = refusal_of(breaking(received.copy()), book, tmp_path)
    for words in said:
        assert words in found, found


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "is empty"), (b"\x00\x01\x02\xff" * 40, "not a readable"), (b"PAR1 cut short", "not a readable")],
)
def test_bytes_that_are_no_table_are_refused(content: bytes, said: str, book: LoanBook, tmp_path: Path) -> None:
    path = tmp_path / "noise.bin"
    path.write_bytes(content)
    with pytest.raises(Refusal, match=said):
        LoanSource(location=str(path)).read(book)


def test_a_directory_and_a_missing_file_are_named(book: LoanBook, tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="is a directory"):
        LoanSource(location=str(tmp_path)).read(book)
    with pytest.raises(Refusal, match=r"no file at .*nowhere\.csv"):
        LoanSource(location=str(tmp_path / "nowhere.csv")).read(book)


@pytest.mark.parametrize(
    "location",
    [
        "memory://user:secret@bucket/file.csv?token=secret",
        "memory://user:secret/with@slash@bucket/file.csv#secret",
        "zip://file.csv::https://user:secret@127.0.0.1:9/bucket/file.csv",
    ],
)
def test_credentials_in_a_url_are_never_printed_nor_kept(location: str, book: LoanBook) -> None:
    with pytest.raises(Refusal) as refused:
        LoanSource(location=location).read(book)
    assert "secret" not in str(refused.value)
    assert "file.csv" in str(refused.value)
    # Dagster stores the chain of causes in its history.
    assert refused.value.__cause__ is None


def test_csv_parquet_and_url_give_the_packaged_rows(received: pd.DataFrame, book: LoanBook, tmp_path: Path) -> None:
    import fsspec

    in_source_words(received, book).to_csv(tmp_path / "book.csv", index=False)
    received.to_parquet(tmp_path / "book.parquet", index=False)
    with fsspec.open("memory://bank/book.parquet", "wb") as file:
        file.write((tmp_path / "book.parquet").read_bytes())
    for location in (str(tmp_path / "book.csv"), str(tmp_path / "book.parquet"), "memory://bank/book.parquet"):
        frame, provenance = LoanSource(location=location).read(book)
        pd.testing.assert_frame_equal(frame, received)
        assert provenance.rows == 30_000


def test_the_official_archive_s_form_is_read(received: pd.DataFrame, book: LoanBook, tmp_path: Path) -> None:
    """A zip that holds one sheet with a row of codes above the header, as the archive ships it."""
    import xlwt

    table = in_source_words(received, book)
    workbook = xlwt.Workbook()
    sheet = workbook.add_sheet("Data")
    for position, name in enumerate(table.columns):
        sheet.write(0, position, f"X{position}")
        sheet.write(1, position, name)
    for position, name in enumerate(table.columns):
        for row, value in enumerate(table[name].tolist(), start=2):
            sheet.write(row, position, value)
    workbook.save(str(tmp_path / "default of credit card clients.xls"))
    with zipfile.ZipFile(tmp_path / "archive.zip", "w") as archive:
        archive.write(tmp_path / "default of credit card clients.xls", "default of credit card clients.xls")
    frame, provenance = LoanSource(location=str(tmp_path / "archive.zip")).read(book)
    pd.testing.assert_frame_equal(frame, received)
    assert provenance.format == "zip/excel"


def test_large_keys_that_arrive_as_whole_numbers_are_kept_exactly(received: pd.DataFrame, book: LoanBook) -> None:
    from loan_assets.credit.conformance import conform

    large = received.assign(client_id=received["client_id"] + 10**17)
    assert (conform(large, book, "delivery")["client_id"] == large["client_id"]).all()


def test_a_new_excel_file_is_read(received: pd.DataFrame, book: LoanBook, tmp_path: Path) -> None:
    from dataclasses import replace

    few = in_source_words(received, book).head(200)
    few.to_excel(tmp_path / "book.xlsx", index=False)
    frame, provenance = LoanSource(location=str(tmp_path / "book.xlsx")).read(replace(book, published=()))
    pd.testing.assert_frame_equal(frame, received.head(200))
    assert provenance.format == "excel"
