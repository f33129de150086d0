"""Places on other machines: what is well, what is wrong and whose fault it is, on real servers, within seconds."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from pathlib import Path

import pytest
from alembic.script import ScriptDirectory

from loan_assets.connections import SCHEMAS, _newest, examined, require
from loan_assets.findings import BROKEN, WELL, Finding
from loan_assets.online_redis import connected
from loan_assets.refusal import Refusal
from loan_assets.settings import Settings
from loan_assets_tests.conftest import loan_assets
from loan_assets_tests.services import PASSWORD, S3, Postgres, RedisServer, free_port

LONGEST = 15.0


def found(home: Path, **variables: str) -> tuple[Finding, ...]:
    """What is found where these variables are set, and that no password is shown."""
    began = time.monotonic()
    findings = examined(Settings.from_environment({"LOAN_HOME": str(home), **variables}))
    assert time.monotonic() - began < LONGEST
    assert PASSWORD not in str(findings)
    assert "wrong" not in str(findings)
    return findings


def trouble(home: Path, **variables: str) -> str:
    """The one thing that is wrong, and what to do."""
    broken = [finding for finding in found(home, **variables) if finding.state == BROKEN]
    assert len(broken) == 1, broken
    return f"{broken[0].found} {broken[0].next_step}"


def test_a_platform_on_one_machine_has_nothing_elsewhere(tmp_path: Path) -> None:
    assert found(tmp_path) == found(tmp_path, LOAN_STORE=str(tmp_path / "store")) == ()


def test_fresh_places_are_well_and_nothing_is_left_in_them(
    tmp_path: Path, bucket: str, postgres: Postgres, redis: RedisServer
) -> None:
    findings = found(
        tmp_path,
        LOAN_DAGSTER_STORAGE=postgres.database("well_dagster"),
        LOAN_MLFLOW_URI=postgres.database("well_mlflow"),
        LOAN_FEAST_REGISTRY=postgres.database("well_feast"),
        LOAN_FEAST_ONLINE=redis.place(1),
        LOAN_ONLINE=redis.place(0),
        LOAN_STORE=f"{bucket}/store",
        LOAN_MLFLOW_ARTIFACTS=f"{bucket}/mlflow",
    )
    assert [finding.state for finding in findings] == [WELL] * 7
    said = [finding.found for finding in findings]
    assert "LOAN_DAGSTER_STORAGE (Dagster's runs and events, " in said[0]
    assert "empty, its tables are made at first use" in said[0]
    assert "read, written once, replaced and deleted" in said[5]


@pytest.mark.parametrize("variable", ["LOAN_DAGSTER_STORAGE", "LOAN_MLFLOW_URI", "LOAN_FEAST_REGISTRY"])
def test_what_is_wrong_with_a_database_is_named(variable: str, tmp_path: Path, postgres: Postgres) -> None:
    here = postgres.url("postgres")
    wrong = {
        "has no such database": postgres.url("nowhere"),
        "does not accept the password": here.replace(PASSWORD, "wrong"),
        "refuses the connection: nothing listens there": here.replace(str(postgres.port), str(free_port())),
        "is at a host whose name is not known": here.replace("127.0.0.1", "no.such.host.invalid"),
    }
    for words, url in wrong.items():
        said = trouble(tmp_path, **{variable: url})
        assert variable in said
        assert words in said


def test_a_database_in_which_this_user_may_not_make_tables_is_named(tmp_path: Path, postgres: Postgres) -> None:
    postgres.database("guarded")
    postgres.execute(
        f"create role reader login password '{PASSWORD}'",
        "revoke create on schema public from public",
        database="guarded",
    )
    said = trouble(tmp_path, LOAN_MLFLOW_URI=postgres.url("guarded", "reader"))
    assert "does not let this user make tables" in said


@pytest.mark.parametrize(("variable", "package"), [("LOAN_DAGSTER_STORAGE", "dagster"), ("LOAN_MLFLOW_URI", "mlflow")])
def test_a_database_that_is_half_migrated_or_newer_is_named(
    variable: str, package: str, tmp_path: Path, postgres: Postgres
) -> None:
    name = f"half_{package}"
    url = postgres.database(name)
    postgres.execute("create table runs (id int)", database=name)
    assert "is half migrated" in trouble(tmp_path, **{variable: url})
    postgres.execute(
        "create table alembic_version (version_num varchar(32))",
        "insert into alembic_version values ('feedc0ffee00')",
        database=name,
    )
    assert f"holds tables of a newer {package} than is installed" in trouble(tmp_path, **{variable: url})


def test_two_vendors_in_one_database_are_told_apart(tmp_path: Path, postgres: Postgres) -> None:
    url = postgres.database("shared")
    postgres.execute(f"create role other superuser login password '{PASSWORD}'", database="shared")
    for mlflow in (url, postgres.url("shared", "other")):
        assert "name the same database" in trouble(tmp_path, LOAN_DAGSTER_STORAGE=url, LOAN_MLFLOW_URI=mlflow)


def test_what_is_wrong_with_redis_is_named(tmp_path: Path, redis: RedisServer) -> None:
    assert "does not let this user in" in trouble(tmp_path, LOAN_ONLINE=redis.place(password="wrong"))
    gone = redis.place().replace(str(redis.port), str(free_port()))
    assert "does not answer" in trouble(tmp_path, LOAN_FEAST_ONLINE=gone)
    client = connected(redis.place())
    client.config_set("maxmemory-policy", "allkeys-lru")
    assert "may drop clients' features when its memory is full" in trouble(tmp_path, LOAN_ONLINE=redis.place())
    client.config_set("maxmemory-policy", "noeviction")


def test_what_is_wrong_with_a_bucket_is_named(tmp_path: Path, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "is in no bucket that is there" in trouble(tmp_path, LOAN_RELEASES="s3://nowhere/releases")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    assert "cannot be reached" in trouble(tmp_path, LOAN_PREDICTIONS=bucket)


@contextmanager
def careless(emulator: S3) -> Iterator[str]:
    """The same store behind a proxy that drops the conditions of a write, as stores did before they knew them."""

    class Proxy(BaseHTTPRequestHandler):
        def _pass_on(self) -> None:
            there = http.client.HTTPConnection("127.0.0.1", emulator.port, timeout=20)
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            kept = {name: value for name, value in self.headers.items() if not name.lower().startswith("if-")}
            there.request(self.command, self.path, body, kept)
            reply = there.getresponse()
            content = reply.read()
            self.send_response(reply.status)
            for name, value in reply.getheaders():
                if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                    self.send_header(name, value)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _pass_on  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_a_store_that_ignores_conditional_writes_is_refused(
    tmp_path: Path, bucket: str, emulator: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    with careless(emulator) as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        assert "ignores conditional writes" in trouble(tmp_path, LOAN_STORE=bucket)


def test_hosts_that_never_answer_are_named_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(50)
        at = f"127.0.0.1:{deaf.getsockname()[1]}"
        for name, value in {"AWS_ENDPOINT_URL": f"http://{at}", "AWS_ALLOW_HTTP": "true"}.items():
            monkeypatch.setenv(name, value)
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"):
            monkeypatch.setenv(name, "x")
        findings = found(
            tmp_path,
            LOAN_DAGSTER_STORAGE=f"postgresql://u@{at}/d",
            LOAN_MLFLOW_URI=f"http://{at}",
            LOAN_ONLINE=f"redis://{at}/0",
            LOAN_STORE="s3://bank/store",
        )
    assert [finding.state for finding in findings] == [BROKEN] * 4


@pytest.mark.parametrize("package", ["dagster", "mlflow"])
def test_the_steps_that_are_read_of_a_vendor_s_schema_are_those_that_alembic_finds(package: str) -> None:
    folder = Path(str(import_module(package).__file__)).parent / dict(SCHEMAS.values())[package]
    scripts = ScriptDirectory(str(folder))
    head, known = _newest(package, dict(SCHEMAS.values())[package])
    assert head == scripts.get_current_head()
    assert known == {step.revision for step in scripts.walk_revisions()}
    assert len(known) > 60


def test_a_run_does_not_begin_where_a_place_cannot_be_used(tmp_path: Path, postgres: Postgres) -> None:
    settings = Settings.from_environment({"LOAN_HOME": str(tmp_path), "LOAN_MLFLOW_URI": postgres.url("nowhere")})
    with pytest.raises(Refusal, match=r"LOAN_MLFLOW_URI \(MLflow's runs and versions, .* has no such database"):
        require(settings)
    began = time.monotonic()
    done = loan_assets("run", home=tmp_path, LOAN_MLFLOW_URI=postgres.url("nowhere"), LOAN_DAGSTER_STORAGE="")
    assert time.monotonic() - began < LONGEST
    assert done.returncode == 1
    assert "has no such database" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "dagster.yaml"]


def test_doctor_can_be_asked_for_connections_alone(tmp_path: Path, bucket: str, emulator: S3) -> None:
    done = loan_assets("doctor", "--connections", home=tmp_path, LOAN_STORE=bucket, **emulator.environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0].startswith("✓ Elsewhere")
    assert len(done.stdout.splitlines()) == 1
