"""A history in files: what the backtest reads, and what it leaves behind.

Here: reference, predictions and labels as they lie in folders, each fault with its file and column; decisions, scores,
models and summary as they are written. Not here: what is decided (`credit.backtest`) or the page of the report
(`credit.timeline`).

    reference.parquet               key, event_timestamp, the book's columns, label
    predictions/2026-11-24.parquet  request_id, key, event_timestamp, the columns as received; no file, no traffic
    labels/2026-11-29.parquet       request_id, label, label_timestamp; named by the day of arrival
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from loan_assets.books import LoanBook
from loan_assets.credit.backtest import DayDecided, DayOfHistory
from loan_assets.credit.conformance import conform_columns, in_the_books_words
from loan_assets.credit.quality import REQUEST
from loan_assets.credit.realised import Realised
from loan_assets.day_file import read_day
from loan_assets.refusal import Refusal

if TYPE_CHECKING:
    import pandas as pd

SUFFIX = ".parquet"
LABEL, KEY = "label", "customer_id"
DECISIONS, SCORES, SUMMARY, MODELS = "decisions.jsonl", "scores.parquet", "summary.json", "models"
REPORT = "report.html"
MEND = "Mend the file and run again; nothing was written."


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """Where a history lies: its reference and its days, from the first to the last that is named by any file."""

    reference: Path
    predictions: Path
    labels: Path
    until: str = ""

    def days(self) -> tuple[str, ...]:
        """Every day of the history, without gaps.

        Raises:
            Refusal: when a folder is missing, empty, or holds a file that is named by no day, or the end is before it.
        """
        if not self.predictions.is_dir():
            raise Refusal(f"{self.predictions} is no folder.", "Give the folder with one Parquet file a day.")
        asked, told = _named(self.predictions), _named(self.labels) if self.labels.is_dir() else ()
        if not asked:
            raise Refusal(f"{self.predictions} holds no day.", "Put files like 2026-11-24.parquet there.")
        first, last = date.fromisoformat(min(asked)), date.fromisoformat(max((*asked, *told)))
        if self.until:
            last = min(last, _day(self.until, f"--until {self.until}"))
        if last < first:
            raise Refusal(f"--until {self.until} is before the first day, {first}.", "Give a later day.")
        return tuple((first + timedelta(days=number)).isoformat() for number in range((last - first).days + 1))

    def known(self, book: LoanBook) -> tuple[pd.DataFrame, NDArray[np.int64]]:
        """The reference in the book's words, and its outcomes, shape (rows,).

        Raises:
            Refusal: naming the file, the column and the rule that is broken.
        """
        table = _read(self.reference)
        if table is None:
            raise Refusal(f"{self.reference} is not there.", "Give a Parquet file with one row for each known loan.")
        named = _keyed(table, book).rename(columns={LABEL: book.label.name})
        frame = conform_columns(named, book.received, book.key.name, str(self.reference), MEND)
        return frame, frame[book.label.name].to_numpy(dtype=np.int64)

    def over(self, days: Sequence[str], book: LoanBook) -> Iterator[DayOfHistory]:
        """The days one after the other; a file is opened on its day and not before."""
        for day in days:
            asked, no_requests = _tried(self.predictions / f"{day}{SUFFIX}")
            told, no_outcomes = _tried(self.labels / f"{day}{SUFFIX}")
            if asked is not None:
                asked, no_requests = _once(
                    in_the_books_words(_keyed(asked, book), book.received), f"the requests of {day}"
                )
            if told is not None and LABEL not in told.columns:
                told = told.rename(columns={book.label.name: LABEL})
            yield DayOfHistory(
                date=day,
                requests=asked,
                outcomes=told,
                unreadable_requests=no_requests,
                unreadable_outcomes=no_outcomes,
            )


def line_of(day: DayDecided, threshold: float) -> str:
    """A day's decisions as one line of JSON, keys in a fixed order."""
    gate: dict[str, Any] = {}
    if day.trial is not None:
        gate = {
            "metric": day.trial.metric,
            "champion": _short(day.trial.champion),
            "challenger": _short(day.trial.challenger),
            "n": day.trial.rows,
            "verdict": day.verdict,
            "z": _short(day.trial.z),
            "against": list(day.trial.against),
        }
    facts = {
        "date": day.date,
        "served_by": str(day.served_by),
        "champion": str(day.champion),
        "batch": {"rows": day.batch.rows, "status": day.batch.status, "reasons": list(day.batch.reasons)},
        "drift": {
            "share": None if day.share is None else _short(day.share),
            "threshold": threshold,
            "columns": {name: _short(distance) for name, distance in sorted(day.columns.items())},
            "consecutive": day.consecutive,
        },
        "labels": {
            "status": day.labels,
            "rows": day.label_rows,
            "reasons": list(day.label_reasons),
            "released": list(day.released),
        },
        "performance": {name: _short(value) for name, value in day.performance.items()},
        "gate": gate,
        "actions": [str(action.kind) for action in day.actions],
        "causes": [f"{action.kind} {action.version}: {action.cause}" for action in day.actions],
    }
    return json.dumps(facts)


def write_scores(path: Path, days: Sequence[DayDecided]) -> None:
    """Every request's score by the version in force when it arrived; one that was sent again keeps its first."""
    import pandas as pd

    table = pd.DataFrame(
        {
            REQUEST: [request for day in days for request in day.requests],
            "model_version": [str(number) for day in days for number in day.answered_by],
            "score": np.concatenate([day.scores for day in days]) if days else np.empty(0),
        }
    )
    table.drop_duplicates(REQUEST).to_parquet(path, index=False)


def _named(folder: Path) -> tuple[str, ...]:
    """The days that a folder's Parquet files are named by."""
    return tuple(_day(path.stem, str(path)).isoformat() for path in sorted(folder.glob(f"*{SUFFIX}")))


def _day(name: str, where: str) -> date:
    try:
        day = date.fromisoformat(name)
    except ValueError:
        day = None
    if day is None or day.isoformat() != name:
        raise Refusal(f"{where} is named by no day.", "Name days like 2026-11-24.")
    return day


def _tried(path: Path) -> tuple[pd.DataFrame | None, str]:
    """A day's table, or why it cannot be read: one bad file does not stop a history."""
    try:
        return _read(path), ""
    except Refusal as unreadable:
        return None, unreadable.cause


def _once(table: pd.DataFrame, called: str) -> tuple[pd.DataFrame, str]:
    """Each column once, and what is wrong where two are the same in the book's words: nobody knows which is meant."""
    repeated = table.columns.duplicated()
    named = sorted({str(name) for name in table.columns[repeated]})
    return table.loc[:, ~repeated], f"{called}: {', '.join(named)} more than once" if named else ""


def _read(path: Path) -> pd.DataFrame | None:
    """A Parquet file as a table, None where there is none.

    Raises:
        Refusal: when it is no Parquet file or was cut short.
    """
    return read_day(path, str(path), MEND) if path.exists() else None


def _keyed(table: pd.DataFrame, book: LoanBook) -> pd.DataFrame:
    """The table with its key under the book's name."""
    if book.key.name in table.columns or KEY not in table.columns:
        return table
    return table.rename(columns={KEY: book.key.name})


def _short(number: float) -> float:
    """Six significant digits: decisions are compared byte by byte, and the last bits are the machine's."""
    return float(f"{number:.6g}")


def received_columns(table: pd.DataFrame, book: LoanBook, file: str) -> pd.DataFrame:
    """Rows to score in the book's words.

    Raises:
        Refusal: naming the file and the columns that a score needs and that are missing, or there twice.
    """
    named, repeated = _once(in_the_books_words(_keyed(table, book), book.received), file)
    if repeated:
        raise Refusal(f"{repeated}.", "Give each column once, as in the source or in the book's words.")
    needed = {column for feature in book.features for column in feature.inputs}
    missing = sorted(needed - set(named.columns))
    if missing:
        sources = {column.name: column.source for column in book.received}
        listed = ", ".join(f"{name} ({sources[name]})" if sources.get(name) else name for name in missing)
        raise Refusal(f"{file} lacks {listed}.", "Give every column of the book that a feature reads.")
    return named


def facts_for_summary(days: Sequence[DayDecided], worth: Realised) -> dict[str, Any]:
    """What happened, counted, and what it was worth: realised AUC, None where only one outcome is known."""
    actions = [action for day in days for action in day.actions]
    counted = {
        kind: sum(str(action.kind) == kind for action in actions)
        for kind in ("alarm", "retrain", "promote", "reject", "rollback")
    }
    return {
        "days": len(days),
        "first_day": days[0].date if days else None,
        "last_day": days[-1].date if days else None,
        "requests": sum(len(day.requests) for day in days),
        "actions": counted,
        "quarantined_days": [day.date for day in days if day.batch.status == "quarantined"],
        "quarantined_label_days": [day.date for day in days if day.labels == "quarantined"],
        "champion": str(days[-1].champion) if days else None,
        "realised": {
            "rows": worth.rows,
            "policy": None if worth.policy is None else _short(worth.policy),
            "never": None if worth.never is None else _short(worth.never),
            "plain_rule": None if worth.plain is None else _short(worth.plain),
        },
    }
