"""A real `dagster dev`: from real logs and reports exactly one retraining, and a queue that a kill does not stop."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import psutil
import pytest

from bento.places import Places
from loan_assets.books import LoanBook
from loan_assets.credit.scenarios import SCENARIOS
from loan_assets.policy import POLICY
from loan_assets.rehearsal import as_applications, days_up_to_today, held_out
from loan_assets.resources.asset_store import AssetStore
from loan_assets.resources.registry import CHAMPION, RegisteredVersion, Registry
from loan_assets.resources.release_store import ReleaseStore
from loan_assets.settings import Settings
from loan_assets_tests.bento.conftest import Box
from loan_assets_tests.conftest import ROOT, Home, loan_assets

BAD, CALM = "sudden-shift", "quiet"
LIVED = (BAD, BAD, CALM, BAD, BAD, BAD)
ROWS = 600


@pytest.fixture
def home(ran: Home, tmp_path: Path) -> Settings:
    """A copy of the home in which the graph was run, moved elsewhere."""
    place = tmp_path / "home"
    shutil.copytree(ran.settings.home, place)
    return Settings.from_environment({"LOAN_HOME": str(place)})


@contextmanager
def dagster_dev(settings: Settings, folder: Path) -> Iterator[psutil.Popen]:
    """`dagster dev` on a free port (its last argument), its daemons running, stopped with everything it started."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    workspace = folder / "workspace.yaml"
    workspace.write_text(
        (ROOT / "workspace.yaml").read_text().replace("working_directory: .", f"working_directory: {ROOT}")
    )
    environment = {**os.environ, "LOAN_HOME": str(settings.home), "DAGSTER_HOME": str(settings.dagster_home)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    command = [str(Path(sys.executable).parent / "dagster"), "dev", "-h", "127.0.0.1", "-p", str(port)]
    with (folder / "dev.log").open("a") as log:
        server = psutil.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True)
        try:
            eventually(lambda: answers(port), 120, "dagster dev did not start")
            yield server
        finally:
            stop(server)


def stop(server: psutil.Popen) -> None:
    if server.poll() is not None:
        return
    os.killpg(server.pid, signal.SIGINT)
    try:
        server.wait(timeout=30)
    except (subprocess.TimeoutExpired, psutil.TimeoutExpired):
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def kill(server: psutil.Popen) -> None:
    """End `dagster dev` and everything it started as a power cut would."""
    for process in (*server.children(recursive=True), server):
        process.kill()
    server.wait()


LAUNCH = """mutation($execution: ExecutionParams!) {
  launchRun(executionParams: $execution) { __typename ... on LaunchRunSuccess { run { runId } } }
}"""


def launch(server: psutil.Popen, job: str, **tags: str) -> str:
    """Ask for a run as a person does in the Dagster UI; returns its id."""
    port = server.cmdline()[-1]
    where = {"repositoryLocationName": "loan_assets.definitions:defs", "repositoryName": "__repository__"}
    execution = {
        "selector": {**where, "jobName": job},
        "executionMetadata": {"tags": [{"key": f"dagster/{name}", "value": value} for name, value in tags.items()]},
    }
    asked = json.dumps({"query": LAUNCH, "variables": {"execution": execution}}).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}/graphql", asked, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as reply:
        said: dict[str, Any] = json.load(reply)
    return str(said["data"]["launchRun"]["run"]["runId"])


def answers(port: int) -> bool:
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/server_info", timeout=2).close()
    except OSError:
        return False
    return True


def eventually(holds: Callable[[], bool], seconds: float, otherwise: str) -> None:
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until, otherwise
        time.sleep(0.5)


def log_days(settings: Settings, book: LoanBook, days: list[str]) -> None:
    """Each day's applications, answered by the champion and put on record under that day."""
    store = AssetStore(root=str(settings.store), keep=POLICY.versions_kept)
    for number, (day, scenario) in enumerate(zip(days, LIVED, strict=True)):
        drawn = SCENARIOS[scenario](held_out(store, ROWS, seed=number), book)
        places = Places(
            box=settings.releases / ReleaseStore(root=str(settings.releases)).champion().path,
            releases=settings.releases,
            online=settings.online,
            predictions=settings.predictions,
            tokens=None,
            rehearsed_day=day,
        )
        box = Box(places)
        assert box.post("/score", {"applications": as_applications(drawn)}).status == 200
        box.close()


def looks(instance: dg.DagsterInstance) -> int:
    """How many times the sensor has looked and found nothing to ask for."""
    states = instance.all_instigator_state(instigator_statuses=None)
    (state,) = [state for state in states if state.instigator_name == "retrain_on_drift"]
    return len(instance.get_ticks(state.instigator_origin_id, state.selector_id))


def test_six_days_ask_for_one_retraining_that_survives_a_restart_and_a_repeated_report(
    home: Settings, book: LoanBook, tmp_path: Path
) -> None:
    days = days_up_to_today(7)[:-1]  # today already has its calm answers, and stays unwatched here
    log_days(home, book, days)
    retrainings = dg.RunsFilter(job_name="retrain")
    with dg.DagsterInstance.from_config(str(home.dagster_home)) as instance:
        with dagster_dev(home, tmp_path):
            eventually(lambda: looking(instance), 90, "the sensor never looked")
            watched = loan_assets("watch", *days, home=home.home)
            assert watched.returncode == 0, watched.stdout + watched.stderr
            assert watched.stdout.count("drifted") == 5
            assert watched.stdout.count("steady") == 1
            ended = max(run.end_time or 0 for run in instance.get_run_records(dg.RunsFilter(job_name="daily_watch")))
            eventually(lambda: instance.get_runs_count(retrainings) > 0, 60, "no retraining was asked for")
            (asked,) = instance.get_run_records(retrainings)
            assert asked.create_timestamp.timestamp() - ended <= 60
            assert ", ".join(days[-3:]) in asked.dagster_run.tags["loan_assets/cause"]
            eventually(lambda: instance.get_runs(retrainings)[0].is_finished, 240, "the retraining did not end")
            assert instance.get_runs(retrainings)[0].is_success
        with dagster_dev(home, tmp_path):
            before = looks(instance)
            again = loan_assets("watch", days[-1], home=home.home)
            assert again.returncode == 0, again.stdout + again.stderr
            eventually(lambda: looks(instance) >= before + 2, 120, "the sensor did not look again")
            assert instance.get_runs_count(retrainings) == 1
        # The same data gave the same model: nothing new to learn, nothing registered, the champion unmoved.
        newest = instance.get_latest_materialization_event(dg.AssetKey("model_version"))
        assert newest is not None
        assert newest.asset_materialization is not None
        learned = newest.asset_materialization.metadata["learned"].value
        assert str(learned).startswith("nothing new to learn")
        assert newest.run_id == instance.get_runs(retrainings)[0].run_id
    registry = Registry(tracking_uri=home.mlflow_uri, artifacts=home.mlflow_artifacts)
    assert registry.aliases() == {CHAMPION: 1}
    store = AssetStore(root=str(home.store), keep=POLICY.versions_kept)
    stands: RegisteredVersion = store.read("model_version", RegisteredVersion)
    assert stands.version == 1


def looking(instance: dg.DagsterInstance) -> bool:
    found = [state for state in instance.all_instigator_state() if state.instigator_name == "retrain_on_drift"]
    return bool(found) and looks(instance) > 0


def test_a_killed_run_is_failed_within_a_minute_and_the_queue_moves_on(home: Settings, tmp_path: Path) -> None:
    def status(run_id: str) -> dg.DagsterRunStatus:
        run = instance.get_run_by_id(run_id)
        assert run is not None
        return run.status

    with dg.DagsterInstance.from_config(str(home.dagster_home)) as instance:
        with dagster_dev(home, tmp_path) as server:
            killed = launch(server, "retrain")
            eventually(lambda: status(killed) == dg.DagsterRunStatus.STARTED, 120, "the run did not start")
            refused = loan_assets("watch", home=home.home)
            assert refused.returncode == 1
            assert f"run {killed[:8]} (retrain" in refused.stderr
            queued = launch(server, "daily_watch", partition=days_up_to_today(1)[0])
            kill(server)
        assert status(killed) == dg.DagsterRunStatus.STARTED
        assert status(queued) == dg.DagsterRunStatus.QUEUED
        with dagster_dev(home, tmp_path):
            eventually(lambda: status(killed) == dg.DagsterRunStatus.FAILURE, 60, "the killed run was not failed")
            eventually(lambda: status(queued) == dg.DagsterRunStatus.SUCCESS, 120, "the queue did not move on")
