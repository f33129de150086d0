"""The images, built and run: by nobody in particular, on a read-only file system, without rights, in little memory."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import psutil
import pytest
from dagster._core.remote_origin import GrpcServerCodeLocationOrigin
from dagster._grpc.client import DagsterGrpcClient

from bento.access import new_token
from bento.places import Places
from loan_assets.books import LoanBook, Role
from loan_assets.prediction_record import read_day
from loan_assets.rehearsal import as_applications
from loan_assets.resources.bento_store import LOCK, PACKAGES, BuiltBento
from loan_assets.resources.release_store import ReleaseStore
from loan_assets_tests.bento.conftest import DAY, Box
from loan_assets_tests.conftest import ROOT, Home
from loan_assets_tests.resources.test_bento_store import BUILD
from loan_assets_tests.services import free_port, until
from loan_assets_tests.test_house import GRAPH

IMAGES = ROOT / "deploy" / "images"
STAND_IN = "localhost/python-stand-in:3.11"
CODE_BYTES, BENTO_BYTES = 1_500_000_000, 350_000_000
USER = 10_001
READY_SECONDS = 10.0
KILLED = "137"
REQUESTS = 1_000
RESTRAINED = ("--read-only", "--cap-drop=all", "--security-opt=no-new-privileges", "--tmpfs=/tmp")
# Where each listens, what of it answers when it is well, and its command.
ROLES = {
    "web server": (3000, "/server_info", "dagster-webserver -h 0.0.0.0 -p 3000 -w workspace.yaml"),
    "MLflow's server": (5000, "/health", "loan-assets mlflow --host 0.0.0.0 --port 5000"),
    "webhook": (3100, "/metrics", "loan-assets webhook --host 0.0.0.0 --port 3100"),
}
ENVIRONMENT = {
    **os.environ,
    "CONTAINERS_CONF": str(IMAGES / "containers.conf"),
    "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])),
}
MISSING = [program for program in ("podman", "runc", "debootstrap") if not shutil.which(program)]
needs_podman = pytest.mark.skipif(
    bool(MISSING) or os.geteuid() != 0,
    reason=f"no images here: {', '.join(MISSING) + ' is not installed' if MISSING else 'this is not root'}",
)
pytestmark = pytest.mark.production


def podman(*arguments: str, check: bool = True) -> str:
    done = subprocess.run(["podman", *arguments], env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0 or not check, done.stderr
    return done.stdout.strip()


def built(script: str, *arguments: str, **variables: str) -> str:
    """What a script of `deploy/images` prints, a name; what it does is told where it fails."""
    command = [str(IMAGES / script), *arguments]
    began = time.monotonic()
    done = subprocess.run(command, env=ENVIRONMENT | variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    sys.stdout.write(f"{' '.join((script, *arguments))}: {time.monotonic() - began:.0f} s\n")
    return done.stdout.strip()


@pytest.fixture(scope="module")
def base() -> str:
    """A Python 3.11 to build from; where a machine may not run containers, its reason."""
    given = os.environ.get("BASE")
    if not given:
        built("base.sh", STAND_IN)
    trying = ["podman", "run", "--rm", "--network=none", given or STAND_IN, "true"]
    tried = subprocess.run(trying, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"containers do not run here: {tried.stderr.strip()}")
    return given or STAND_IN


@pytest.fixture(scope="module")
def code_image(base: str) -> str:
    return built("build.sh", "code", BASE=base)


@pytest.fixture(scope="module")
def bento_image(base: str, ran: Home) -> str:
    return built("build.sh", "bento", BASE=base, LOAN_HOME=str(ran.settings.home))


@contextmanager
def running(image: str, *options: str, command: Sequence[str] = ()) -> Iterator[str]:
    """A container without rights, until the block ends, which it must do when it is asked to."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    podman("run", "--detach", "--name", name, *RESTRAINED, *options, image, *command)
    try:
        yield name
        assert podman("inspect", "--format", "{{.State.OOMKilled}}", name) == "false"
        podman("stop", "--time", "30", name)
        assert podman("inspect", "--format", "{{.State.ExitCode}}", name) != KILLED
    finally:
        podman("rm", "--force", "--time", "0", name, check=False)


def in_image(image: str, *command: str, volume: Path) -> str:
    mounted = f"--volume={volume}:/var/lib/loan_assets"
    return podman("run", "--rm", "--network=none", "--memory=1g", *RESTRAINED, mounted, image, *command)


def owned(folder: Path) -> Path:
    """A folder with all below it, given to the images' user."""
    for path in (folder, *folder.rglob("*")):
        os.chown(path, USER, USER)
    return folder


def test_the_box_is_locked_in_the_versions_that_the_platform_is_tested_with() -> None:
    def pins(lock: Path) -> dict[str, str]:
        lines = [line.removesuffix(" \\").split("==") for line in lock.read_text().splitlines() if "==" in line]
        return {name.partition("[")[0]: version for name, version in lines}

    box = pins(ROOT / LOCK)
    assert set(PACKAGES) <= set(box)
    for other in ("requirements.lock", "deploy/requirements.lock"):
        assert box.items() <= pins(ROOT / other).items()


@needs_podman
def test_images_are_small_and_have_an_owner_without_rights(code_image: str, bento_image: str) -> None:
    for image, most in ((code_image, CODE_BYTES), (bento_image, BENTO_BYTES)):
        size = int(podman("image", "inspect", "--format", "{{.Size}}", image))
        sys.stdout.write(f"{image}: {size / 1e6:.0f} MB\n")
        assert size <= most
        assert podman("image", "inspect", "--format", "{{.Config.User}}", image) == f"{USER}:{USER}"
        assert not image.endswith(":latest")


@needs_podman
def test_the_code_server_is_well_and_tells_of_the_whole_graph(code_image: str, tmp_path: Path) -> None:
    port = free_port()
    options = (f"--publish=127.0.0.1:{port}:4000", "--memory=1g", f"--volume={owned(tmp_path)}:/var/lib/loan_assets")
    with running(code_image, *options) as name:
        until(lambda: is_serving(port), 60)
        podman("exec", name, "dagster", "api", "grpc-health-check", "-p", "4000")
        origin = GrpcServerCodeLocationOrigin(host="127.0.0.1", port=port, location_name="image")
        with dg.DagsterInstance.ephemeral() as instance, origin.create_location(instance) as location:
            (repository,) = location.get_repositories().values()
            assert set(repository.asset_graph.get_all_asset_keys()) == set(GRAPH.get_all_asset_keys())


@needs_podman
def test_a_bento_built_in_the_image_is_the_one_built_here(code_image: str, ran: Home, tmp_path: Path) -> None:
    champion = ReleaseStore(root=str(ran.settings.releases)).champion()
    shutil.copytree(ran.settings.releases / champion.path, tmp_path / "release")
    places = ("/var/lib/loan_assets/bentoml", "/var/lib/loan_assets/release", champion.digest)
    made = in_image(code_image, "python", "-c", BUILD, *places, volume=owned(tmp_path))
    assert made == ran.read("loan_bento", BuiltBento).tag


@needs_podman
@pytest.mark.parametrize("role", ROLES)
def test_the_image_is_each_of_the_other_servers_too(code_image: str, role: str, tmp_path: Path) -> None:
    inside, path, command = ROLES[role]
    port = free_port()
    (tmp_path / "dagster").mkdir()
    (tmp_path / "dagster" / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
    (tmp_path / "tokens").write_text(new_token("tester", frozenset({"admin"}))[1].line() + "\n")
    options = (
        f"--publish=127.0.0.1:{port}:{inside}",
        "--memory=1g",
        f"--volume={owned(tmp_path)}:/var/lib/loan_assets",
        "--env=DAGSTER_HOME=/var/lib/loan_assets/dagster",
        "--env=LOAN_TOKENS=/var/lib/loan_assets/tokens",
    )
    with running(code_image, *options, command=command.split()) as name:
        until(lambda: status(port, path) in (http.client.OK, http.client.UNAUTHORIZED), 90)
        # A gigabyte of processes that nothing here has work for.
        assert "mlflow.server.jobs" not in podman("top", name, "args")


@needs_podman
def test_the_bentos_image_answers_in_time_what_the_scorer_answers_here(
    bento_image: str, ran: Home, received: pd.DataFrame, book: LoanBook, tmp_path: Path
) -> None:
    port, volume = free_port(), tmp_path / "volume"
    volume.mkdir()
    secret, entry = new_token("tester", frozenset({"predict"}))
    (tmp_path / "tokens").write_text(entry.line() + "\n")
    options = (
        f"--publish=127.0.0.1:{port}:3000",
        "--memory=512m",
        f"--volume={owned(volume)}:/var/lib/loan_assets",
        f"--volume={tmp_path / 'tokens'}:/run/tokens:ro",
        "--env=LOAN_TOKENS=/run/tokens",
        f"--env=LOAN_REHEARSED_DAY={DAY}",
    )
    rows = received[[column.name for column in book.with_role(Role.FEATURE)]].head(REQUESTS)
    bodies = [{"applications": [application]} for application in as_applications(rows)]
    began = time.monotonic()
    with running(bento_image, *options) as name:
        until(lambda: status(port, "/readyz") == http.client.OK, READY_SECONDS)
        ready = time.monotonic() - began
        assert status(port, "/livez") == http.client.OK
        answers = [asked(port, body, secret) for body in bodies]
        memory = podman("stats", "--no-stream", "--format", "{{.MemUsage}}", name)
        sys.stdout.write(f"ready after {ready:.1f} s; memory after {REQUESTS} requests: {memory}\n")
    records, damages = read_day(volume / "predictions" / DAY)
    assert (len(records), damages) == (REQUESTS, ())
    here = ran.settings.bentoml_home / "bentos" / "loan_default" / bento_image.partition(":")[2]
    places = Places(
        box=here / "src" / "release",
        releases=None,
        online=str(tmp_path / "online"),
        predictions=tmp_path / "log",
        tokens=None,
        rehearsed_day=DAY,
    )
    box = Box(places)
    assert answers == [box.post("/score", body).body["predictions"] for body in bodies]
    box.close()


PORTS = (3000, 3080, 3100, 4000, 5000, 5432, 6379, 9000)
FIRST_SCORE_SECONDS = 300.0


def taken() -> list[int]:
    listening = {one.laddr.port for one in psutil.net_connections("tcp") if one.status == psutil.CONN_LISTEN}
    return sorted(listening & set(PORTS))


@needs_podman
@pytest.mark.skipif(
    not (shutil.which("kubectl") and shutil.which("catatonit")), reason="kubectl or catatonit is not installed"
)
def test_the_whole_stack_is_up_with_one_command_and_its_endpoint_follows_the_graph(
    base: str, code_image: str, bento_image: str
) -> None:
    if taken():
        pytest.skip(f"ports {taken()} of this machine are in use")
    stand_ins = built("build.sh", "stand-ins", BASE=base)
    began = time.monotonic()
    try:
        said = built("up.sh", code_image, bento_image, stand_ins)
        assert re.fullmatch(r"Version 1 of http://127\.0\.0\.1:3000 answers in \d+ ms", said)
        assert time.monotonic() - began < FIRST_SCORE_SECONDS
        assert standing()["source"] == "bento"
        until(lambda: status(3080, "/server_info") == http.client.OK, 120)
        until(lambda: is_serving(4000), 180)
        in_the_platform = ("exec", "loan-assets-code-pod-0-code", "loan-assets")
        podman(*in_the_platform, "run")
        until(lambda: standing()["source"] == "store", 30)
        assert "Backup " in podman(*in_the_platform, "backup")
        assert "is whole" in podman(*in_the_platform, "restore", "--check")
        parts = podman("ps", "--filter", "name=loan-assets-", "--format", "{{.Names}} {{.Status}}").splitlines()
        up = {line.split("-pod-0-")[1].split()[0] for line in parts if " Up " in line and "-pod-0-" in line}
        assert {"code", "web", "daemon", "webhook", "mlflow", "endpoint"} <= up
        sys.stdout.write(podman("stats", "--no-stream", "--format", "{{.Name}} {{.MemUsage}}") + "\n")
    finally:
        built("down.sh")


def standing() -> dict[str, Any]:
    token = (ROOT / ".up" / "token").read_text().strip()
    with closing(http.client.HTTPConnection("127.0.0.1", 3000, timeout=10)) as connection:
        connection.request("GET", "/standing", headers={"authorization": f"Bearer {token}"})
        said: dict[str, Any] = json.loads(connection.getresponse().read())
    return said


def is_serving(port: int) -> bool:
    """Asks a code server what a cluster's probe asks it."""
    with redirect_stdout(StringIO()):  # where it tells of what it cannot reach
        said: object = DagsterGrpcClient(host="127.0.0.1", port=port).health_check_query()  # type: ignore[no-untyped-call]
    return said == "SERVING"


def status(port: int, path: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except OSError:
        return 0
    finally:
        connection.close()


def asked(port: int, body: object, secret: str) -> object:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        headers = {"content-type": "application/json", "authorization": f"Bearer {secret}"}
        connection.request("POST", "/score", json.dumps(body), headers)
        return json.loads(connection.getresponse().read())["predictions"]
    finally:
        connection.close()
