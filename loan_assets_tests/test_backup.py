"""Backups: what is in them while others write, what a kill leaves, what is refused, and from nothing to a platform."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest

from loan_assets.backup import Made, back_up
from loan_assets.backup_parts import parts_of
from loan_assets.books import LoanBook, Role, the_book
from loan_assets.bucket import Bucket
from loan_assets.credit.succession import Action, Kind, Situation
from loan_assets.databases import dump
from loan_assets.endpoint import served
from loan_assets.home import RESTORING, prepare
from loan_assets.killed_runs import HOST
from loan_assets.place import place_at
from loan_assets.refusal import Refusal
from loan_assets.rehearsal import as_applications
from loan_assets.resources.decisions import WATCH, Decisions, Step
from loan_assets.resources.experiments import MODEL_DIGEST, Experiments
from loan_assets.resources.prediction_logs import PredictionLogs
from loan_assets.resources.registry import Registry
from loan_assets.resources.versioned_store import VersionedStore
from loan_assets.restore import checked, restore
from loan_assets.sealed import CURRENT, MANIFEST
from loan_assets.settings import Settings
from loan_assets.vault import Backup, Content, PartHeld, Vault, content_of
from loan_assets_tests.conftest import PLACES, Home, There, loan_assets
from loan_assets_tests.kill_drill import Instants, forked, warm
from loan_assets_tests.prepared import DATABASES
from loan_assets_tests.services import PASSWORD, Postgres, RedisServer

needs_pg_dump = pytest.mark.skipif(
    shutil.which("pg_dump") is None, reason="pg_dump is not installed: apt-get install postgresql-client"
)


@pytest.fixture
def home(ran: Home, tmp_path: Path) -> Settings:
    """A copy of the home in which the graph was run."""
    shutil.copytree(ran.settings.home, tmp_path / "home")
    return Settings.from_environment({"LOAN_HOME": str(tmp_path / "home")})


@pytest.fixture
def kept(ran: Home, tmp_path: Path) -> str:
    """A place with one backup of the home in which the graph was run."""
    back_up(ran.settings, str(tmp_path / "kept"))
    return str(tmp_path / "kept")


def fresh(tmp_path: Path, name: str = "new") -> Settings:
    return Settings.from_environment({"LOAN_HOME": str(tmp_path / name)})


def text_of(place: str, content: Content, tmp_path: Path) -> bytes:
    Vault(place_at(place)).fetch(content, tmp_path / "content")
    return (tmp_path / "content").read_bytes()


def refused(settings: Settings, place: str, which: str = "") -> str:
    """Why a restore is refused; nothing was written then."""
    with pytest.raises(Refusal) as told:
        restore(settings, place, which)
    assert not settings.home.exists()
    return str(told.value)


def test_what_a_place_holds_already_is_not_copied_again(home: Settings, bucket: str) -> None:
    first = back_up(home, bucket)
    assert first.copied_bytes > 20_000_000
    again = back_up(home, bucket)
    assert (again.copied, again.bytes) == (0, first.bytes)
    log = next(home.predictions.glob("*/*.log"))
    with log.open("ab") as file:
        file.write(log.read_bytes().splitlines(keepends=True)[0] + b"half a li")
    grown = back_up(home, bucket)
    assert grown.copied == 1
    name, backup = checked(bucket)
    assert name == grown.name
    content = backup.parts["log"].files[log.relative_to(home.predictions).as_posix()]
    assert content.size == log.stat().st_size - len(b"half a li")


def test_secrets_and_what_can_be_derived_are_not_in_it(home: Settings, tmp_path: Path) -> None:
    tokens = home.home / "tokens"
    tokens.write_text("core-banking predict " + "a" * 64)
    back_up(home, str(tmp_path / "kept"))
    _, backup = checked(str(tmp_path / "kept"))
    digests = {one.digest for part in backup.parts.values() for one in part.files.values()}
    for left_out in (tokens, home.home / "feast" / "online.db", next((home.home / "online").rglob("*.npy"))):
        assert hashlib.sha256(left_out.read_bytes()).hexdigest() not in digests
    packed = next((home.home / "bentoml").rglob("bento.yaml"))
    assert hashlib.sha256(packed.read_bytes()).hexdigest() not in digests


def test_only_the_newest_backups_stay_and_each_of_them_is_whole(home: Settings, tmp_path: Path) -> None:
    place = str(tmp_path / "kept")
    store = VersionedStore(root=home.store, keep=2)
    made: list[Made] = []
    for number in range(4):
        store.write("churn", lambda folder, number=number: write_fact(folder, number))  # type: ignore[misc]
        made.append(back_up(home, place, keep=2))
    assert [one.retired for one in made] == [0, 0, 1, 1]
    vault = Vault(place_at(place))
    assert vault.names() == (made[2].name, made[3].name)
    held = {name.rpartition("/")[2] for name, _ in vault.place.names("objects")}
    named = [set(checked(place, name)[1].contents()) for name in vault.names()]
    assert held == named[0] | named[1]
    assert named[0] != named[1]


def test_a_damaged_backup_is_told_of_and_stops_no_later_one(home: Settings, tmp_path: Path) -> None:
    place = str(tmp_path / "kept")
    first = back_up(home, place)
    damaged = Path(place, "backups", f"{first.name}.json")
    damaged.write_bytes(damaged.read_bytes()[:-9])
    told = loan_assets("backup", "--to", place, "--keep", "2", home=home.home)
    assert told.returncode == 0, told.stderr
    for words in ("Every part was read anew", "Older backups were not removed"):
        assert f"{words}: The backup {first.name} at {place} is damaged." in told.stdout
    assert checked(place)[0] in told.stdout
    # Once it is among those that go, it goes like any other.
    assert back_up(home, place, keep=2).warnings == ()
    assert not damaged.exists()


def write_fact(folder: Path, number: int) -> None:
    (folder / "fact.json").write_text(json.dumps({"number": number, "padding": "x" * 200_000}))


@contextmanager
def working(deed: Callable[[int], None]) -> Iterator[list[int]]:
    """Do something again and again while the block runs; what was done last is counted."""
    over, done = threading.Event(), [0]

    def work() -> None:
        while not over.is_set():
            deed(done[0])
            done[0] += 1

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield done
    finally:
        over.set()
        thread.join()


def test_nothing_in_a_backup_refers_to_what_is_missing_while_the_platform_works(home: Settings, tmp_path: Path) -> None:
    """Versions are made, decided on and retired all the time; the journal is read before what it names."""
    releases, store = VersionedStore(root=home.releases, keep=2), VersionedStore(root=home.store, keep=2)
    decisions, place = Decisions.over(home), str(tmp_path / "kept")
    before = decisions.steps()[-1].number

    def decide(number: int) -> None:
        version = 100 + number
        releases.write(f"v{version}", lambda folder: write_fact(folder, version))
        store.write("churn", lambda folder: write_fact(folder, version))
        action = Action(kind=Kind.PROMOTE, cause="a drill", version=version)
        situation = Situation(champion=version, newest=version)
        decisions.record(WATCH, "2026-12-01", (action,), situation, after=before + number)
        time.sleep(0.02)

    seen = []
    with working(decide) as done:
        for _ in range(6):
            started = done[0]
            back_up(home, place)
            seen.append((started, done[0]))
    assert sum(after - at for at, after in seen) > 6
    for name in Vault(place_at(place)).names():
        backup = checked(place, name)[1]
        lines = text_of(place, backup.parts["decisions"].files["journal.log"], tmp_path).splitlines(keepends=True)
        steps = [Step.of_line(line) for line in lines]
        for step in steps:
            assert step is not None
            assert f"v{step.situation.champion}/{CURRENT}" in backup.parts["releases"].files
        for part in ("store", "releases", "feast"):
            assert_every_pointer_is_met(place, backup, part, tmp_path)


def assert_every_pointer_is_met(place: str, backup: Backup, part: str, tmp_path: Path) -> None:
    files = backup.parts[part].files
    pointers = [name for name in files if name.endswith(f"/{CURRENT}")]
    assert pointers
    for name in pointers:
        version = f"{name.removesuffix(CURRENT)}{text_of(place, files[name], tmp_path)[:16].decode()}"
        manifest = json.loads(text_of(place, files[f"{version}/{MANIFEST}"], tmp_path))
        assert {file: files[f"{version}/{file}"].digest for file in manifest["files"]} == manifest["files"]


def test_a_damaged_version_in_force_is_named_and_one_that_is_not_is_left_out(home: Settings, tmp_path: Path) -> None:
    store = VersionedStore(root=home.store, keep=3)
    old = store.write("churn", lambda folder: write_fact(folder, 1))
    new = store.write("churn", lambda folder: write_fact(folder, 2))
    (old.folder / "fact.json").write_text("altered")
    made = back_up(home, str(tmp_path / "kept"))
    assert len(made.left_out) == 1
    assert old.folder.name in made.left_out[0]
    (new.folder / "fact.json").write_text("altered")
    with pytest.raises(Refusal, match="in force and cannot be backed up"):
        back_up(home, str(tmp_path / "kept"))
    assert Vault(place_at(str(tmp_path / "kept"))).names() == (made.name,)


def test_a_backup_killed_at_any_instant_is_none(home: Settings, tmp_path: Path) -> None:
    place = str(tmp_path / "kept")

    def work() -> None:
        back_up(home, place)

    whole = forked(work, Instants(at=0), 0.0)
    assert whole["instants"] > 100
    count, vault, named = whole["instants"], Vault(place_at(place)), []
    for at in (*range(1, count - 6, count // 6), *range(count - 6, count)):
        shutil.rmtree(place)
        ended = forked(work, Instants(at=at), 0.0)
        assert ended["is_killed"], at
        named.append(len(vault.names()))
        for name in vault.names():
            checked(place, name)
        Path(place).mkdir(exist_ok=True)
    # Whatever is named is whole; it is named in the last instants only.
    assert named[:-6] == [0] * len(named[:-6])
    assert named[-1] == 1
    forked(work, Instants(at=count // 2), 0.0)
    made = back_up(home, place)
    assert checked(place)[0] == made.name


def test_places_without_a_sound_backup_are_refused_before_anything_is_written(
    kept: str, tmp_path: Path, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = fresh(tmp_path)
    assert "There is no backup at" in refused(new, str(tmp_path / "nowhere"))
    assert "There is no backup at" in refused(new, bucket)
    assert "There is no backup yesterday" in refused(new, kept, "yesterday")
    assert "is in no bucket that is there" in refused(new, "s3://nowhere/kept")
    manifest = next(Path(kept, "backups").iterdir())
    said = manifest.read_bytes()
    manifest.write_bytes(said.replace(b'"kind":"folder"', b'"kind":"bucket"', 1))
    assert "is damaged" in refused(new, kept)
    newer = said.replace(b'"format":1', b'"format":2')
    manifest.write_bytes(newer)
    manifest = manifest.rename(manifest.with_name(f"29991231T000000000-{hashlib.sha256(newer).hexdigest()[:16]}.json"))
    assert "has format 2; this version reads 1" in refused(new, kept)
    other = said.replace(b'"book_digest":"', b'"book_digest":"f')
    manifest.write_bytes(other)
    manifest.rename(manifest.with_name(f"29991231T000000000-{hashlib.sha256(other).hexdigest()[:16]}.json"))
    assert "Restore with the code of that book" in refused(new, kept)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    assert "cannot be reached" in refused(new, bucket)


def test_the_run_again_of_a_killed_restore_removes_only_what_a_restore_writes(tmp_path: Path) -> None:
    book, vault, new = the_book(), Vault(place_at(str(tmp_path / "kept"))), fresh(tmp_path)
    (tmp_path / "fact").write_text("1")
    vault.put(content_of(tmp_path / "fact"), tmp_path / "fact")
    held = PartHeld(kind="folder", place="", files={"feast/fact": content_of(tmp_path / "fact")})
    made, parts = "2026-11-24T00:00:00", {"store": held}
    vault.write(Backup(made=made, package="1", book=book.name, book_digest=book.digest, parts=parts))
    # What is nobody's content is no reason to refuse a home, and no restore may take it away.
    theirs = {new.home / name for name in (".ssh/key", ".env", "lost+found/#1", "store/.snapshot/fact")}
    for one in theirs:
        one.parent.mkdir(parents=True, exist_ok=True)
        one.write_text("theirs")
    for _ in range(2):
        # There is no champion to serve: it ends where a kill would end it, before all is there.
        with pytest.raises(Refusal):
            restore(new, str(tmp_path / "kept"))
        assert (new.home / RESTORING).exists()
        assert (new.home / "store" / "feast" / "fact").read_text() == "1"
        (new.home / "store" / "feast" / "half").write_text("half")
    assert not [one for one in theirs if one.read_text() != "theirs"]
    with pytest.raises(Refusal):
        restore(new, str(tmp_path / "kept"))
    assert not (new.home / "store" / "feast" / "half").exists()


def test_the_record_of_repeats_is_backed_up_where_the_log_s_writer_keeps_it(tmp_path: Path) -> None:
    for place, kept in (
        ("", "home/predictions"),
        (str(tmp_path / "log"), "log"),
        ("s3://bank/log", "home/spool/predictions"),
    ):
        settings = Settings.from_environment({"LOAN_HOME": str(tmp_path / "home"), "LOAN_PREDICTIONS": place})
        (repeats,) = (part for part in parts_of(settings) if part.name == "repeats")
        assert repeats.place == str(tmp_path / kept / "repeats.db")


@pytest.mark.parametrize("harm", ["cut", "altered", "gone"])
def test_a_damaged_content_is_refused_before_anything_is_written(harm: str, kept: str, tmp_path: Path) -> None:
    _, backup = checked(kept)
    digest = backup.parts["releases"].files[f"standing/{CURRENT}"].digest
    content = Path(kept, "objects", digest[:2], digest)
    said = content.read_bytes()
    if harm == "gone":
        content.unlink()
    else:
        content.write_bytes(said[:-1] if harm == "cut" else said[:-2] + b"f\n")
    wrong = "is missing" if harm == "gone" else "is damaged"
    assert f"{digest} {wrong}" in refused(fresh(tmp_path), kept)
    assert loan_assets("restore", "--from", kept, "--check", home=tmp_path).returncode == 1


def test_a_home_that_is_not_empty_stays_as_it_is(kept: str, ran: Home, tmp_path: Path) -> None:
    new = fresh(tmp_path)
    prepare(new)  # what `loan-assets init` does
    (new.home / "landing").mkdir()
    (new.home / "landing" / "statements-2005-10.csv").write_text("a month")
    told = loan_assets("restore", "--from", kept, home=new.home)
    assert told.returncode == 2
    assert "is not empty: it holds landing/statements-2005-10.csv" in told.stderr
    assert sorted(path.name for path in new.home.rglob("*") if path.is_file()) == [
        "dagster.yaml",
        "statements-2005-10.csv",
    ]


def test_a_platform_of_other_kinds_of_places_is_refused(kept: str, tmp_path: Path) -> None:
    other = Settings.from_environment(
        {"LOAN_HOME": str(tmp_path / "new"), "LOAN_DAGSTER_STORAGE": "postgresql://u@127.0.0.1:1/d"}
    )
    assert "dagster was in SQLite, here it is Postgres" in refused(other, kept)


def test_what_cannot_be_backed_up_is_told(ran: Home, tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="There is no home"):
        back_up(fresh(tmp_path), str(tmp_path / "kept"))
    (tmp_path / "new").mkdir()
    with pytest.raises(Refusal, match="nothing to back up"):
        back_up(fresh(tmp_path), str(tmp_path / "kept"))
    with pytest.raises(Refusal, match="lies inside of what is backed up"):
        back_up(ran.settings, str(ran.settings.home / "kept"))
    (tmp_path / "file").write_text("")
    with pytest.raises(Refusal, match="cannot be used: Not a directory"):
        back_up(ran.settings, str(tmp_path / "file"))


def test_a_missing_or_old_pg_dump_is_named_with_its_package(
    postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    url = postgres.url("postgres").replace("postgresql:", "postgresql+psycopg2:")
    with pytest.raises(Refusal, match=r"pg_dump is not installed\. .*postgresql-client-"):
        dump(url, tmp_path / "dump")
    old = tmp_path / "pg_dump"
    old.write_text("#!/bin/sh\necho 'pg_dump (PostgreSQL) 9.6.1'\n")
    old.chmod(0o755)
    with pytest.raises(Refusal, match="pg_dump is of version 9, the server of "):
        dump(url, tmp_path / "dump")


def test_no_password_is_on_a_tool_s_command_line_wherever_the_url_holds_it(
    postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "pg_dump"
    told = f'echo "$@" > {tmp_path}/arguments; echo "$PGPASSWORD" > {tmp_path}/password'
    tool.write_text(f"#!/bin/sh\nset -e\n{told}\necho 'pg_dump (PostgreSQL) 99.1'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    open_to_all, _, place = postgres.url("postgres").rpartition("@")
    user = open_to_all.removeprefix("postgresql://").partition(":")[0]
    url = f"postgresql+psycopg2://{user}@{place}?password={PASSWORD}&connect_timeout=5"
    dump(url, tmp_path / "dump")
    said = (tmp_path / "arguments").read_text()
    assert PASSWORD not in said
    assert "connect_timeout=5" in said
    assert (tmp_path / "password").read_text().strip() == PASSWORD


@dataclass(frozen=True)
class Seen:
    """What a person sees of a platform, and what its callers are told."""

    decisions: str
    answers: list[Any]
    runs: dict[str, str]
    versions: dict[int, dict[str, str]]
    aliases: dict[str, int]
    log: list[Any]
    trees: int


def asked_columns(book: LoanBook) -> Iterator[str]:
    """What an applicant is asked for."""
    return (column.name for column in book.with_role(Role.KEY, Role.FEATURE, Role.PROTECTED))


def looked_at(settings: Settings, application: dict[str, Any], **variables: str) -> Seen:
    with served(settings) as endpoint:
        asked = [
            endpoint.post("/score", {"applications": [application], "request_id": "the-same"}),
            endpoint.post("/predict", {"client_ids": [1, 2]}),
        ]
        time.sleep(3 if variables else 0)  # shipped every two seconds
    assert [reply.status for reply in asked] == [200, 200]
    told = loan_assets("decisions", home=settings.home, **variables)
    assert told.returncode == 0, told.stderr
    with dg.DagsterInstance.from_config(str(settings.dagster_home)) as instance:
        runs = {run.run_id: str(run.status) for run in instance.get_runs()}
    registry = Registry(tracking_uri=settings.mlflow_uri, artifacts=settings.mlflow_artifacts)
    aliases = registry.aliases()
    versions = {version: registry.tags(version) for version in set(aliases.values())}
    experiments = Experiments(tracking_uri=settings.mlflow_uri, artifacts=settings.mlflow_artifacts)
    pipeline = experiments.boosting_of(versions[aliases["champion"]][MODEL_DIGEST])
    logs = PredictionLogs.over(settings)
    return Seen(
        decisions=told.stdout,
        answers=[{name: said for name, said in reply.body.items() if name != "request_id"} for reply in asked],
        runs=runs,
        versions=versions,
        aliases=aliases,
        log=[record for day in logs.days() for record in logs.records(day)[0]],
        trees=len(pipeline[-1]._predictors),
    )


@dataclass(frozen=True)
class Machines:
    """A platform that ran, how all of it is lost, and empty places of the same kind."""

    settings: Settings
    variables: dict[str, str]
    lose: Callable[[], None]
    new: Settings
    new_variables: dict[str, str]
    place: str


@pytest.fixture(params=["on one machine", "on other machines"])
def machines(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Machines:
    if request.param == "on one machine":
        home: Settings = request.getfixturevalue("home")
        return Machines(home, {}, lambda: shutil.rmtree(home.home), fresh(tmp_path), {}, str(tmp_path / "kept"))
    lived: There = request.getfixturevalue("there")("lived")
    old, variables = lived.settings, lived.variables
    postgres: Postgres = request.getfixturevalue("postgres")
    redis: RedisServer = request.getfixturevalue("redis")
    bucket: str = request.getfixturevalue("bucket")
    name = bucket.rpartition("/")[2]
    others = {
        **variables,
        "LOAN_DAGSTER_STORAGE": postgres.database(f"dagster_new_{name}"),
        "LOAN_MLFLOW_URI": postgres.database(f"mlflow_new_{name}"),
        "LOAN_FEAST_REGISTRY": postgres.database(f"feast_new_{name}"),
        "LOAN_FEAST_ONLINE": redis.place(3),
        "LOAN_ONLINE": redis.place(2),
        "LOAN_MLFLOW_ARTIFACTS": f"{bucket}-new/mlflow",
        **{f"LOAN_{place.upper()}": f"{bucket}-new/{place}" for place in PLACES},
    }
    for name_, value in variables.items():
        monkeypatch.setenv(name_, value)

    def lose() -> None:
        shutil.rmtree(old.home)
        objects = Bucket(variables["LOAN_STORE"].removesuffix("/store"))
        objects.delete([one.name for one in objects.names()])
        redis.empty()
        for database in DATABASES:
            postgres.execute(f'drop database "{variables[database].rpartition("/")[2]}" with (force)')
        for name_, value in others.items():
            monkeypatch.setenv(name_, value)

    new = Settings.from_environment({"LOAN_HOME": str(tmp_path / "new"), **others})
    return Machines(old, variables, lose, new, others, f"{bucket}-kept")


@pytest.mark.production
@needs_pg_dump
def test_from_nothing_to_a_platform_that_serves_the_same(
    machines: Machines, received: pd.DataFrame, book: LoanBook
) -> None:
    application = as_applications(received[list(asked_columns(book))].head(1))[0]
    prepare(machines.settings)
    before = looked_at(machines.settings, application, **machines.variables)
    began = time.monotonic()
    made = loan_assets("backup", "--to", machines.place, home=machines.settings.home, **machines.variables)
    assert made.returncode == 0, made.stdout + made.stderr
    took = time.monotonic() - began
    machines.lose()
    began = time.monotonic()
    machines.new.home.mkdir()
    done = loan_assets("restore", "--from", machines.place, home=machines.new.home, **machines.new_variables)
    assert done.returncode == 0, done.stdout + done.stderr
    sys.stdout.write(f"\n{made.stdout}backup {took:.1f} s, restore {time.monotonic() - began:.1f} s\n{done.stdout}")
    prepare(machines.new)
    examined = loan_assets("doctor", home=machines.new.home, **machines.new_variables)
    assert examined.returncode == 0, examined.stdout
    after = looked_at(machines.new, application, **machines.new_variables)
    assert after.decisions == before.decisions
    assert after.answers == before.answers
    assert after.runs == before.runs
    assert (after.versions, after.aliases, after.trees) == (before.versions, before.aliases, before.trees)
    # The request that was named is answered from the record; the other one is on record a second time.
    assert after.log[: len(before.log)] == before.log
    assert len(after.log) == len(before.log) + 2


def test_a_restore_killed_at_any_instant_is_run_again(kept: str, tmp_path: Path, ran: Home) -> None:
    new, began = fresh(tmp_path), time.monotonic()
    with warm(tmp_path, "restore_drill") as drill:
        count = drill.ask("counted", at=0)["instants"]
        writing = [1, 2, 3, *range(50, 500, 90)]
        deriving = [count - back for back in (400, 60, 8, 2)]
        for at in (*writing, *deriving):
            ended = drill.ask("new", at=at)
            assert ended["is_killed"], (at, ended)
            if (new.home / RESTORING).exists():
                with pytest.raises(Refusal, match="is being restored"):
                    prepare(new)
            else:
                assert not new.home.exists() or not list(new.home.rglob("*.db")) or at > count - 60
            if new.home.exists() and not (new.home / RESTORING).exists() and list(new.home.rglob("*.db")):
                shutil.rmtree(new.home)
    done = restore(new, kept)
    sys.stdout.write(f"\n{len(writing) + len(deriving)} kills of {count} instants, {time.monotonic() - began:.0f} s\n")
    assert done.champion == 1
    examined = loan_assets("doctor", home=new.home)
    assert "✗" not in examined.stdout, examined.stdout
    for part in ("store", "releases", "decisions", "predictions"):
        assert files_below(new.home / part) == files_below(ran.settings.home / part)


def files_below(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
        and not path.name.startswith(".")
        and path.suffix not in (".lock", ".db", ".db-wal", ".db-shm")
    }


def test_runs_that_were_going_on_are_ended_when_their_history_is_restored(home: Settings, tmp_path: Path) -> None:
    with dg.DagsterInstance.from_config(str(home.dagster_home)) as instance:
        (known, *_) = instance.get_runs()
        run = instance.create_run(
            job_name=known.job_name,
            run_id=None,
            run_config=None,
            status=dg.DagsterRunStatus.STARTED,
            tags={HOST: "a machine that burnt down", "loan_assets/pid": "1", "loan_assets/process_began": "1.0"},
            root_run_id=None,
            parent_run_id=None,
            step_keys_to_execute=None,
            execution_plan_snapshot=None,
            job_snapshot=None,
            parent_job_snapshot=None,
            asset_selection=None,
            asset_check_selection=None,
            resolved_op_selection=None,
            op_selection=None,
            remote_job_origin=None,
            job_code_origin=None,
            asset_graph=None,  # type: ignore[arg-type]
        )
    back_up(home, str(tmp_path / "kept"))
    new = fresh(tmp_path)
    assert restore(new, str(tmp_path / "kept")).ended_runs == 1
    with dg.DagsterInstance.from_config(str(new.dagster_home)) as instance:
        ended = instance.get_run_by_id(run.run_id)
    assert ended is not None
    assert ended.status == dg.DagsterRunStatus.FAILURE
    assert os.environ["DAGSTER_HOME"] == str(new.dagster_home)
