"""What is drawn and alerted on, asked of a real Prometheus that reads a real endpoint and a real webhook."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from loan_assets.endpoint import Endpoint, served
from loan_assets.settings import Settings
from loan_assets_tests.conftest import Home, loan_assets
from loan_assets_tests.services import free_port, until
from loan_assets_tests.test_alerting import MONITORING, running
from loan_assets_tests.test_boards import ITS_OWN, queries
from loan_assets_tests.test_monitoring_rules import ALERTS, EVERY, NAMES, RECORDS

pytestmark = [
    pytest.mark.production,
    pytest.mark.skipif(not shutil.which("prometheus"), reason="no Prometheus here: apt-get install prometheus"),
]
# What gives nothing in a platform that is well and rests on folders, and why.
EMPTY = {
    'ALERTS{alertstate="firing"}': "no alert fires",
    "max(loan_time_to_revert_seconds)": "no version was ever left again",
    "max by (what) (loan_bucket_away)": "nothing rests in a bucket",
    'sum(rate(loan_shadow_rows_total{agrees="true"}[1h])) / sum(rate(loan_shadow_rows_total[1h]))': "no shadow stands",
}
EMPTY_FIGURES = {"loan_bucket_away": "nothing rests in a bucket"}
# For so long callers ask: rates need a few scrapes, a second apart.
SECONDS = 20.0


@dataclass(frozen=True)
class Watched:
    """A Prometheus that reads an endpoint and a platform."""

    url: str
    endpoint: Endpoint

    def ask(self, path: str, **parameters: str) -> Any:
        """What the API says; fails where it does not say success."""
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{query}", timeout=20) as reply:
            said = json.load(reply)
        assert said["status"] == "success", said
        return said["data"]

    def values(self, expr: str) -> list[float]:
        """The values of an expression now, those left out that are no numbers."""
        found = [float(one["value"][1]) for one in self.ask("query", query=expr)["result"]]
        return [value for value in found if not math.isnan(value)]


@contextmanager
def watched(settings: Settings, folder: Path) -> Iterator[Watched]:
    """The shipped configuration and rules, every second, over an endpoint and a webhook of their own."""
    platform, store = free_port(), free_port()
    made = loan_assets("backup", "--to", str(folder / "backups"), home=settings.home)
    assert made.returncode == 0, made.stderr
    with served(settings) as endpoint:
        ports = {"3100": platform, "8080": endpoint.port, "9093": free_port()}
        for name in ("prometheus.yaml", "rules.yaml", "slos.yaml"):
            text = (MONITORING / name).read_text()
            if name == "prometheus.yaml":
                for shipped, own in ports.items():
                    text = text.replace(f"127.0.0.1:{shipped}", f"127.0.0.1:{own}")
                text = text.replace("15s", "1s")
            assert yaml.safe_load(text)
            (folder / name).write_text(text)
        (folder / "token").write_text("none is asked for")
        webhook = (sys.executable, "-m", "loan_assets.cli", "webhook", "--port", str(platform))
        told = {
            "LOAN_HOME": str(settings.home),
            "LOAN_BACKUPS": str(folder / "backups"),
            "LOAN_COST_PER_CPU_HOUR": "0.05",
        }
        with (
            running("env", *(f"{name}={value}" for name, value in told.items()), *webhook, folder=folder),
            running(
                "prometheus",
                "--config.file=prometheus.yaml",
                f"--web.listen-address=127.0.0.1:{store}",
                f"--storage.tsdb.path={folder}/series",
                folder=folder,
            ),
        ):
            one = Watched(url=f"http://127.0.0.1:{store}", endpoint=endpoint)
            until(lambda: is_ready(one), 60)
            yield one


def is_ready(one: Watched) -> bool:
    try:
        return sum(one.values("up")) == 2
    except (urllib.error.URLError, ConnectionError):
        return False


def asked_for(seconds: float, endpoint: Endpoint) -> None:
    """Callers who ask, known and unknown ones."""
    end, number = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        number += 1
        assert endpoint.post("/predict", {"client_ids": [number, number + 1]}).status == 200
        assert endpoint.post("/predict", {"client_ids": [-number]}).status in (400, 404)
        time.sleep(0.1)


@pytest.fixture(scope="module")
def watching(ran: Home, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """A home in which the graph has run, watched while callers ask."""
    home, folder = tmp_path_factory.mktemp("watched") / "home", tmp_path_factory.mktemp("prometheus")
    shutil.copytree(ran.settings.home, home)
    with watched(Settings.from_environment({"LOAN_HOME": str(home)}), folder) as one:
        asked_for(SECONDS, one.endpoint)
        yield one


def test_every_query_of_every_board_shows_something_or_is_known_to_be_empty(watching: Watched) -> None:
    nothing = {expr: (board, panel) for board, panel, expr in queries() if not watching.values(expr)}
    assert {expr: where for expr, where in nothing.items() if expr not in EMPTY} == {}
    assert set(nothing) == set(EMPTY), "what is said to be empty is not"
    assert len(queries()) > 80
    (took,) = watching.values('scrape_duration_seconds{job="loan-platform"}')
    sys.stdout.write(f"{1000 * took:.0f} ms a scrape of the platform\n")
    assert took < 2.0


def test_every_rule_is_evaluated_and_reads_something(watching: Watched) -> None:
    evaluated = [rule for group in watching.ask("rules")["groups"] for rule in group["rules"]]
    assert len(evaluated) == len(EVERY)
    assert {rule["health"] for rule in evaluated} == {"ok"}, [rule.get("lastError") for rule in evaluated]
    for rule in RECORDS:
        labels = ",".join(f'{name}="{value}"' for name, value in rule.get("labels", {}).items())
        assert watching.values(f"{rule['record']}{{{labels}}}"), rule
    for alert in ALERTS:
        assert watching.values(alert["expr"]) == [], alert["alert"]
        for figure in {*NAMES.findall(alert["expr"])} - ITS_OWN - set(EMPTY_FIGURES):
            assert watching.values(figure), (alert["alert"], figure)
    assert all(not watching.values(figure) for figure in EMPTY_FIGURES)


def test_the_shipped_rules_and_configuration_are_those_that_prometheus_accepts() -> None:
    for kind, names in {"config": ("prometheus.yaml",), "rules": ("rules.yaml", "slos.yaml")}.items():
        syntax = ("--syntax-only",) if kind == "config" else ()
        command = [str(shutil.which("promtool")), "check", kind, *syntax, *names]
        done = subprocess.run(command, cwd=MONITORING, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
