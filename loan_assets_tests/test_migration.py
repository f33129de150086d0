"""Databases of an earlier version: named by the doctor, brought to the installed one; newer ones are left alone."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import dagster as dg
import pytest
import sqlalchemy

from loan_assets.connections import newest_of, schema_of
from loan_assets.home import prepare
from loan_assets.killed_runs import BEGAN, HOST, PID, begun_runs, begun_runs_in, this_process
from loan_assets.migration import migrate
from loan_assets.refusal import Refusal
from loan_assets.settings import Settings
from loan_assets_tests.conftest import Home, loan_assets
from loan_assets_tests.services import Postgres


def mlflow_before_the_last_step(url: str) -> str:
    """MLflow's tables as they were one step before the newest; at which step that is."""
    from alembic import command
    from mlflow.store.db.utils import _get_alembic_config
    from mlflow.store.tracking.dbmodels.initial_models import Base

    engine = sqlalchemy.create_engine(url)
    Base.metadata.create_all(engine)
    config = _get_alembic_config(url)
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "heads-1")
    engine.dispose()
    at, is_known = schema_of("mlflow", url)
    assert at is not None
    assert is_known
    return at


def step_back(url: str) -> str:
    """Say of Dagster's tables that they are one step before the newest; at which step that is."""
    from alembic.script import ScriptDirectory
    from dagster._core.storage import alembic

    scripts = ScriptDirectory(str(Path(next(iter(alembic.__path__)))))
    before = str(scripts.get_revision("head").down_revision)
    engine = sqlalchemy.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("update alembic_version set version_num = :at"), {"at": before})
    engine.dispose()
    return before


def driven(url: str) -> str:
    return url.replace("postgresql:", "postgresql+psycopg2:")


def test_databases_of_an_earlier_version_are_named_and_brought_to_the_installed_one(
    postgres: Postgres, tmp_path: Path
) -> None:
    dagster, mlflow = postgres.database("old_dagster"), postgres.database("old_mlflow")
    variables = {"LOAN_DAGSTER_STORAGE": dagster, "LOAN_MLFLOW_URI": mlflow}
    made = loan_assets("migrate", home=tmp_path, LOAN_DAGSTER_STORAGE=dagster)
    assert made.returncode == 0, made.stderr
    assert f"mlflow's tables were at none, they are at {newest_of('mlflow')} now" in made.stdout
    before = {"dagster": step_back(driven(dagster)), "mlflow": mlflow_before_the_last_step(driven(mlflow))}
    named = loan_assets("doctor", "--connections", home=tmp_path, **variables)
    assert named.returncode == 1
    for package, at in before.items():
        assert f"is half migrated: {package}'s tables are at {at}" in named.stdout
    assert "loan-assets migrate`" in named.stdout
    done = loan_assets("migrate", home=tmp_path, **variables)
    assert done.returncode == 0, done.stderr
    for package, at in before.items():
        assert f"{package}'s tables were at {at}, they are at {newest_of(package)} now" in done.stdout
    assert loan_assets("doctor", "--connections", home=tmp_path, **variables).returncode == 0
    again = loan_assets("migrate", home=tmp_path, **variables)
    assert again.stdout.count("nothing was to be done") == 2


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A new home whose MLflow is behind a server."""
    for name in ("LOAN_HOME", "DAGSTER_HOME"):
        monkeypatch.setenv(name, "")
    return prepare(Settings.from_environment({"LOAN_HOME": str(tmp_path), "LOAN_MLFLOW_URI": "http://127.0.0.1:1"}))


@pytest.mark.parametrize("is_old", [True, False])
@pytest.mark.parametrize("tags", [{}, {HOST: "another", PID: "1", BEGAN: "0"}, this_process()])
def test_nothing_is_migrated_under_a_run_that_may_live(tags: dict[str, str], is_old: bool, settings: Settings) -> None:
    url = f"sqlite:///{settings.dagster_home}/history/runs.db"
    with dg.DagsterInstance.from_config(str(settings.dagster_home)) as instance:
        # A code server's run: it is launched elsewhere.
        server = {".dagster/grpc_info": '{"host": "code-server", "port": 4000}'}
        run = dg.DagsterRun(job_name="busy", status=dg.DagsterRunStatus.STARTED, tags={**server, **tags})
        instance.add_run(run)
    at = step_back(url) if is_old else newest_of("dagster")
    with pytest.raises(Refusal, match=rf"run {run.run_id[:8]} \(busy, .*\) has begun and not ended.*--stopped"):
        tuple(migrate(settings))
    assert schema_of("dagster", url)[0] == at
    (done,) = migrate(settings, is_stopped=True)
    assert (done.before, done.after) == (at, newest_of("dagster"))


def test_a_run_that_was_killed_here_or_has_ended_stops_no_migration(settings: Settings) -> None:
    killed = {**this_process(), BEGAN: "0"}
    with dg.DagsterInstance.from_config(str(settings.dagster_home)) as instance:
        for status, tags in ((dg.DagsterRunStatus.STARTED, killed), (dg.DagsterRunStatus.SUCCESS, {})):
            instance.add_run(dg.DagsterRun(job_name="gone", status=status, tags=tags))
    step_back(f"sqlite:///{settings.dagster_home}/history/runs.db")
    (done,) = migrate(settings)
    assert done.after == newest_of("dagster")


def test_which_runs_have_begun_is_read_from_postgres_too(postgres: Postgres, tmp_path: Path) -> None:
    url = driven(postgres.database("begun"))
    storage = {"storage": {"postgres": {"postgres_url": url}}}
    with dg.DagsterInstance.local_temp(str(tmp_path), overrides=storage) as instance:
        begun = dg.DagsterRun(job_name="busy", status=dg.DagsterRunStatus.STARTED, tags=this_process())
        for run in (begun, dg.DagsterRun(job_name="over", status=dg.DagsterRunStatus.FAILURE)):
            instance.add_run(run)
        assert begun_runs_in(url) == begun_runs(instance)
    assert [run.run_id for run in begun_runs_in(url)] == [begun.run_id]


def test_files_of_a_home_are_migrated_too_and_newer_ones_are_left_alone(ran: Home, tmp_path: Path) -> None:
    home = tmp_path / "home"
    shutil.copytree(ran.settings.home, home)
    url = f"sqlite:///{home}/dagster/history/runs.db"
    before = step_back(url)
    done = loan_assets("migrate", home=home)
    assert done.returncode == 0, done.stderr
    assert f"dagster's tables were at {before}" in done.stdout
    assert re.search(r"mlflow's tables are at \w+, nothing was to be done", done.stdout)
    engine = sqlalchemy.create_engine(f"sqlite:///{home}/mlflow/mlflow.db")
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("update alembic_version set version_num = 'feedc0ffee00'"))
    engine.dispose()
    refused = loan_assets("migrate", home=home)
    assert refused.returncode == 1
    assert "The tables are of a newer mlflow than is installed (feedc0ffee00)" in refused.stderr
