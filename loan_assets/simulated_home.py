"""A home of its own for a history that is lived through: the everyday home never hears of what was only simulated.

Here: where it lies, how it is begun by a run of the whole graph, and anew. Not here: the days (`simulation`) or what
the example history says (`example_history`).
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
from datetime import date
from pathlib import Path

import dagster as dg

from loan_assets.books import the_book
from loan_assets.credit.training import HOLDOUT, TRAIN
from loan_assets.due_runs import is_attended
from loan_assets.example_history import Course, changed_world, history_at, known_loans
from loan_assets.histories import History
from loan_assets.home import prepare
from loan_assets.policy_file import the_policy
from loan_assets.refusal import BadInput, Refusal
from loan_assets.rehearsal import clients
from loan_assets.resources.asset_store import AssetStore
from loan_assets.resources.release_store import ReleaseStore
from loan_assets.running import only_run_in, run_whole_graph
from loan_assets.settings import SIMULATION, Settings

POLICY = the_policy()

SIMULATIONS, DRAWN = "simulations", "history"


def own_home(settings: Settings, name: str, told_by: str, *, anew: bool) -> Settings:
    """The home of a simulation, ready for a run, and this process pointed at it.

    Args:
        settings: of the everyday home, below which it lies; the loan book is delivered from where it always is.
        told_by: the history that is lived through there, and no other.
        anew: forget what was lived through before.

    Raises:
        Refusal: when another history is lived through there, or it is in use.
    """
    if (settings.home / SIMULATION).exists():
        raise BadInput(f"{settings.home} is a simulation's home itself.", "Point LOAN_HOME to an everyday home.")
    place = settings.home / SIMULATIONS / name
    if anew and place.exists():
        forget(place)
    mark = place / SIMULATION
    kept = json.loads(mark.read_text())["history"] if mark.exists() else None
    if kept not in (None, told_by):
        raise BadInput(
            f"{place} was begun with another history, {kept}.",
            "Rename the folder of yours, or give --anew to forget what was lived through there.",
        )
    try:
        place.mkdir(parents=True, exist_ok=True)
        mark.write_text(json.dumps({"history": told_by}) + "\n")
    except OSError as error:
        step = "Point LOAN_HOME to a folder that this user may write, then run again."
        raise Refusal(f"{place} cannot be used: {error.strerror}.", step) from error
    return prepare(Settings.from_environment({"LOAN_HOME": str(place), "LOAN_SOURCE": settings.source}))


def begin(settings: Settings) -> None:
    """Run the whole graph where no model is in force yet.

    Raises:
        Refusal: as `run_whole_graph`.
    """
    if ReleaseStore.over(settings).in_force() is None:
        run_whole_graph(settings)


def forget(place: Path) -> None:
    """Remove a simulation's home.

    Raises:
        Refusal: when it is none, or in use.
    """
    if not (place / SIMULATION).exists():
        raise Refusal(f"{place} is no simulation's home.", "Move it elsewhere, then run again.")
    settings = prepare(Settings.from_environment({"LOAN_HOME": str(place)}))
    with only_run_in(place):
        with dg.DagsterInstance.from_config(str(settings.dagster_home)) as instance:
            if is_attended(instance):
                raise Refusal(f"{place} is open in `dagster dev`.", "Stop it there; a minute later, run again.")
        # Gone in one step: a kill must not leave half a home under this name.
        going = place.with_name(f".{place.name}.going")
        shutil.rmtree(going, ignore_errors=True)
        place.rename(going)
        shutil.rmtree(going)


def example_in(settings: Settings, first: date, course: Course) -> History:
    """The example history, drawn once from the clients that the first model was not trained on, with its reference.

    Args:
        first: its first day, should it have to be drawn.
    """
    folder = settings.home / DRAWN
    if not folder.exists():
        book, new = the_book(), folder.with_suffix(".new")
        shutil.rmtree(new, ignore_errors=True)
        changed_world(clients(_store(settings), HOLDOUT), book, first, course).write(new)
        known_loans(clients(_store(settings), TRAIN), book).to_parquet(history_at(new).reference, index=False)
        new.rename(folder)
    return history_at(folder)


def _store(settings: Settings) -> AssetStore:
    return AssetStore.over(settings)


def typed_with(settings: Settings, command: str) -> str:
    """A command as it is typed to work on a simulation's home, by the policy under which its days were decided."""
    policy = os.environ.get("LOAN_POLICY", "").strip()
    under = f"LOAN_POLICY={shlex.quote(str(Path(policy).absolute()))} " if policy else ""
    return f"{under}LOAN_HOME={shlex.quote(str(settings.home))} {command}"
