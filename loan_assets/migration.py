"""Databases of an earlier version brought to the tables of the installed one.

Here: Dagster's and MLflow's own migrations, run once, alone, and what they changed. Not here: whether a database needs
one (`connections`, `doctor`), or a copy of it from before (`backup`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import dagster as dg

from loan_assets.connections import newest_of, schema_of
from loan_assets.killed_runs import BegunRun, Standing, begun_runs, begun_runs_in
from loan_assets.refusal import Refusal
from loan_assets.resources.experiments import reached
from loan_assets.settings import Settings

STEP = "Mend what it says, or restore the backup from before, then run again."


@dataclass(frozen=True, slots=True, kw_only=True)
class Migrated:
    """A vendor's tables, before and after; the same where nothing was to be done."""

    package: str
    before: str
    after: str

    def __str__(self) -> str:
        if self.before == self.after:
            return f"{self.package}'s tables are at {self.after}, nothing was to be done"
        return f"{self.package}'s tables were at {self.before}, they are at {self.after} now"


def migrate(settings: Settings, *, is_stopped: bool = False) -> Iterator[Migrated]:
    """Bring Dagster's and MLflow's tables to those of the installed packages.

    Args:
        is_stopped: whether it is known that nothing is executed, whatever Dagster's history says.

    Raises:
        Refusal: while a run has begun and not ended, here or elsewhere, unless it was killed here; when tables are
            newer than the package, or a migration fails.
    """
    yield _dagster(settings, is_stopped=is_stopped)
    mlflow = migrate_mlflow(settings)
    if mlflow is not None:
        yield mlflow


def _dagster(settings: Settings, *, is_stopped: bool) -> Migrated:
    url = settings.dagster_storage or f"sqlite:///{settings.dagster_home}/history/runs.db"
    with dg.DagsterInstance.from_config(str(settings.dagster_home)) as instance:
        before = _known("dagster", url)
        if not is_stopped:
            # Tables of another version may not be able to answer Dagster; they are asked themselves.
            is_current = before == newest_of("dagster")
            _refuse_while_busy(begun_runs(instance) if is_current or before is None else begun_runs_in(url))
        if before != newest_of("dagster"):
            _upgrade(instance)
        return Migrated(package="dagster", before=before or "none", after=_known("dagster", url) or "none")


def _upgrade(instance: dg.DagsterInstance) -> None:
    said = StringIO()  # its storages draw bars on the screen
    try:
        with redirect_stdout(said), redirect_stderr(said):
            instance.upgrade()
    except Exception as failed:  # whatever the vendor raises half way
        raise Refusal(f"Dagster's tables were not migrated ({type(failed).__name__}).", STEP) from failed


def _refuse_while_busy(begun: tuple[BegunRun, ...]) -> None:
    """A run that is executed elsewhere writes into the same tables; whether it lives cannot be told from here."""
    busy = [run for run in begun if run.standing is not Standing.KILLED]
    if busy:
        raise Refusal(
            f"{busy[0]} has begun and not ended.",
            "Stop the platform, or wait for that run, then run again; where nothing is executed any more, "
            "`loan-assets migrate --stopped`.",
        )


def migrate_mlflow(settings: Settings) -> Migrated | None:
    """Bring MLflow's tables to those of the installed package; None where a server has them.

    Raises:
        Refusal: when they are newer than the package, or the migration fails.
    """
    url = settings.mlflow_uri
    if not url.startswith(("sqlite:///", "postgresql")):
        return None
    if url.startswith("sqlite:///"):
        Path(url.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    before = _known("mlflow", url)
    if before is None:  # of several first users at once some would fail
        reached(url)
    elif before != newest_of("mlflow"):
        from mlflow.store.db.utils import _upgrade_db
        from sqlalchemy import create_engine

        engine = create_engine(url)
        try:
            _upgrade_db(engine)
        except Exception as failed:  # whatever the vendor raises half way
            raise Refusal(f"MLflow's tables were not migrated ({type(failed).__name__}).", STEP) from failed
        finally:
            engine.dispose()
    return Migrated(package="mlflow", before=before or "none", after=_known("mlflow", url) or "none")


def _known(package: str, url: str) -> str | None:
    """At which step a vendor's tables are; None where there are none.

    Raises:
        Refusal: when the installed package does not know that step.
    """
    at, is_known = schema_of(package, url)
    if at is not None and not is_known:
        step = f"Install that {package}, or restore a backup from before the upgrade."
        raise Refusal(f"The tables are of a newer {package} than is installed ({at}).", step)
    return at
