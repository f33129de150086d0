"""The house itself: what the front door shows, what it does not import, and that the README draws it truly."""

import configparser
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pandas as pd

import loan_assets
from loan_assets.books import LoanBook, Role
from loan_assets.cycles import THRESHOLDS
from loan_assets.definitions import OWNERS, defs
from loan_assets.sensors import nightly_watch
from loan_assets_tests.conftest import ROOT, Home, in_a_fresh_process

GRAPH = defs.resolve_asset_graph()
SOURCE = {"", ".cfg", ".env", ".lock", ".md", ".py", ".rego", ".toml", ".yaml", ".yml"}
HEAVY = (
    *("mlflow", "feast", "evidently", "bentoml", "sklearn", "pandera", "fairlearn", "matplotlib", "onnxruntime"),
    "pyspark",
)


def test_the_map_lists_every_room_in_the_order_in_which_they_may_import() -> None:
    drawn = re.findall(r"^- `(\w+)(?:\.py|/)`: ", loan_assets.__doc__ or "", re.MULTILINE)
    layers = configparser.ConfigParser()
    layers.read(ROOT / "setup.cfg")
    floors = [
        re.findall(r"loan_assets\.(\w+)", floor)
        for floor in reversed(layers["importlinter:contract:rooms"]["layers"].strip().splitlines())
    ]
    place = {room: number for number, floor in enumerate(floors) for room in floor}
    assert sorted(drawn) == sorted(place)
    assert [place[room] for room in drawn] == sorted(place[room] for room in drawn)
    there = {path.stem for path in (ROOT / "loan_assets").iterdir() if path.suffix == ".py" or path.is_dir()}
    assert set(drawn) == there - {"__init__", "__pycache__"}


def test_loading_the_definitions_imports_no_heavy_vendor() -> None:
    code = f"import sys, loan_assets.definitions; print([m for m in {HEAVY!r} if m in sys.modules])"
    assert in_a_fresh_process(code).stdout.strip() == "[]"


def test_a_run_looks_for_reference_cycles_seldom_and_so_does_a_command() -> None:
    """And not when it ends, except for libraries that would otherwise print what they miss."""
    for module, library, passed_over in (
        ("definitions", "json", True),
        ("cli", "json", True),
        ("definitions", "duckdb", False),
        ("cli", "duckdb", False),
    ):
        code = f"""
import atexit, gc
import loan_assets.{module}, {library}
print(*gc.get_threshold())
frozen = gc.get_freeze_count()
atexit._run_exitfuncs()
print(gc.get_freeze_count() > frozen)
"""
        ended = in_a_fresh_process(code)
        assert ended.stdout.splitlines() == [" ".join(map(str, THRESHOLDS)), str(passed_over)], module
        assert ended.stderr == ""


def test_feast_is_opened_without_instrumented_methods_and_typeguard_is_left_as_it_was(tmp_path: Path) -> None:
    code = """
import sys, typeguard
from loan_assets.resources.feature_store import FeatureStoreDoor
from loan_assets.settings import Settings
before = typeguard.typechecked
with FeatureStoreDoor.over(Settings.from_environment({"LOAN_HOME": sys.argv[1]}))._opened():
    from feast import Entity, FeatureView
    checked = [of.__name__ for of in (Entity, FeatureView) if "TypeCheckMemo" in of.__init__.__code__.co_names]
print(checked, typeguard.typechecked is before)
"""
    done = in_a_fresh_process(code, str(tmp_path))
    assert done.stdout.strip() == "[] True", done.stderr


def test_no_secret_of_a_place_reaches_what_dagster_keeps_and_shows_of_the_graph() -> None:
    code = """
import os
SECRETS = {
    "LOAN_SOURCE": "https://user:hush@host/book.csv?signature=hush",
    "LOAN_LANDING": "s3://key:hush@bucket/in",
    "LOAN_MLFLOW_URI": "postgresql://user:hush@host/mlflow",
    "LOAN_MLFLOW_ARTIFACTS": "s3://key:hush@bucket/artifacts",
    "LOAN_FEAST_REGISTRY": "postgresql://user:hush@host/feast",
    "LOAN_FEAST_ONLINE": "redis://:hush@host",
    "LOAN_ONLINE": "redis://:hush@host/1",
}
os.environ.update(SECRETS)
import dagster as dg
from dagster._core.remote_representation.external_data import RepositorySnap
from dagster_shared.serdes import serialize_value
from loan_assets.definitions import defs, resources
from loan_assets.settings import Settings

kept = serialize_value(RepositorySnap.from_def(defs.get_repository_def()))
print(kept.count("hush"), all(name in kept for name in SECRETS))
with dg.build_resources(resources(Settings.from_environment())) as opened:
    store, tracking = opened.feature_store, opened.experiments
    read = (opened.source.location, opened.landing.place, tracking.tracking_uri, tracking.artifacts)
    known = (url.replace("postgresql:", "postgresql+psycopg2:") for url in SECRETS.values())
    print((*read, store.registry, store.online, opened.online_tables.root) == tuple(known))
"""
    done = in_a_fresh_process(code)
    assert done.stdout.splitlines() == ["0 True", "True"], done.stderr


def test_the_serving_box_scores_without_dagster_mlflow_or_pickle(
    ran: Home, received: pd.DataFrame, book: LoanBook, tmp_path: Path
) -> None:
    code = """
import asyncio, json, sys
for name in ("dagster", "mlflow", "feast", "sklearn", "pandas"):
    sys.modules[name] = None
import pickle
def never(*_, **__):
    raise AssertionError("pickle was used")
pickle.loads = pickle.load = pickle.Unpickler = never
from pathlib import Path
from bento.application import Application
from bento.places import Places
answers = []
async def send(message):
    answers.append(message)
async def ask(application, path, body):
    async def receive():
        return {"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}
    await application({"type": "http", "method": "POST", "path": path, "headers": []}, receive, send)
async def main():
    home = Path({home!r})
    log = Path({log!r})
    places = Places(box=home, releases=home / "releases", online=str(home / "online"), predictions=log, tokens=None)
    application = Application(places)
    await ask(application, "/score", {"applications": [{application!r}]})
    await ask(application, "/predict", {"client_ids": [1]})
    await application.close()
asyncio.run(main())
for answer in answers[1::2]:
    print(json.loads(answer["body"])["predictions"][0]["default_probability"])
"""
    application = received[[column.name for column in book.with_role(Role.FEATURE)]].iloc[0].to_dict()
    named = {"home": str(ran.settings.home), "application": application, "log": str(tmp_path)}
    for name, value in named.items():
        code = code.replace("{" + name + "!r}", repr(value))
    done = in_a_fresh_process(code)
    scores: pd.DataFrame = ran.read("batch_scores")
    assert [float(line) for line in done.stdout.split()] == [scores["default_probability"][0]] * 2, done.stderr


def test_every_asset_has_group_owner_kinds_description_and_code_version() -> None:
    for key in GRAPH.get_all_asset_keys():
        node = GRAPH.get(key)
        assert node.group_name in OWNERS, key
        assert node.owners == [OWNERS[node.group_name]], key
        assert node.kinds, key
        assert node.description, key
        assert node.code_version, key


def test_every_table_is_typed_and_shows_its_columns() -> None:
    for key in GRAPH.get_all_asset_keys():
        is_table = "parquet" in GRAPH.get(key).kinds and key.to_user_string() != "feature_definitions"
        assert ("dagster/column_schema" in GRAPH.get(key).metadata) == is_table, key


def test_every_group_is_judged_and_what_others_build_on_can_stop_a_run() -> None:
    checks = {key: GRAPH.get_check_spec(key) for key in GRAPH.asset_check_keys}
    assert {GRAPH.get(key.asset_key).group_name for key in checks} == set(OWNERS) - {"registry"}
    blocking = {GRAPH.get(key.asset_key).group_name for key, spec in checks.items() if spec.blocking}
    assert blocking == set(OWNERS) - {"monitoring", "outcomes", "registry"}


def test_sensors_and_schedules_run_from_the_first_start() -> None:
    sensors = {sensor.name: sensor.default_status for sensor in defs.sensors or []}
    assert sensors == dict.fromkeys(
        (
            "keep_graph_fresh",
            "act_on_decisions",
            "outcomes_arrive",
            "statements_arrive",
            "statements_are_pushed",
            "clear_killed_runs",
        ),
        dg.DefaultSensorStatus.RUNNING,
    )
    (schedule,) = defs.schedules or []
    assert isinstance(schedule, dg.ScheduleDefinition)
    assert (schedule.name, schedule.default_status) == ("nightly_watch", dg.DefaultScheduleStatus.RUNNING)


def test_the_night_watches_the_day_that_ended() -> None:
    at = datetime(2026, 3, 1, 0, 15, tzinfo=UTC)
    request = nightly_watch(dg.build_schedule_context(scheduled_execution_time=at))
    assert isinstance(request, dg.RunRequest)
    assert request.partition_key == "2026-02-28"


def test_only_people_decisions_and_the_first_job_ask_for_a_model() -> None:
    by_itself = {
        key.to_user_string() for key in GRAPH.get_all_asset_keys() if GRAPH.get(key).automation_condition is not None
    }
    everything = {key.to_user_string() for key in GRAPH.get_all_asset_keys()}
    daily = {
        "prediction_log",
        "batch_quality",
        "drift_report",
        "outcomes",
        "outcome_quality",
        "live_performance",
        "live_fairness",
        "retrain_decision",
    }
    assert everything - by_itself == {"raw_loan_book", "default_model", "gate_verdict", "champion", *daily}


def test_the_readme_draws_the_graph_as_it_is() -> None:
    drawn = set(re.findall(r"^\s*(\w+) --> (\w+)$", (ROOT / "README.md").read_text(), re.MULTILINE))
    edges = {
        (parent.to_user_string(), key.to_user_string())
        for key in GRAPH.get_all_asset_keys()
        for parent in GRAPH.get(key).parent_keys
    }
    assert drawn == edges


def test_workspace_yaml_is_the_only_signpost(tmp_path: Path) -> None:
    assert "tool.dagster" not in (ROOT / "pyproject.toml").read_text()
    assert "tool.dg" not in (ROOT / "pyproject.toml").read_text()
    broken = tmp_path / "workspace.yaml"
    broken.write_text((ROOT / "workspace.yaml").read_text().replace("loan_assets.definitions", "loan_assets.nowhere"))
    command = [str(Path(sys.executable).parent / "dagster"), "definitions", "validate", "-w"]
    sound = subprocess.run([*command, "workspace.yaml"], capture_output=True, text=True, cwd=ROOT, check=False)
    assert sound.returncode == 0, sound.stderr
    failed = subprocess.run([*command, str(broken)], capture_output=True, text=True, cwd=ROOT, check=False)
    assert failed.returncode != 0


def test_no_file_of_the_project_names_a_machine_path_or_registry() -> None:
    folders = ("loan_assets", "loan_assets_tests", "bento", "deploy", "benchmarks", "docs", ".ci", ".github")
    top = [path for path in ROOT.iterdir() if path.name == "Makefile" or path.suffix in SOURCE - {""}]
    below = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.suffix in SOURCE]
    read = [path for path in (*top, *below) if path.is_file()]
    pattern = re.compile(r"https?://[^\s\"']*(?:py" + r"pi|n" + r"pmjs)|(?<![\w./-])/wo" + r"rk/")
    assert len(read) > 60
    assert [path for path in read if pattern.search(path.read_text())] == []
