"""What the tests share: the real book, and one real run of the whole graph in a home of its own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from loan_assets.books import LoanBook, the_book
from loan_assets.credit.backtest import DayDecided, Replay
from loan_assets.policy import POLICY
from loan_assets.policy_file import policy_of
from loan_assets.release import REFERENCE, write_release
from loan_assets.resources.asset_store import AssetStore
from loan_assets.resources.loan_source import LoanSource
from loan_assets.resources.release_store import ReleaseStore
from loan_assets.settings import Settings
from loan_assets_tests.prepared import Elsewhere, once
from loan_assets_tests.services import S3, Postgres, RedisServer
from loan_assets_tests.small_history import POLICY_TEXT, Tables, history_in, small_history
from loan_assets_tests.small_history import backtest as replay_by_command

ROOT = Path(__file__).resolve().parents[1]
# What may rest in a bucket.
PLACES = ("store", "feast_offline", "releases", "predictions", "decisions", "events", "bentos", "outcomes", "landing")


# The files that take longest come first, so that none is left over at the end. Two that need the same platform prepared
# do not stand beside each other: one would wait for the other.
LONGEST = (
    "test_live",
    "test_images",
    "test_spark",
    "test_simulation",
    "test_one_rule",
    "test_runbooks",
    "test_on_kubernetes",
    "test_backup",
    "test_lifecycle",
    "test_stream",
    "test_drills",
    "test_reign",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order files by how long they take, as far as that is known."""
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(LONGEST)))


@dataclass(frozen=True)
class Home:
    """A LOAN_HOME in which the whole graph was run, and what the command printed."""

    settings: Settings
    printed: str

    def read(self, shelf: str, wanted: type = object) -> Any:
        return AssetStore(root=str(self.settings.store), keep=POLICY.versions_kept).read(shelf, wanted)


def activated(home: Path, **variables: str) -> dict[str, str]:
    """A person's environment: activated, of one home, without what this process was told of another."""
    places = ("LOAN_", "DAGSTER_", "MLFLOW_", "BENTOML_", "PYTHONDONTWRITEBYTECODE", "MAKE")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(places)}
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    return {**inherited, "PATH": path, "LOAN_HOME": str(home), "COLUMNS": "120", **variables}


def loan_assets(*arguments: str, home: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the `loan-assets` command as a person would against a home."""
    command = [sys.executable, "-m", "loan_assets.cli", *arguments]
    environment = activated(home, **variables)
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False, cwd=home)


def in_a_fresh_process(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


@pytest.fixture(scope="session")
def emulator() -> Iterator[S3]:
    """An S3 of one's own."""
    running = S3()
    yield running
    running.stop()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A Postgres of one's own; a folder that its user may enter."""
    if not Postgres.is_there():
        pytest.skip("Postgres is not installed: apt-get install postgresql")
    folder = Path(tempfile.mkdtemp(prefix="loan-assets-postgres-"))
    folder.chmod(0o755)
    running = Postgres(folder)
    yield running
    running.stop()
    shutil.rmtree(folder)


@pytest.fixture
def bucket(emulator: S3, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty place in a bucket that this process may use."""
    for name, value in emulator.environment.items():
        monkeypatch.setenv(name, value)
    return f"s3://bank/{uuid.uuid4().hex[:12]}"


def places_elsewhere(bucket: str, emulator: S3, postgres: Postgres, redis: RedisServer) -> dict[str, str]:
    """The variables of a platform whose every place is on another machine; databases, made now, and Redis are empty."""
    name = bucket.rpartition("/")[2]
    redis.empty()
    return {
        **emulator.environment,
        "MLFLOW_S3_ENDPOINT_URL": emulator.endpoint,
        "LOAN_DAGSTER_STORAGE": postgres.database(f"dagster_{name}"),
        "LOAN_MLFLOW_URI": postgres.database(f"mlflow_{name}"),
        "LOAN_FEAST_REGISTRY": postgres.database(f"feast_{name}"),
        "LOAN_FEAST_ONLINE": redis.place(1),
        "LOAN_ONLINE": redis.place(0),
        "LOAN_MLFLOW_ARTIFACTS": f"{bucket}/mlflow",
        **{f"LOAN_{place.upper()}": f"{bucket}/{place}" for place in PLACES},
    }


@pytest.fixture(scope="session")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis of one's own."""
    if not RedisServer.is_there():
        pytest.skip("redis-server is not installed: apt-get install redis-server")
    running = RedisServer(tmp_path_factory.mktemp("redis"))
    yield running
    running.stop()


@pytest.fixture(scope="session")
def book() -> LoanBook:
    return the_book()


@pytest.fixture(scope="session")
def received(book: LoanBook) -> pd.DataFrame:
    frame, _ = LoanSource().read(book)
    return frame


@dataclass(frozen=True)
class Lived:
    """A small history on disk, and what the backtest command left of it."""

    tables: Tables
    folder: Path
    policy: Path
    out: Path


@pytest.fixture(scope="session")
def lived(received: pd.DataFrame, book: LoanBook, tmp_path_factory: pytest.TempPathFactory) -> Lived:
    """A history with a change in its middle, replayed once by the command."""
    place = tmp_path_factory.mktemp("history")
    tables = small_history(received, book)
    folder, policy, out = tables.write(place / "in"), place / "policy.yaml", place / "out"
    policy.write_text(POLICY_TEXT)
    done = replay_by_command(folder, out, "--policy", str(policy))
    assert done.exit_code == 0, done.output
    return Lived(tables=tables, folder=folder, policy=policy, out=out)


@pytest.fixture(scope="session")
def replayed(lived: Lived, book: LoanBook) -> tuple[Replay, list[DayDecided]]:
    """The same history, lived through in memory."""
    history = history_in(lived.folder)
    reference, label = history.known(book)
    replay = Replay.begun(reference, label, book, policy_of(lived.policy))
    return replay, list(replay.over(history.over(history.days(), book)))


@pytest.fixture(scope="session")
def prepared(pytestconfig: pytest.Config) -> Path:
    """Where platforms are kept on which the graph was run, for every process of tests and the next ones."""
    return Path(pytestconfig.cache.mkdir("prepared"))


@pytest.fixture(scope="session")
def ran(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Home:
    """The whole graph on the real 30,000 clients and a day at the endpoint, by the command itself."""

    def make(folder: Path) -> None:
        (folder / "home").mkdir()
        done = loan_assets("demo", home=folder / "home")
        assert done.returncode == 0, done.stdout + done.stderr
        assert not re.search(r"/(loan_assets|bento)/\S+\.py:\d+: \w*Warning", done.stderr), done.stderr
        (folder / "printed").write_text(done.stdout)

    home = tmp_path_factory.mktemp("ran") / "home"
    with once(prepared, "ran", make) as folder:
        shutil.copytree(folder / "home", home)
        printed = (folder / "printed").read_text()
    return Home(settings=Settings.from_environment({"LOAN_HOME": str(home)}), printed=printed)


@dataclass(frozen=True)
class There:
    """A platform on which the graph was run, whose places but for its home are on other machines."""

    settings: Settings
    variables: dict[str, str]


# As `loan-assets demo` does, once the graph was run.
A_DAY = """
from loan_assets.cli import ready
from loan_assets.rehearsal import days_up_to_today, rehearse
rehearse(ready(), "quiet", days_up_to_today(1))
"""


@pytest.fixture
def there(
    prepared: Path, bucket: str, emulator: S3, postgres: Postgres, redis: RedisServer, tmp_path: Path
) -> Callable[[str], There]:
    """The same on Postgres, Redis and S3: `run`, as the command leaves it, or `lived`, after a day at the endpoint."""
    # One place for all: MLflow writes down where its artifacts are.
    place = f"{bucket.rpartition('/')[0]}/prepared"
    variables = places_elsewhere(place, emulator, postgres, redis)
    platform = Elsewhere(variables=variables, bucket=place, postgres=postgres)

    def make(folder: Path) -> None:
        home = tmp_path / "prepared"
        home.mkdir()
        done = loan_assets("run", home=home, **variables)
        assert done.returncode == 0, done.stdout + done.stderr
        platform.keep(home, folder / "run")
        subprocess.run([sys.executable, "-c", A_DAY], env=activated(home, **variables), cwd=home, check=True)
        platform.keep(home, folder / "lived")

    def put_back(state: str) -> There:
        home = tmp_path / "home"
        with once(prepared, "elsewhere", make) as folder:
            platform.put_back(folder / state, home)
        return There(Settings.from_environment({"LOAN_HOME": str(home), **variables}), variables)

    return put_back


def without_its_day(ran: Home, home: Path) -> Settings:
    """A copy of the home in which the graph was run, without the day that it lived through."""
    shutil.copytree(ran.settings.home, home)
    settings = Settings.from_environment({"LOAN_HOME": str(home)})
    shutil.rmtree(settings.predictions)
    for shelf in ("prediction_log", "batch_quality", "outcome_quality", "drift_report", "retrain_decision"):
        shutil.rmtree(settings.store / shelf)
    journal = settings.decisions / "journal.log"
    journal.write_bytes(journal.read_bytes().splitlines(keepends=True)[0])
    return settings


def second_version(ran: Home, place: Path) -> ReleaseStore:
    """A copy of the release store in which a version 2 was released too: the same trees, a little more strict."""
    root = place / "releases"
    shutil.copytree(ran.settings.releases, root)
    store = ReleaseStore(root=str(root))
    release = store.champion_release()
    source = root / store.champion().path

    def fill(folder: Path) -> None:
        facts = replace(release.facts, version=2, threshold=0.2)
        write_release(folder, facts, release.trees, (source / "model.onnx").read_bytes())
        shutil.copy2(source / REFERENCE, folder / REFERENCE)

    store.publish(2, fill)
    return store
