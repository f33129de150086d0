"""On which machines a run's steps are executed, and how large those are.

Here: the executor that the settings name, and what dagster-k8s is told of the pods of steps. Not here: any asset
(`assets`), or how runs are launched and how large their own pods are (`dagster.yaml`).

The file that LOAN_MACHINES names is the configuration of dagster-k8s's executor in its own words: `step_k8s_config` is
for every step, `per_step_k8s_config` for single ones, each with what may be said in a tag `dagster-k8s/config`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import yaml

from loan_assets.refusal import Refusal
from loan_assets.settings import ON_KUBERNETES, Settings

STEPS, EVERY_STEP = "per_step_k8s_config", "step_k8s_config"
MEND = "Mend the file that LOAN_MACHINES names; deploy/k8s/base/machines.yaml is one."


def executor_of(settings: Settings, steps: Iterable[str]) -> dg.ExecutorDefinition:
    """One process for all steps of a run, or a pod for each.

    Args:
        steps: the names of the graph's assets and checks, of which alone the file may speak.

    Raises:
        Refusal: when the file cannot be read, or says what dagster-k8s or a cluster would not understand.
    """
    if settings.executor != ON_KUBERNETES:
        return dg.in_process_executor
    from dagster_k8s import k8s_job_executor

    sizes = _sizes_in(Path(settings.machines), steps) if settings.machines else {}
    return k8s_job_executor.configured(sizes)


def _sizes_in(file: Path, steps: Iterable[str]) -> dict[str, Any]:
    try:
        said = yaml.safe_load(file.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as unreadable:
        raise Refusal(f"{file} cannot be read as YAML.", MEND) from unreadable
    if not isinstance(said, dict):
        raise Refusal(f"{file} names nothing that the executor knows.", MEND)
    _refuse_what_is_not_understood(file, said)
    # What is misspelt would be small in silence.
    strangers = sorted({*said.get(STEPS, {})} - set(steps))
    if strangers:
        raise Refusal(f"{file} speaks of {', '.join(strangers)}, which is no asset and no check.", MEND)
    return said


def _refuse_what_is_not_understood(file: Path, said: dict[str, Any]) -> None:
    """Have the vendor read all of it now; by itself it would, of a single pod, only when that is due."""
    from dagster._config import validate_config
    from dagster_k8s import k8s_job_executor
    from dagster_k8s.job import UserDefinedDagsterK8sConfig

    schema = k8s_job_executor.config_schema.config_type
    wrong = validate_config(schema, said).errors if schema else []
    if wrong:
        raise Refusal(f"{file}: {wrong[0].message.partition('. Expected')[0]}.", MEND)
    for where, pod in _pods_in(said):
        try:
            UserDefinedDagsterK8sConfig.from_dict(pod)  # type: ignore[no-untyped-call]
            _refuse_odd_quantities(pod)
        except Exception as misread:  # the vendor raises whatever it stumbles over
            raise Refusal(f"{file}, {where}: {str(misread).splitlines()[0].rstrip('.')}.", MEND) from misread


def _pods_in(said: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every pod that is spoken of, and where."""
    yield EVERY_STEP, said.get(EVERY_STEP) or {}
    yield from (said.get(STEPS) or {}).items()


def _refuse_odd_quantities(pod: Mapping[str, Any]) -> None:
    """Refuse what no cluster takes for an amount, such as 2Gigs."""
    from kubernetes.utils.quantity import parse_quantity

    for amounts in (pod.get("container_config") or {}).get("resources", {}).values():
        for amount in amounts.values():
            parse_quantity(amount)
