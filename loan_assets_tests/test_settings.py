import re
from pathlib import Path

import pytest

from bento.places import Places
from loan_assets.connections import connections_of, is_encrypted
from loan_assets.place import place_at
from loan_assets.refusal import BadInput
from loan_assets.settings import ON_KUBERNETES, RATES, SIMULATION, Settings
from loan_assets_tests.conftest import ROOT

PRODUCTION = (ROOT / "deploy" / "production.env").read_text()
# Files that whoever deploys puts there.
ON_THE_MACHINE = {"LOAN_TOKENS", "LOAN_MACHINES", *RATES}
# What says how tables are computed, which is no place.
MACHINERY = {"LOAN_ENGINE", "LOAN_SPARK_MASTER", "LOAN_SPARK_CONF"}
PROFILE = (ROOT / "deploy" / "embedded.env").read_text()


def test_the_embedded_profile_says_what_happens_when_nothing_is_set() -> None:
    values = dict(line.split("=", 1) for line in PROFILE.splitlines() if re.match(r"LOAN_\w+=", line))
    assert Settings.from_environment(values) == Settings.from_environment({})


def test_the_embedded_profile_names_every_variable_that_is_read() -> None:
    read = set(re.findall(r'"(LOAN_\w+)"', (ROOT / "loan_assets" / "settings.py").read_text()))
    assert read | {"LOAN_BOOK"} == set(re.findall(r"LOAN_\w+(?==)", PROFILE))


def test_the_production_profile_moves_every_place_elsewhere_and_nothing_travels_in_the_clear(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    values = dict(line.split("=", 1) for line in PRODUCTION.splitlines() if re.match(r"\w+=", line))
    read = set(re.findall(r'"(LOAN_\w+)"', (ROOT / "loan_assets" / "settings.py").read_text()))
    assert {name for name in values if name.startswith("LOAN_")} == (read | {"LOAN_BOOK"}) - ON_THE_MACHINE - MACHINERY
    known = connections_of(Settings.from_environment(values))
    deliveries = {"LOAN_BOOK", "LOAN_HOME", "LOAN_EXECUTOR", "LOAN_SOURCE", "LOAN_LANDING", "LOAN_OUTCOMES"}
    deliveries |= {"LOAN_BACKUPS"}  # runs have nothing to do there
    assert {one.variable for one in known} | deliveries == {name for name in values if name.startswith("LOAN_")}
    assert all(is_encrypted(one.place) for one in known)


@pytest.mark.parametrize(
    ("place", "endpoint", "encrypted"),
    [
        ("postgresql://u@db.internal/d", "", False),
        ("postgresql://u@db.internal/d?sslmode=prefer", "", False),
        ("postgresql://u@db.internal/d?sslmode=verify-full", "", True),
        ("postgresql://u@127.0.0.1/d", "", True),
        ("redis://redis.internal:6379/0", "", False),
        ("rediss://redis.internal:6379/0", "", True),
        ("http://mlflow.internal", "", False),
        ("https://mlflow.internal", "", True),
        ("s3://bank/store", "", True),
        ("s3://bank/store", "http://store.internal:9000", False),
        ("s3://bank/store", "http://127.0.0.1:9000", True),
        ("s3://bank/store", "https://store.internal", True),
    ],
)
def test_whether_a_place_is_reached_with_encryption(
    place: str, endpoint: str, encrypted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    assert is_encrypted(place) is encrypted


def test_copies_of_different_buckets_are_kept_apart() -> None:
    one, other = (
        Settings.from_environment({"LOAN_HOME": "/home", "LOAN_DECISIONS": f"s3://{bank}/decisions"})
        for bank in ("test", "bank")
    )
    assert one.decisions != other.decisions
    assert one.decisions.is_relative_to("/home/copies")


def test_everything_follows_the_home() -> None:
    settings = Settings.from_environment({"LOAN_HOME": "/somewhere/else"})
    home = Path("/somewhere/else")
    for place in (settings.store, settings.releases, settings.feast, settings.dagster_home, settings.bentoml_home):
        assert place.is_relative_to(home)
    assert settings.mlflow_uri == "sqlite:////somewhere/else/mlflow/mlflow.db"


def test_a_variable_set_to_nothing_is_not_set() -> None:
    named = re.findall(r"LOAN_\w+(?==)", PROFILE)
    assert Settings.from_environment(dict.fromkeys(named, "")) == Settings.from_environment({})


def test_an_engine_that_there_is_not_is_refused_by_the_name_of_its_variable() -> None:
    assert Settings.from_environment({"LOAN_ENGINE": "spark"}).engine == "spark"
    with pytest.raises(BadInput, match=r"LOAN_ENGINE is 'Spark', which is no engine. Set it to `embedded` or `spark`"):
        Settings.from_environment({"LOAN_ENGINE": "Spark"})


@pytest.mark.parametrize("place", ["gcs://bank/x", "s3a://bank/x", "S3://bank/x", "file:///disk/x", "s3:/bank/x"])
def test_a_url_that_is_no_place_of_ours_is_refused_and_not_taken_for_a_folder(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LOAN_STORE", "LOAN_PREDICTIONS", "LOAN_BENTOS", "LOAN_ONLINE"):
        with pytest.raises(
            BadInput, match=rf"{name} begins with \w+:, .* Name a folder, or a place in s3://, gs://, az"
        ):
            Settings.from_environment({"LOAN_HOME": str(tmp_path), name: place})
    with pytest.raises(BadInput, match="no place of ours"):
        place_at(place)
    monkeypatch.setenv("LOAN_RELEASES", place)
    with pytest.raises(BadInput, match="LOAN_RELEASES begins with"):
        Places.from_environment(tmp_path)


def test_nothing_of_a_simulation_is_anywhere_but_in_its_home(tmp_path: Path) -> None:
    # A rate is no place: what runs cost is asked of a simulation as well.
    places = set(re.findall(r"LOAN_\w+(?==)", PROFILE)) - set(RATES)
    elsewhere = dict.fromkeys(places, "s3://somewhere/else")
    machinery = {"LOAN_EXECUTOR": ON_KUBERNETES, "LOAN_ENGINE": "spark"}
    elsewhere["LOAN_ONLINE"] = "redis://somewhere"
    given = {**elsewhere, "LOAN_HOME": str(tmp_path), **machinery}
    assert Settings.from_environment(given).outcomes == "s3://somewhere/else"
    (tmp_path / SIMULATION).touch()
    alone = Settings.from_environment({"LOAN_HOME": str(tmp_path), "LOAN_SOURCE": elsewhere["LOAN_SOURCE"]})
    assert Settings.from_environment(given) == alone


def test_a_rate_is_a_price_an_hour_or_refused_and_there_is_none_by_default() -> None:
    assert Settings.from_environment({}).cost_per_cpu_hour is None
    assert Settings.from_environment({"LOAN_COST_PER_GIGABYTE_HOUR": "0.0025"}).cost_per_gigabyte_hour == 0.0025
    for told in ("dear", "-1", "nan", "inf"):
        with pytest.raises(BadInput, match="LOAN_COST_PER_CPU_HOUR is no price"):
            Settings.from_environment({"LOAN_COST_PER_CPU_HOUR": told})
