"""How a table of the book looks in Dagster: its type, its column schema, its pictures.

Here: projections of columns into Dagster's own words. Not here: the columns (`books.tables`) or the rules
(`credit.conformance`, imported only when a table is checked).
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import dagster as dg

from loan_assets.books import Column, Kind, LoanBook
from loan_assets.books.calendar import MONTH, month_after, months_of
from loan_assets.policy_file import the_policy
from loan_assets.prediction_record import DAY

POLICY = the_policy()

T = TypeVar("T")

SHOWN_AS = {
    Kind.INTEGER: "int64",
    Kind.NUMBER: "float64",
    Kind.RATIO: "float32",
    Kind.TIME: "timestamp[us, UTC]",
    Kind.WORD: "string",
}


# By what Dagster says which partitions a run is about.
ONE, FIRST, LAST = "dagster/partition", "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"
# Days of the endpoint's log, today's included.
DAYS = dg.DailyPartitionsDefinition(start_date=POLICY.log_begins, fmt=DAY, end_offset=1)


def table_type(
    name: str, columns: Sequence[Column], unique: Sequence[str], *, may_be_empty: bool = False
) -> dg.DagsterType:
    """A Dagster type that a table passes only when it keeps the whole contract of its columns.

    The check runs before the table is stored, so a table that breaks its contract leaves no version behind. A
    dictionary of tables, one per partition, is checked table by table.
    """

    def keeps_the_contract(_: dg.TypeCheckContext, value: object) -> dg.TypeCheck:
        import pandas as pd

        from loan_assets.credit.conformance import breaches

        tables = value if isinstance(value, dict) else {"": value}
        for partition, frame in tables.items():
            if not isinstance(frame, pd.DataFrame):
                return dg.TypeCheck(success=False, description=f"{name} is a {type(frame).__name__}, not a table.")
            if may_be_empty and frame.empty:
                continue
            broken = breaches(frame, columns, unique)
            if broken:
                return dg.TypeCheck(
                    success=False,
                    description=f"{name} {partition} ({len(frame):,} rows) breaks its contract: "
                    + "; ".join(str(breach) for breach in broken[:6])
                    + ". Nothing was stored; mend what feeds it and run again.",
                    metadata={"rows": len(frame), "broken_rules": len(broken)},
                )
        return dg.TypeCheck(success=True)

    return dg.DagsterType(
        type_check_fn=keeps_the_contract,
        name=name,
        description="A table with the columns " + ", ".join(column.name for column in columns) + ".",
    )


def column_schema(columns: Sequence[Column]) -> dg.TableSchema:
    """The columns as Dagster's catalog shows them."""
    return dg.TableSchema(
        columns=[
            dg.TableColumn(
                column.name,
                SHOWN_AS[column.kind],
                description=f"{column.meaning} [{column.unit}]" if column.unit else column.meaning,
                constraints=dg.TableColumnConstraints(nullable=column.nullable, other=_bounds(column), unique=False),
                tags={"role": column.role.value},
            )
            for column in columns
        ]
    )


def months_of_statements(book: LoanBook) -> dg.MonthlyPartitionsDefinition:
    """One partition per statement month that the book covers, and for those that may still arrive."""
    months = months_of(book)
    end = month_after(months[-1], POLICY.months_ahead + 1)
    return dg.MonthlyPartitionsDefinition(start_date=months[0], end_date=end, fmt=MONTH)


def months_of_run(run: dg.DagsterRun, months: Mapping[str, T], among: dg.MonthlyPartitionsDefinition) -> dict[str, T]:
    """The months that a run was about; all that are there, for a run that is not about months.

    A check without partitions is handed every month. It must not judge what other runs made.
    """
    only = run.tags.get(ONE)
    first, last = run.tags.get(FIRST, only), run.tags.get(LAST, only)
    if first is None or last is None:
        return dict(months)
    asked = among.get_partition_keys_in_range(dg.PartitionKeyRange(first, last))
    return {month: months[month] for month in asked if month in months}


def picture(png: bytes, caption: str) -> dg.MarkdownMetadataValue:
    """A PNG as metadata that the asset's page shows in place."""
    return dg.MetadataValue.md(f"![{caption}](data:image/png;base64,{base64.b64encode(png).decode()})")


def table_of(rows: Sequence[dict[str, Any]]) -> dg.TableMetadataValue:
    """Rows of plain numbers and words as a table on the asset's page."""
    if not rows:
        return dg.MetadataValue.table([], dg.TableSchema(columns=[]))
    return dg.MetadataValue.table([dg.TableRecord(row) for row in rows])


def _bounds(column: Column) -> list[str]:
    if column.levels is not None:
        return [f"{code}: {meaning}" for code, meaning in sorted(column.levels.items())]
    bounds = [f"at least {column.low:g}"] if column.low is not None else []
    return bounds + ([f"at most {column.high:g}"] if column.high is not None else [])
