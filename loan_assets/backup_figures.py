"""How old the newest backup is, in figures.

Here: looking at their place now and then. Not here: making one (`backup`), or whether one is whole (`restore`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import datetime, timedelta

from prometheus_client.core import Metric

from loan_assets.figures import gauge
from loan_assets.place import place_at
from loan_assets.refusal import Refusal
from loan_assets.vault import Vault

# A listing of a bucket costs money, and a night passes between two backups.
BETWEEN_LOOKS = timedelta(minutes=5)


class BackupFigures:
    """The newest backup at a place; none is expected where that is empty."""

    def __init__(self, place: str) -> None:
        self._place = place
        self._newest: datetime | None = None
        self._looked: datetime | None = None

    def figures(self, now: datetime) -> Iterator[Metric]:
        """The age of the newest backup that was ever seen; without one it is older than anything.

        Args:
            now: UTC.
        """
        if not self._place:
            return
        if self._looked is None or now - self._looked >= BETWEEN_LOOKS:
            self._looked = now
            self._look()
        age = math.inf if self._newest is None else (now - self._newest).total_seconds()
        yield gauge("loan_backup_age_seconds", "Seconds since the newest backup was begun", age)

    def _look(self) -> None:
        try:
            vault = Vault(place_at(self._place))
            made = [vault.made_at(name) for name in vault.names()[-1:]]
        except (Refusal, ValueError):  # away, or not of ours: what was seen before grows older until somebody is told
            return
        self._newest = made[0] if made else None
