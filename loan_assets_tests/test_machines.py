"""Sizes of pods: read in full before anything runs, so that no mistake is found only when a pod is due."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from loan_assets.machines import executor_of
from loan_assets.refusal import Refusal
from loan_assets.settings import Settings
from loan_assets_tests.conftest import ROOT, in_a_fresh_process

STEPS = ("default_model", "training_set")
SMALL = {"container_config": {"resources": {"limits": {"memory": "2Gi"}}}}


def settings_with(tmp_path: Path, text: str) -> Settings:
    file = tmp_path / "machines.yaml"
    file.write_text(text)
    return Settings.from_environment({"LOAN_HOME": str(tmp_path), "LOAN_EXECUTOR": "k8s", "LOAN_MACHINES": str(file)})


def test_steps_run_in_one_process_unless_it_is_said_otherwise(tmp_path: Path) -> None:
    embedded = Settings.from_environment({"LOAN_HOME": str(tmp_path)})
    assert executor_of(embedded, STEPS).name == "in_process"
    sizes = yaml.safe_dump({"max_concurrent": 3, "per_step_k8s_config": {"default_model": SMALL}})
    assert executor_of(settings_with(tmp_path, sizes), STEPS).name == "k8s"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("executor: [", "cannot be read as YAML"),
        ("- default_model", "names nothing that the executor knows"),
        ("max_concurrentt: 3", 'unexpected config entry "max_concurrentt"'),
        ("per_step_k8s_config: {defalt_model: {}}", "speaks of defalt_model"),
        ("step_k8s_config: {containr_config: {}}", "containr_config"),
        ("step_k8s_config: {container_config: {resource: {}}}", "resource"),
        ("step_k8s_config: {container_config: {resources: {limits: {memory: 2Gigs}}}}", "step_k8s_config: .*2Gigs"),
        (
            "per_step_k8s_config: {training_set: {pod_spec_config: {tolerations: [{efect: NoSchedule}]}}}",
            "training_set: .*efect",
        ),
    ],
)
def test_a_size_that_no_cluster_understands_is_refused_at_once(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(Refusal, match=said):
        executor_of(settings_with(tmp_path, text), STEPS)


def test_an_executor_that_there_is_not_is_refused() -> None:
    with pytest.raises(Refusal, match="LOAN_EXECUTOR is 'kubernetes'"):
        Settings.from_environment({"LOAN_EXECUTOR": "kubernetes"})


def test_the_shipped_sizes_are_those_of_this_graph() -> None:
    shipped = ROOT / "deploy" / "k8s" / "base" / "machines.yaml"
    code = f"""
import os
os.environ.update(LOAN_EXECUTOR="k8s", LOAN_MACHINES={str(shipped)!r})
from loan_assets.definitions import defs
print(defs.executor.name)
"""
    loaded = in_a_fresh_process(code)
    assert loaded.stdout.strip() == "k8s", loaded.stderr
