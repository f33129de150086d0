import re
from pathlib import Path

from loan_assets.settings import SIMULATION, Settings
from loan_assets_tests.conftest import ROOT

PROFILE = (ROOT / "deploy" / "embedded.env").read_text()


def test_the_embedded_profile_says_what_happens_when_nothing_is_set() -> None:
    values = dict(line.split("=", 1) for line in PROFILE.splitlines() if re.match(r"LOAN_\w+=", line))
    assert Settings.from_environment(values) == Settings.from_environment({})


def test_the_embedded_profile_names_every_variable_that_is_read() -> None:
    read = set(re.findall(r'"(LOAN_\w+)"', (ROOT / "loan_assets" / "settings.py").read_text()))
    assert read | {"LOAN_BOOK"} == set(re.findall(r"LOAN_\w+(?==)", PROFILE))


def test_everything_follows_the_home() -> None:
    settings = Settings.from_environment({"LOAN_HOME": "/somewhere/else"})
    home = Path("/somewhere/else")
    for place in (settings.store, settings.releases, settings.feast, settings.dagster_home, settings.bentoml_home):
        assert place.is_relative_to(home)
    assert settings.mlflow_uri == "sqlite:////somewhere/else/mlflow/mlflow.db"


def test_a_variable_set_to_nothing_is_not_set() -> None:
    named = re.findall(r"LOAN_\w+(?==)", PROFILE)
    assert Settings.from_environment(dict.fromkeys(named, "")) == Settings.from_environment({})


def test_nothing_of_a_simulation_is_anywhere_but_in_its_home(tmp_path: Path) -> None:
    elsewhere = dict.fromkeys(re.findall(r"LOAN_\w+(?==)", PROFILE), "s3://somewhere/else")
    given = {**elsewhere, "LOAN_HOME": str(tmp_path)}
    assert Settings.from_environment(given).outcomes == "s3://somewhere/else"
    (tmp_path / SIMULATION).touch()
    alone = Settings.from_environment({"LOAN_HOME": str(tmp_path), "LOAN_SOURCE": elsewhere["LOAN_SOURCE"]})
    assert Settings.from_environment(given) == alone
