"""The alerts, the objectives behind them, and their runbooks: each fires where it must, and is told what to do."""

from __future__ import annotations

import re
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from bento import metrics
from loan_assets.books import LoanBook
from loan_assets.figures import page
from loan_assets.journal_figures import decided
from loan_assets.platform_metrics import PlatformMetrics
from loan_assets.policy import POLICY
from loan_assets.resources.decisions import MOVED, Decisions
from loan_assets_tests.conftest import ROOT, Home
from loan_assets_tests.test_platform_metrics import recorded

MONITORING, RUNBOOKS = ROOT / "deploy" / "monitoring", ROOT / "deploy" / "runbooks"
# The rules of each file, and the files that test them.
TESTED = {"rules.yaml": ("rules_test.yaml",), "slos.yaml": ("slos_test.yaml", "slos_days_test.yaml")}
RULES = {file: yaml.safe_load((MONITORING / file).read_text()) for file in TESTED}
EVERY = [rule for rules in RULES.values() for group in rules["groups"] for rule in group["rules"]]
ALERTS = [rule for rule in EVERY if "alert" in rule]
RECORDS = [rule for rule in EVERY if "record" in rule]
NAMES = re.compile(r"(?<![\w:])(?:slo:[\w:]+|loan_\w+|evidently_\w+|up)(?![\w(])")
WINDOWS = ("5m", "30m", "1h", "2h", "6h", "1d", "3d")
COMMANDS = {"backup", "decisions", "doctor", "watch", "webhook", "restore", "rollback", "run", "token"}
PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed: apt-get install prometheus")


def read_of(ran: Home, book: LoanBook, folder: Path) -> set[str]:
    """The name of every figure that a platform with a past and an endpoint show."""
    journal = recorded(folder)
    (*_, last) = journal.steps()
    returned = {"version": 1, "before": 2, "seconds": 2.5, "decided_in": last.number}
    journal.record(MOVED, last.date, (), last.situation, returned, after=last.number)
    steps = journal.steps()
    with dg.DagsterInstance.from_config(str(ran.settings.dagster_home)) as instance:
        metrics_of = PlatformMetrics(Decisions.over(ran.settings), instance, book, POLICY, backups=str(folder))
        lived = metrics_of.page(datetime.now(UTC))
    told = page(decided(steps, POLICY, datetime.now(UTC), (0.0,), (0.0,)))
    content = (lived + told + metrics.page()).decode()
    return {family.name for family in text_string_to_metric_families(content)} | {"up"}


def test_every_rule_reads_figures_that_there_are(ran: Home, book: LoanBook, tmp_path: Path) -> None:
    there = read_of(ran, book, tmp_path) | {rule["record"] for rule in RECORDS}
    for rule in EVERY:
        named = NAMES.findall(rule["expr"])
        assert named or rule["expr"].startswith("vector("), rule
        for name in named:
            assert name in there or re.sub(r"_(bucket|count|sum|total)$", "", name) in there, (rule["expr"], name)


def test_every_alert_has_a_runbook_with_numbered_steps_and_every_runbook_an_alert() -> None:
    fired = {path.stem for path in RUNBOOKS.glob("*.md") if "\nFires when " in path.read_text()}
    assert fired == {alert["alert"] for alert in ALERTS}
    for alert in ALERTS:
        text = (ROOT / alert["annotations"]["runbook_url"]).read_text()
        assert text.startswith(f"# {alert['alert']}\n")
        waits = f" for {alert['for']}" if "for" in alert else ""
        assert f"Fires when `{alert['expr']}`{waits}." in text
        assert len(re.findall(r"^\d\. ", text, re.MULTILINE)) >= 2
        for command in re.findall(r"(?:`|^)loan-assets ([a-z-]+)", text, re.MULTILINE):
            assert command in COMMANDS


def test_every_objective_is_a_rule_with_its_number_and_its_bound_and_has_a_reason() -> None:
    promised = yaml.safe_load((MONITORING / "objectives.yaml").read_text())
    objectives = {one["slo"]: one for one in promised["objectives"]}
    said = {
        rule["labels"]["slo"]: float(rule["expr"].removeprefix("vector(").removesuffix(")"))
        for rule in RECORDS
        if rule["record"] == "slo:loan_objective:ratio"
    }
    assert said == {slo: one["objective"] for slo, one in objectives.items()}
    assert all(one["reason"] and one["good"] for one in objectives.values())
    # The fastest burn must be possible: more than all cannot go wrong.
    assert all(14.4 * (1 - objective) < 1 for objective in said.values())
    of_slo = {rule["labels"]["slo"]: rule["expr"] for rule in RECORDS if rule["record"] == "slo:loan_errors:ratio_5m"}
    assert f'le="{objectives["latency"]["bound"]}"' in of_slo["latency"]
    assert objectives["latency"]["bound"] in metrics.SECONDS
    (in_force,) = (rule["expr"] for rule in RECORDS if rule["record"] == "slo:loan_in_force:bool")
    assert in_force.endswith(f"<= bool {objectives['in_force']['bound']}")
    for slo in objectives:
        errors = {rule["record"]: rule["expr"] for rule in RECORDS if rule.get("labels") == {"slo": slo}}
        wanted = {f"slo:loan_errors:ratio_{window}": of_slo[slo].replace("[5m]", f"[{window}]") for window in WINDOWS}
        assert {name: expr for name, expr in errors.items() if "errors" in name} == wanted


def test_a_budget_is_watched_over_two_windows_at_four_speeds() -> None:
    speeds = {}
    for rule in ALERTS:
        found = re.findall(r"slo:loan_errors:ratio_(\w+) > ([\d.]+) \* \(1 - slo:loan_objective:ratio\)", rule["expr"])
        if found:
            (long, speed), (short, same) = found
            assert speed == same
            speeds[rule["alert"]] = (long, short, float(speed), rule["labels"]["severity"])
    assert sorted(speeds.values()) == [
        ("1d", "2h", 3.0, "warning"),
        ("1h", "5m", 14.4, "critical"),
        ("3d", "6h", 1.0, "warning"),
        ("6h", "30m", 6.0, "critical"),
    ]


def promtool(*arguments: str, folder: Path = MONITORING) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(PROMTOOL), *arguments], cwd=folder, capture_output=True, text=True, check=False)


@needs_promtool
@pytest.mark.parametrize("file", TESTED)
def test_each_alert_fires_where_it_must_and_just_where_it_must_not(file: str) -> None:
    checked = promtool("check", "rules", file)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    tested = promtool("test", "rules", *TESTED[file])
    assert tested.returncode == 0, tested.stdout + tested.stderr
    for group in RULES[file]["groups"]:
        for alert in group["rules"]:
            if "alert" in alert:
                fires = [bool(one["exp_alerts"]) for _, test in own_tests(file, alert["alert"]) for one in judged(test)]
                assert set(fires) == {True, False}, alert["alert"]


def judged(test: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = test.get("alert_rule_test", [])
    return found


def own_tests(file: str, alert: str) -> list[tuple[str, dict[str, Any]]]:
    """The tests of one alert, each with the file that it is in."""
    return [
        (name, test)
        for name in TESTED[file]
        for test in yaml.safe_load((MONITORING / name).read_text())["tests"]
        if any(one["alertname"] == alert for one in judged(test))
    ]


@needs_promtool
@pytest.mark.parametrize("alert", [alert["alert"] for alert in ALERTS])
def test_an_alert_that_never_or_always_fires_does_not_pass(alert: str, tmp_path: Path) -> None:
    (file,) = [name for name in TESTED if own_tests(name, alert)]
    own = own_tests(file, alert)
    (name,) = {name for name, _ in own}
    tests = yaml.safe_load((MONITORING / name).read_text())
    (tmp_path / name).write_text(yaml.safe_dump({**tests, "tests": [test for _, test in own]}))
    shutil.copy(MONITORING / file, tmp_path)
    assert promtool("test", "rules", name, folder=tmp_path).returncode == 0
    for expr in ("vector(1) > 2", "vector(1)"):
        wrong = yaml.safe_load((MONITORING / file).read_text())
        (rule,) = [one for group in wrong["groups"] for one in group["rules"] if one.get("alert") == alert]
        rule["expr"] = expr
        (tmp_path / file).write_text(yaml.safe_dump(wrong))
        assert promtool("test", "rules", name, folder=tmp_path).returncode != 0
