"""What the box does beside answering: follow who stands, which table, whose tokens; log to disk; tell metrics.

Here: what happens again and again, each for itself, so that one in trouble keeps none of the others. Not here: what is
followed (`releases`, `online`, `access`) or logged (`prediction_log`, `repeats`).
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field

from bento import metrics
from bento.access import Access
from bento.exchange import Exchange
from bento.online import Online
from bento.prediction_log import PredictionLog
from bento.releases import BOX, Releases
from bento.repeats import Repeats
from loan_assets.policy import Endpoint
from loan_assets.refusal import Refusal

said = logging.getLogger("loan_default")


@dataclass(kw_only=True)
class Upkeep:
    """The parts of a box that are looked after."""

    access: Access
    releases: Releases
    online: Online
    log: PredictionLog
    repeats: Repeats
    exchange: Exchange
    waiting: Callable[[], int]
    _swaps: int = 0
    _refusals: int = 0
    _recurring: list[asyncio.Task[None]] = field(default_factory=list)

    def start(self, limits: Endpoint) -> None:
        """Begin, inside a running event loop."""
        self.tell()
        loop = asyncio.get_running_loop()
        self._recurring = [
            loop.create_task(self._again_and_again(limits.seconds_between_syncs, self.sync)),
            loop.create_task(self._again_and_again(limits.seconds_between_looks, self.look)),
            loop.create_task(self._again_and_again(limits.seconds_between_rounds, self.go_round)),
            loop.create_task(self._again_and_again(limits.seconds_between_visits, self.exchange.follow)),
            loop.create_task(self._again_and_again(limits.seconds_between_shipments, self.exchange.ship)),
        ]

    async def stop(self) -> None:
        """End, with the log forced to disk."""
        for task in self._recurring:
            task.cancel()
        await asyncio.to_thread(self.log.close)
        await asyncio.to_thread(self._ship_the_rest)
        self.repeats.close()
        await self.online.close()

    async def _again_and_again(self, seconds: float, what: Callable[[], None]) -> None:
        """Do something for ever; what goes wrong is said once, and that it goes well again."""
        trouble = ""
        while True:
            await asyncio.sleep(seconds)
            try:
                await asyncio.to_thread(what)
                now = ""
            except Exception as failure:  # the next time may be better, and must come
                now = f"{what.__name__} failed with {type(failure).__name__}"
                if now != trouble:
                    said.error("%s", failure if isinstance(failure, Refusal) else now)
            if trouble and not now:
                said.info("%s does its work again.", what.__name__)
            trouble = now

    def sync(self) -> None:
        """Force to disk what was answered since."""
        try:
            self.log.sync()
            self.repeats.sync()
        except (OSError, sqlite3.Error) as failing:
            metrics.UNSYNCED.inc()
            said.error("The log cannot be forced to disk: %s", type(failing).__name__)

    def look(self) -> None:
        """Whose tokens, who stands, which table: each for itself, so that one in trouble keeps none of the others."""
        try:
            self.access.look()
        except Refusal as reason:
            said.error("%s", reason)
        self.releases.look()
        self.tell()
        self.online.look()

    def _ship_the_rest(self) -> None:
        try:
            self.exchange.ship()
        except Refusal as reason:  # it stays on this disk, and goes when a box is started over it
            said.error("What was answered last could not be shipped: %s", reason)

    def go_round(self) -> None:
        """What need not be done often: measure the log, forget what is old."""
        self.log.measure()
        metrics.forget_dead_workers()
        self.repeats.forget()

    def tell(self) -> None:
        """Show in metrics who stands and how the log is doing."""
        in_force = self.releases.in_force
        refusals = self.releases.refusals + self.online.refusals
        metrics.SWAPS.inc(self.releases.swaps - self._swaps)
        metrics.REFUSED.inc(refusals - self._refusals)
        self._swaps, self._refusals = self.releases.swaps, refusals
        metrics.VERSION.labels("champion").set(in_force.champion.version)
        metrics.VERSION.labels("challenger").set(in_force.challenger.version if in_force.challenger else 0)
        metrics.SHARE.set(in_force.terms.share if in_force.terms else 0)
        metrics.BUILT_IN.set(in_force.source == BOX)
        metrics.WAITING.set(self.waiting())
        metrics.BACKLOG.set(self.log.backlog)
        metrics.LOG_BYTES.set(self.log.bytes)
