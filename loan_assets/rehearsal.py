"""Days at the endpoint, rehearsed for real: the champion is served, asked over HTTP, logged and watched.

Here: which applications are sent on which day, and the run that follows. Not here: the endpoint (`endpoint`), the
scenarios (`credit.scenarios`) or the rule that retrains (`credit.succession`).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import dagster as dg
import numpy as np
from rich.console import Console

from loan_assets.books import LoanBook, Role, the_book
from loan_assets.credit.daily import ordered
from loan_assets.credit.drift import DriftReport
from loan_assets.credit.quality import REQUEST
from loan_assets.credit.scenarios import SCENARIOS
from loan_assets.credit.training import HOLDOUT
from loan_assets.endpoint import served
from loan_assets.example_history import CHANGED_WORLD
from loan_assets.policy_file import the_policy
from loan_assets.prediction_record import day_of
from loan_assets.refusal import BadInput, Refusal
from loan_assets.resources.asset_store import AssetStore
from loan_assets.resources.catalog import DAYS
from loan_assets.resources.prediction_logs import PredictionLogs
from loan_assets.running import only_run_in, run_here
from loan_assets.settings import Settings

POLICY = the_policy()

if TYPE_CHECKING:
    import pandas as pd

APPLICATIONS = 1_500
# How many days more are looked at for some without a real answer.
LOOKS_BACK = 14


def rehearse(settings: Settings, scenario: str, days: Sequence[str]) -> list[DriftReport]:
    """Serve the champion, send each day's applications, and materialize each day's log and drift report.

    Args:
        scenario: a name of `credit.scenarios.SCENARIOS`.
        days: `2026-11-24` style, none after today.

    Raises:
        Refusal: when there is no such scenario or no champion, or a run was stopped.
    """
    if scenario not in SCENARIOS:
        raise BadInput(
            f"There is no scenario {scenario!r}.", f"Choose one of: {', '.join((*SCENARIOS, CHANGED_WORLD))}."
        )
    book = the_book()
    console = Console(highlight=False)
    store = AssetStore.over(settings)
    reports = []
    with only_run_in(settings.home), dg.DagsterInstance.get() as instance:
        for position, day in enumerate(days):
            drawn = held_out(store, APPLICATIONS, seed=position)
            changed = SCENARIOS[scenario](drawn, book)
            with served(settings, rehearsed_day=day) as endpoint:
                answers = endpoint.score_each(as_applications(changed))
            refused = sum(answer["decision"] == "refuse" for answer in answers) / len(answers)
            said = f"{len(answers):,} applications answered over HTTP, {refused:.1%} refused"
            console.print(f"  [green]✓[/] [bold]{day}[/] [dim]{said}[/]")
            reports.append(watch_day(instance, store, day))
            console.print(f"      {said_of(reports[-1])}")
    return reports


def days_to_rehearse(settings: Settings, latest: Sequence[str], count: int) -> list[str]:
    """The newest days that lie together and have no real answer, oldest first: such drive out the rehearsed ones.

    Args:
        latest: the days among which they are, oldest first.

    Raises:
        Refusal: when there are not as many.
    """
    logs, store, held = PredictionLogs.over(settings), AssetStore.over(settings), set(DAYS.get_partition_keys())
    logged, together = set(logs.days()), list[str]()
    for day in reversed([day for day in latest if day in held]):
        # A day whose log was moved away has its answers in the store.
        is_real = logs.has_real_answer(day) if day in logged else _has_rows(store, f"prediction_log/{day}")
        together = [] if is_real else [day, *together]
        if len(together) == count:
            return together
    raise Refusal(
        f"No {count} days in a row from {latest[0]} on are without real answers.",
        "Rehearse in a home of its own: name an empty folder by LOAN_HOME and begin with `loan-assets demo`.",
    )


def _has_rows(store: AssetStore, shelf: str) -> bool:
    return store.holds(shelf) and not store.read(shelf, object).empty


def watch_days(settings: Settings, days: Sequence[str]) -> None:
    """Materialize the log and the drift report of each day, and print each verdict.

    Raises:
        Refusal: when a day is no day that the log can hold, or a run was stopped.
    """
    held = set(DAYS.get_partition_keys())
    strange = [day for day in days if day not in held]
    if strange:
        raise Refusal(
            f"{strange[0]!r} is no day that the log can hold.",
            f"Give days from {POLICY.log_begins} to today, written like 2026-11-24.",
        )
    console = Console(highlight=False)
    store = AssetStore.over(settings)
    with only_run_in(settings.home), dg.DagsterInstance.get() as instance:
        for day in days:
            console.print(f"  [bold]{day}[/] {said_of(watch_day(instance, store, day))}")


def said_of(report: DriftReport) -> str:
    """A report in one line."""
    score = "no score" if report.score is None else f"score {report.score:.2f}"
    why = f" ({'; '.join(report.failures)})" if report.failures else ""
    return f"{report.verdict}: {score} [dim]{report.rows:,} applications against version {report.model_version}{why}[/]"


def watch_day(instance: dg.DagsterInstance, store: AssetStore, day: str) -> DriftReport:
    """Materialize a day's log and drift report in this process, recorded like any other run.

    Raises:
        Refusal: when the run was stopped, with the reason.
    """
    run_here(instance, "daily_watch", day)
    report: DriftReport = store.read(f"drift_report/{day}", DriftReport)
    return report


def held_out(store: AssetStore, rows: int, seed: int) -> pd.DataFrame:
    """Received columns of clients that the model never saw, drawn without replacement, labels left out."""
    book = the_book()
    columns = [column.name for column in book.with_role(Role.KEY, Role.FEATURE, Role.PROTECTED)]
    pool = clients(store, HOLDOUT).sort_values(book.key.name)[columns]
    return pool.sample(min(rows, len(pool)), random_state=seed)


def clients(store: AssetStore, part: str) -> pd.DataFrame:
    """Received columns and outcomes of a part of the training set, in its order."""
    key = the_book().key.name
    training_set: pd.DataFrame = store.read("training_set", object)
    received: pd.DataFrame = store.read("raw_loan_book", object)
    chosen = training_set.loc[training_set["part"] == part, key].astype("int64")
    return received.set_index(key, drop=False).loc[chosen].reset_index(drop=True)


def as_applications(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as the endpoint takes them."""
    applications: list[dict[str, Any]] = table.to_dict("records")  # type: ignore[assignment]
    return applications


def named_requests(requests: pd.DataFrame, book: LoanBook) -> list[dict[str, Any]]:
    """A day's requests as the endpoint takes them, each under its own name, in an order that the file has no part in.

    What is no number is left out, and so is what the book does not know: the endpoint then says what it lacks.

    Args:
        requests: columns in the book's words, as numbers or as text.
    """
    import pandas as pd

    table = ordered(requests)
    known = [column.name for column in book.received if column.role is not Role.LABEL and column.name in table]
    numbers = {name: pd.to_numeric(table[name], errors="coerce").to_numpy("float64", na_value=np.nan) for name in known}
    names = table[REQUEST].tolist() if REQUEST in table else [None] * len(table)
    bodies = []
    for row, name in enumerate(names):
        sent = {column: float(values[row]) for column, values in numbers.items() if np.isfinite(values[row])}
        if sent.get(book.key.name, 0.5).is_integer():
            sent[book.key.name] = int(sent[book.key.name])
        body: dict[str, Any] = {"applications": [sent]}
        bodies.append(body if pd.isna(name) else {**body, "request_id": str(name)})
    return bodies


def days_up_to_today(count: int) -> list[str]:
    """The last days, today's included, oldest first."""
    today = datetime.now(UTC)
    return [day_of(today - timedelta(days=back)) for back in range(count - 1, -1, -1)]
