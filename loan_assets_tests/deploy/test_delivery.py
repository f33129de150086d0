"""How versions are delivered: actions by their commit, images by their digest, and a score asked for in the end."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from loan_assets.endpoint import served
from loan_assets_tests.conftest import ROOT, Home

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
SMOKE, SET_IMAGES = ROOT / "deploy" / "smoke.py", ROOT / "deploy" / "k8s" / "set_images.py"
DIGEST = "sha256:" + "ab" * 32


def steps_of(workflow: Path) -> list[dict[str, Any]]:
    jobs = yaml.safe_load(workflow.read_text())["jobs"].values()
    return [
        step for job in jobs for step in (*job.get("steps", []), *([{"uses": job["uses"]}] if "uses" in job else []))
    ]


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda one: one.name)
def test_every_action_is_named_by_its_commit_and_may_read_only_unless_it_is_said(workflow: Path) -> None:
    used = [step["uses"] for step in steps_of(workflow) if "uses" in step]
    assert used
    for one in used:
        assert one.startswith("./.github/workflows/") or re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40}", one), one
    assert yaml.safe_load(workflow.read_text())["permissions"] == {"contents": "read"}


def test_whatever_a_workflow_runs_is_there() -> None:
    said = "\n".join(str(step.get("run", "")) for workflow in WORKFLOWS for step in steps_of(workflow))
    files = set(re.findall(r"(?:deploy|\.ci)/[\w./-]+", said))
    assert {".ci/run", "deploy/k8s/roll_out.sh", "deploy/k8s/set_images.py"} <= files
    assert all((ROOT / file).exists() for file in files)


def set_images(overlay: Path, *given: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, SET_IMAGES, overlay, *given], capture_output=True, text=True, check=False)


def test_an_overlay_is_given_images_by_their_digests_only(tmp_path: Path) -> None:
    overlay = tmp_path / "production"
    shutil.copytree(ROOT / "deploy" / "k8s" / "overlays" / "production", overlay)
    before = (overlay / "kustomization.yaml").read_text()
    for bad in ("loan-assets=bank/loan-assets:0.1.0", f"another=bank/another@{DIGEST}", "loan-assets"):
        refused = set_images(overlay, bad)
        assert refused.returncode == 1
        assert "is not one of loan-assets=IMAGE@sha256:DIGEST" in refused.stderr
    assert (overlay / "kustomization.yaml").read_text() == before
    assert set_images(overlay, f"loan-assets=bank/loan-assets@{DIGEST}").returncode == 0
    images = yaml.safe_load((overlay / "kustomization.yaml").read_text())["images"]
    assert images[0] == {"name": "loan-assets", "newName": "bank/loan-assets", "digest": DIGEST}
    assert images[1]["name"] == "loan-assets-bento"


def smoke(endpoint: str) -> subprocess.CompletedProcess[str]:
    command = "import smoke, sys; print(smoke.smoke(sys.argv[1], '', patience=3.0))"
    return subprocess.run(
        [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(SMOKE.parent)!r}); {command}", endpoint],
        capture_output=True,
        text=True,
        check=False,
    )


def test_an_endpoint_that_was_deployed_is_asked_for_a_score(ran: Home, tmp_path: Path) -> None:
    with served(ran.settings, LOAN_PREDICTIONS=str(tmp_path / "asked")) as endpoint:
        well = smoke(f"http://127.0.0.1:{endpoint.port}")
    assert re.match(r"Version 1 of http://127\.0\.0\.1:\d+ answers in \d+ ms", well.stdout), well.stderr
    gone = smoke(f"http://127.0.0.1:{endpoint.port}")
    assert gone.returncode == 1
    assert "is not ready after 3 s" in gone.stderr


# What a cluster answers in which an endpoint is at its seventh revision; whatever is asked of it is written down.
KUBECTL = """#!/bin/sh
echo "$*" >> "$LOG"
case "$*" in
*"$FAILING"*) [ -z "$FAILING" ] || exit 1 ;;
esac
case "$*" in
*revision}) printf %s "$BEFORE" ;;
*"get cronjob/"*) echo cronjob.batch/loan-assets-backup ;;
*"get job/loan-assets-migrate"*) printf %s "$MIGRATED" ;;
*"get job/"*) printf Complete ;;
esac
"""
ROLL_OUT = ROOT / "deploy" / "k8s" / "roll_out.sh"


def rolled_out(folder: Path, **said: str) -> tuple[int, list[str], str]:
    """The status of a roll-out, what it asked of the cluster, and what it said."""
    kubectl, log = folder / "kubectl", folder / "asked"
    kubectl.write_text(KUBECTL)
    kubectl.chmod(0o755)
    told = {"BEFORE": "7", "MIGRATED": "Complete", "FAILING": "", "LOG": str(log)} | said
    environment = {**os.environ, **told, "PATH": os.pathsep.join((str(folder), os.environ["PATH"]))}
    done = subprocess.run(
        [ROLL_OUT, "overlay", "bank"], env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    return done.returncode, log.read_text().splitlines(), done.stderr


def place_of(asked: list[str], words: str) -> int:
    (found,) = [place for place, one in enumerate(asked) if words in one]
    return found


def test_a_version_is_taken_into_force_after_a_backup_and_with_nothing_running(tmp_path: Path) -> None:
    status, asked, said = rolled_out(tmp_path)
    assert status == 0, said
    order = (
        "loan-assets-daemon --replicas 0",
        "get pods -l app.kubernetes.io/name=loan-assets-daemon",
        "get jobs -l dagster/run-id",
        "create job loan-assets-backup-",
        "get job/loan-assets-backup-",
        "delete job loan-assets-migrate",
        "apply --server-side --force-conflicts -k overlay",
        "get job/loan-assets-migrate",
        "rollout restart",
        "rollout status --timeout 10m deployment/loan-assets-endpoint",
    )
    places = [place_of(asked, words) for words in order]
    assert places == sorted(places)
    assert not any("undo" in one for one in asked)
    _, without, _ = rolled_out(tmp_path, BACKUP="no")
    assert not any("backup" in one for one in without[len(asked) :])
    assert all(one.startswith(("--namespace bank ", "apply ")) for one in asked)


@pytest.mark.parametrize(
    ("said", "follows", "follows_not"),
    [
        ({"FAILING": "apply"}, "daemon --replicas 1", "undo"),
        ({"FAILING": "create job"}, "daemon --replicas 1", "apply"),
        ({"MIGRATED": "FailureTarget Failed"}, "undo deployment/loan-assets-endpoint --to-revision 7", "restart"),
        ({"FAILING": "status --timeout 10m deployment/loan-assets-webhook"}, "--to-revision 7", "--replicas 1"),
        ({"ENDPOINT": "http://127.0.0.1:9", "PATIENCE": "1"}, "--to-revision 7", "--replicas 1"),
        ({"BEFORE": "", "FAILING": "rollout restart"}, "", "undo"),
        ({"BEFORE": "", "FAILING": "apply"}, "", "replicas"),
    ],
)
def test_what_fails_is_undone_as_far_as_it_was_done(
    tmp_path: Path, said: dict[str, str], follows: str, follows_not: str
) -> None:
    status, asked, printed = rolled_out(tmp_path, **said)
    assert status == 1, printed
    assert follows in asked[-1] + asked[-2]
    assert not any(follows_not in one for one in asked)
    if "MIGRATED" in said:
        assert "loan-assets-migrate did not complete" in printed
        assert "logs job/loan-assets-migrate" in asked[place_of(asked, "logs")]
