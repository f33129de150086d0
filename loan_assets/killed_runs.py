"""Runs whose process was killed: Dagster takes them for running, and whatever waits behind them waits for ever.

Here: telling which of the unfinished runs live, and ending those that do not. Not here: running anything (`running`),
what looks at them from time to time (`sensors`), or runs of other machines, which their own launcher watches.
"""

from __future__ import annotations

import json
import os
import platform
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

import dagster as dg
import psutil
from dagster._core.events import JobFailureData, RunFailureReason
from dagster._core.launcher.default_run_launcher import DefaultRunLauncher
from dagster._core.storage.runs import SqliteRunStorage
from dagster._core.storage.tags import GRPC_INFO_TAG

HOST, PID, BEGAN = "loan_assets/host", "loan_assets/pid", "loan_assets/process_began"
# A process that began after it was noted is another one, which was given its number. Clocks may step a little.
CLOCK_SECONDS = 2.0
# From the launch of a run until its process is heard of, on a busy machine.
START_SECONDS = 30.0
# A run that is said to have ended may still be leaving its last step.
LEAVING = timedelta(minutes=1)
BEGUN = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]
ENDED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]


class Standing(StrEnum):
    """What is known of a run that has begun and not ended. Nothing can be told of a run that is elsewhere."""

    LIVE = "live"
    KILLED = "killed"
    ELSEWHERE = "elsewhere"


@dataclass(frozen=True, slots=True, kw_only=True)
class BegunRun:
    """A run that has begun and not ended, and where its process is or was."""

    run_id: str
    job: str
    standing: Standing
    process: str

    def __str__(self) -> str:
        return f"run {self.run_id[:8]} ({self.job}, {self.process})"


@dataclass(frozen=True, slots=True, kw_only=True)
class NotedProcess:
    """The process of a run: its machine, its number, and an instant at which it was there (seconds since 1970)."""

    host: str
    pid: int
    seen: float

    def is_alive(self) -> bool:
        """Whether it is still there, and not another one that was given its number since."""
        try:
            process = psutil.Process(self.pid)
            is_same: bool = process.create_time() <= self.seen + CLOCK_SECONDS
            return is_same and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False


def this_process() -> dict[str, str]:
    """The tags of a run that this process is about to execute, by which others can tell whether it lives."""
    began = psutil.Process().create_time()
    return {HOST: platform.node(), PID: str(os.getpid()), BEGAN: f"{began:.2f}"}


def begun_runs(instance: dg.DagsterInstance) -> tuple[BegunRun, ...]:
    """Every run that has begun and not ended, newest first."""
    return tuple(_examined(instance, record) for record in instance.get_run_records(dg.RunsFilter(statuses=BEGUN)))


def begun_runs_in(url: str) -> tuple[BegunRun, ...]:
    """Every run that has begun and not ended, newest first, by tables of any version of Dagster's.

    Only of a run whose command tagged it can be told that it was killed; of any other nothing is.

    Args:
        url: the database of Dagster's runs.
    """
    from sqlalchemy import bindparam, create_engine, text

    runs = text("select run_id, pipeline_name from runs where status in :begun order by id desc")
    of_run = text("select key, value from run_tags where run_id = :run_id")
    engine = create_engine(url)
    try:
        with engine.connect() as database:
            begun = runs.bindparams(bindparam("begun", [status.value for status in BEGUN], expanding=True))
            found = [(str(run_id), str(job)) for run_id, job in database.execute(begun)]
            tags = {
                run_id: {str(k): str(v) for k, v in database.execute(of_run, {"run_id": run_id})} for run_id, _ in found
            }
    finally:
        engine.dispose()
    return tuple(_placed(run_id, job, _noted_in(tags[run_id])) for run_id, job in found)


def end_killed_runs(instance: dg.DagsterInstance) -> tuple[BegunRun, ...]:
    """Mark every run whose process is gone as failed (as cancelled, where that was asked for); returns them.

    What runs that ended otherwise still hold of a pool is given back too: whoever marks a run as failed on Dagster's
    pages leaves it there.
    """
    storage = instance.event_log_storage
    if storage.supports_global_concurrency_limits and (holding := list(storage.get_concurrency_run_ids())):
        ended = dg.RunsFilter(run_ids=holding, statuses=ENDED, updated_before=datetime.now(UTC) - LEAVING)
        for run in instance.get_runs(ended):
            storage.free_concurrency_slots_for_run(run.run_id)
    killed = [run for run in begun_runs(instance) if run.standing is Standing.KILLED]
    return tuple(run for run in killed if _end(instance, run))


def end_begun_runs(instance: dg.DagsterInstance) -> tuple[BegunRun, ...]:
    """Mark every run that had begun as failed: in a history that was put back from a backup none of them lives."""
    return tuple(run for run in begun_runs(instance) if _end(instance, run))


def _end(instance: dg.DagsterInstance, killed: BegunRun) -> bool:
    run = instance.get_run_by_id(killed.run_id)
    # Read again: it may have ended properly between the list and the look at its process.
    if run is None or run.is_finished:
        return False
    # Its place in a pool, which Dagster does not take back by itself: the next run would wait for it for ever. Before
    # the run is ended, so that who is killed between the two finds it again.
    if instance.event_log_storage.supports_global_concurrency_limits:
        instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
    said = (
        f"The process of this run ({killed.process}) is gone without having ended it: it was killed, or the machine "
        "was restarted. Nothing half-written remains; earlier versions are in force, and the next run may start. "
        "Re-execute this one if what it was to make is still wanted."
    )
    if run.status == dg.DagsterRunStatus.CANCELING:
        instance.report_run_canceled(run, said)
    else:
        instance.report_run_failed(run, said, JobFailureData(None, RunFailureReason.UNEXPECTED_TERMINATION))
    return True


def _examined(instance: dg.DagsterInstance, record: dg.RunRecord) -> BegunRun:
    run = record.dagster_run
    noted = _noted_in(run.tags) or _noted_by_dagster(instance, run)
    if noted is None and _is_this_machine_s(instance, run):
        launched = record.update_timestamp.timestamp()
        is_starting = time.time() - launched < START_SECONDS or _is_listening(run.tags)
        standing = Standing.LIVE if is_starting else Standing.KILLED
        return BegunRun(run_id=run.run_id, job=run.job_name, standing=standing, process="no process yet")
    return _placed(run.run_id, run.job_name, noted)


def _placed(run_id: str, job: str, noted: NotedProcess | None) -> BegunRun:
    """A run by what is known of its process."""
    if noted is None:
        return BegunRun(run_id=run_id, job=job, standing=Standing.ELSEWHERE, process="a process elsewhere")
    here = Standing.LIVE if noted.is_alive() else Standing.KILLED
    standing = here if noted.host == platform.node() else Standing.ELSEWHERE
    return BegunRun(run_id=run_id, job=job, standing=standing, process=f"process {noted.pid} of {noted.host}")


def _noted_in(tags: Mapping[str, str]) -> NotedProcess | None:
    """The process that a run was tagged with by the command that executes it."""
    if not {HOST, PID, BEGAN} <= set(tags):
        return None
    return NotedProcess(host=tags[HOST], pid=int(tags[PID]), seen=float(tags[BEGAN]))


def _noted_by_dagster(instance: dg.DagsterInstance, run: dg.DagsterRun) -> NotedProcess | None:
    """The process that Dagster's first engine event of the run names; it names no machine."""
    if not _is_this_machine_s(instance, run):
        return None
    engine = dg.DagsterEventType.ENGINE_EVENT
    for record in instance.get_records_for_run(run.run_id, of_type=engine, ascending=True).records:
        event = record.event_log_entry.dagster_event
        pid = event.engine_event_data.metadata.get("pid") if event is not None else None
        if pid is not None:
            return NotedProcess(host=platform.node(), pid=int(str(pid.value)), seen=record.event_log_entry.timestamp)
    return None


def _is_this_machine_s(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    """Whether the run's process can only be here: a history in a file of ours, and a launcher that starts processes."""
    server = json.loads(run.tags.get(GRPC_INFO_TAG, "{}"))
    is_near = server.get("host", "localhost") in ("localhost", "127.0.0.1")
    # A launcher of a cluster asks for the cluster's token when it is opened, which a code server has none of.
    if not is_near or not isinstance(instance.run_storage, SqliteRunStorage):
        return False
    return isinstance(instance.run_launcher, DefaultRunLauncher)


def _is_listening(tags: Mapping[str, str]) -> bool:
    """Whether the server that was told to start the run is there; it ends by itself what it could not start."""
    server = json.loads(tags.get(GRPC_INFO_TAG, "{}"))
    family, place = (
        (socket.AF_UNIX, server["socket"])
        if server.get("socket")
        else (socket.AF_INET, ("127.0.0.1", int(server.get("port", 0))))
    )
    with socket.socket(family, socket.SOCK_STREAM) as door:
        door.settimeout(2)
        return door.connect_ex(place) == 0
