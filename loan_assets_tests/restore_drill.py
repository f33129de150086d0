"""Restores that are killed at a chosen instant, each in a fork of a process in which nothing has been computed yet.

Here: the deeds of `kill_drill` over a folder that holds a backup, `kept`. Not here: what has to hold (`test_backup`).
A process that has asked DuckDB anything has threads that a fork of it would wait for without end.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

from loan_assets.restore import restore
from loan_assets.settings import Settings
from loan_assets_tests.kill_drill import told_to


def restored(folder: Path, home: str) -> int | None:
    """Restore what is kept into a home of this name; the version that is in force there."""
    return restore(Settings.from_environment({"LOAN_HOME": str(folder / home)}), str(folder / "kept")).champion


def loaded() -> None:
    """Have the modules loaded that take longest; nothing is asked of them."""
    import duckdb  # noqa: F401
    import feast  # noqa: F401
    import mlflow  # noqa: F401


if __name__ == "__main__":
    told_to({home: partial(restored, Path(sys.argv[1]), home) for home in ("counted", "new")}, loaded)
