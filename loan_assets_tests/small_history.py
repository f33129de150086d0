"""A small history of the packaged table in files: 4,000 known clients, 24 days of 120 requests, outcomes 3 days later.

Here: tables, how they are written, and the command that replays them. Not here: what a replay should make of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
from typer.testing import CliRunner, Result

from loan_assets.books import LoanBook, Role
from loan_assets.cli import app
from loan_assets.credit.scenarios import sudden_shift
from loan_assets.histories import History

FIRST, DAYS, ROWS, LATER, KNOWN = date(2026, 1, 5), 24, 120, 3, 4_000
CHANGE = 9
POLICY_TEXT = "succession:\n  enough_outcomes: 400\n  least_outcomes: 200\n"


def day_name(number: int) -> str:
    return (FIRST + timedelta(days=number)).isoformat()


@dataclass
class Tables:
    """A history in memory, in the source's dialect."""

    reference: pd.DataFrame
    predictions: dict[str, pd.DataFrame] = field(default_factory=dict)
    labels: dict[str, pd.DataFrame] = field(default_factory=dict)

    def write(self, folder: Path) -> Path:
        """The layout that the backtest reads."""
        folder.mkdir(parents=True, exist_ok=True)
        self.reference.to_parquet(folder / "reference.parquet", index=False)
        for name, tables in (("predictions", self.predictions), ("labels", self.labels)):
            (folder / name).mkdir(exist_ok=True)
            for day, table in tables.items():
                table.to_parquet(folder / name / f"{day}.parquet", index=False)
        return folder

    def first_days(self, count: int) -> Tables:
        """Only what the files up to a day say."""
        last = day_name(count - 1)
        return Tables(
            reference=self.reference,
            predictions={day: table for day, table in self.predictions.items() if day <= last},
            labels={day: table for day, table in self.labels.items() if day <= last},
        )


def small_history(received: pd.DataFrame, book: LoanBook, *, changes: bool = True) -> Tables:
    """From the tenth day on amounts are larger, codes worse, and it is the large limits that default."""
    generator = np.random.default_rng(8)
    clients = received.iloc[generator.permutation(len(received))[: KNOWN + DAYS * ROWS]].reset_index(drop=True)
    tables = Tables(reference=_dialect(clients.iloc[:KNOWN], book).assign(label=clients[book.label.name][:KNOWN]))
    for number in range(DAYS):
        start = KNOWN + number * ROWS
        rows = clients.iloc[start : start + ROWS].reset_index(drop=True)
        label = rows[book.label.name].to_numpy()
        if changes and number >= CHANGE:
            is_large = (rows["credit_limit"] > clients["credit_limit"].median()).to_numpy()
            label = (generator.random(ROWS) < np.where(is_large, 0.4, 0.06)).astype("int64")
            rows = sudden_shift(rows, book)
        ids = [f"q{number:02}-{row:03}" for row in range(ROWS)]
        asked = _dialect(rows, book).assign(event_timestamp=pd.Timestamp(f"{day_name(number)} 09:00", tz="UTC"))
        asked.insert(0, "request_id", ids)
        tables.predictions[day_name(number)] = asked
        if number + LATER < DAYS:
            at = pd.Timestamp(f"{day_name(number + LATER)} 12:00", tz="UTC")
            told = pd.DataFrame({"request_id": ids, "label": label, "label_timestamp": at})
            tables.labels[day_name(number + LATER)] = told
    return tables


def _dialect(rows: pd.DataFrame, book: LoanBook) -> pd.DataFrame:
    columns = book.with_role(Role.FEATURE, Role.PROTECTED)
    table = pd.DataFrame({str(column.source): rows[column.name].to_numpy() for column in columns})
    table.insert(0, book.key.name, rows[book.key.name].to_numpy())
    return table.assign(event_timestamp=pd.Timestamp("2025-12-01", tz="UTC"))


def history_in(folder: Path, until: str = "") -> History:
    return History(
        reference=folder / "reference.parquet",
        predictions=folder / "predictions",
        labels=folder / "labels",
        until=until,
    )


def backtest(folder: Path, out: Path, *options: str) -> Result:
    """The command, in this process."""
    places = [
        *("--reference", str(folder / "reference.parquet"), "--predictions", str(folder / "predictions")),
        *("--labels", str(folder / "labels"), "--out", str(out)),
    ]
    return CliRunner().invoke(app, ["backtest", *places, *options])
