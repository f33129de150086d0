"""What a task does with its part of the rows is what the whole does, without Spark."""

from __future__ import annotations

import io
from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from loan_assets.books import LoanBook, tables
from loan_assets.books.calendar import months_of
from loan_assets.books.tables import CREATED_TIME
from loan_assets.credit import by_parts, statements
from loan_assets.credit.by_parts import InForce
from loan_assets.credit.conformance import Breach
from loan_assets.refusal import Refusal


def in_batches(frame: pd.DataFrame, rows: int = 700) -> list[pa.RecordBatch]:
    batches: list[pa.RecordBatch] = pa.Table.from_pandas(frame, preserve_index=False).to_batches(max_chunksize=rows)
    return batches


def as_file(frame: pd.DataFrame, rows: int) -> tuple[bytes, list[pa.RecordBatch]]:
    """A Parquet file in groups of rows, and the tasks that read it, two groups a task."""
    written = io.BytesIO()
    pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), written, row_group_size=rows)
    groups = pd.DataFrame({by_parts.GROUP: range(-(-len(frame) // rows))})
    return written.getvalue(), in_batches(groups, rows=2)


def gathered(batches: by_parts.Batches) -> pd.DataFrame:
    frame: pd.DataFrame = pa.Table.from_batches(list(batches)).to_pandas()
    return frame


def test_a_file_read_in_parts_gives_the_rows_of_the_whole_in_their_order(
    received: pd.DataFrame, book: LoanBook
) -> None:
    content, tasks = as_file(received.head(5_000), rows=600)
    found = gathered(by_parts.conformed(content, book.received, iter(tasks)))
    pd.testing.assert_frame_equal(found, received.head(5_000), check_exact=True)


def test_what_parts_break_is_added_up_and_told_in_the_order_of_the_whole(
    received: pd.DataFrame, book: LoanBook
) -> None:
    rows = received.head(3_000)
    broken = rows.assign(
        education=rows["education"].mask(rows.index % 2 == 0, 99), sex=rows["sex"].mask(rows.index < 5, 9)
    )
    content, tasks = as_file(broken, rows=500)
    found = gathered(by_parts.judged(content, book.received, iter(tasks)))
    repeats = Breach(column="client_id", rule="repeats", rows=7)
    assert list(map(str, by_parts.together(found, book.received, repeats))) == [
        "education: has a code outside the book (1,500 rows)",
        "client_id: repeats (7 rows)",
        "sex: has a code outside the book (5 rows)",
    ]


def test_statements_and_features_of_parts_are_those_of_the_whole(received: pd.DataFrame, book: LoanBook) -> None:
    rows, told = received.head(2_000), InForce.of(book)
    known = {month: statements.month_of_statements(rows, month, book) for month in months_of(book)}
    for month, whole in known.items():
        parts = gathered(by_parts.statements_of(month, told, iter([*in_batches(rows), *in_batches(rows.head(0))])))
        pd.testing.assert_frame_equal(parts, whole, check_exact=True)
    profiles = statements.profiles_of(rows, book)
    first, second = asked = months_of(book)[3:5]
    # What became known later, and a month of which one part has nothing.
    late = known[first].head(50).assign(bill_amount=5.0)
    late[CREATED_TIME.name] += timedelta(days=70)
    known[first] = pd.concat([known[first], late], ignore_index=True)
    known[second] = known[second][known[second]["client_id"] % 2 == 0].reset_index(drop=True)
    given = [as_given(of_rest(known, rest), profiles[profiles["client_id"] % 2 == rest]) for rest in (0, 1)]
    computed = pd.concat([gathered(by_parts.features_of(asked, told, batches)) for batches in given])
    for month, count in zip(asked, (2_050, 1_025), strict=True):
        whole = statements.features_as_of(month, known, profiles, book)
        of_parts = computed[computed[by_parts.MONTH] == month].drop(columns=by_parts.MONTH)
        ordered = of_parts.sort_values(["client_id", CREATED_TIME.name], ignore_index=True)
        pd.testing.assert_frame_equal(ordered, whole, check_exact=True)
        assert len(whole) == count
        assert whole[[column.name for column in tables.feature_values(book)]].isna().to_numpy().any()


def of_rest(known: dict[str, pd.DataFrame], rest: int) -> dict[str, pd.DataFrame]:
    """The statements of every other client."""
    return {month: table[table["client_id"] % 2 == rest] for month, table in known.items()}


def as_given(known: dict[str, pd.DataFrame], profiles: pd.DataFrame) -> by_parts.Batches:
    """Statements with their month and profiles without one, as a task is given them, in any order."""
    counts = pd.concat([table["client_id"] for table in known.values()]).value_counts()
    stated = profiles["client_id"].map(counts).fillna(0).astype("int64")
    inputs = profiles[["client_id", "credit_limit", "education"]].assign(**{by_parts.STATEMENTS: stated})
    rows = [*(table.assign(**{by_parts.MONTH: month}) for month, table in known.items()), inputs]
    arrow = [pa.Table.from_pandas(table, preserve_index=False) for table in rows]
    mixed = pa.concat_tables(arrow, promote_options="default")
    return iter(mixed.take(np.random.default_rng(3).permutation(len(mixed))).to_batches(max_chunksize=700))


def test_a_task_hands_on_integers_as_integers(
    received: pd.DataFrame, book: LoanBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both kinds of rows are in one table, where each has gaps in the other's columns."""
    seen: list[pd.Series[Any]] = []

    def as_of(month: str, known: dict[str, pd.DataFrame], profiles: pd.DataFrame, book: LoanBook) -> pd.DataFrame:
        seen.extend([profiles.dtypes, known[month].dtypes])
        return computed(month, known, profiles, book)

    computed = statements.features_as_of
    monkeypatch.setattr(statements, "features_as_of", as_of)
    month, few = months_of(book)[0], received.head(9)
    table, profiles = statements.month_of_statements(few, month, book), statements.profiles_of(few, book)
    list(by_parts.features_of([month], InForce.of(book), as_given({month: table}, profiles)))
    of_profiles, of_statements = seen
    assert of_profiles[["client_id", "credit_limit", "education"]].equals(
        profiles.dtypes[["client_id", "credit_limit", "education"]]
    )
    assert of_statements.equals(table.dtypes)


def test_a_task_that_was_not_given_every_statement_of_its_clients_computes_nothing(
    received: pd.DataFrame, book: LoanBook
) -> None:
    month, few = months_of(book)[0], received.head(9)
    table, profiles = statements.month_of_statements(few, month, book), statements.profiles_of(few, book)
    rows = pa.Table.from_batches(list(as_given({month: table}, profiles))).to_pandas()
    for lost in (0, 4):
        without = rows.drop(index=rows.index[rows[by_parts.MONTH].notna()][lost])
        batches = pa.Table.from_pandas(without, schema=pa.Table.from_pandas(rows).schema, preserve_index=False)
        with pytest.raises(Refusal, match="not given all statements of its clients"):
            list(by_parts.features_of([month], InForce.of(book), iter(batches.to_batches())))


def test_clients_without_a_statement_in_the_month_have_no_features(received: pd.DataFrame, book: LoanBook) -> None:
    first, second, *_ = months_of(book)
    few = received.head(9)
    earlier, profiles = statements.month_of_statements(few, first, book), statements.profiles_of(few, book)
    assert list(by_parts.features_of([second], InForce.of(book), as_given({first: earlier}, profiles))) == []
    of_nobody = {first: earlier.head(0)}
    assert list(by_parts.features_of([first], InForce.of(book), as_given(of_nobody, profiles))) == []
    assert list(by_parts.features_of([second], InForce.of(book), iter([]))) == []


def test_a_machine_with_another_book_computes_nothing(received: pd.DataFrame, book: LoanBook) -> None:
    told = InForce.of(replace(book, as_of=book.as_of.replace(day=28)))
    for computed in (
        by_parts.statements_of(months_of(book)[0], told, iter(in_batches(received.head(3)))),
        by_parts.features_of(months_of(book)[:1], told, iter([])),
        by_parts.met(told, iter([])),
    ):
        with pytest.raises(Refusal, match=f"computes by the book {book.digest}"):
            list(computed)
