"""The registry after a kill, a race, a deposed champion and a move: always a gated champion, never two, never none."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from loan_assets.refusal import Refusal
from loan_assets.resources.registry import CHALLENGER, CHAMPION, Candidate, RegisteredVersion, Registry
from loan_assets_tests.conftest import Home


@pytest.fixture
def moved(ran: Home, tmp_path: Path) -> Registry:
    """The registry of a home that was copied elsewhere, without its versions."""
    shutil.copytree(ran.settings.home / "mlflow", tmp_path / "mlflow")
    registry = Registry(
        tracking_uri=f"sqlite:///{tmp_path}/mlflow/mlflow.db", artifacts=str(tmp_path / "mlflow" / "artifacts")
    )
    registry._client().delete_registered_model("loan-default")
    return registry


@pytest.fixture
def candidate(ran: Home) -> Candidate:
    from loan_assets.credit.training import FittedModel

    model: FittedModel = ran.read("default_model", FittedModel)
    return Candidate(identity="first", model_digest=model.model_digest, evidence={"oof_auc": "0.79"})


class Killed(BaseException):
    """What a kill looks like from inside: nothing after it runs."""


CALLS = ("create_registered_model", "create_model_version", "set_model_version_tag", "set_registered_model_alias")


@pytest.fixture(params=[(call, moment) for call in CALLS for moment in ("before", "after")])
def killed_at(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow

    call, moment = request.param
    through = getattr(mlflow.MlflowClient, call)

    def killed(self: Any, *arguments: Any, **options: Any) -> None:
        monkeypatch.setattr(mlflow.MlflowClient, call, through)
        if moment == "after":
            through(self, *arguments, **options)
        raise Killed

    monkeypatch.setattr(mlflow.MlflowClient, call, killed)


def test_a_kill_at_any_call_is_mended_by_registering_again(
    moved: Registry, candidate: Candidate, killed_at: None
) -> None:
    with pytest.raises(Killed):
        moved.register(candidate)
    champion = moved.aliases().get(CHAMPION)
    assert champion is None or "gate" in moved.tags(champion)
    version, _ = moved.register(candidate)
    assert version.alias == CHAMPION
    assert moved.aliases() == {CHAMPION: version.version}
    assert moved.register(candidate) == (version, False)


def test_registering_the_same_candidate_at_once_makes_one_version(moved: Registry, candidate: Candidate) -> None:
    found: list[tuple[RegisteredVersion, bool]] = []
    racers = [threading.Thread(target=lambda: found.append(moved.register(candidate))) for _ in range(3)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    assert sorted(is_new for _, is_new in found) == [False, False, True]
    assert {(version.version, version.alias) for version, _ in found} == {(1, CHAMPION)}


def test_another_threshold_is_another_version_and_stands_as_challenger(moved: Registry, candidate: Candidate) -> None:
    from dataclasses import replace

    moved.register(candidate)
    second, is_new = moved.register(replace(candidate, identity="same trees, another threshold"))
    assert (second.version, second.alias, is_new) == (2, CHALLENGER, True)
    assert moved.aliases() == {CHAMPION: 1, CHALLENGER: 2}


def test_artifacts_of_a_moved_home_are_found_and_written_where_it_is_now(moved: Registry, ran: Home) -> None:
    client = moved._client()
    experiment = client.get_experiment_by_name("loan-default")
    runs = client.search_runs([experiment.experiment_id])
    places = [experiment.artifact_location, *(run.info.artifact_uri for run in runs)]
    assert len(places) > 1
    for place in places:
        assert str(ran.settings.home) not in place
        assert Path(place.removeprefix("file://")).is_dir()


def test_a_registry_whose_champion_is_not_the_one_in_force_fails_its_check_and_says_so(moved: Registry) -> None:
    from loan_assets.assets.succession import Champion, champion_was_judged

    judged = champion_was_judged(registry=moved, champion=Champion(version=1, digest="", decided_in=1, seconds=0.0))
    assert isinstance(judged, dg.AssetCheckResult)
    assert (judged.passed, judged.description) == (False, "the registry's champion is None, the one in force is 1")


def test_a_promotion_moves_the_champion_and_leaves_no_challenger(moved: Registry, candidate: Candidate) -> None:
    from dataclasses import replace

    moved.register(candidate)
    second, _ = moved.register(replace(candidate, identity="second", standing="on trial"))
    assert moved.aliases() == {CHAMPION: 1, CHALLENGER: second.version}
    moved.judge(second.version, "promoted: better")
    moved.promote(second.version)
    assert moved.aliases() == {CHAMPION: second.version}
    assert moved.tags(second.version)["gate"] == "promoted: better"


def test_a_version_that_was_refused_is_no_challenger_any_more(moved: Registry, candidate: Candidate) -> None:
    from dataclasses import replace

    moved.register(candidate)
    second, _ = moved.register(replace(candidate, identity="second", standing="on trial"))
    moved.judge(second.version, "refused: not better")
    assert moved.aliases() == {CHAMPION: 1}


def test_a_version_that_nobody_judged_cannot_be_promoted(moved: Registry, candidate: Candidate) -> None:
    version, _ = moved.register(candidate)
    moved._client().delete_model_version_tag("loan-default", str(version.version), "gate")
    with pytest.raises(Refusal, match="Version 1 was never judged"):
        moved.promote(version.version)
