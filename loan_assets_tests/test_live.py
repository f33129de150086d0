"""A real `dagster dev`: the whole loop unattended on real logs, reports and outcomes; a queue that no kill stops."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd
import psutil
import pytest
from numpy.typing import NDArray

from bento.places import Places
from loan_assets.books import LoanBook
from loan_assets.bucket import Bucket, bucket_at, is_bucket
from loan_assets.credit.scenarios import SCENARIOS
from loan_assets.credit.succession import Action, Kind
from loan_assets.endpoint import Endpoint, served
from loan_assets.rehearsal import as_applications, days_up_to_today, held_out
from loan_assets.resources.asset_store import AssetStore
from loan_assets.resources.decisions import MOVED, Decisions, Step
from loan_assets.resources.registry import CHAMPION, Registry
from loan_assets.resources.release_store import ReleaseStore
from loan_assets.settings import Settings
from loan_assets_tests.bento.conftest import Box
from loan_assets_tests.cluster import why_not
from loan_assets_tests.conftest import ROOT, Home, There, loan_assets
from loan_assets_tests.deployed import attended

BAD, CALM = "sudden-shift", "quiet"
# From this day on the world is what it was.
RETURNS = 4
ROWS = 600
# What makes another version champion.
CROWNING = (Kind.PROMOTE, Kind.ROLLBACK)


@pytest.fixture
def home(ran: Home, tmp_path: Path) -> Settings:
    """A copy of the home in which the graph was run, moved elsewhere."""
    place = tmp_path / "home"
    shutil.copytree(ran.settings.home, place)
    return Settings.from_environment({"LOAN_HOME": str(place)})


@dataclass(frozen=True)
class Installation:
    """A platform on which the graph was run: its settings, and the variables that name them."""

    settings: Settings
    variables: dict[str, str]
    # Dagster's daemons at work on it; hands out how a person asks for a day's run.
    attended: Callable[[Path], AbstractContextManager[Callable[[str, str], str]]]


# Every run a Job; where there is no double of a cluster, every run a process of the machine that asks for it.
ELSEWHERE = "on a cluster" if why_not() is None else "on other machines"


@pytest.fixture(params=["on one machine", pytest.param(ELSEWHERE, marks=pytest.mark.production)])
def installation(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Installation:
    """The platform as it is without settings, and on Postgres, Redis and S3: the same happens."""
    if request.param == "on one machine":
        home: Settings = request.getfixturevalue("home")
        forget_today(home)
        return Installation(settings=home, variables={}, attended=partial(by_dagster_dev, home))
    run: There = request.getfixturevalue("there")("run")
    settings, variables = run.settings, run.variables
    for name, value in (*variables.items(), *settings.databases().items()):
        monkeypatch.setenv(name, value)
    attends = partial(by_dagster_dev, settings) if why_not() else partial(by_jobs, variables)
    return Installation(settings=settings, variables=variables, attended=attends)


@contextmanager
def by_dagster_dev(settings: Settings, folder: Path) -> Iterator[Callable[[str, str], str]]:
    with dagster_dev(settings, folder) as server:
        yield lambda job, day: launch(server, job, partition=day)


@contextmanager
def by_jobs(variables: dict[str, str], folder: Path) -> Iterator[Callable[[str, str], str]]:
    """Every run a Job of a cluster, its steps in one process."""
    with attended(folder / "cluster", variables, LOAN_EXECUTOR="in_process") as platform:
        yield lambda job, day: platform.launch(job, dagster__partition=day)


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


def forget_today(settings: Settings) -> None:
    """Leave of the journal that the first version was put in force."""
    journal = settings.home / "decisions" / "journal.log"
    journal.write_bytes(b"".join(journal.read_bytes().splitlines(keepends=True)[:2]))


def log_day(settings: Settings, applications: pd.DataFrame, day: str) -> list[str]:
    """A day's applications, answered by the champion and put on record under that day; returns the requests' names."""
    store = ReleaseStore.over(settings)
    champion = store.champion()
    places = Places(
        box=store.folder_of(champion.version, champion.digest),
        releases=settings.releases,
        online=settings.online,
        predictions=settings.home / "spool" if settings.predictions_place else settings.predictions,
        predictions_bucket=bucket_at(settings.predictions_place),
        tokens=None,
        rehearsed_day=day,
    )
    box = Box(places)
    names = [f"{day}-{row:03}" for row in range(len(applications))]
    for name, application in zip(names, as_applications(applications), strict=True):
        reply = box.post("/score", {"applications": [application]}, x_request_id=name)
        assert reply.status == 200
    box.close()
    return names


def outcomes_land(settings: Settings, day: str, names: list[str], label: NDArray[np.int64]) -> None:
    at = pd.Timestamp(f"{day} 12:00", tz="UTC")
    table = pd.DataFrame({"request_id": names, "label": label, "label_timestamp": at})
    content = table.to_parquet(index=False)
    if is_bucket(settings.outcomes):
        Bucket(settings.outcomes).write(f"{day}.parquet", content)
        return
    place = settings.home / "labels"
    place.mkdir(exist_ok=True)
    (place / f".{day}.parquet").write_bytes(content)
    (place / f".{day}.parquet").rename(place / f"{day}.parquet")


class Caller:
    """Asks the endpoint one question after another until told to stop, and keeps count."""

    def __init__(self, endpoint: Endpoint, application: dict[str, Any]) -> None:
        self.answered: list[tuple[float, int]] = []
        self.failed = 0
        self._endpoint, self._application, self._over = endpoint, application, threading.Event()
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self._thread.start()

    def _ask(self) -> None:
        while not self._over.wait(0.05):
            try:
                reply = self._endpoint.post("/score", {"applications": [self._application]})
                version = int(reply.body["model_version"])
                self.answered.append((time.time(), version))
            except (OSError, KeyError, TypeError):
                self.failed += 1

    def stop(self) -> None:
        self._over.set()
        self._thread.join(timeout=40)

    def last_by_another(self, version: int, since: float) -> float:
        """Seconds from an instant to the last answer by another version; 0 where there was none."""
        others = [at for at, by in self.answered if by != version and at > since]
        return max(others) - since if others else 0.0

    def has_moved_to(self, version: int) -> bool:
        return [by for _, by in self.answered[-20:]] == [version] * 20


def test_a_changed_world_is_noticed_learned_promoted_and_left_again_unattended(  # noqa: PLR0915 - one story
    installation: Installation, book: LoanBook, tmp_path: Path
) -> None:
    home, days = installation.settings, days_up_to_today(8)[:-1]  # today may already have its answers
    store, decisions = AssetStore.over(home), Decisions.over(home)
    drawn = held_out(store, len(days) * ROWS, seed=1)
    generator = np.random.default_rng(4)
    rows = {day: drawn.iloc[place * ROWS : (place + 1) * ROWS] for place, day in enumerate(days)}
    told: dict[str, tuple[list[str], NDArray[np.int64]]] = {}
    seconds: dict[str, float] = {}

    def within(limit: float, what: str, measured: float) -> None:
        seconds[what] = round(measured, 2)
        assert measured <= limit, what

    def decided(kind: Kind) -> list[tuple[Step, Action]]:
        return [(step, action) for step in decisions.steps() for action in step.actions if action.kind is kind]

    def live(place: int) -> dg.RunRecord:
        """A day at the endpoint, its outcomes two days later, and the run that looks at it."""
        day = days[place]
        is_changed = place < RETURNS
        asked = SCENARIOS[BAD if is_changed else CALM](rows[day], book)
        is_large = (rows[day]["credit_limit"] > drawn["credit_limit"].median()).to_numpy()
        label = (generator.random(ROWS) < np.where(is_large, 0.36, 0.09)).astype("int64")
        told[day] = (log_day(home, asked, day), label)
        if 1 < place < RETURNS:
            outcomes_land(home, day, *told[days[place - 2]])
        run_id = ask("daily_watch", day)
        eventually(lambda: ended(instance, run_id), 120, f"{day} was not watched")
        (record,) = instance.get_run_records(dg.RunsFilter(run_ids=[run_id]))
        assert record.dagster_run.is_success
        return record

    with (
        dg.DagsterInstance.from_config(str(home.dagster_home)) as instance,
        installation.attended(tmp_path) as ask,
        served(home, workers=2, LOAN_PREDICTIONS=str(tmp_path / "asked")) as endpoint,
    ):
        caller = Caller(endpoint, as_applications(rows[days[0]].head(1))[0])
        for place in range(3):
            third = live(place)
        (alarm, _), *_ = decided(Kind.ALARM)
        assert alarm.date == days[2]
        at = datetime.fromisoformat(alarm.at).timestamp()
        within(60, "alarm after the run of the third report ended", at - (third.end_time or 0))
        settled = live(3).end_time or 0
        eventually(lambda: bool(decided(Kind.PROMOTE)[1:]), 120, "nothing was promoted")
        ((ordered, _),) = decided(Kind.RETRAIN)
        (retraining,) = instance.get_run_records(dg.RunsFilter(job_name="retrain"))
        eventually(lambda: ended(instance, retraining.dagster_run.run_id), 120, "the retraining did not end")
        (retraining,) = instance.get_run_records(dg.RunsFilter(job_name="retrain"))
        assert retraining.dagster_run.is_success
        within(60, "retraining after the outcomes were taken in", (retraining.start_time or 0) - settled)
        assert ordered.date == days[3]
        promoted = carried_out(decisions)
        eventually(lambda: caller.has_moved_to(2), 30, "the endpoint did not follow the promotion")
        within(5, "every answer by the promoted version", caller.last_by_another(2, promoted))
        for place in range(RETURNS, RETURNS + 3):
            live(place)
        eventually(lambda: bool(decided(Kind.ROLLBACK)), 180, "the first version did not come back")
        ((_, back),) = decided(Kind.ROLLBACK)
        assert back.version == 1
        eventually(lambda: caller.has_moved_to(1), 90, "the endpoint did not follow the return")
        within(5, "every answer by the version that came back", caller.last_by_another(1, carried_out(decisions)))
        eventually(lambda: not busy(instance), 60, "something still runs")
        asked_at = time.time()
        command = ("rollback", "--version", "2", "--why", "a drill")
        back_again = loan_assets(*command, home=home.home, **installation.variables)
        assert back_again.returncode == 0, back_again.stderr
        eventually(lambda: caller.has_moved_to(2), 30, "the endpoint did not follow the command")
        within(10, "every answer by the version that a command brought back", caller.last_by_another(2, asked_at))
        caller.stop()
        sys.stdout.write(f"{len(caller.answered):,} requests, {caller.failed} failed; seconds to {seconds}\n")
        assert caller.failed == 0
    registry = Registry(tracking_uri=home.mlflow_uri, artifacts=home.mlflow_artifacts)
    assert registry.aliases()[CHAMPION] == 2
    assert decided(Kind.ROLLBACK)[-1][1].cause.startswith("a drill")


def carried_out(decisions: Decisions) -> float:
    """When the version that was decided on last was put in force; waits until that is on record."""

    def decided_last() -> int:
        return max(step.number for step in decisions.steps() if any(one.kind in CROWNING for one in step.actions))

    def is_carried_out(step: Step) -> bool:
        return step.kind == MOVED and step.evidence["decided_in"] == decided_last()

    eventually(lambda: any(map(is_carried_out, decisions.steps())), 60, "what was decided was not carried out")
    return datetime.fromisoformat(next(filter(is_carried_out, decisions.steps())).at).timestamp()


def ended(instance: dg.DagsterInstance, run_id: str) -> bool:
    run = instance.get_run_by_id(run_id)
    return run is not None and run.is_finished


def busy(instance: dg.DagsterInstance) -> bool:
    return any(not record.dagster_run.is_finished for record in instance.get_run_records(limit=20))


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
