"""What Dagster's runs have cost and how they ended, added up as they end; each is read once, however often one asks.

Here: runs and their steps as figures. Not here: how a step is measured (`resources.step_meter`), or figures of what
was decided (`journal_figures`) and made (`asset_figures`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

import dagster as dg
from prometheus_client.core import Metric

from loan_assets.figures import counters, gauge, gauges
from loan_assets.resources.step_meter import Spent
from loan_assets.settings import Settings

ENDED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
GOING_ON = {
    "queued": [dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.NOT_STARTED],
    "executed": [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING],
}
# What happened within it counts as recent.
RECENT = timedelta(hours=1)
# By how much the clocks of machines that end runs may differ.
CLOCKS = timedelta(minutes=2)
# How Dagster calls runs of assets that belong to no job of ours begins so; ours for them.
UNNAMED, BY_ASSET = "__", "assets"
HOUR, GIGABYTE = 3600.0, 1e9
# Prometheus calls by `job` whom it reads.
JOB, STEP = ("dagster_job",), ("step",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """What an hour of a CPU and of a gigabyte costs; None where nobody said."""

    cpu: float | None = None
    gigabyte: float | None = None

    @classmethod
    def of(cls, settings: Settings) -> Rates:
        """The rates that the settings name."""
        return cls(cpu=settings.cost_per_cpu_hour, gigabyte=settings.cost_per_gigabyte_hour)

    @property
    def are_set(self) -> bool:
        """Whether anything can be said of cost."""
        return self.cpu is not None or self.gigabyte is not None

    def cost(self, spent: Spent) -> float:
        """The price of a step: its CPU time, and its peak of memory for as long as it took."""
        held = spent.memory / GIGABYTE * spent.wall
        return (spent.cpu * (self.cpu or 0.0) + held * (self.gigabyte or 0.0)) / HOUR


class RunFigures:
    """The runs of one history, those that ended added up by job and by step."""

    def __init__(self, instance: dg.DagsterInstance, rates: Rates) -> None:
        self._instance, self._rates = instance, rates
        self._counted: set[str] = set()
        self._until: datetime | None = None
        self._ended: dict[tuple[str, ...], float] = defaultdict(float)
        self._of_jobs: dict[str, dict[tuple[str, ...], float]] = defaultdict(lambda: defaultdict(float))
        self._of_steps: dict[str, dict[tuple[str, ...], float]] = defaultdict(lambda: defaultdict(float))
        self._newest: dict[str, dict[tuple[str, ...], float]] = defaultdict(dict)

    def look(self) -> None:
        """Add up the runs that have ended since the last look."""
        # The first look reads every run that there is: a counter that began anew would be taken for a burst.
        after = self._until - CLOCKS if self._until else None
        records = self._instance.get_run_records(dg.RunsFilter(statuses=ENDED, updated_after=after))
        for record in sorted(records, key=lambda one: one.end_time or 0.0):
            self._until = max(self._until or record.update_timestamp, record.update_timestamp)
            if record.dagster_run.run_id not in self._counted:
                self._counted.add(record.dagster_run.run_id)
                self._count(record)

    def _count(self, record: dg.RunRecord) -> None:
        run = record.dagster_run
        job = (_named(run.job_name),)
        self._ended[*job, run.status.value.lower()] += 1
        entries = self._instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ENGINE_EVENT)
        events = [entry.dagster_event for entry in entries if entry.dagster_event is not None]
        steps = [spent for event in events if (spent := Spent.of_event(event)) is not None]
        took = (record.end_time or 0.0) - (record.start_time or record.end_time or 0.0)
        of_run = {
            "seconds": took,
            "cpu_seconds": sum(step.cpu for step in steps),
            "cost": sum(self._rates.cost(step) for step in steps),
        }
        for name, value in of_run.items():
            self._of_jobs[name][job] += value
            self._newest[name][job] = value
        self._newest["peak_memory_bytes"][job] = max((step.memory for step in steps), default=0)
        for step in steps:
            of_step = {"seconds": step.wall, "cpu_seconds": step.cpu, "cost": self._rates.cost(step)}
            for name, value in of_step.items():
                self._of_steps[name][(step.step,)] += value
            self._newest["step_peak_memory_bytes"][(step.step,)] = step.memory

    def figures(self, now: datetime) -> Iterator[Metric]:
        """Runs as they stand, and what those that ended have cost.

        Args:
            now: UTC.
        """
        yield from self._standing(now)
        of_jobs, of_steps, newest = self._of_jobs, self._of_steps, self._newest
        yield counters("loan_runs_ended", "Runs that ended, by job and how", (*JOB, "status"), self._ended)
        yield counters("loan_run_seconds", "Time that runs took, by job", JOB, of_jobs["seconds"])
        yield counters("loan_run_cpu_seconds", "CPU time of the steps of runs", JOB, of_jobs["cpu_seconds"])
        yield gauges("loan_last_run_seconds", "Time that the newest run of a job took", JOB, newest["seconds"])
        said = "CPU time of the steps of the newest run of a job"
        yield gauges("loan_last_run_cpu_seconds", said, JOB, newest["cpu_seconds"])
        said = "The most memory that the newest run of a job held at once"
        yield gauges("loan_last_run_peak_memory_bytes", said, JOB, newest["peak_memory_bytes"])
        yield counters("loan_step_seconds", "Time that steps took", STEP, of_steps["seconds"])
        yield counters("loan_step_cpu_seconds", "CPU time of steps", STEP, of_steps["cpu_seconds"])
        said = "The most memory that a step held at once, the last time"
        yield gauges("loan_step_peak_memory_bytes", said, STEP, newest["step_peak_memory_bytes"])
        if self._rates.are_set:
            yield counters("loan_run_cost", "Price of runs, in the currency of the rates", JOB, of_jobs["cost"])
            yield gauges("loan_last_run_cost", "Price of the newest run of a job", JOB, newest["cost"])
            yield counters("loan_step_cost", "Price of steps, in the currency of the rates", STEP, of_steps["cost"])

    def _standing(self, now: datetime) -> Iterator[Metric]:
        """What waits and what is executed now, and what failed of late."""
        counted: dict[tuple[str, ...], float] = {
            (state,): float(self._instance.get_runs_count(dg.RunsFilter(statuses=statuses)))
            for state, statuses in GOING_ON.items()
        }
        yield gauges("loan_runs", "Runs queued and executed now", ("state",), counted)
        waiting = dg.RunsFilter(statuses=GOING_ON["queued"])
        oldest = self._instance.get_run_records(waiting, limit=1, ascending=True)
        waits = (now - oldest[0].create_timestamp).total_seconds() if oldest else 0.0
        yield gauge("loan_longest_queued_seconds", "How long the run that was queued first has waited", waits)
        failed = dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE], updated_after=now - RECENT)
        lately = self._instance.get_runs_count(failed)
        yield gauge("loan_failed_runs", "Runs that failed within the last hour", lately)


def _named(job: str) -> str:
    return BY_ASSET if job.startswith(UNNAMED) else job
