"""The platform's own Deployments, as they are shipped, running in the double of a cluster.

Here: code server, web server and daemon, and asking them for runs as a person does. Not here: the double (`cluster`).
"""

from __future__ import annotations

import json
import os
import re
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import psutil
import yaml

from loan_assets_tests.cluster import Cluster, Manifest, Pod
from loan_assets_tests.conftest import ROOT
from loan_assets_tests.services import free_port, until

BASE = ROOT / "deploy" / "k8s" / "base"
SECRETS = ("LOAN_DAGSTER_STORAGE", "LOAN_MLFLOW_URI", "LOAN_FEAST_REGISTRY", "LOAN_FEAST_ONLINE", "LOAN_ONLINE")


def deployments(file: str) -> Iterator[Manifest]:
    for manifest in yaml.safe_load_all((BASE / file).read_text()):
        if manifest["kind"] == "Deployment":
            yield manifest


def settings_in_cluster(places: dict[str, str]) -> dict[str, str]:
    """The shipped settings, their places moved to the test's own."""
    lines = (BASE / "settings.env").read_text().splitlines()
    shipped = dict(line.split("=", 1) for line in lines if re.match(r"\w+=", line))
    own = {name: value for name, value in places.items() if name not in SECRETS}
    without = {"AWS_SERVER_SIDE_ENCRYPTION", "MLFLOW_S3_UPLOAD_EXTRA_ARGS"}  # the emulator has no key service
    return {name: value for name, value in shipped.items() if name not in without} | {"LOAN_SOURCE": "packaged"} | own


@dataclass(frozen=True)
class Attended:
    """The platform's own Deployments, running in the double, and its history."""

    cluster: Cluster
    instance: dg.DagsterInstance
    web: int

    def ask(self, query: str, **variables: Any) -> Any:
        body = json.dumps({"query": query, "variables": variables}).encode()
        asked = urllib.request.Request(
            f"http://127.0.0.1:{self.web}/graphql", body, {"content-type": "application/json"}
        )
        with urllib.request.urlopen(asked, timeout=60) as reply:
            return json.load(reply)["data"]

    def launch(self, job: str, assets: tuple[str, ...] = (), **tags: str) -> str:
        """Ask for a run as a person does in the Dagster UI; returns its id."""
        selector: Manifest = {
            "repositoryLocationName": "loan_assets",
            "repositoryName": "__repository__",
            "jobName": job,
        }
        if assets:
            selector["assetSelection"] = [{"path": [asset]} for asset in assets]
            selector["assetCheckSelection"] = None
        tagged = [{"key": name.replace("__", "/"), "value": value} for name, value in tags.items()]
        execution = {"selector": selector, "executionMetadata": {"tags": tagged}}
        said = self.ask(
            """mutation($execution: ExecutionParams!) {
              launchRun(executionParams: $execution) { __typename
                ... on LaunchRunSuccess { run { runId } }
                ... on PythonError { message } } }""",
            execution=execution,
        )["launchRun"]
        assert said["__typename"] == "LaunchRunSuccess", said
        return str(said["run"]["runId"])

    def status(self, run_id: str) -> dg.DagsterRunStatus:
        run = self.instance.get_run_by_id(run_id)
        assert run is not None
        return run.status

    def ends(self, run_id: str, within: float) -> dg.DagsterRunStatus:
        until(lambda: self.status(run_id) in OVER, within)
        return self.status(run_id)

    def said(self, run_id: str) -> str:
        """Everything that is on record of a run."""
        events = [one.dagster_event for one in self.instance.all_logs(run_id) if one.dagster_event]
        return "\n".join(f"{event.message} {event.event_specific_data}" for event in events)

    def pods(self, run_id: str) -> list[Pod]:
        """The run's own pod, and those of its steps."""
        labels = {"dagster/run-id": run_id}.items()
        return [pod for pod in self.cluster.pods.values() if labels <= pod.manifest["metadata"]["labels"].items()]


OVER = (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)


@contextmanager
def attended(folder: Path, places: dict[str, str], **settings: str) -> Iterator[Attended]:
    """Code server, web server and daemon as they are deployed, each with its account, on ports of their own."""
    code, web = free_port(), free_port()
    dagster = (BASE / "dagster.yaml").read_text()
    quicker = {
        "poll_interval_seconds: 30": "poll_interval_seconds: 2",
        "start_timeout_seconds: 300": "start_timeout_seconds: 20",
    }
    for shipped, hurried in quicker.items():
        assert shipped in dagster
        dagster = dagster.replace(shipped, hurried)
    workspace = (BASE / "workspace.yaml").read_text()
    workspace = workspace.replace("host: loan-assets-code", "host: 127.0.0.1").replace("4000", str(code))
    cluster = Cluster(
        folder=folder,
        roles=BASE / "accounts.yaml",
        config_maps={
            "loan-assets-settings": settings_in_cluster(places) | settings,
            "loan-assets-dagster": {"dagster.yaml": dagster, "workspace.yaml": workspace},
            "loan-assets-machines": {"machines.yaml": (BASE / "machines.yaml").read_text()},
        },
        secrets={
            "loan-assets-databases": {name: places[name] for name in SECRETS},
            "loan-assets-dagster-storage": {"LOAN_DAGSTER_STORAGE": places["LOAN_DAGSTER_STORAGE"]},
        },
        image={
            "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])),
            "PYTHONPATH": str(ROOT),
            "HOME": "/tmp",
        },
        contents=(ROOT, Path(sys.prefix)),
    )
    ports = {"4000": str(code), "3000": str(web), "0.0.0.0": "127.0.0.1"}
    started: list[Pod] = []
    try:
        for manifest in (*deployments("code-server.yaml"), *deployments("web-and-daemon.yaml")):
            template = manifest["spec"]["template"]
            (container,) = template["spec"]["containers"]
            container["args"] = [ports.get(argument, argument) for argument in container["args"]]
            started.append(cluster.begin(manifest["metadata"]["name"], template))
            if manifest["metadata"]["name"] == "loan-assets-code":
                until(lambda: listens(code) or started[0].is_over(), 120)
        until(lambda: listens(web) or any(pod.is_over() for pod in started), 120)
        assert not any(pod.is_over() for pod in started)
        home = folder / "home" / "dagster"
        home.mkdir(parents=True)
        history = places["LOAN_DAGSTER_STORAGE"].replace("postgresql://", "postgresql+psycopg2://")
        storage = {"storage": {"postgres": {"postgres_url": history}}}
        (home / "dagster.yaml").write_text(yaml.safe_dump(storage))
        with dg.DagsterInstance.from_config(str(home)) as instance:
            yield Attended(cluster=cluster, instance=instance, web=web)
    except BaseException:
        for pod in started:
            sys.stdout.write(f"{pod.name}: {pod.log.read_text()[-3000:]}\n")
        raise
    finally:
        cluster.stop()


def listens(port: int) -> bool:
    found = [one.laddr.port for one in psutil.net_connections("tcp") if one.status == psutil.CONN_LISTEN]
    return port in found
