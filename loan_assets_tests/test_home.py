"""The home that commands agree on: the one they are given, else the folder's own, and one history in each."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest
import yaml

from loan_assets.home import OURS, prepare
from loan_assets.refusal import Refusal
from loan_assets.settings import Settings
from loan_assets_tests.conftest import ROOT, loan_assets

# What `dagster dev` and `loan-assets` see, started in a folder, each reading its `.env` in its own way.
READ = """
import logging, os
from dagster._cli.utils import _inject_local_env_file
from loan_assets.cli import settings_here

given = dict(os.environ)
with _inject_local_env_file(logging.getLogger()):
    print(os.environ["LOAN_HOME"], os.environ["DAGSTER_HOME"])
os.environ.clear()
os.environ.update(given)
settings = settings_here()
print(settings.home, os.environ["DAGSTER_HOME"])
"""


def seen(folder: Path, **variables: str) -> set[str]:
    inherited = {name: value for name, value in os.environ.items() if name not in ("LOAN_HOME", "DAGSTER_HOME")}
    done = subprocess.run(
        [sys.executable, "-c", READ],
        env={**inherited, **variables},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines())


def home_and_history(home: Path) -> set[str]:
    return {f"{home} {home}/dagster"}


def init(folder: Path, home: Path | str, *options: str) -> None:
    done = loan_assets("init", *options, home=folder, LOAN_HOME=str(home))
    assert done.returncode == 0, done.stderr


def test_a_home_that_was_given_once_is_not_kept(tmp_path: Path) -> None:
    folder = tmp_path / "clone"
    folder.mkdir()
    init(folder, tmp_path / "given")
    assert (tmp_path / "given" / "dagster" / "dagster.yaml").exists()
    assert seen(folder) == home_and_history(folder / ".loan_assets")


def test_dagster_and_the_command_see_the_home_they_are_given_with_its_history(tmp_path: Path) -> None:
    folder = tmp_path / "clone"
    folder.mkdir()
    init(folder, "")
    assert seen(folder, LOAN_HOME=str(tmp_path / "given")) == home_and_history(tmp_path / "given")
    assert seen(folder) == home_and_history(folder / ".loan_assets")


def test_a_home_is_kept_when_that_is_asked_for_and_from_then_on(tmp_path: Path) -> None:
    folder = tmp_path / "clone"
    folder.mkdir()
    init(folder, tmp_path / "kept", "--here")
    init(folder, tmp_path / "given")
    assert seen(folder) == home_and_history(tmp_path / "kept")
    assert seen(folder, LOAN_HOME=str(tmp_path / "given")) == home_and_history(tmp_path / "given")


@pytest.mark.parametrize("before", ["", "OTHER=1\nLOAN_HOME=/written/before\nDAGSTER_HOME=/written/before/dagster\n"])
def test_lines_of_others_are_left_alone_and_a_plain_home_of_ours_is_read(tmp_path: Path, before: str) -> None:
    (tmp_path / ".env").write_text(before)
    init(tmp_path, tmp_path / "given")
    first = (tmp_path / ".env").read_text()
    init(tmp_path, tmp_path / "given")
    assert (tmp_path / ".env").read_text() == first
    assert first.startswith("OTHER=1\n") == bool(before)
    assert seen(tmp_path) == home_and_history(Path("/written/before") if before else tmp_path / ".loan_assets")


def test_dagster_sends_nothing_to_its_makers_and_asks_nobody_for_an_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LOAN_HOME", "DAGSTER_HOME"):
        monkeypatch.setenv(name, "somewhere")
    settings = prepare(Settings.from_environment({"LOAN_HOME": str(tmp_path)}))
    with dg.DagsterInstance.from_config(str(settings.dagster_home)) as instance:
        assert not instance.telemetry_enabled
        assert not instance.nux_enabled
    shipped = yaml.safe_load((ROOT / "deploy" / "k8s" / "base" / "dagster.yaml").read_text())
    assert shipped["telemetry"] == shipped["nux"] == {"enabled": False}


def test_dagster_s_settings_follow_ours_and_those_of_a_person_are_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LOAN_HOME", "DAGSTER_HOME"):  # what `prepare` sets is put back
        monkeypatch.setenv(name, "somewhere")
    named = {"LOAN_HOME": str(tmp_path), "LOAN_DAGSTER_STORAGE": "postgresql://host/dagster"}
    instance = tmp_path / "dagster" / "dagster.yaml"
    prepare(Settings.from_environment({"LOAN_HOME": str(tmp_path)}))
    assert "postgres" not in instance.read_text()
    for before in (instance.read_text(), OURS[1] + "\ntelemetry:\n  enabled: false\n"):
        instance.write_text(before)
        prepare(Settings.from_environment(named))
        assert "env: LOAN_DAGSTER_STORAGE" in instance.read_text()
    instance.write_text("telemetry: {enabled: false}\n")
    with pytest.raises(Refusal, match="does not name the storage that LOAN_DAGSTER_STORAGE says"):
        prepare(Settings.from_environment(named))
    assert instance.read_text() == "telemetry: {enabled: false}\n"
