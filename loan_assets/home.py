"""The folder in which all state lives, made ready before anything runs.

Here: LOAN_HOME, Dagster's home inside it, and the `.env` file that a plain `dagster dev` reads. Not here: what the
places are called (`settings`).
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from loan_assets.refusal import Refusal
from loan_assets.settings import Settings

# Lies in a home into which a backup is being put back.
RESTORING = ".restoring"
MARK = "# Written by loan_assets from its settings; remove this line to keep changes made here.\n"
# As it began before it had that mark.
OURS = (MARK, "# Dagster's own settings for this home; storage is SQLite in this folder unless it is configured here.")
INSTANCE = """\
# Dagster's own settings for this home.
# Nothing is sent to its makers, and who opens the pages for the first time is not asked for an address.
telemetry:
  enabled: false
nux:
  enabled: false
# Runs that sensors, schedules and people ask for wait for each other: the embedded stores have one writer.
concurrency:
  runs:
    max_concurrent_runs: 1
  pools:
    default_limit: 1
# The next of them begins two seconds after the one before, and not five.
run_coordinator:
  module: dagster._core.run_coordinator
  class: QueuedRunCoordinator
  config:
    dequeue_interval_seconds: 2
"""
# The URL holds a password and is read from the environment by whoever opens the storage.
IN_POSTGRES = """\
storage:
  postgres:
    postgres_url:
      env: LOAN_DAGSTER_STORAGE
"""
OWN_HOME = re.compile(r"\$\{LOAN_HOME:-(.*)\}")


def prepare(settings: Settings) -> Settings:
    """Make the home and Dagster's folder in it, and point this process at them.

    Raises:
        Refusal: when the place is a file or cannot be written, or is half restored from a backup.
    """
    refuse_half_restored(settings)
    try:
        settings.dagster_home.mkdir(parents=True, exist_ok=True)
        instance = settings.dagster_home / "dagster.yaml"
        said = instance.read_text() if instance.exists() else None
        wanted = MARK + INSTANCE + (IN_POSTGRES if settings.dagster_storage else "")
        if said is None or (said.startswith(OURS) and said != wanted):
            instance.write_text(wanted)
        elif settings.dagster_storage and not said.startswith(OURS) and "postgres" not in said:
            raise Refusal(
                f"{instance} was changed by hand and does not name the storage that LOAN_DAGSTER_STORAGE says.",
                "Add `storage: {postgres: {postgres_url: {env: LOAN_DAGSTER_STORAGE}}}` to it, or remove the file.",
            )
    except OSError as error:
        raise Refusal(
            f"LOAN_HOME {settings.home} cannot be used: {error.strerror}.",
            "Point LOAN_HOME to a folder that this user may write, then run again.",
        ) from error
    os.environ["LOAN_HOME"] = str(settings.home)
    os.environ["DAGSTER_HOME"] = str(settings.dagster_home)
    name_drivers(settings)
    return settings


def refuse_half_restored(settings: Settings) -> None:
    """Let nothing begin in a home into which a backup is being put back.

    Raises:
        Refusal: where that is so, or was cut off.
    """
    if (settings.home / RESTORING).exists():
        raise Refusal(
            f"{settings.home} is being restored from a backup, or was when that was killed.",
            "Let it end, or run the same `loan-assets restore` again: it goes over the same places.",
        )


def name_drivers(settings: Settings) -> None:
    """Have this process's variables name the database drivers that are installed, for whoever reads them later."""
    for name, url in settings.databases().items():
        if os.environ.get(name) and "://" in url:
            os.environ[name] = url


def write_dotenv(home: Path | None = None, folder: Path | None = None) -> Path:
    """Write the `.env` that Dagster's commands read in the folder they are started from.

    What it says wins over the environment in `dagster dev`, so it names the LOAN_HOME of the environment first, and a
    home of its own for commands that are given none. Lines that are not ours are left alone.

    Args:
        home: the home of commands that are given none; by default the one named before, else `.loan_assets` there.
        folder: where the `.env` is, the working directory by default.
    """
    path = (folder or Path.cwd()) / ".env"
    lines = path.read_text().splitlines() if path.exists() else []
    said = {line.partition("=")[0].strip(): line.partition("=")[2].strip() for line in lines}
    own = home or Path(OWN_HOME.sub(r"\1", said.get("LOAN_HOME", "")) or path.with_name(".loan_assets"))
    ours = {"LOAN_HOME": f"${{LOAN_HOME:-{own.absolute()}}}", "DAGSTER_HOME": "${LOAN_HOME}/dagster"}
    kept = [line for line in lines if line.partition("=")[0].strip() not in ours]
    path.write_text("\n".join([*kept, *(f"{name}={value}" for name, value in ours.items())]) + "\n")
    return path
