"""The same functions over a part of the rows: batches of Arrow in, batches of Arrow out, for tasks on other machines.

Here: what a task does with its rows. Not here: any formula or rule of its own (`books`, `conformance`, `statements`)
or what hands out tasks (`resources.spark`); every task imports this module, and it imports neither Spark nor Dagster.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from loan_assets.books import Column, Kind, LoanBook, Role, book_named, tables
from loan_assets.credit import statements
from loan_assets.credit.conformance import Breach, as_numbers, breaches, in_the_books_words
from loan_assets.refusal import Refusal

if TYPE_CHECKING:
    import pandas as pd

Batches = Iterator[pa.RecordBatch]
# Beside the book's columns: which month a statement is of, how many statements of a client there are in all, and which
# group of rows of a file a task reads.
MONTH, STATEMENTS, GROUP = "__month", "__statements", "id"


@dataclass(frozen=True, slots=True, kw_only=True)
class InForce:
    """The book by which a run computes, told to a task on another machine."""

    name: str
    digest: str

    @classmethod
    def of(cls, book: LoanBook) -> InForce:
        """What a task has to know of a book."""
        return cls(name=book.name, digest=book.digest)

    def here(self) -> LoanBook:
        """The book as it is installed where the task runs.

        Raises:
            Refusal: when its columns or formulas are others, so that two machines would compute two things.
        """
        book = book_named(self.name)
        if book.digest != self.digest:
            raise Refusal(
                f"This machine computes by the book {book.digest}, the run by {self.digest}.",
                "Install the same version of loan_assets on every machine of the cluster.",
            )
        return book


def schema(columns: Sequence[Column]) -> pa.Schema:
    """Columns as Arrow names them."""
    types = {
        Kind.INTEGER: pa.int64(),
        Kind.NUMBER: pa.float64(),
        Kind.RATIO: pa.float32(),
        Kind.TIME: pa.timestamp("us", tz="UTC"),
        Kind.WORD: pa.string(),
    }
    return pa.schema([(column.name, types[column.kind]) for column in columns])


FOUND = (
    Column(name="column", role=Role.FACT, kind=Kind.WORD, meaning="The column that breaks a rule"),
    Column(name="rule", role=Role.FACT, kind=Kind.WORD, meaning="The rule"),
    Column(name="rows", role=Role.FACT, kind=Kind.INTEGER, meaning="In how many rows of the part"),
    Column(
        name="is_unfit", role=Role.FACT, kind=Kind.INTEGER, meaning="1 where it is not even the number it should be"
    ),
)


def judged(content: bytes, columns: Sequence[Column], batches: Batches) -> Batches:
    """What the named groups of rows of a Parquet file break of the contract; no part knows whether keys repeat."""
    for part in _groups(content, columns, batches):
        frame, unfit = as_numbers(part, columns)
        found = unfit or breaches(frame, columns)
        rows = [(one.column, one.rule, one.rows, int(bool(unfit))) for one in found]
        arrays = [list(column) for column in zip(*rows, strict=True)] or [[] for _ in FOUND]
        yield pa.RecordBatch.from_arrays(
            [pa.array(values, type=field.type) for values, field in zip(arrays, schema(FOUND), strict=True)],
            schema=schema(FOUND),
        )


def together(found: pd.DataFrame, columns: Sequence[Column], repeats: Breach | None) -> tuple[Breach, ...]:
    """What the parts of a file break together, in the order in which a whole file is told.

    Args:
        found: what `judged` said of each part.
        repeats: keys that occur more than once, which only the whole can tell.
    """
    unfit = found[found["is_unfit"] == 1]
    told = unfit if len(unfit) else found
    summed = told.groupby(["column", "rule"], sort=False, as_index=False)["rows"].sum()
    merged = [Breach(column=one.column, rule=one.rule, rows=int(one.rows)) for one in summed.itertuples()]
    if len(unfit):
        places = {column.name: place for place, column in enumerate(columns)}
        return tuple(sorted(merged, key=lambda one: places[one.column]))
    merged += [repeats] if repeats is not None else []
    return tuple(sorted(merged, key=lambda one: (-one.rows, one.column, one.rule)))


def conformed(content: bytes, columns: Sequence[Column], batches: Batches) -> Batches:
    """The named groups of rows of a Parquet file as the contract stores them; their order is kept."""
    for part in _groups(content, columns, batches):
        yield from _batches(as_numbers(part, columns)[0], columns)


def met(book: InForce, batches: Batches) -> Batches:
    """The batches as they came, from a task that computes by the run's book."""
    book.here()
    yield from batches


def statements_of(month: str, book: InForce, batches: Batches) -> Batches:
    """One month of statements of the clients in received rows; their order is kept."""
    here = book.here()
    for batch in filter(len, batches):
        yield from _batches(statements.month_of_statements(batch.to_pandas(), month, here), tables.statements(here))


def features_of(months: Sequence[str], book: InForce, batches: Batches) -> Batches:
    """The features as of each of some months of the clients in a part, beside the month.

    Args:
        months: those whose features are wanted.
        batches: every statement of these clients with its month, and their profiles, with how many statements there
            are of each, as rows without one.

    Raises:
        Refusal: when the part lacks a statement of one of its clients, whose features would come out missing.
    """
    here = book.here()
    held = list(filter(len, batches))
    if not held:
        return
    part = pa.Table.from_batches(held)
    is_profile = part[MONTH].is_null()
    # Split while it is Arrow: rows of one kind have gaps in the other's columns, and integers beside gaps would become
    # floats in pandas.
    profiles = part.filter(is_profile).select(names_of(profiles_sent(here))).to_pandas()
    said = part.filter(pc.invert(is_profile)).select([*names_of(tables.statements(here)), MONTH]).to_pandas()
    key = here.key.name
    there = said[key].value_counts().reindex(profiles[key], fill_value=0)
    if (there.to_numpy() != profiles[STATEMENTS].to_numpy()).any():
        raise Refusal(
            "A task was not given all statements of its clients.",
            "Take out of LOAN_SPARK_CONF what it says of Spark's optimizer, or unset LOAN_ENGINE.",
        )
    known = {str(month): rows.drop(columns=MONTH) for month, rows in said.groupby(MONTH)}
    for month in months:
        if month in known:
            features = statements.features_as_of(month, known, profiles, here)
            yield from _batches(features.assign(**{MONTH: month}), features_beside_months(here))


def profiles_sent(book: LoanBook) -> tuple[Column, ...]:
    """What formulas read of a client's profile, with the key and how many statements of the client are sent."""
    count = Column(name=STATEMENTS, role=Role.FACT, kind=Kind.INTEGER, meaning="How many statements there are in all")
    return (book.key, *(column for column in tables.profiles(book) if column.role is Role.FEATURE), count)


def features_beside_months(book: LoanBook) -> tuple[Column, ...]:
    """Rows of features of several months in one table."""
    month = Column(name=MONTH, role=Role.FACT, kind=Kind.WORD, meaning="The month that the features are as of")
    return (*tables.borrower_features(book), month)


def names_of(columns: Sequence[Column]) -> list[str]:
    """What columns are called."""
    return [column.name for column in columns]


def _groups(content: bytes, columns: Sequence[Column], batches: Batches) -> Iterator[pd.DataFrame]:
    """The groups of rows that a task was given, in the book's words."""
    import pyarrow.parquet as pq

    file = pq.ParquetFile(io.BytesIO(content))
    for batch in batches:
        for group in batch.column(GROUP).to_pylist():
            rows = file.read_row_group(group).to_pandas()
            if len(rows):
                yield in_the_books_words(rows, columns)


def _batches(frame: pd.DataFrame, columns: Sequence[Column]) -> Iterator[Any]:
    return iter(pa.Table.from_pandas(frame, schema=schema(columns), preserve_index=False).to_batches())
