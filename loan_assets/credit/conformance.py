"""Which rows break the contract of a table, counted per column and rule.

Here: the pandera schema read off the book's columns, and the published totals. Not here: who calls it or what happens
then. No message ever carries a value from a row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from loan_assets.books import Column, Kind, LoanBook, Role
from loan_assets.books.tables import statements
from loan_assets.refusal import Refusal

if TYPE_CHECKING:
    import pandas as pd
    import pandera.pandas as pa

STORED_AS = {
    Kind.INTEGER: "int64",
    Kind.NUMBER: "float64",
    Kind.RATIO: "float32",
    Kind.TIME: "datetime64[us, UTC]",
    Kind.WORD: "object",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Breach:
    """One broken rule: in which column, which rule, in how many rows."""

    column: str
    rule: str
    rows: int

    def __str__(self) -> str:
        return f"{self.column}: {self.rule} ({self.rows:,} {'row' if self.rows == 1 else 'rows'})"


def breaches(frame: pd.DataFrame, columns: Sequence[Column], unique: Sequence[str] = ()) -> tuple[Breach, ...]:
    """Every rule of the columns that the frame breaks, most rows first; empty when it keeps the contract.

    Args:
        frame: any table; columns beyond the contract are a breach too.
        columns: the contract, in order.
        unique: names of the columns that together name a row once.
    """
    import numpy as np

    expected = [column.name for column in columns]
    found = [str(name) for name in frame.columns]
    missing = [Breach(column=name, rule="is missing", rows=len(frame)) for name in expected if name not in found]
    extra = [
        Breach(column=name, rule="is not in the contract", rows=len(frame)) for name in found if name not in expected
    ]
    if missing or extra:
        return (*missing, *extra)
    if len(frame) == 0:
        return (Breach(column="(all)", rule="the table has no rows", rows=0),)
    import pandera.errors

    counted: dict[tuple[str, str], int] = {}
    for column in columns:
        if column.kind in (Kind.NUMBER, Kind.RATIO) and frame[column.name].dtype.kind == "f":
            infinite = int(np.isinf(frame[column.name].to_numpy()).sum())
            if infinite:
                counted[(column.name, "is infinite")] = infinite
    try:
        _contract(columns, unique).validate(frame, lazy=True)
    except pandera.errors.SchemaErrors as broken:
        for case in broken.failure_cases.itertuples():
            rule = (str(case.column) if case.column is not None else "(row)", _spoken(str(case.check)))
            counted[rule] = counted.get(rule, 0) + (1 if case.index is not None else len(frame))
    return tuple(
        Breach(column=column, rule=rule, rows=rows)
        for (column, rule), rows in sorted(counted.items(), key=lambda item: (-item[1], item[0]))
    )


def conform(delivered: pd.DataFrame, book: LoanBook, file: str) -> pd.DataFrame:
    """The delivery in the book's words, order and types, or a refusal that says what is wrong with it.

    Column names may be the source's or the book's; case and punctuation do not matter. Rows keep their order.

    Raises:
        Refusal: naming the file, its row count, the columns, the rules and how many rows break each.
    """
    frame = conform_columns(delivered, book.received, book.key.name, file, DELIVER)
    refuse_another_table(frame, book, file)
    return frame


def refuse_another_table(frame: pd.DataFrame, book: LoanBook, file: str) -> None:
    """Refuse rows that keep the contract and are not those that were published.

    Raises:
        Refusal: naming the file, its row count and the figures that it does not reproduce.
    """
    departures = departures_from_published(frame, book)
    if departures:
        raise Refusal(
            f"{file} ({len(frame):,} rows) is not the table of {book.title!r}: {_listed(departures)}.", DELIVER
        )


def columns_of_a_month(book: LoanBook) -> tuple[Column, ...]:
    """One month of statements as delivered later: the key and each measure, by the same rules as the book's."""
    return tuple(column for column in statements(book) if column.role is not Role.EVENT_TIME)


def in_the_books_words(delivered: pd.DataFrame, columns: Sequence[Column]) -> pd.DataFrame:
    """The table with the book's names for the columns it knows; case and punctuation do not matter."""
    words = {_plain(name): column.name for column in columns for name in (column.name, column.source or "") if name}
    return delivered.rename(columns={name: words.get(_plain(str(name)), str(name)) for name in delivered.columns})


def conform_columns(
    delivered: pd.DataFrame, columns: Sequence[Column], key: str, file: str, next_step: str
) -> pd.DataFrame:
    """Some columns of a table in the book's words, order and types; others are left behind.

    Raises:
        Refusal: as `conform` does, with `next_step`.
    """
    named = in_the_books_words(delivered, columns)
    refuse_headers([str(name) for name in named.columns], len(named), columns, file, next_step)
    frame, broken = as_numbers(named, columns)
    broken = broken or breaches(frame, columns, unique=[key])
    if broken:
        raise broken_contract(file, len(named), broken, next_step)
    return frame


def refuse_headers(names: Sequence[str], rows: int, columns: Sequence[Column], file: str, next_step: str) -> None:
    """What can be said of a delivery before any row of it is looked at.

    Args:
        names: its columns, in the book's words.

    Raises:
        Refusal: when it has no rows, lacks a column or has one more than once.
    """
    if rows == 0:
        raise Refusal(f"{file} has no rows.", next_step)
    missing = [
        f"{column.name} ({column.source})" if column.source else column.name
        for column in columns
        if column.name not in names
    ]
    if missing:
        raise Refusal(f"{file} ({rows:,} rows) lacks {_listed(missing)}.", next_step)
    repeated = sorted(column.name for column in columns if names.count(column.name) > 1)
    if repeated:
        raise Refusal(f"{file} ({rows:,} rows) has {_listed(repeated)} more than once.", next_step)


def as_numbers(named: pd.DataFrame, columns: Sequence[Column]) -> tuple[pd.DataFrame, tuple[Breach, ...]]:
    """Rows in the order and types of the contract, and what cannot be read as the number it should be.

    A row is read alone, so that a file may be read in parts. Where anything is found, the rows are not the contract's.
    """
    import pandas as pd

    frame = pd.DataFrame(
        {column.name: pd.to_numeric(named[column.name].reset_index(drop=True), errors="coerce") for column in columns}
    )
    unfit = tuple(breach for column in columns for breach in _unfit(column, named[column.name], frame[column.name]))
    return frame if unfit else frame.astype({column.name: STORED_AS[column.kind] for column in columns}), unfit


def broken_contract(file: str, rows: int, broken: Sequence[Breach], next_step: str) -> Refusal:
    """The refusal of a file that breaks the contract: how many rows break which rule in which column."""
    return Refusal(f"{file} ({rows:,} rows) breaks the contract: {_listed([str(one) for one in broken])}.", next_step)


def _unfit(column: Column, delivered: pd.Series[Any], numbers: pd.Series[float]) -> Iterator[Breach]:
    """What keeps a delivered column from being read as the numbers it should hold."""
    empty = int(delivered.isna().sum())
    infinite = int(numbers.isin([float("inf"), float("-inf")]).sum())
    is_whole = column.kind is Kind.INTEGER
    rules = {
        "is empty": empty,
        "is not a number": int(numbers.isna().sum()) - empty,
        "is infinite": infinite,
        "is not a whole number": int((numbers % 1 > 0).sum()) if is_whole else 0,
        # Whole numbers that arrive as floating point have been rounded beyond this already.
        "is too large to be read exactly": int((numbers.abs() > EXACT).sum()) - infinite
        if is_whole and numbers.dtype.kind == "f"
        else 0,
    }
    for rule, rows in rules.items():
        if rows > 0:
            yield Breach(column=column.name, rule=rule, rows=rows)


def departures_from_published(frame: pd.DataFrame, book: LoanBook) -> tuple[str, ...]:
    """The published totals that a delivery does not reproduce, each as a sentence; empty when all agree."""
    found = totals_of(frame, book)
    return tuple(
        f"the {name} is {found[name]:,.2f} where {total.value:,.2f} was published"
        for name, total in ((str(total), total) for total in book.published)
        if not abs(found[name] - total.value) <= total.tolerance
    )


def totals_of(frame: pd.DataFrame, book: LoanBook) -> dict[str, float]:
    """Every published figure as a table has it, by the figure's words."""
    found = {}
    for total in book.published:
        rows = frame if total.among is None else frame[frame[total.among[0]] == total.among[1]]
        found[str(total)] = float(getattr(rows[total.column], total.statistic)())
    return found


DELIVER = "Nothing was taken over. Deliver a whole, unaltered file, or point LOAN_SOURCE at one, and run again."
LISTED = 6
EXACT = 2**53


def _listed(sentences: Sequence[str]) -> str:
    """The first few of many, and how many more there are."""
    more = len(sentences) - LISTED
    return "; ".join(sentences[:LISTED]) + (f"; and {more} more" if more > 0 else "")


def _plain(name: str) -> str:
    """A column name without case and punctuation: `default.payment.next.month` is `default payment next month`."""
    return "_".join("".join(letter if letter.isalnum() else " " for letter in name.lower()).split())


def _contract(columns: Sequence[Column], unique: Sequence[str]) -> pa.DataFrameSchema:
    """The columns as a pandera schema."""
    import pandera.pandas as pa

    def rules(column: Column) -> list[pa.Check]:
        found = []
        if column.levels is not None:
            found.append(pa.Check.isin(sorted(column.levels), error="has a code outside the book"))
        if column.low is not None:
            found.append(pa.Check.ge(column.low, error=f"is below {column.low:g}"))
        if column.high is not None:
            found.append(pa.Check.le(column.high, error=f"is above {column.high:g}"))
        return found

    return pa.DataFrameSchema(
        {
            column.name: pa.Column(
                STORED_AS[column.kind],
                checks=rules(column),
                nullable=column.nullable,
                unique=column.role is Role.KEY and list(unique) == [column.name],
            )
            for column in columns
        },
        unique=list(unique) if len(unique) > 1 else None,
    )


def _spoken(check: str) -> str:
    """A pandera check's name as a rule a person reads."""
    if check.startswith("dtype("):
        return f"is not stored as {check.removeprefix('dtype(').rstrip(')')}".replace("'", "")
    return {"not_nullable": "is empty", "field_uniqueness": "repeats", "multiple_fields_uniqueness": "repeats"}.get(
        check, check
    )
