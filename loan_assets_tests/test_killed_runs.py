"""A run whose process is gone is ended, by whoever looks first; a run that lives, or is not ours to judge, is not."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import dagster as dg
import psutil
import pytest
from dagster._core.events import EngineEventData

from loan_assets import killed_runs
from loan_assets.home import prepare
from loan_assets.killed_runs import (
    BEGAN,
    HOST,
    PID,
    Standing,
    begun_runs,
    end_begun_runs,
    end_killed_runs,
    this_process,
)
from loan_assets.sensors import clear_killed_runs
from loan_assets.settings import Settings
from loan_assets_tests.conftest import ROOT, loan_assets

# A run that stays in its only step until it is killed.
RUN = """
import sys, time
import dagster as dg
from loan_assets.killed_runs import this_process

@dg.op
def wait():
    print("waiting", flush=True)
    time.sleep(300)

@dg.job
def endless():
    wait()

with dg.DagsterInstance.from_config(sys.argv[1]) as instance:
    tags = this_process() if sys.argv[2] == "tagged" else {}
    endless.execute_in_process(instance=instance, tags=tags)
"""


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name in ("LOAN_HOME", "DAGSTER_HOME"):
        monkeypatch.setenv(name, "")
    return prepare(Settings.from_environment({"LOAN_HOME": str(tmp_path / "home")}))


@pytest.fixture
def instance(settings: Settings) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.from_config(str(settings.dagster_home)) as instance:
        yield instance


@pytest.fixture(params=["tagged", "told by Dagster"])
def executed(request: pytest.FixtureRequest, settings: Settings) -> Iterator[subprocess.Popen[str]]:
    """A process that executes a run."""
    command = [sys.executable, "-c", RUN, str(settings.dagster_home), request.param]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"
        yield process
        process.kill()


def begun(
    instance: dg.DagsterInstance,
    tags: dict[str, str],
    status: dg.DagsterRunStatus = dg.DagsterRunStatus.STARTED,
    pid: int | None = None,
) -> str:
    """A run in this state in Dagster's history; returns its id."""
    run = dg.DagsterRun(job_name="endless", run_id=str(uuid.uuid4()), status=status, tags=tags)
    instance.add_run(run)
    if pid is not None:
        process = EngineEventData.in_process(pid)
        instance.report_engine_event(f"Started process for run (pid: {pid}).", run, process)
    return run.run_id


def status_of(instance: dg.DagsterInstance, run_id: str) -> dg.DagsterRunStatus:
    run = instance.get_run_by_id(run_id)
    assert run is not None
    return run.status


def a_dead_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_run_that_was_killed_is_failed_with_a_sentence_and_a_live_one_is_left(
    instance: dg.DagsterInstance, executed: subprocess.Popen[str]
) -> None:
    assert end_killed_runs(instance) == ()
    (live,) = begun_runs(instance)
    assert live.standing is Standing.LIVE
    executed.send_signal(signal.SIGKILL)
    executed.wait()
    assert status_of(instance, live.run_id) == dg.DagsterRunStatus.STARTED
    (ended,) = end_killed_runs(instance)
    assert status_of(instance, ended.run_id) == dg.DagsterRunStatus.FAILURE
    failed = instance.all_logs(ended.run_id, of_type=dg.DagsterEventType.RUN_FAILURE)
    assert f"process {executed.pid} of {socket.gethostname()}) is gone without having ended it" in failed[0].message
    assert end_killed_runs(instance) == ()


def test_a_process_that_nobody_has_waited_for_is_gone(
    instance: dg.DagsterInstance, executed: subprocess.Popen[str]
) -> None:
    executed.send_signal(signal.SIGKILL)
    until = time.monotonic() + 10
    while psutil.Process(executed.pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < until
    assert len(end_killed_runs(instance)) == 1


def test_the_sensor_ends_what_was_killed(instance: dg.DagsterInstance) -> None:
    killed = begun(instance, {}, pid=a_dead_process())
    clear_killed_runs(dg.build_sensor_context(instance=instance))
    assert status_of(instance, killed) == dg.DagsterRunStatus.FAILURE


def test_a_number_that_was_given_to_another_process_does_not_keep_a_run_alive(instance: dg.DagsterInstance) -> None:
    ours = this_process()
    begun(instance, {**ours, BEGAN: str(float(ours[BEGAN]) - 60)})
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as later:
        old = begun(instance, {}, pid=later.pid)
        assert [run.standing for run in begun_runs(instance)] == [Standing.LIVE, Standing.KILLED]
        with pytest.MonkeyPatch.context() as stepped:
            stepped.setattr(killed_runs, "CLOCK_SECONDS", -60.0)  # as if the event had been written a minute earlier
            assert old in [run.run_id for run in end_killed_runs(instance)]


def test_a_run_of_another_machine_is_left_alone(instance: dg.DagsterInstance) -> None:
    run_id = begun(instance, {HOST: "another", PID: str(a_dead_process()), BEGAN: "0"})
    server = begun(instance, {".dagster/grpc_info": '{"host": "code-server", "port": 4000}'}, pid=a_dead_process())
    assert end_killed_runs(instance) == ()
    assert {run.standing for run in begun_runs(instance)} == {Standing.ELSEWHERE}
    assert {status_of(instance, one) for one in (run_id, server)} == {dg.DagsterRunStatus.STARTED}


def test_a_run_of_another_launcher_is_left_to_that_launcher(tmp_path: Path) -> None:
    launcher = {"run_launcher": {"module": "dagster._core.test_utils", "class": "MockedRunLauncher"}}
    with dg.DagsterInstance.local_temp(str(tmp_path), overrides=launcher) as instance:
        begun(instance, {}, pid=a_dead_process())
        assert end_killed_runs(instance) == ()
        assert [run.standing for run in begun_runs(instance)] == [Standing.ELSEWHERE]


@pytest.mark.parametrize(
    ("status", "becomes"),
    [
        (dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.FAILURE),
        (dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.FAILURE),
        (dg.DagsterRunStatus.CANCELING, dg.DagsterRunStatus.CANCELED),
    ],
)
def test_a_run_is_ended_in_whichever_state_it_was_killed(
    instance: dg.DagsterInstance, status: dg.DagsterRunStatus, becomes: dg.DagsterRunStatus
) -> None:
    run_id = begun(instance, {}, status=status, pid=a_dead_process())
    end_killed_runs(instance)
    assert status_of(instance, run_id) == becomes


@pytest.mark.parametrize("ends", [end_killed_runs, end_begun_runs])
def test_a_killed_run_gives_back_its_place_in_a_pool(
    instance: dg.DagsterInstance, ends: Callable[[dg.DagsterInstance], object]
) -> None:
    storage = instance.event_log_storage
    storage.initialize_concurrency_limit_to_default("online_store")
    run_id = begun(instance, {}, pid=a_dead_process())
    assert storage.claim_concurrency_slot("online_store", run_id, "online_features").is_claimed
    assert not storage.claim_concurrency_slot("online_store", "the next", "online_features").is_claimed
    ends(instance)
    assert storage.claim_concurrency_slot("online_store", "the next", "online_features").is_claimed


def test_so_does_a_run_that_a_person_marked_as_failed_once_it_has_left(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = instance.event_log_storage
    storage.initialize_concurrency_limit_to_default("online_store")
    run_id = begun(instance, {}, pid=a_dead_process())
    assert storage.claim_concurrency_slot("online_store", run_id, "online_features").is_claimed
    run = instance.get_run_by_id(run_id)
    assert run is not None
    instance.report_run_failed(run)
    end_killed_runs(instance)
    assert storage.get_concurrency_run_ids() == {run_id}
    monkeypatch.setattr(killed_runs, "LEAVING", timedelta(seconds=-1))
    end_killed_runs(instance)
    assert storage.claim_concurrency_slot("online_store", "the next", "online_features").is_claimed


def test_a_run_without_a_process_is_waited_for_while_its_server_is_there(
    instance: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = str(tmp_path / "server")
    starting = begun(instance, {".dagster/grpc_info": f'{{"socket": "{place}"}}'}, dg.DagsterRunStatus.STARTING)
    assert end_killed_runs(instance) == ()
    monkeypatch.setattr(killed_runs, "START_SECONDS", 0.0)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(place)
        server.listen()
        assert end_killed_runs(instance) == ()
    assert [run.run_id for run in end_killed_runs(instance)] == [starting]


def test_a_command_refuses_while_dagster_executes_a_run_and_names_it(
    settings: Settings, instance: dg.DagsterInstance, executed: subprocess.Popen[str]
) -> None:
    (live,) = begun_runs(instance)
    refused = loan_assets("run", home=settings.home)
    assert refused.returncode == 1
    assert f"run {live.run_id[:8]} (endless, process {executed.pid}" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_killed_loan_assets_run_is_told_by_the_doctor_and_ended_by_the_next_command(
    settings: Settings, instance: dg.DagsterInstance
) -> None:
    environment = {**os.environ, "LOAN_HOME": str(settings.home)}
    command = [sys.executable, "-m", "loan_assets.cli", "run"]
    with subprocess.Popen(command, env=environment, cwd=settings.home, stdout=subprocess.DEVNULL) as running:
        until = time.monotonic() + 120
        while not begun_runs(instance):
            assert time.monotonic() < until, "the run did not begin"
            time.sleep(0.1)
        running.kill()
    (killed,) = begun_runs(instance)
    examined = loan_assets("doctor", home=settings.home)
    assert f"run {killed.run_id[:8]} (whole_graph, process {running.pid}" in examined.stdout
    assert "marks it failed, and those behind it go on" in examined.stdout
    watched = loan_assets("watch", home=settings.home)
    assert f"Run {killed.run_id[:8]} (whole_graph" in watched.stdout
    assert status_of(instance, killed.run_id) == dg.DagsterRunStatus.FAILURE
    assert "0 executed now, 0 queued" in loan_assets("doctor", home=settings.home).stdout
