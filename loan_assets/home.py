"""The folder in which all state lives, made ready before anything runs.

Here: LOAN_HOME, Dagster's home inside it, and the `.env` file that a plain `dagster dev` reads. Not here: what the
places are called (`settings`).
"""

from __future__ import annotations

import os
from pathlib import Path

from loan_assets.refusal import Refusal
from loan_assets.settings import Settings

INSTANCE = """\
# Dagster's own settings for this home; storage is SQLite in this folder unless it is configured here.
telemetry:
  enabled: false
# Runs that sensors, schedules and people ask for wait for each other: the embedded stores have one writer.
concurrency:
  runs:
    max_concurrent_runs: 1
"""


def prepare(settings: Settings) -> Settings:
    """Make the home and Dagster's folder in it, and point this process at them.

    Raises:
        Refusal: when the place is a file or cannot be written.
    """
    try:
        settings.dagster_home.mkdir(parents=True, exist_ok=True)
        instance = settings.dagster_home / "dagster.yaml"
        if not instance.exists():
            instance.write_text(INSTANCE)
    except OSError as error:
        raise Refusal(
            f"LOAN_HOME {settings.home} cannot be used: {error.strerror}.",
            "Point LOAN_HOME to a folder that this user may write, then run again.",
        ) from error
    os.environ["LOAN_HOME"] = str(settings.home)
    os.environ["DAGSTER_HOME"] = str(settings.dagster_home)
    return settings


def write_dotenv(settings: Settings, folder: Path | None = None) -> Path:
    """Write the `.env` that Dagster's commands read in the folder they are started from.

    A `.env` that somebody else wrote is left alone but for the two lines that are ours.
    """
    path = (folder or Path.cwd()) / ".env"
    ours = {"LOAN_HOME": str(settings.home), "DAGSTER_HOME": str(settings.dagster_home)}
    kept = path.read_text().splitlines() if path.exists() else []
    kept = [line for line in kept if line.split("=", 1)[0].strip() not in ours]
    path.write_text("\n".join([*kept, *(f"{name}={value}" for name, value in ours.items())]) + "\n")
    return path
