"""What the doctor says of the release, and that what it tells people to do does it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from loan_assets import doctor
from loan_assets.books import LoanBook
from loan_assets.findings import Finding
from loan_assets.policy import POLICY
from loan_assets.resources.asset_store import AssetStore
from loan_assets.resources.decisions import MOVED, PERSON, Decisions
from loan_assets.resources.registry import CHALLENGER, CHAMPION, Candidate, RegisteredVersion, Registry
from loan_assets.settings import Settings
from loan_assets_tests.conftest import Home


@pytest.fixture
def home(ran: Home, tmp_path: Path) -> Settings:
    """A home whose champion is in force, copied elsewhere."""
    place = tmp_path / "home"
    shutil.copytree(ran.settings.home, place)
    return Settings.from_environment({"LOAN_HOME": str(place)})


@pytest.fixture
def registry(home: Settings) -> Registry:
    return Registry(tracking_uri=home.mlflow_uri, artifacts=home.mlflow_artifacts)


def release_finding(home: Settings) -> Finding:
    (finding,) = doctor._release(home)  # alone: BentoML would stay on this home for the whole process
    return finding


def second(home: Settings, registry: Registry, book_digest: str) -> int:
    """A second version in the registry, of the same model, which stands as the challenger; returns its number."""
    first: RegisteredVersion = AssetStore(root=str(home.store), keep=POLICY.versions_kept).read(
        "model_version", RegisteredVersion
    )
    evidence = {**registry.tags(first.version), "book_digest": book_digest}
    evidence = {name: value for name, value in evidence.items() if name not in ("identity", "model_digest", "gate")}
    version, is_new = registry.register(
        Candidate(identity="second", model_digest=first.model_digest, evidence=evidence)
    )
    assert is_new
    assert version.alias == CHALLENGER
    return version.version


def client(registry: Registry) -> Any:
    return registry._client()


def aliased(home: Settings, registry: Registry) -> int:
    """Another version, which MLflow calls champion and the pointer does not name."""
    number = second(home, registry, "elsewhere")
    client(registry).set_registered_model_alias("loan-default", CHAMPION, str(number))
    return number


def noted(home: Settings, kind: str, champion: int = 1, evidence: Mapping[str, object] = MappingProxyType({})) -> None:
    """A step more in the journal."""
    decisions = Decisions(folder=str(home.decisions))
    last = decisions.last()
    assert last is not None
    situation = replace(last.situation, champion=champion)
    decisions.record(kind, last.date, (), situation, evidence, after=last.number)


def test_a_release_that_agrees_with_the_registry_and_the_book_is_well(home: Settings) -> None:
    assert release_finding(home).state == "well"


def test_a_release_of_another_model_than_the_registry_says_is_broken(home: Settings, registry: Registry) -> None:
    client(registry).set_model_version_tag("loan-default", "1", "model_digest", "0" * 64)
    finding = release_finding(home)
    assert finding.state == "broken"
    assert "holds another model than the registry's version 1" in finding.found


def test_an_alias_that_was_moved_by_hand_goes_back_by_the_step_that_is_told(home: Settings, registry: Registry) -> None:
    number = aliased(home, registry)
    finding = release_finding(home)
    assert f"version 1 is in force, but the registry's champion is version {number}" in finding.found
    assert finding.next_step.startswith("Materialize champion")
    command = [str(Path(sys.executable).parent / "dagster"), "asset", "materialize", "--select", "champion"]
    environment = {**os.environ, "LOAN_HOME": str(home.home), "DAGSTER_HOME": str(home.dagster_home)}
    done = subprocess.run(
        [*command, "-m", "loan_assets.definitions"],
        env=environment,
        cwd=home.home,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert registry.aliases()[CHAMPION] == 1
    assert release_finding(home).state == "well"


def test_an_alias_that_has_not_followed_a_return_is_told_to(home: Settings, registry: Registry) -> None:
    aliased(home, registry)
    noted(home, MOVED, evidence={"version": 1, "mlflow_knows": False})
    assert release_finding(home).next_step == "`loan-assets put-in-force`: MLflow's alias has not followed yet."


def test_a_pointer_that_lags_behind_a_decision_is_told_to_follow_it(home: Settings, registry: Registry) -> None:
    noted(home, PERSON, champion=aliased(home, registry))
    assert release_finding(home).next_step.endswith("the release follows what was decided.")


def test_a_challenger_trained_on_the_features_of_today_is_told_beside_an_older_champion(
    home: Settings, registry: Registry, book: LoanBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    today = replace(book, as_of=book.as_of.replace(day=28))
    monkeypatch.setattr(doctor, "the_book", lambda: today)
    assert "run `loan-assets run`" in release_finding(home).next_step
    second(home, registry, "of another day")
    assert "run `loan-assets run`" in release_finding(home).next_step
    client(registry).set_model_version_tag("loan-default", "2", "book_digest", today.digest)
    finding = release_finding(home)
    assert "version 2 waits as the challenger" in finding.found
    assert "`loan-assets promote --version 2" in finding.next_step
    assert "loan-assets run" not in finding.next_step
