"""Running the graph from a terminal, and saying what happens while it happens.

Here: runs in this process, that of `whole_graph` above all, recorded in Dagster's history like any other. Not here: the
graph.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
import uuid
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
from filelock import FileLock, Timeout
from rich.console import Console
from rich.markup import escape

from loan_assets.books import the_book
from loan_assets.books.calendar import months_of
from loan_assets.killed_runs import Standing, begun_runs, end_killed_runs, this_process
from loan_assets.refusal import Refusal
from loan_assets.resources.asset_store import AssetStore
from loan_assets.resources.catalog import FIRST, LAST, months_of_statements
from loan_assets.resources.landing import Landing
from loan_assets.resources.pushed_statements import PushedStatements
from loan_assets.settings import Settings, without_secrets

SHOWN = {
    dg.DagsterEventType.STEP_SUCCESS,
    dg.DagsterEventType.STEP_FAILURE,
    dg.DagsterEventType.ASSET_CHECK_EVALUATION,
}
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


class Interrupted(Refusal):
    """Somebody ended a run: what started it has to end as well, whatever it would do about a run that failed."""


def run_whole_graph(settings: Settings) -> float:
    """Materialize every asset, every month in one go, and return the seconds it took.

    Raises:
        Refusal: when an asset or a blocking check stops the run; what was in force before stays in force.
    """
    hush_vendors()
    from loan_assets.definitions import defs

    months = months_there(settings)
    whole_month_range = {FIRST: months[0], LAST: months[-1]}
    job = defs.resolve_job_def("whole_graph")
    run_id = str(uuid.uuid4())
    # Held now, for vendors' own progress is kept away by pointing standard output elsewhere while they work.
    console = Console(highlight=False, file=sys.stdout)
    source, home = escape(without_secrets(settings.source)), escape(str(settings.home))
    console.print(f"Running the whole graph on {source}; state under {home}\n")
    started = time.monotonic()
    with only_run_in(settings.home), dg.DagsterInstance.get() as instance:
        assets = {key.to_python_identifier() for key in defs.resolve_asset_graph().get_all_asset_keys()}
        narrator = Narrator(instance, run_id, assets, console)
        narrator.start()
        try:
            outcome = job.execute_in_process(
                run_config=QUIET,
                instance=instance,
                run_id=run_id,
                tags={**whole_month_range, **this_process()},
                raise_on_error=False,
            )
        finally:
            narrator.finish()
    if not outcome.success:
        raise why_it_failed(outcome.all_events)
    return time.monotonic() - started


def run_here(instance: dg.DagsterInstance, job: str, day: str | None = None, key: str = "") -> None:
    """Run a job of the front door in this process, recorded like any other run.

    Args:
        key: the key under which it would be asked for otherwise, so that it is not asked for as well.

    Raises:
        Refusal: when the run was stopped, with the reason.
    """
    hush_vendors()
    from loan_assets.definitions import defs

    tags = {**this_process(), **({"dagster/run_key": key} if key else {})}
    outcome = defs.resolve_job_def(job).execute_in_process(
        instance=instance, partition_key=day, run_config=QUIET, tags=tags, raise_on_error=False
    )
    if not outcome.success:
        raise why_it_failed(outcome.all_events)


def hush_vendors() -> None:
    """Keep away what vendors' modules say of themselves while they are imported along the way."""
    warnings.filterwarnings("ignore", category=dg.BetaWarning)
    for chatty in ("alembic", "mlflow"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def months_there(settings: Settings) -> tuple[str, ...]:
    """The months of the book, and every later one that has arrived, was pushed of, or is stored already.

    Raises:
        Refusal: when a month between them is missing, for the windows of those after it would have a hole.
    """
    book = the_book()
    awaited = months_of_statements(book).get_partition_keys()
    there = set(AssetStore.over(settings).partitions("monthly_statements"))
    there |= {month for month, files in Landing(place=settings.landing).arrivals().items() if len(files) == 1}
    there |= set(PushedStatements.over(settings).listed())
    months = sorted({*months_of(book), *(there & set(awaited))})
    missing = [month for month in awaited if month < months[-1] and month not in months]
    if missing:
        raise Refusal(
            f"The statements of {', '.join(missing)} have not arrived, but those of {months[-1]} have.",
            f"Put statements-{missing[0]}.csv (or .parquet) into LOAN_LANDING, or take the later months away.",
        )
    return tuple(months)


@contextmanager
def only_run_in(home: Path) -> Iterator[None]:
    """Hold the home for one run started from a terminal; a run that was killed there is ended first.

    Raises:
        Refusal: at once, naming the process or the run, when another holds it or Dagster executes one.
    """
    holder = home / ".run.holder"
    try:
        with FileLock(home / ".run.lock", blocking=False):
            holder.write_text(f"process {os.getpid()}")
            _make_way(home)
            yield
    except Timeout:
        who = holder.read_text() if holder.exists() else "another process"
        raise Refusal(f"{home} is in use: {who} is running the graph.", "Wait for it or stop it; run again.") from None


def _make_way(home: Path) -> None:
    """End what was killed, and refuse while anything else is executed."""
    history = Settings.from_environment({"LOAN_HOME": str(home)}).dagster_home
    with dg.DagsterInstance.from_config(str(history)) as instance:
        for killed in end_killed_runs(instance):
            Console(highlight=False).print(f"{escape(str(killed)).capitalize()} had been killed; it is marked failed.")
        live = [run for run in begun_runs(instance) if run.standing is Standing.LIVE]
    if live:
        raise Refusal(
            f"{home} is in use: {live[0]} is executed.", "Wait for it, or end it in the Dagster UI; run again."
        )


class Narrator(threading.Thread):
    """Reads a run's events as they are recorded and prints one line per finished asset."""

    def __init__(self, instance: dg.DagsterInstance, run_id: str, assets: set[str], console: Console) -> None:
        super().__init__(daemon=True)
        self._instance, self._run_id, self._assets, self._console = instance, run_id, assets, console
        self._over = threading.Event()
        self._cursor: str | None = None

    def run(self) -> None:
        """Poll until told to finish, then once more."""
        while not self._over.wait(0.4):
            self._tell()
        self._tell()

    def finish(self) -> None:
        """Print what is left and stop."""
        self._over.set()
        self.join(timeout=10)

    def _tell(self) -> None:
        found = self._instance.get_records_for_run(self._run_id, cursor=self._cursor, of_type=SHOWN)
        self._cursor = found.cursor
        for record in found.records:
            event = record.event_log_entry.dagster_event
            if event is not None:
                self._say(event)

    def _say(self, event: dg.DagsterEvent) -> None:
        is_check = event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION
        if is_check:
            check = event.asset_check_evaluation_data
            mark = "[green]✓[/]" if check.passed else "[red]✗[/]"
            self._console.print(f"      {mark} [dim]{check.asset_key.to_user_string()}: {check.check_name}[/]")
        elif event.step_key not in self._assets:
            return  # a check's own step; its verdict is told when it is evaluated
        elif event.event_type == dg.DagsterEventType.STEP_SUCCESS:
            seconds = event.step_success_data.duration_ms / 1000
            self._console.print(f"  [green]✓[/] [bold]{event.step_key}[/] [dim]{seconds:.1f} s[/]")
        else:
            self._console.print(f"  [red]✗[/] [bold]{event.step_key}[/]")


def why_it_failed(events: Sequence[dg.DagsterEvent]) -> Refusal:
    """The first failure of a run as a paragraph: the asset, the cause, the next step."""
    failed = next((event for event in events if event.event_type == dg.DagsterEventType.STEP_FAILURE), None)
    if failed is None:
        return Refusal("The run ended before any step failed or finished.", "See it in the Dagster UI (`make dev`).")
    evaluations = [
        event.asset_check_evaluation_data
        for event in events
        if event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION and event.step_key == failed.step_key
    ]
    broken = next((one for one in evaluations if one.blocking and not one.passed), None)
    return _why_it_is_blocked(broken) if broken is not None else _why_the_step_failed(failed)


def _why_it_is_blocked(check: dg.AssetCheckEvaluation) -> Refusal:
    asset, found = check.asset_key.to_user_string(), check.description or "the check gave no reason"
    return Refusal(
        f"{asset} does not pass {check.check_name}: {found.rstrip('.')}.",
        f"Nothing that builds on {asset} was made. Mend what feeds it and run again; its page in the Dagster UI "
        "(`make dev`) shows the check's figures.",
    )


def _why_the_step_failed(failed: dg.DagsterEvent) -> Refusal:
    error = failed.step_failure_data.error
    # A refusal is the explanation; what it was raised from is the vendor's own word for it.
    while error is not None and error.cls_name != Refusal.__name__ and error.cause is not None:
        error = error.cause
    said = error.message.strip() if error is not None else "no cause was recorded"
    kind = error.cls_name if error is not None else ""
    if kind == dg.DagsterExecutionInterruptedError.__name__:
        return Interrupted(f"{failed.step_key} was interrupted.", "Nothing half-written remains; run again to go on.")
    prefix = f"{failed.step_key} stopped the run. "
    if kind == Refusal.__name__:
        return Refusal(prefix + said.split(": ", 1)[-1], "Nothing half-written remains; earlier versions are in force.")
    description = failed.step_failure_data.user_failure_data
    detail = description.description if description is not None and description.description else said
    return Refusal(prefix + detail, "See the run in the Dagster UI (`make dev`); earlier versions are in force.")
