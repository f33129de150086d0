"""What Prometheus reads of the platform, and the alerts on it: each fires where it must, and is told what to do."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from bento import metrics
from loan_assets.credit.succession import Action, Challenger, Episode, Kind, Situation
from loan_assets.platform_metrics import page
from loan_assets.policy import POLICY
from loan_assets.resources.decisions import FIRST, GATE, MOVED, WATCH, Decisions
from loan_assets_tests.conftest import ROOT

MONITORING, RUNBOOKS = ROOT / "deploy" / "monitoring", ROOT / "deploy" / "runbooks"
RULES = yaml.safe_load((MONITORING / "rules.yaml").read_text())
ALERTS = [rule for group in RULES["groups"] for rule in group["rules"]]
PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed: apt-get install prometheus")
DAY = "2026-11-24"


def figures(content: bytes) -> dict[str, float]:
    """Every sample by its name and labels."""
    families = text_string_to_metric_families(content.decode())
    return {
        " ".join((sample.name, *sample.labels.values())): sample.value
        for family in families
        for sample in family.samples
    }


def recorded(folder: Path) -> Decisions:
    """A journal: version 1 stands, inputs move, version 2 takes over and is left again."""
    journal = Decisions(folder=str(folder))

    def put(kind: str, situation: Situation, *kinds: Kind, **evidence: object) -> None:
        actions = [Action(kind=one, cause="why", version=situation.champion) for one in kinds]
        steps = journal.steps()
        journal.record(kind, DAY, actions, situation, evidence, after=len(steps))

    first = Situation(champion=1, newest=1)
    put(FIRST, first, Kind.PROMOTE)
    put(MOVED, first, version=1, before=0, seconds=0.5, decided_in=1)
    moved = replace(first, consecutive=3, retrained=(DAY,), episode=Episode(since=DAY, opened=DAY, causes=("inputs",)))
    on_trial = replace(moved, challenger=Challenger(number=2, made=DAY))
    put(WATCH, on_trial, Kind.ALARM, Kind.RETRAIN, shares={"1": 0.42})
    second = replace(on_trial, champion=2, archived=(1,), consecutive=0, challenger=None)
    put(GATE, second, Kind.PROMOTE, challenger=2)
    put(MOVED, second, version=2, before=1, seconds=1.5, decided_in=4)
    back = replace(second, champion=1, archived=(2,), episode=None)
    put(WATCH, back, Kind.ROLLBACK, shares={"1": 0.05, "2": 0.6})
    return journal


def test_the_page_says_what_the_journal_says(tmp_path: Path) -> None:
    journal = recorded(tmp_path)
    steps = journal.steps()
    now = datetime.fromisoformat(steps[-1].at) + timedelta(seconds=600)
    trial = figures(page(steps[:3], None, POLICY, now))
    assert trial["evidently_data_drift_score"] == 0.42
    assert trial["loan_drift_consecutive_breaches"] == 3
    assert (trial["loan_question_open"], trial["loan_challenger_version"]) == (1, 2)
    left = POLICY.succession.budget - ((now.date() - datetime.fromisoformat(DAY).date()).days < 30)
    assert trial["loan_retrainings_left"] == left
    waits = figures(page(steps, None, POLICY, now))
    assert waits["evidently_data_drift_score"] == 0.05
    assert waits["loan_champion_version"] == 1
    assert waits["loan_decided_not_in_force_seconds"] == pytest.approx(600, abs=1)
    assert (waits["loan_decisions promote"], waits["loan_decisions rollback"]) == (2, 1)
    assert "loan_time_to_revert_seconds" not in waits
    evidence = {"version": 1, "before": 2, "seconds": 2.5, "decided_in": 6}
    journal.record(MOVED, DAY, (), steps[-1].situation, evidence, after=6)
    done = figures(page(journal.steps(), None, POLICY, datetime.now(UTC)))
    assert (done["loan_time_to_revert_seconds"], done["loan_decided_not_in_force_seconds"]) == (2.5, 0)


def test_runs_are_counted(tmp_path: Path) -> None:
    @dg.op
    def fail() -> None:
        raise dg.Failure("the store is away")

    @dg.job
    def broken() -> None:
        fail()

    with dg.DagsterInstance.ephemeral() as instance:
        instance.create_run_for_job(broken, status=dg.DagsterRunStatus.STARTED)
        broken.execute_in_process(instance=instance, raise_on_error=False)
        now = datetime.now(UTC)
        said = figures(page(Decisions(folder=str(tmp_path)).steps(), instance, POLICY, now))
        assert (said["loan_runs executed"], said["loan_runs queued"], said["loan_failed_runs"]) == (1, 0, 1)
        later = figures(page((), instance, POLICY, now + timedelta(hours=2)))
        assert later["loan_failed_runs"] == 0


def test_every_alert_reads_figures_that_there_are(tmp_path: Path) -> None:
    steps = recorded(tmp_path).steps()
    with dg.DagsterInstance.ephemeral() as instance:
        content = page(steps, instance, POLICY, datetime.now(UTC)).decode() + metrics.page().decode()
    there = {family.name for family in text_string_to_metric_families(content)} | {"up"}
    for alert in ALERTS:
        named = re.findall(r"\b(?:loan_\w+|up)\b", alert["expr"])
        assert named, alert
        for name in named:
            assert re.sub(r"_(bucket|count|sum)$", "", name) in there, (alert["alert"], name)


def test_every_alert_has_a_runbook_with_numbered_steps_and_every_runbook_an_alert() -> None:
    assert {path.stem for path in RUNBOOKS.glob("*.md")} == {alert["alert"] for alert in ALERTS}
    for alert in ALERTS:
        text = (ROOT / alert["annotations"]["runbook_url"]).read_text()
        assert text.startswith(f"# {alert['alert']}\n")
        assert alert["expr"] in text
        assert len(re.findall(r"^\d\. ", text, re.MULTILINE)) >= 2
        for command in re.findall(r"`loan-assets ([a-z-]+)", text):
            assert command in {"decisions", "doctor", "watch", "webhook", "rollback"}


def promtool(*arguments: str, folder: Path = MONITORING) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(PROMTOOL), *arguments], cwd=folder, capture_output=True, text=True, check=False)


@needs_promtool
def test_each_alert_fires_where_it_must_and_just_where_it_must_not() -> None:
    checked = promtool("check", "rules", "rules.yaml")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    tested = promtool("test", "rules", "rules_test.yaml")
    assert tested.returncode == 0, tested.stdout + tested.stderr
    said = (MONITORING / "rules_test.yaml").read_text()
    assert all(said.count(f"alertname: {alert['alert']}\n") == 2 for alert in ALERTS)


@needs_promtool
@pytest.mark.parametrize("alert", [alert["alert"] for alert in ALERTS])
def test_an_alert_that_never_or_always_fires_does_not_pass(alert: str, tmp_path: Path) -> None:
    shutil.copy(MONITORING / "rules_test.yaml", tmp_path)
    for expr in ("vector(1) > 2", "vector(1)"):
        wrong = yaml.safe_load((MONITORING / "rules.yaml").read_text())
        (rule,) = [one for group in wrong["groups"] for one in group["rules"] if one["alert"] == alert]
        rule["expr"] = expr
        (tmp_path / "rules.yaml").write_text(yaml.safe_dump(wrong))
        assert promtool("test", "rules", "rules_test.yaml", folder=tmp_path).returncode != 0
