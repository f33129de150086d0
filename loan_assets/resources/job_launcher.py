"""Runs as Jobs of a cluster, by dagster-k8s, and what of them must not outlive them.

Here: ending the steps of a run whose own pod is gone. Not here: what the Jobs look like (`dagster.yaml` of
`deploy/k8s/base`) or on which machines steps are executed (`machines`).

Dagster fails a run whose pod was killed and lets the next one begin, while the steps of the first go on in pods of
their own: for a while there would be two writers, and neither Redis nor Feast's online store refuses one.
"""

from __future__ import annotations

import dagster as dg
from dagster._core.launcher.base import CheckRunHealthResult, WorkerStatus
from dagster_k8s import K8sRunLauncher


class JobLauncher(K8sRunLauncher):
    """dagster-k8s's launcher; the daemon that watches over runs ends what a killed one has left."""

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Whether a run's pod lives; where it does not, its steps' Jobs are deleted before anybody is told."""
        found: CheckRunHealthResult = super().check_run_worker_health(run)
        if found.status is WorkerStatus.FAILED:
            self._end_steps(run)
        return found

    def _end_steps(self, run: dg.DagsterRun) -> None:
        namespace = self.get_container_context_for_run(run).namespace
        labels = f"dagster/run-id={run.run_id},app.kubernetes.io/component=step_worker"
        for job in self._api_client.batch_api.list_namespaced_job(namespace, label_selector=labels).items:
            self._api_client.delete_job(job_name=job.metadata.name, namespace=namespace)
