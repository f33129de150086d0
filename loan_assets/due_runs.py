"""What was decided and is not carried out yet, seen to from a terminal.

Here: waiting for Dagster's sensors where its daemons are at work on a home, and running the same jobs where they are
not. Not here: what is due (`reign`) or the sensors themselves (`sensors`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import dagster as dg

from loan_assets.asked_runs import key_of
from loan_assets.killed_runs import Standing, begun_runs, end_killed_runs
from loan_assets.refusal import Refusal
from loan_assets.reign import Reign
from loan_assets.running import Interrupted, run_here

# Dagster's daemons say every half minute that they are there.
HEARD_OF_WITHIN = 50.0
# Until a run has ended that a sensor looks for every twenty seconds, on a busy machine.
LONGEST_RUN = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DueRuns:
    """The runs of a home that follow from its journal."""

    instance: dg.DagsterInstance
    reign: Reign

    def carry_out(self) -> tuple[str, ...]:
        """Have what is due done, each step once.

        Returns:
            What went wrong; it is due again after the next day's look, or sooner where Dagster's daemons are at work.
        """
        tried: set[str] = set()
        while (due := self.reign.what_is_due()) is not None:
            key = self._key_of(due)
            if key in tried:
                return (f"{due} was run and is still due",)
            tried.add(key)
            if self._was_done_by_sensors(due, key):
                continue
            self.until_quiet()
            try:
                run_here(self.instance, due, key=key)
            except Interrupted:
                raise
            except Refusal as stopped:
                return (stopped.cause,)
        return ()

    def until_quiet(self) -> None:
        """Wait for whatever else is run on this home: the embedded stores have one writer.

        Raises:
            Refusal: when that takes too long.
        """
        queued = dg.RunsFilter(statuses=[dg.DagsterRunStatus.QUEUED])

        def is_quiet() -> bool:
            end_killed_runs(self.instance)
            if any(run.standing is Standing.LIVE for run in begun_runs(self.instance)):
                return False
            return not (is_attended(self.instance) and self.instance.get_run_records(queued, limit=1))

        if not eventually(is_quiet, LONGEST_RUN):
            raise Refusal(
                f"Another run has been going on here for {LONGEST_RUN / 60:.0f} minutes.",
                "See it in the Dagster UI, then run again; what was lived through is kept.",
            )

    def _was_done_by_sensors(self, due: str, key: str) -> bool:
        """Whether Dagster's daemons, where they are at work, have carried out what is due."""
        if not is_attended(self.instance):
            return False
        eventually(lambda: self._is_over(due, key) or not is_attended(self.instance), LONGEST_RUN)
        self.until_quiet()
        return self.reign.what_is_due() != due

    def _is_over(self, due: str, key: str) -> bool:
        asked = self.instance.get_run_records(dg.RunsFilter(tags={"dagster/run_key": key}), limit=1)
        return asked[0].dagster_run.is_finished if asked else self.reign.what_is_due() != due

    def _key_of(self, due: str) -> str:
        """The key under which `act_on_decisions` asks for the run first."""
        last = self.reign.decisions.last()
        return key_of(due, last.number if last else 0)


def is_attended(instance: dg.DagsterInstance) -> bool:
    """Whether Dagster's daemons are at work on a home."""
    heartbeats = instance.get_daemon_heartbeats().values()
    return any(time.time() - heartbeat.timestamp < HEARD_OF_WITHIN for heartbeat in heartbeats)


def eventually(holds: Callable[[], bool], seconds: float) -> bool:
    """Look until something holds; False when it does not in time."""
    until = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > until:
            return False
        time.sleep(0.2)
    return True
