"""Where the book's tables are computed: the embedded engine, in this process with pandas and duckdb.

Here: what an engine does for the graph, and the one that does it here. Not here: what is computed (`books`, `credit`)
or the engine that does it elsewhere (`spark`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg

from loan_assets.books import Column, LoanBook
from loan_assets.credit.conformance import conform_columns
from loan_assets.settings import SPARK, Settings

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """A file that was delivered: its name as it may be shown, its bytes, and what reads them here, whatever kind."""

    name: str
    content: bytes
    parsed: Callable[[], tuple[str, pd.DataFrame]]


class Engine(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The embedded engine. Any other gives the same rows, bit for bit, and the same refusals."""

    @classmethod
    def over(cls, settings: Settings) -> Engine:
        """The engine that the settings name."""
        if settings.engine != SPARK:
            return Engine()
        from loan_assets.resources.spark import SparkEngine

        folder = str(settings.home / "spark")
        return SparkEngine(master=settings.spark_master, conf=settings.spark_conf, folder=folder)

    def tried(self) -> str:
        """What it is, once it has been seen to start."""
        return "embedded, in this process"

    def read(self, file: Delivered, columns: Sequence[Column], key: str, hint: str) -> tuple[str, pd.DataFrame]:
        """The kind of a file, and its rows in the order and types of the contract.

        Args:
            key: the column whose values may not repeat.
            hint: the next step that a refusal tells.

        Raises:
            Refusal: when it is no table or breaks the contract.
        """
        kind, table = file.parsed()
        return kind, conform_columns(table, columns, key, file.name, hint)

    def statements_of(self, months: Sequence[str], received: pd.DataFrame, book: LoanBook) -> dict[str, pd.DataFrame]:
        """The statements of each month, from the delivered book; see `credit.statements.month_of_statements`."""
        from loan_assets.credit import statements

        return {month: statements.month_of_statements(received, month, book) for month in months}

    def features_of(
        self, months: Sequence[str], known: Mapping[str, pd.DataFrame], profiles: pd.DataFrame, book: LoanBook
    ) -> dict[str, pd.DataFrame]:
        """The features as of each month, from statements by month; see `credit.statements.features_as_of`."""
        from loan_assets.credit import statements

        return {month: statements.features_as_of(month, known, profiles, book) for month in months}

    @contextmanager
    def told(self, doing: str) -> Iterator[None]:  # noqa: ARG002  # for an engine that has errors of its own
        """Turn what the engine itself raises meanwhile into sentences; `doing` ends "It could not"."""
        yield

    @property
    def offline_store(self) -> str:
        """What Feast calls the offline store that joins tables on this engine."""
        return "duckdb"

    def shown(self, table: Path, digest: str) -> str:  # noqa: ARG002  # another engine names what it is shown
        """A verified Parquet file as that store finds it: the name of a table, or where the file is."""
        return str(table)
