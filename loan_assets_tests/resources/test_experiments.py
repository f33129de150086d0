"""MLflow out of reach, and MLflow moved.

Training must say within seconds that nobody listens or nobody answers; and the places of artifacts are rewritten when
they have moved, never for a setting alone.
"""

import shutil
import socket
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from loan_assets.resources.experiments import connected
from loan_assets_tests.conftest import Home, in_a_fresh_process, loan_assets

# The first call, to a closed port, loads what MLflow loads late; the second is the wait itself.
ASK = """
import time
from loan_assets.refusal import Refusal
from loan_assets.resources.experiments import connected
for uri in ("http://127.0.0.1:9", {uri!r}):
    started = time.monotonic()
    try:
        connected(uri, {artifacts!r})
    except Refusal as refusal:
        said = refusal
print(said)
print(time.monotonic() - started)
"""


@pytest.fixture(params=["nobody listens", "nobody answers"])
def dead_server(request: pytest.FixtureRequest) -> Iterator[str]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        if request.param == "nobody answers":
            taken.listen(16)
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


def test_a_dead_tracking_server_is_named_within_fifteen_seconds(dead_server: str, tmp_path: Path) -> None:
    said = in_a_fresh_process(ASK.format(uri=dead_server, artifacts=str(tmp_path)))
    refusal, seconds = said.stdout.strip().splitlines()
    assert f"MLflow at {dead_server} does not answer" in refusal, said.stderr
    assert "the champion goes on serving" in refusal
    assert float(seconds) < 15  # the client's own bound, with every retry spent; by default it hangs for minutes


@pytest.fixture
def home(ran: Home, tmp_path: Path) -> Path:
    """A home whose MLflow knows where its artifacts are."""
    shutil.copytree(ran.settings.home / "mlflow", tmp_path / "home" / "mlflow")
    follow(tmp_path / "home", tmp_path / "home" / "mlflow" / "artifacts")
    assert places(tmp_path / "home") == {str(tmp_path / "home" / "mlflow" / "artifacts")}
    return tmp_path / "home"


def follow(home: Path, artifacts: Path) -> None:
    connected(f"sqlite:///{home}/mlflow/mlflow.db", str(artifacts))


def places(home: Path) -> set[str]:
    """The folders in which MLflow's tables say that artifacts are."""
    with sqlite3.connect(home / "mlflow" / "mlflow.db") as database:
        queries = (
            "select artifact_location from experiments where name = 'loan-default'",
            "select artifact_uri from runs",
            "select artifact_location from logged_models",
            "select storage_location from model_versions",
        )
        found = [place for query in queries for (place,) in database.execute(query)]
    assert len(found) >= 4
    return {place.removeprefix("file://").split("/artifacts")[0] + "/artifacts" for place in found}


def test_a_setting_that_names_a_folder_without_artifacts_moves_nothing(home: Path, tmp_path: Path) -> None:
    before = places(home)
    (tmp_path / "empty").mkdir()
    follow(home, tmp_path / "empty")
    assert places(home) == before
    (home / "mlflow" / "artifacts").rename(home / "mlflow" / "elsewhere")
    follow(home, tmp_path / "empty")
    assert places(home) == before


def test_artifacts_that_are_still_where_they_were_are_not_left(home: Path, tmp_path: Path) -> None:
    before = places(home)
    shutil.copytree(home / "mlflow" / "artifacts", tmp_path / "copy" / "artifacts")
    follow(home, tmp_path / "copy" / "artifacts")
    assert places(home) == before


def test_a_home_that_was_moved_or_copied_is_followed(home: Path, tmp_path: Path) -> None:
    for place, take in (("copied", shutil.copytree), ("moved", shutil.move)):
        take(str(home), str(tmp_path / place))
        follow(tmp_path / place, tmp_path / place / "mlflow" / "artifacts")
        assert places(tmp_path / place) == {str(tmp_path / place / "mlflow" / "artifacts")}


def test_the_doctor_moves_nothing(home: Path, tmp_path: Path) -> None:
    before = places(home)
    home.rename(tmp_path / "moved")
    examined = loan_assets("doctor", home=tmp_path / "moved")
    assert "champion is version 1" in examined.stdout, examined.stdout + examined.stderr
    assert places(tmp_path / "moved") == before
