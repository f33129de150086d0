"""Runs and steps as Jobs, by dagster-k8s, our manifests and Roles, against a double of the cluster's API."""

from __future__ import annotations

import json
import os
import re
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
import yaml

from loan_assets_tests.cluster import Manifest, Pod, rights_in, why_not
from loan_assets_tests.conftest import places_elsewhere
from loan_assets_tests.deployed import BASE, Attended, attended
from loan_assets_tests.services import S3, Postgres, RedisServer, until

pytestmark = [
    pytest.mark.production,
    pytest.mark.skipif(why_not() is not None, reason=why_not() or ""),
]

IMAGE = "loan-assets:0.1.0"
MONTH, NOT_ARRIVED = "2005-09", "2005-10"


@pytest.fixture(scope="module")
def platform(
    emulator: S3, postgres: Postgres, redis: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Attended]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in emulator.environment.items():
            patch.setenv(name, value)
        places = places_elsewhere(f"s3://bank/{uuid.uuid4().hex[:12]}", emulator, postgres, redis)
        with attended(tmp_path_factory.mktemp("cluster"), places) as running:
            yield running


@pytest.fixture(scope="module")
def run_id(platform: Attended) -> str:
    """A run that has brought the book."""
    asked = platform.launch("whole_graph", ("raw_loan_book",))
    assert platform.ends(asked, 120) is dg.DagsterRunStatus.SUCCESS, platform.said(asked)
    return asked


def test_a_run_is_a_job_and_each_of_its_steps_another_with_the_size_that_is_said(
    platform: Attended, run_id: str
) -> None:
    by_name = {pod.name.rpartition("-")[0]: pod for pod in platform.pods(run_id)}
    assert f"dagster-run-{run_id}" in by_name
    steps = {pod.manifest["metadata"]["labels"]["dagster/op"]: pod for name, pod in by_name.items() if "-step-" in name}
    assert set(steps) == {"raw_loan_book"}
    sizes = yaml.safe_load((BASE / "machines.yaml").read_text())["step_k8s_config"]["container_config"]["resources"]
    assert steps["raw_loan_book"].container["resources"] == sizes
    assert {pod.container["image"] for pod in by_name.values()} == {IMAGE}
    assert platform.cluster.refused == []


@pytest.mark.usefixtures("run_id")
def test_what_a_step_has_made_another_pod_finds(platform: Attended) -> None:
    month = platform.launch("month_of_statements", dagster__partition=MONTH)
    assert platform.ends(month, 180) is dg.DagsterRunStatus.SUCCESS, platform.said(month)
    assert len(platform.pods(month)) == 3
    assert "check_name='every_client_has_a_statement', passed=True" in platform.said(month)
    homes = {pod.folder / "volumes" / "home" for pod in platform.pods(month)}
    assert all((home / "dagster" / "dagster.yaml").exists() for home in homes)


@pytest.mark.usefixtures("run_id")
def test_a_step_that_refuses_fails_its_run_and_says_why(platform: Attended) -> None:
    run_id = platform.launch("month_of_statements", dagster__partition=NOT_ARRIVED)
    assert platform.ends(run_id, 180) is dg.DagsterRunStatus.FAILURE
    assert "No file has arrived for 2005-10" in platform.said(run_id)


def test_a_person_ends_a_run_and_its_pods_are_gone(platform: Attended) -> None:
    run_id = platform.launch("whole_graph", ("raw_loan_book",))
    until(lambda: any(is_step(pod) and pod.process for pod in platform.pods(run_id)), 90)
    said = platform.ask(
        "mutation($id: String!) { terminateRun(runId: $id) { __typename ... on PythonError { message } } }", id=run_id
    )
    assert said["terminateRun"]["__typename"] == "TerminateRunSuccess", said
    assert platform.ends(run_id, 90) is dg.DagsterRunStatus.CANCELED
    until(lambda: all(pod.is_over() for pod in platform.pods(run_id)), 30)
    assert not {name for name in platform.cluster.jobs if run_id in name}


def test_a_run_whose_pod_was_killed_is_failed_within_seconds_and_no_step_of_it_goes_on(platform: Attended) -> None:
    run_id = platform.launch("whole_graph", ("raw_loan_book",))
    until(lambda: any(is_step(pod) and pod.process for pod in platform.pods(run_id)), 90)
    (own,) = [pod for pod in platform.pods(run_id) if not is_step(pod)]
    (step,) = [pod for pod in platform.pods(run_id) if is_step(pod)]
    assert step.process
    pid = step.process.pid
    os.killpg(pid, signal.SIGSTOP)  # however busy the machine is, the step is not done before it is asked to end
    assert not step.is_over()
    own.kill("Evicted")
    assert platform.ends(run_id, 30) is dg.DagsterRunStatus.FAILURE
    until(lambda: has_pending(pid, signal.SIGTERM), 30)
    os.killpg(pid, signal.SIGCONT)
    until(step.is_over, 30)
    assert step.code() != 0
    assert "Evicted" in platform.said(run_id)


def test_a_run_is_failed_when_the_pod_of_a_step_was_killed(platform: Attended) -> None:
    run_id = platform.launch("whole_graph", ("raw_loan_book",))
    until(lambda: any(is_step(pod) and pod.process for pod in platform.pods(run_id)), 90)
    (step,) = [pod for pod in platform.pods(run_id) if is_step(pod)]
    step.kill("Evicted")
    assert platform.ends(run_id, 90) is dg.DagsterRunStatus.FAILURE
    assert "failed Kubernetes job" in platform.said(run_id)


def test_a_run_that_takes_more_memory_than_it_may_is_ended_and_says_so(platform: Attended) -> None:
    small = {"cpu": "1", "memory": "100Mi"}
    run_id = platform.launch(
        "whole_graph",
        ("raw_loan_book",),
        **of_pod({"container_config": {"resources": {"limits": small, "requests": small}}}),
    )
    assert platform.ends(run_id, 90) is dg.DagsterRunStatus.FAILURE
    assert "OOMKilled" in platform.said(run_id)


def test_nobody_gives_a_run_another_image_account_or_secret(platform: Attended) -> None:
    for said in (
        {"container_config": {"image": "another:1"}},
        {"pod_spec_config": {"service_account_name": "loan-assets-daemon"}},
        {"container_config": {"env_from": [{"secret_ref": {"name": "loan-assets-tokens"}}]}},
    ):
        run_id = platform.launch("whole_graph", ("raw_loan_book",), **of_pod(said))
        assert platform.ends(run_id, 60) is dg.DagsterRunStatus.FAILURE
        assert platform.pods(run_id) == []
        assert "violated the allowed list" in platform.said(run_id)


def test_a_run_that_no_cluster_would_take_fails_at_once(platform: Attended) -> None:
    odd = {"cpu": "1", "memory": "2Gigs"}
    run_id = platform.launch(
        "whole_graph",
        ("raw_loan_book",),
        **of_pod({"container_config": {"resources": {"limits": odd, "requests": odd}}}),
    )
    assert platform.ends(run_id, 60) is dg.DagsterRunStatus.FAILURE
    assert platform.pods(run_id) == []
    assert "2Gigs is no amount of memory" in platform.cluster.refused.pop()


def test_a_run_whose_secret_is_missing_is_failed_and_says_so(platform: Attended) -> None:
    secret = platform.cluster.secrets.pop("loan-assets-databases")
    try:
        run_id = platform.launch("whole_graph", ("raw_loan_book",))
        assert platform.ends(run_id, 120) is dg.DagsterRunStatus.FAILURE
    finally:
        platform.cluster.secrets["loan-assets-databases"] = secret
    assert "CreateContainerConfigError" in platform.said(run_id)


def test_every_right_that_is_given_is_used_and_no_other_was_asked_for(platform: Attended) -> None:
    given = {
        (account, resource, verb)
        for account, rights in rights_in(BASE / "accounts.yaml")
        for _, resource, verb in rights
    }
    assert platform.cluster.refused == []
    assert platform.cluster.asked == given


def has_pending(pid: int, number: signal.Signals) -> bool:
    """Whether a signal waits for a stopped process to go on."""
    told = re.search(r"^ShdPnd:\s*(\w+)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return told is not None and bool(int(told[1], 16) >> (number - 1) & 1)


def is_step(pod: Pod) -> bool:
    return "dagster/op" in pod.manifest["metadata"]["labels"]


def of_pod(said: Manifest) -> dict[str, str]:
    return {"dagster-k8s__config": json.dumps(said)}
