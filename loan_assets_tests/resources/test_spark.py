"""Spark gives what the embedded engine gives, bit for bit: the same rows, the same refusals, the same stored assets."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path

import dagster as dg
import numpy as np
import pandas as pd
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError

from loan_assets.assets.succession import Champion
from loan_assets.books import LoanBook
from loan_assets.books.calendar import month_after, months_of
from loan_assets.books.tables import CREATED_TIME, EVENT_TIME
from loan_assets.credit import statements
from loan_assets.refusal import Refusal
from loan_assets.resources import spark as module
from loan_assets.resources.engine import Delivered, Engine
from loan_assets.resources.feature_store import FeatureStoreDoor
from loan_assets.resources.landing import Landing
from loan_assets.resources.loan_source import LoanSource
from loan_assets.resources.spark import SparkEngine
from loan_assets_tests.conftest import ROOT, Home, in_a_fresh_process, loan_assets
from loan_assets_tests.resources.test_loan_source import BROKEN, in_source_words
from loan_assets_tests.services import free_port, until
from loan_assets_tests.test_lifecycle import digests

EMBEDDED = Engine()
COMPUTED = (
    "raw_loan_book",
    "client_profiles",
    "monthly_statements",
    "default_outcomes",
    "borrower_features",
    "feature_definitions",
    "training_set",
)


@pytest.fixture(scope="module")
def installed() -> None:
    """What these tests run on: the extra and a Java."""
    if find_spec("dagster_pyspark") is None:
        pytest.skip("the extra `spark` is not installed: uv pip install --require-hashes -r deploy/spark.lock")
    if shutil.which("java") is None:
        pytest.skip("Java is not installed: apt-get install default-jre-headless")


@pytest.fixture(scope="module", autouse=True)
def soon_compiled() -> Iterator[None]:
    """Sessions last a minute here: Java's second compiler would cost a quarter of all that they compute."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAVA_TOOL_OPTIONS", "-XX:TieredStopAtLevel=1")
        yield


@pytest.fixture(scope="module")
def spark(installed: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkEngine]:
    engine = SparkEngine(master="local[2]", conf="", folder=str(tmp_path_factory.mktemp("spark")))
    yield engine
    engine.stop()


def differing(one: pd.DataFrame, other: pd.DataFrame) -> int:
    """How many values differ in any bit, where names, types and rows are the same; a gap is the same as a gap.

    Floating point is compared as the integers of its bits, so that 0.0 is not -0.0.
    """
    assert one.dtypes.to_dict() == other.dtypes.to_dict()
    assert list(one.columns) == list(other.columns)
    assert one.index.equals(other.index)
    unlike = 0
    for name in one.columns:
        left, right = one[name].to_numpy(), other[name].to_numpy()
        if left.dtype.kind == "f":
            bits = f"uint{8 * left.dtype.itemsize}"
            same = (left.view(bits) == right.view(bits)) | (np.isnan(left) & np.isnan(right))
        else:
            same = (left == right) | (pd.isna(left) & pd.isna(right))
        unlike += int((~same).sum())
    return unlike


def test_a_bit_that_differs_is_counted() -> None:
    one = pd.DataFrame({"a": [0.0, 1.0, np.nan], "b": [1, 2, 3]})
    assert differing(one, one.copy()) == 0
    assert differing(one, pd.DataFrame({"a": [-0.0, np.nextafter(1.0, 2), np.nan], "b": [1, 2, 4]})) == 3


def test_without_the_extra_the_refusal_names_it(tmp_path: Path) -> None:
    code = f"""
import sys
sys.modules["pyspark"] = None
from loan_assets.refusal import Refusal
from loan_assets.resources.spark import SparkEngine
try:
    SparkEngine(master="", conf="", folder={str(tmp_path)!r}).session
except Refusal as refused:
    print(refused)
"""
    said = in_a_fresh_process(code).stdout
    # Whichever of its packages is looked for first.
    assert re.search(
        r"LOAN_ENGINE is spark, but (dagster_)?pyspark cannot be imported\. Install the extra `spark`", said
    )
    assert "unset LOAN_ENGINE" in said


def test_a_conf_that_is_not_there_is_refused_by_the_name_of_its_variable(tmp_path: Path) -> None:
    engine = SparkEngine(master="", conf=str(tmp_path / "away.conf"), folder=str(tmp_path))
    with pytest.raises(Refusal, match=r"LOAN_SPARK_CONF .*away.conf cannot be read: No such file"):
        _ = engine.session


def test_what_the_conf_says_wins_but_for_the_time_zone_and_a_master_that_is_set(tmp_path: Path) -> None:
    conf = tmp_path / "spark.conf"
    conf.write_text(
        "# spark.driver.host elsewhere\nspark.master  spark://bank:7077\nspark.ui.enabled=true\n\n"
        "spark.sql.session.timeZone: Asia/Taipei\nspark.hadoop.fs.s3a.secret.key hush\n"
    )
    read = SparkEngine(master="", conf=str(conf), folder=str(tmp_path))._configured()
    assert "spark.master" not in read
    assert "spark.ui.enabled" not in read
    assert "spark.driver.host" not in read
    assert read["spark.sql.session.timeZone"] == "UTC"
    assert "hush" not in str(read)
    asked = SparkEngine(master="local[3]", conf=str(conf), folder=str(tmp_path))._configured()
    assert asked["spark.master"] == "local[3]"
    assert asked["spark.driver.memory"] == "4g"
    conf.write_text("spark.driver.memory 9g\n")
    assert "spark.driver.memory" not in SparkEngine(master="local[3]", conf=str(conf), folder="")._configured()


class Lost:
    """A session whose Java process is gone: whatever is asked of it, and of what it has, is answered by an error."""

    def __getattr__(self, name: str) -> Lost:
        return self() if name == "defaultParallelism" else self

    def __call__(self, *arguments: object) -> Lost:
        raise ConnectionRefusedError(f"not for everybody: {arguments}")


def test_a_session_that_is_lost_is_told_in_our_words_whatever_was_asked_of_it(tmp_path: Path, book: LoanBook) -> None:
    engine = SparkEngine(master="local[2]", conf="", folder=str(tmp_path))
    engine._opened = Lost()
    table = pd.DataFrame({book.key.name: [77_777]})
    table.to_parquet(tmp_path / "table.parquet")
    asked: list[Callable[[], object]] = [
        lambda: engine._sent(table),
        lambda: engine.shown(tmp_path / "table.parquet", "a" * 64),
        lambda: engine._spread(Delivered(name="a.csv", content=b"", parsed=lambda: ("csv", table)), (), ""),
        lambda: engine._collected(Lost()),
    ]
    for one in asked:
        with pytest.raises(Refusal, match=r"Spark could not .*ConnectionRefusedError") as told:
            one()
        assert "77777" not in str(told.value)


@pytest.mark.production
@pytest.mark.timeout(180)
def test_without_memory_a_run_is_told_so_and_the_next_session_is_a_new_one(installed: None, tmp_path: Path) -> None:
    """Nothing is waited for: the process that lacks memory ends, whatever it was asked for."""
    conf = tmp_path / "spark.conf"
    conf.write_text("spark.driver.memory 480m\n")
    code = f"""
import pyspark
from loan_assets.refusal import Refusal
from loan_assets.resources.spark import SparkEngine
engine = SparkEngine(master="local[2]", conf={str(conf)!r}, folder={str(tmp_path)!r})

def full():
    engine._collected(engine.session.range(100_000_000))

def killed():
    asked = engine.session.range(3)
    pyspark.SparkContext._gateway.proc.kill()
    engine._collected(asked)

for lacks in (full, killed):
    try:
        lacks()
    except Refusal as refused:
        print(refused)
    engine.stop()
print(engine._collected(engine.session.range(3))["id"].tolist())
engine.stop()
"""
    said = in_a_fresh_process(code).stdout.splitlines()
    could_not, mend = (
        "Spark could not carry out a step: its process on this machine",
        "Set spark.driver.memory in the file",
    )
    assert said[0].startswith(f"{could_not} is out of memory. {mend} of LOAN_SPARK_CONF")
    assert said[1].startswith(f"{could_not} was killed, as a system does that is short of memory. {mend}")
    assert said[2:] == ["[0, 1, 2]"]
    assert "OutOfMemoryError" in (tmp_path / "spark.log").read_text()


@pytest.mark.parametrize("failed", [RedisError("away"), SQLAlchemyError("away"), sqlite3.OperationalError("locked")])
def test_what_a_store_of_feast_raises_is_not_told_as_an_error_of_spark(failed: Exception, tmp_path: Path) -> None:
    engine = SparkEngine(master="local[2]", conf="", folder=str(tmp_path))
    with pytest.raises(type(failed)), engine.told("find each client's newest row"):
        raise failed


def test_loading_the_graph_for_spark_imports_no_spark() -> None:
    code = """
import os, sys
os.environ["LOAN_ENGINE"] = "spark"
import loan_assets.definitions
print([name for name in sys.modules if name.split(".")[0] in ("pyspark", "dagster_pyspark", "feast")])
"""
    assert in_a_fresh_process(code).stdout.strip() == "[]"


@pytest.mark.production
@pytest.mark.parametrize("java_home", ["", "/nowhere"])
def test_without_java_the_run_and_the_doctor_say_so(installed: None, java_home: str, tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    home = tmp_path / "home"
    home.mkdir()
    without = {"PATH": str(tools), "LOAN_ENGINE": "spark", "JAVA_HOME": java_home}
    ran = loan_assets("run", home=home, **without)
    where = f"JAVA_HOME {java_home} holds none" if java_home else "there is none on the PATH"
    assert ran.returncode == 1
    assert f"LOAN_ENGINE is spark, which needs Java, and {where}." in " ".join((ran.stdout + ran.stderr).split())
    assert "apt-get install" in ran.stdout + ran.stderr
    asked = loan_assets("doctor", home=home, **without)
    assert asked.returncode == 1
    assert "✗ Engine" in asked.stdout


@pytest.mark.production
def test_a_book_of_any_form_is_read_to_the_same_rows(
    spark: SparkEngine, received: pd.DataFrame, book: LoanBook, tmp_path: Path
) -> None:
    groups = tmp_path / "groups.parquet"
    pq.write_table(pa.Table.from_pandas(in_source_words(received, book)), groups, row_group_size=4_321)
    in_source_words(received, book).to_csv(tmp_path / "book.csv", index=False)
    for location in ("packaged", str(groups), str(tmp_path / "book.csv")):
        source = LoanSource(location=location)
        rows, told = source.read(book, spark)
        assert differing(rows, received) == 0
        assert told == source.read(book)[1]


@pytest.mark.production
def test_a_broken_delivery_is_refused_in_the_same_words(
    spark: SparkEngine, received: pd.DataFrame, book: LoanBook, tmp_path: Path
) -> None:
    """Of every kind of damage that the embedded engine is tried with, spread over the parts of a file."""
    said: dict[str, set[str]] = {}
    for kind, (breaking, _) in BROKEN.items():
        path = tmp_path / f"{kind}.csv"
        in_source_words(breaking(received.copy()), book).to_csv(path, index=False)
        for engine in (EMBEDDED, spark):
            with pytest.raises(Refusal) as refused:
                LoanSource(location=str(path)).read(book, engine)
            said.setdefault(kind, set()).add(str(refused.value))
    assert {kind: words for kind, words in said.items() if len(words) != 1} == {}
    (tmp_path / "cut.parquet").write_bytes(b"PAR1 cut short")
    with pytest.raises(Refusal, match="not a readable CSV, Excel, zip or Parquet file"):
        LoanSource(location=str(tmp_path / "cut.parquet")).read(book, spark)


def test_months_are_fetched_in_results_of_limited_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROWS_AT_ONCE", 5)
    assert list(module._groups({"a": 2, "b": 3, "c": 9, "d": 4, "e": 2})) == [("a", "b"), ("c",), ("d",), ("e",)]


@pytest.mark.production
def test_statements_and_features_are_the_same_bits(
    spark: SparkEngine, received: pd.DataFrame, book: LoanBook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the real 30,000 clients and every month; also of a month that arrived later, when some had left."""
    months, profiles = months_of(book), statements.profiles_of(received, book)
    known = EMBEDDED.statements_of(months, received, book)
    told = spark.statements_of(months, received, book)
    assert {month: differing(told[month], known[month]) for month in months} == dict.fromkeys(months, 0)

    later = month_after(months[-1], 1)
    arrived = known[months[-1]].sample(frac=0.97, random_state=1).drop(columns=[EVENT_TIME.name, CREATED_TIME.name])
    arrived.to_parquet(tmp_path / f"statements-{later}.parquet", index=False)
    for engine, tables in ((EMBEDDED, known), (spark, told)):
        read = Landing(place=str(tmp_path)).read(later, book, engine)
        assert read is not None
        tables[later] = statements.dated(read[0], later, book)
    assert differing(told[later], known[later]) == 0

    every = (*months, later)
    # Versions that became known later: of a statement that is there, and of some that were missing.
    late = known[months[-2]].sample(n=500, random_state=2).assign(bill_amount=5.0)
    late[CREATED_TIME.name] += timedelta(days=70)
    known[months[-2]] = pd.concat([known[months[-2]].iloc[:-100], late], ignore_index=True)
    monkeypatch.setattr(module, "ROWS_AT_ONCE", 70_000)  # two months a result
    here, there = (engine.features_of(every, known, profiles, book) for engine in (EMBEDDED, spark))
    assert {month: differing(there[month], here[month]) for month in every} == dict.fromkeys(every, 0)
    assert {month: len(table) for month, table in there.items()} == {
        **dict.fromkeys(months[:-2], 30_000),
        months[-2]: 30_400,
        months[-1]: 30_500,
        later: 29_100 + here[later].duplicated(book.key.name).sum(),
    }
    assert here[later].duplicated(book.key.name).sum() > 400


@pytest.mark.production
def test_what_feast_joins_on_spark_is_what_it_joins_on_duckdb(
    spark: SparkEngine, ran: Home, book: LoanBook, tmp_path: Path
) -> None:
    """The training frame of 30,000 decisions, and joins of other days, orders, repeats and late knowledge."""
    rows = pd.concat([ran.read(f"borrower_features/{month}") for month in months_of(book)], ignore_index=True)
    late = rows.tail(900).assign(utilisation=9.0)
    late[CREATED_TIME.name] += timedelta(days=2)
    doors = [
        FeatureStoreDoor(
            folder=str(tmp_path / engine.offline_store),
            registry=f"sqlite:///{tmp_path}/registry.db",
            online=str(tmp_path / f"{engine.offline_store}.db"),
            engine=engine,
        )
        for engine in (EMBEDDED, spark)
    ]
    outcomes: pd.DataFrame = ran.read("default_outcomes")
    decisions = outcomes[[book.key.name, EVENT_TIME.name, book.label.name]]
    other = pd.concat([decisions.sample(4_000, random_state=2), decisions.head(50)]).reset_index(drop=True)
    days = pd.to_timedelta(np.arange(len(other)) % 260 - 200, unit="D")
    other = other.assign(**{EVENT_TIME.name: (other[EVENT_TIME.name] + days).dt.as_unit("us")})
    joined: dict[str, list[pd.DataFrame]] = {"duckdb": [], "spark": []}
    for door in (*doors, *doors):  # one registry for both, as where the engine is changed and changed back
        door.publish(pd.concat([rows, late], ignore_index=True), book)
        joined[door.engine.offline_store] += [door.as_known_at(asked, book) for asked in (decisions, other)]
    assert [differing(*each) for each in zip(joined["spark"], joined["duckdb"], strict=True)] == [0] * 4
    training, others = joined["spark"][:2]
    assert training["utilisation"].notna().all()
    assert others["utilisation"].isna().any()
    assert (others["utilisation"] == 9.0).any()


@dataclass(frozen=True)
class Cluster:
    """A Spark of master and worker, and where the worker keeps what its executors say."""

    url: str
    work: Path


@pytest.fixture(scope="module")
def cluster(installed: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Each a process of its own, started elsewhere than this one."""
    import pyspark

    folder, port = tmp_path_factory.mktemp("cluster"), free_port()
    class_runner = str(Path(pyspark.__file__).parent / "bin" / "spark-class")
    deploy, url, work = "org.apache.spark.deploy", f"spark://127.0.0.1:{port}", folder / "work"
    plain = ["--host", "127.0.0.1", "--webui-port", "0"]
    commands = (
        [f"{deploy}.master.Master", *plain, "--port", str(port)],
        [f"{deploy}.worker.Worker", *plain, "--cores", "2", "--memory", "1g", "--work-dir", str(work), url],
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "SPARK_LOCAL_IP": "127.0.0.1"}
    said = folder / "said.log"
    with said.open("w") as log:
        running = [
            subprocess.Popen([class_runner, *command], cwd=folder, env=environment, stdout=log, stderr=log)
            for command in commands
        ]
    try:
        until(lambda: "Registering worker" in said.read_text(), 120)
        yield Cluster(url=url, work=work)
    finally:
        for process in reversed(running):
            process.terminate()
            process.wait(timeout=30)


@pytest.mark.production
def test_the_first_build_on_a_cluster_stores_what_the_embedded_one_stores(
    cluster: Cluster, ran: Home, tmp_path: Path
) -> None:
    """The job of `make run`, by the command itself; settings alone say where. The same versions on every shelf."""
    conf = tmp_path / "spark.conf"
    conf.write_text("spark.executor.memory 512m\nspark.cores.max 2\nspark.driver.host 127.0.0.1\n")
    home = tmp_path / "home"
    home.mkdir()
    asked = {"LOAN_ENGINE": "spark", "LOAN_SPARK_MASTER": cluster.url, "LOAN_SPARK_CONF": str(conf)}
    done = loan_assets("run", home=home, PYTHONPATH=str(ROOT), **asked)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "✗" not in done.stdout
    assert done.stderr == ""
    assert "WARN" not in done.stdout
    assert "WARN" in (home / "spark" / "spark.log").read_text()
    told = [executor.read_text() for executor in cluster.work.glob("app-*/*/stderr")]
    assert told
    assert all("-Xmx512M" in one for one in told)
    on_spark, embedded = digests(home / "store"), digests(ran.settings.store)
    assert len(on_spark) > 20
    assert {shelf for shelf, digest in on_spark.items() if embedded[shelf] != digest} <= {"champion"}
    # The champion says how long it took to be put in force.
    champions = [Home(settings=replace(ran.settings, home=place), printed="") for place in (home, ran.settings.home)]
    one, other = (replace(each.read("champion", Champion), seconds=0.0) for each in champions)
    assert one == other
    until(lambda: not any(place == home or cluster.work in place.parents for place in where_java_runs()), 30)


@pytest.mark.production
def test_on_this_machine_the_engine_s_name_is_enough_and_what_it_computes_is_stored_the_same(
    installed: None, ran: Home, tmp_path: Path
) -> None:
    """Every asset that Spark computes, by the graph's own job in a process of its own, on every core."""
    code = f"""
import dagster as dg
from loan_assets.definitions import defs
from loan_assets.home import prepare
from loan_assets.running import QUIET, months_there
from loan_assets.settings import Settings

settings = prepare(Settings.from_environment())
months = months_there(settings)
tags = {{"dagster/asset_partition_range_start": months[0], "dagster/asset_partition_range_end": months[-1]}}
with dg.DagsterInstance.get() as instance:
    ran = defs.resolve_job_def("whole_graph").execute_in_process(
        run_config=QUIET, instance=instance, tags=tags, asset_selection=[dg.AssetKey(name) for name in {COMPUTED}]
    )
"""
    environment = {**os.environ, "LOAN_ENGINE": "spark", "LOAN_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    on_spark, embedded = digests(tmp_path / "store"), digests(ran.settings.store)
    assert {shelf.split("/")[0] for shelf in on_spark} == set(COMPUTED)
    assert on_spark == {shelf: embedded[shelf] for shelf in on_spark}
    until(lambda: tmp_path not in where_java_runs(), 30)


def where_java_runs() -> list[Path]:
    """The folders in which Java processes work: a driver's is the home, an executor's is below its worker's."""
    running = psutil.process_iter(["name", "cwd"])
    return [Path(process.info["cwd"]) for process in running if process.info["name"] == "java" and process.info["cwd"]]


@pytest.mark.production
def test_a_session_is_opened_when_it_is_needed_and_ends_with_the_run(spark: SparkEngine, tmp_path: Path) -> None:
    from pyspark import SparkContext

    spark.stop()
    engine = SparkEngine(master="local[1]", conf="", folder=str(tmp_path))

    @dg.asset
    def idle(engine: Engine) -> bool:
        return SparkContext._active_spark_context is None

    @dg.asset
    def busy(engine: Engine, idle: bool) -> tuple[bool, str]:
        assert isinstance(engine, SparkEngine)
        return idle, str(engine.session.conf.get("spark.sql.session.timeZone"))

    ran = dg.materialize([idle, busy], resources={"engine": engine}, instance=dg.DagsterInstance.ephemeral())
    assert ran.output_for_node("busy") == (True, "UTC")
    assert SparkContext._active_spark_context is None
    assert (tmp_path / "spark.log").stat().st_mode & 0o777 == 0o600


@pytest.mark.production
def test_a_machine_that_computes_by_another_book_stops_the_run(
    spark: SparkEngine, received: pd.DataFrame, book: LoanBook
) -> None:
    another = replace(book, as_of=book.as_of.replace(day=28))
    with pytest.raises(Refusal, match=f"On a machine of the cluster: This machine computes by the book {book.digest}"):
        spark.statements_of(months_of(book)[-1:], received, another)


@pytest.mark.production
def test_the_doctor_says_which_engine_there_is_and_whether_it_starts(installed: None, tmp_path: Path) -> None:
    assert "✓ Engine     embedded, in this process" in loan_assets("doctor", home=tmp_path).stdout
    asked = loan_assets("doctor", home=tmp_path, LOAN_ENGINE="spark", LOAN_SPARK_MASTER="local[1]")
    assert "✓ Engine     Spark 4" in asked.stdout
    assert "at local[1], " in asked.stdout
