"""From a drifting platform to its own rule, by a real Prometheus and a real Alertmanager: in time, and once."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from bento.access import new_token
from loan_assets.reign import Reign
from loan_assets.resources.decisions import PERSON, WATCH
from loan_assets.webhook import webhook_server
from loan_assets_tests.conftest import ROOT
from loan_assets_tests.services import free_port, until
from loan_assets_tests.test_webhook import reign

MONITORING = ROOT / "deploy" / "monitoring"
SECONDS = 30.0
pytestmark = [
    pytest.mark.production,
    pytest.mark.skipif(
        not (shutil.which("prometheus") and shutil.which("prometheus-alertmanager")),
        reason="no Prometheus here: apt-get install prometheus prometheus-alertmanager",
    ),
]
__all__ = ["reign"]


@contextmanager
def running(*command: str, folder: Path) -> Iterator[None]:
    with (folder / f"{command[0]}.log").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
        try:
            yield
        finally:
            process.terminate()
            process.wait(timeout=20)


@contextmanager
def monitored(over: Reign, folder: Path) -> Iterator[None]:
    """The shipped configuration, asked every five seconds, with ports and a token of one's own."""
    secret, entry = new_token("prometheus", frozenset({"admin"}))
    (folder / "tokens").write_text(entry.line() + "\n")
    (folder / "token").write_text(secret)
    platform, alerts, store = free_port(), free_port(), free_port()
    ports = {"127.0.0.1:3100": f"127.0.0.1:{platform}", "127.0.0.1:9093": f"127.0.0.1:{alerts}"}
    faster = {"15s": "5s", "group_wait: 5s": "group_wait: 1s", "1m": "5s", "4h": "5s"}
    for name in ("prometheus.yaml", "alertmanager.yaml", "rules.yaml", "slos.yaml"):
        text = (MONITORING / name).read_text()
        for old, new in {**ports, **(faster if name in ("prometheus.yaml", "alertmanager.yaml") else {})}.items():
            text = text.replace(old, new)
        assert yaml.safe_load(text)
        (folder / name).write_text(text)
    server = webhook_server(over, "127.0.0.1", platform, str(folder / "tokens"))
    thread = threading.Thread(target=server.run)
    thread.start()
    manager = (
        "--config.file=alertmanager.yaml",
        f"--web.listen-address=127.0.0.1:{alerts}",
        "--cluster.listen-address=",
    )
    scraper = ("--config.file=prometheus.yaml", f"--web.listen-address=127.0.0.1:{store}")
    with (
        running("prometheus-alertmanager", *manager, f"--storage.path={folder}/alerts", folder=folder),
        running("prometheus", *scraper, f"--storage.tsdb.path={folder}/series", folder=folder),
    ):
        yield
    server.should_exit = True
    thread.join(timeout=20)


def test_drift_reaches_the_rule_within_half_a_minute_and_once(reign: Reign, tmp_path: Path) -> None:
    def asked() -> int:
        return sum(step.kind == PERSON for step in reign.decisions.steps())

    with monitored(reign, tmp_path):
        time.sleep(12)  # calm, and scraped twice
        assert asked() == 0
        last = reign.decisions.last()
        assert last is not None
        drifting = replace(last.situation, consecutive=3)
        reign.decisions.record(WATCH, last.date, (), drifting, {"shares": {"1": 0.5}}, after=last.number)
        began = time.monotonic()
        until(lambda: asked() > 0, SECONDS)
        took = time.monotonic() - began
        sys.stdout.write(f"{took:.1f} s from the figure to the rule\n")
        step = reign.decisions.last()
        assert step is not None
        assert step.evidence["alarms"] == ["alert DataDriftDetected"]
        time.sleep(20)  # repeated three times
        assert asked() == 1
