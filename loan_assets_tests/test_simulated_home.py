"""A simulation keeps to a home of its own, to one history, and can be begun anew without a trace of the first time."""

from __future__ import annotations

import os
import time
from pathlib import Path

import dagster as dg
import pytest
from dagster._daemon.types import DaemonHeartbeat

from loan_assets.refusal import BadInput, Refusal
from loan_assets.settings import SIMULATION, Settings
from loan_assets.simulated_home import forget, own_home, typed_with
from loan_assets_tests.conftest import loan_assets


@pytest.fixture
def everyday(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """An everyday home; whatever a test lets this process point at is forgotten after it."""
    for name in ("LOAN_HOME", "DAGSTER_HOME"):
        monkeypatch.setenv(name, os.environ.get(name, ""))
    return Settings.from_environment({"LOAN_HOME": str(tmp_path), "LOAN_SOURCE": "book.csv", "LOAN_LANDING": "s3://in"})


def test_it_lies_below_the_everyday_home_and_everything_of_it_in_it(everyday: Settings) -> None:
    settings = own_home(everyday, "spring", "/data/spring", anew=False)
    assert settings.home == everyday.home / "simulations" / "spring"
    assert settings.source == "book.csv"
    assert settings.landing == str(settings.home / "landing")
    assert (settings.dagster_home / "dagster.yaml").exists()
    assert {path.name for path in everyday.home.iterdir()} == {"simulations"}
    assert own_home(everyday, "spring", "/data/spring", anew=False) == settings


def test_another_history_of_the_same_name_is_refused_unless_the_first_is_forgotten(everyday: Settings) -> None:
    settings = own_home(everyday, "spring", "/data/spring", anew=False)
    (settings.home / "lived").touch()
    with pytest.raises(BadInput, match="begun with another history, /data/spring"):
        own_home(everyday, "spring", "/other/spring", anew=False)
    own_home(everyday, "spring", "/other/spring", anew=True)
    assert not (settings.home / "lived").exists()
    assert {path.name for path in settings.home.parent.iterdir()} == {"spring"}


def test_a_simulation_is_not_begun_in_another_one(everyday: Settings) -> None:
    (everyday.home / SIMULATION).touch()
    with pytest.raises(BadInput, match="is a simulation's home itself"):
        own_home(everyday, "spring", "/data/spring", anew=False)


def test_only_a_simulation_s_home_is_ever_forgotten(everyday: Settings) -> None:
    (everyday.home / "kept").touch()
    with pytest.raises(Refusal, match="no simulation's home"):
        forget(everyday.home)
    assert (everyday.home / "kept").exists()


def test_a_home_that_dagster_works_on_is_not_forgotten(everyday: Settings) -> None:
    settings = own_home(everyday, "spring", "/data/spring", anew=False)
    with dg.DagsterInstance.from_config(str(settings.dagster_home)) as instance:
        heard = DaemonHeartbeat(timestamp=time.time(), daemon_type="SENSOR", daemon_id="one", errors=[])
        instance.add_daemon_heartbeat(heard)
    with pytest.raises(Refusal, match="is open in `dagster dev`"):
        own_home(everyday, "spring", "/data/spring", anew=True)
    with dg.DagsterInstance.from_config(str(settings.dagster_home)) as instance:
        instance.add_daemon_heartbeat(heard._replace(timestamp=time.time() - 90))
    own_home(everyday, "spring", "/data/spring", anew=True)


def test_a_place_that_cannot_be_written_is_named(everyday: Settings) -> None:
    (everyday.home / "simulations").touch()
    with pytest.raises(Refusal, match="simulations/spring cannot be used"):
        own_home(everyday, "spring", "/data/spring", anew=False)


def test_a_command_is_told_as_it_can_be_typed_for_that_home_and_its_policy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LOAN_POLICY", raising=False)
    settings = Settings.from_environment({"LOAN_HOME": str(tmp_path / "a home")})
    plain = f"LOAN_HOME='{tmp_path}/a home' loan-assets dev"
    assert typed_with(settings, "loan-assets dev") == plain
    monkeypatch.setenv("LOAN_POLICY", str(tmp_path / "policy.yaml"))
    assert typed_with(settings, "loan-assets dev") == f"LOAN_POLICY={tmp_path}/policy.yaml {plain}"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--history", "nowhere"), "nowhere is no folder"),
        (("--history", "empty"), "predictions is no folder"),
        (("--history", "old"), "2020-01-01 of"),
        (("--history", "to-come"), "2999-01-01 of"),
        (("--history", "strange"), r"tuesday.parquet is named by no day"),
        (("--history", "old", "--until", "soon"), "--until soon is named by no day"),
        (("--history", "old", "changed-world"), "A scenario and a history were given"),
        (("quiet", "--anew"), "--until and --anew are for a history"),
        (("nonsense",), "changed-world"),
    ],
)
def test_what_cannot_be_lived_through_is_refused_before_anything_is_done(
    arguments: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    for folder, day in {"old": "2020-01-01", "to-come": "2999-01-01", "strange": "tuesday"}.items():
        (tmp_path / folder / "predictions").mkdir(parents=True)
        (tmp_path / folder / "predictions" / f"{day}.parquet").touch()
    (tmp_path / "empty").mkdir()
    done = loan_assets("simulate", *arguments, home=tmp_path)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "simulations").exists()
