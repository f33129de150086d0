"""What Prometheus reads of the platform: decisions, data, runs and what they cost, on one page.

Here: the page, and that asking for it again reads only what is new. Not here: the figures (`journal_figures`,
`asset_figures`, `run_figures`), the endpoint's (`bento.metrics`), alert rules (`deploy/monitoring`) or who serves this
page (`webhook`).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import datetime

import dagster as dg
from prometheus_client.core import Metric

from loan_assets.asset_figures import AssetFigures
from loan_assets.backup_figures import BackupFigures
from loan_assets.books import LoanBook
from loan_assets.figures import page
from loan_assets.journal_figures import decided
from loan_assets.policy import Policy
from loan_assets.refusal import Away
from loan_assets.resources.decisions import Decisions, Known
from loan_assets.run_figures import Rates, RunFigures

NO_RATES = Rates()


class PlatformMetrics:
    """The page over one journal and one history of Dagster's, who remembers what was read of them.

    Args:
        instance: Dagster's history, None where there is none yet.
        backups: the place of backups, empty where none are made.
    """

    def __init__(
        self,
        decisions: Decisions,
        instance: dg.DagsterInstance | None,
        book: LoanBook,
        policy: Policy,
        rates: Rates = NO_RATES,
        backups: str = "",
    ) -> None:
        self._backups = BackupFigures(backups)
        self._decisions, self._policy = decisions, policy
        self._known = Known()
        self._runs = RunFigures(instance, rates) if instance is not None else None
        self._assets = AssetFigures(instance, book, policy) if instance is not None else None
        # Two that ask at once must not add up a run twice.
        self._turn = threading.Lock()

    def page(self, now: datetime) -> bytes:
        """The platform's figures as Prometheus reads them.

        Args:
            now: UTC.

        Raises:
            Away: while another one asks. Whoever waited would hold a thread that alarms and statements need, and the
                first look, at every run that there is, takes longer than Prometheus waits.
            Refusal: when the journal is damaged or away.
        """
        if not self._turn.acquire(blocking=False):
            raise Away("The figures are still being read for another who asked.", "Ask again in a moment.")
        try:
            return page(self._figures(now))
        finally:
            self._turn.release()

    def _figures(self, now: datetime) -> Iterator[Metric]:
        deliveries, outcomes = [], []
        if self._assets is not None:
            self._assets.look()
            yield from self._assets.figures()
            deliveries, outcomes = self._assets.deliveries, self._assets.outcomes
        if self._runs is not None:
            self._runs.look()
            yield from self._runs.figures(now)
        self._known = self._decisions.known_since(self._known)
        yield from decided(self._known.steps, self._policy, now, deliveries, outcomes)
        yield from self._backups.figures(now)
