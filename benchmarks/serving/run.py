"""The endpoint beside its peers: requests a second, latency, CPU and memory, all measured in one run on one machine.

Run: `python benchmarks/serving/run.py` from the environment that `make setup` made, after `make demo`. It needs `wrk`
(`apt-get install wrk`). Each server gets an environment of its own and one worker; the load comes from this machine's
other core. Servers take turns, round after round, so that a busy machine slows all of them; figures are medians over
the rounds. It writes `results.md`, `results.json` and `results.png`.

What is compared. Peers answer one row of 20 ready-made features with a probability: no validation, no features, no
reasons, no record. Ours answers an application as a lender sends it (23 fields), from the built Bento: validated,
features computed, reasons for refusals, on record, counted. `ours, scorer alone` is our look-up of trees behind bare
uvicorn, which is what the peers do. Rows are drawn from the real table, approvals and refusals as they come.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from loan_assets.resources.bento_store import PACKAGES

HERE = Path(__file__).resolve().parent
PEERS = HERE / "peers"
ROWS, CLIENTS, FIRST_PORT = 2_000, 8, 18_100
LEARN = f"scikit-learn=={version('scikit-learn')}"
FAST = [f"{name}=={version(name)}" for name in ("uvicorn", "uvloop", "httptools")]
BOX = [f"{name}=={version(name)}" for name in PACKAGES if f"{name}=={version(name)}" not in FAST]


@dataclass(frozen=True)
class Server:
    """One server: its environment, how it is started, what it is asked."""

    name: str
    packages: tuple[str, ...]
    command: Callable[[Path, int, Path], list[str]]
    path: str
    body: Callable[[dict[str, Any]], object]
    ready: str
    variables: dict[str, str] = field(default_factory=dict)
    is_ours: bool = False


@dataclass
class Figures:
    """What one round gave."""

    requests_a_second: float
    p50_ms: float
    p99_ms: float
    cpu_ms: float
    memory_mb: float
    errors: int


def servers(home: Path, bento: str) -> list[Server]:
    """Every server, ours first."""
    ours = {
        "BENTOML_HOME": str(home / "bentoml"),
        "BENTOML_DO_NOT_TRACK": "True",
        "LOAN_WORKERS": "1",
        "LOAN_RELEASES": str(home / "releases"),
        "LOAN_ONLINE": str(home / "online"),
    }

    def bentoml(tag: str) -> Callable[[Path, int, Path], list[str]]:
        return lambda python, port, _: [
            str(python), "-m", "bentoml", "serve", tag, "--host", "127.0.0.1", "--port", str(port)
        ]  # fmt: skip

    def uvicorn(module: str) -> Callable[[Path, int, Path], list[str]]:
        return lambda python, port, _: [
            str(python), "-m", "uvicorn", f"{module}:app", "--port", str(port), "--no-access-log",
            "--log-level", "warning",
        ]  # fmt: skip

    application = Server(
        name="ours: application, reasons, record",
        packages=(*BOX, *FAST),
        command=bentoml(bento),
        path="/score",
        body=lambda row: {"applications": [row["application"]]},
        ready="/readyz",
        variables=ours,
        is_ours=True,
    )
    return [
        application,
        Server(
            name="ours: client by number, reasons, record",
            packages=application.packages,
            command=application.command,
            path="/predict",
            body=lambda row: {"client_ids": [row["client"]]},
            ready="/readyz",
            variables=ours,
            is_ours=True,
        ),
        Server(
            name="ours: scorer alone, bare uvicorn",
            packages=("numpy", "msgspec", *FAST),
            command=uvicorn("scorer_alone"),
            path="/",
            body=lambda row: [row["features"]],
            ready="/",
            is_ours=True,
        ),
        Server(
            name="FastAPI + onnxruntime",
            packages=("fastapi", f"onnxruntime=={version('onnxruntime')}", "numpy", *FAST),
            command=uvicorn("fastapi_onnxruntime"),
            path="/predict",
            body=lambda row: {"rows": [row["features"]]},
            ready="/docs",
        ),
        Server(
            name="FastAPI + scikit-learn",
            packages=("fastapi", LEARN, *FAST),
            command=uvicorn("fastapi_sklearn"),
            path="/predict",
            body=lambda row: {"rows": [row["features"]]},
            ready="/docs",
        ),
        Server(
            name="KServe SDK",
            packages=("kserve", LEARN),
            command=lambda python, port, _: [
                str(python), str(PEERS / "kserve_model.py"), "--http_port", str(port), "--enable_grpc", "false",
            ],
            path="/v1/models/loan-default:predict",
            body=lambda row: {"instances": [row["features"]]},
            ready="/v1/models/loan-default",
        ),
        Server(
            name="MLServer",
            packages=("mlserver==1.7.1", "mlserver-sklearn==1.7.1", LEARN),
            command=lambda python, _, place: [str(python.parent / "mlserver"), "start", str(place / "mlserver")],
            path="/v2/models/loan-default/infer",
            body=lambda row: {
                "inputs": [{"name": "x", "datatype": "FP64", "shape": [1, 20], "data": row["features"]}],
                "outputs": [{"name": "predict_proba"}],
            },
            ready="/v2/models/loan-default/ready",
        ),
        Server(
            name="BentoML as in its docs",
            packages=(f"bentoml=={version('bentoml')}", LEARN),
            command=bentoml("bentoml_docs:LoanDefault"),
            path="/predict",
            body=lambda row: {"rows": [row["features"]]},
            ready="/readyz",
            variables={"BENTOML_DO_NOT_TRACK": "True"},
        ),
        Server(
            name="mlflow models serve",
            packages=(f"mlflow=={version('mlflow')}", LEARN, f"skops=={version('skops')}"),
            command=lambda python, port, place: [
                str(python.parent / "mlflow"), "models", "serve", "-m", str(place / "mlflow"),
                "--env-manager", "local", "-h", "127.0.0.1", "-p", str(port), "-w", "1",
            ],
            path="/invocations",
            body=lambda row: {"inputs": [row["features"]]},
            ready="/ping",
        ),
        Server(
            name="feast serve (features only)",
            packages=(f"feast[duckdb]=={version('feast')}", "psycopg2-binary"),
            command=lambda python, port, place: [
                str(python.parent / "feast"), "-c", str(place / "feast"), "serve", "-h", "127.0.0.1", "-p", str(port),
                "--no-access-log", "-w", "1",
            ],
            path="/get-online-features",
            body=lambda row: {"feature_service": "default_model", "entities": {"client_id": [row["client"]]}},
            ready="/health",
        ),
    ]  # fmt: skip


def main() -> None:
    """Measure in rounds, then write table, figures and chart."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--home", type=Path, default=Path(os.environ.get("LOAN_HOME", ".loan_assets")))
    options.add_argument("--place", type=Path, default=Path(tempfile.gettempdir()) / "loan-serving-benchmark")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--seconds", type=int, default=6)
    options.add_argument("--only", default="", help="A part of a server's name.")
    given = options.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("wrk is missing: apt-get install wrk, then run again.")
    home, place = given.home.resolve(), given.place
    place.mkdir(parents=True, exist_ok=True)
    from prepare import prepare

    bento, rows = prepare(home, place, ROWS)
    found: dict[str, list[Figures]] = {}
    alone: dict[str, list[Figures]] = {}
    running: list[tuple[Server, int, subprocess.Popen[bytes], Path]] = []
    try:
        for number, server in enumerate(servers(home, bento)):
            if given.only not in server.name:
                continue
            port = FIRST_PORT + 10 * number
            process = start(server, port, place)
            bodies = place / f"bodies-{number}.txt"
            bodies.write_text("".join(json.dumps(server.body(row), separators=(",", ":")) + "\n" for row in rows))
            running.append((server, port, process, bodies))
            try_one(server, port, rows[0])
            print(f"ready: {server.name}", flush=True)
        for turn in range(given.rounds + 1):
            for server, port, process, bodies in running:
                eight = load(server, port, process, bodies, given.seconds if turn else 2, CLIENTS)
                one = load(server, port, process, bodies, max(2, given.seconds // 2) if turn else 1, 1)
                if turn:  # the first turn warms up
                    found.setdefault(server.name, []).append(eight)
                    alone.setdefault(server.name, []).append(one)
                    print(f"round {turn}: {server.name:42} {eight.requests_a_second:9,.0f}/s p99 {eight.p99_ms:.2f} ms")
    finally:
        for _, _, process, _ in running:
            stop(process)
    write(found, alone, given.rounds, given.seconds)


def environment_of(server: Server, place: Path) -> Path:
    """The Python of the server's own environment, made once."""
    name = hashlib.sha256(" ".join(sorted(server.packages)).encode()).hexdigest()[:16]
    folder = place / "environments" / name
    python = folder / "bin" / "python"
    uv = str(Path(sys.executable).parent / "uv")
    if not (folder / ".ready").exists():
        subprocess.run([uv, "venv", "-q", "--clear", "--python", sys.executable, str(folder)], check=True)
        install = [uv, "pip", "install", "-q", "--compile-bytecode", "--python", str(python), *server.packages]
        subprocess.run(install, check=True)
        (folder / ".ready").touch()
    return python


def start(server: Server, port: int, place: Path) -> subprocess.Popen[bytes]:
    """The server, answering its readiness path."""
    python = environment_of(server, place)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    path = f"{python.parent}{os.pathsep}{environment['PATH']}"
    environment |= {"BENCH": str(place), "OMP_NUM_THREADS": "1", "PATH": path, **server.variables}
    environment["PYTHONPATH"] = f"{PEERS}{os.pathsep}{place / 'box'}" if "scorer" in server.name else str(PEERS)
    if server.name.startswith("ours: ") and "uvicorn" not in server.name:
        environment.pop("PYTHONPATH")  # the Bento brings all it needs
        environment["LOAN_PREDICTIONS"] = str(place / f"predictions-{port}")
    if server.name == "MLServer":
        settings = {"http_port": port, "grpc_port": port + 1, "metrics_port": port + 2, "parallel_workers": 0}
        (place / "mlserver" / "settings.json").write_text(json.dumps({**settings, "host": "127.0.0.1", "debug": False}))
    printed = (place / f"printed-{port}.log").open("w")
    command = server.command(python, port, place)
    process = subprocess.Popen(
        command, env=environment, stdout=printed, stderr=printed, cwd=PEERS, start_new_session=True
    )
    until = time.monotonic() + 120
    while time.monotonic() < until and process.poll() is None:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}{server.ready}", timeout=2).close()
        except urllib.error.HTTPError:
            return process  # it answers, if only to say that it wants another method
        except OSError:
            time.sleep(0.2)
        else:
            return process
    stop(process)
    sys.exit(f"{server.name} did not start; see {printed.name}")


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a server with all that it started."""
    try:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=15)
    except (ProcessLookupError, subprocess.TimeoutExpired):
        pass
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def try_one(server: Server, port: int, row: dict[str, Any]) -> None:
    """Make sure that the server answers this row with the probability that the batch has for it."""
    content = json.dumps(server.body(row)).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{server.path}", content, {"content-type": "application/json"}
    )
    said = urllib.request.urlopen(request, timeout=30).read().decode()
    if "feast" in server.name:
        return
    numbers = [float(number) for number in re.findall(r"0\.\d+(?:e-?\d+)?", said)]
    if not any(abs(number - row["probability"]) < 1e-6 for number in numbers):
        sys.exit(f"{server.name} answers something else: {said[:300]}")


def load(
    server: Server, port: int, process: subprocess.Popen[bytes], bodies: Path, seconds: int, clients: int
) -> Figures:
    """One round of load."""
    before = {one.pid: cpu_of(one) for one in tree(process.pid)}
    url = f"http://127.0.0.1:{port}{server.path}"
    wrk = ["wrk", "-t1", f"-c{clients}", f"-d{seconds}s", "--latency", "-s", str(HERE / "post.lua"), url]
    done = subprocess.run(wrk, env={**os.environ, "BODIES": str(bodies)}, capture_output=True, text=True, check=True)
    spent = sum(cpu_of(one) - before.get(one.pid, 0.0) for one in tree(process.pid))
    memory = max((one.memory_info().rss for one in tree(process.pid)), default=0) / 1e6
    said = done.stdout
    (total,) = re.findall(r"(\d+) requests in", said)
    errors = sum(int(number) for number in re.findall(r"Non-2xx or 3xx responses: (\d+)", said))
    errors += sum(int(number) for number in re.findall(r"(?:connect|read|write|timeout) (\d+)", said))
    return Figures(
        requests_a_second=float(re.findall(r"Requests/sec:\s+([\d.]+)", said)[0]),
        p50_ms=milliseconds(re.findall(r"^\s+50%\s+(\S+)", said, re.MULTILINE)[0]),
        p99_ms=milliseconds(re.findall(r"^\s+99%\s+(\S+)", said, re.MULTILINE)[0]),
        cpu_ms=spent * 1e3 / max(int(total), 1),
        memory_mb=memory,
        errors=errors,
    )


def tree(pid: int) -> list[psutil.Process]:
    """A process and all that it started."""
    parent = psutil.Process(pid)
    return [parent, *parent.children(recursive=True)]


def cpu_of(process: psutil.Process) -> float:
    """CPU seconds, user and system, of one process."""
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(times.user + times.system)


def milliseconds(words: str) -> float:
    """`1.5ms`, `230.00us`, `1.1s` or `0.90m` in milliseconds."""
    found = re.fullmatch(r"([\d.]+)(us|ms|s|m)", words)
    if found is None:
        sys.exit(f"wrk said {words!r} where a time was expected.")
    return float(found[1]) * {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4}[found[2]]


def median(rounds: list[Figures]) -> Figures:
    """The middle of each figure; errors are added up."""
    middle = {
        name: statistics.median(getattr(one, name) for one in rounds)
        for name in ("requests_a_second", "p50_ms", "p99_ms", "cpu_ms", "memory_mb")
    }
    return Figures(**middle, errors=sum(one.errors for one in rounds))


def write(found: dict[str, list[Figures]], alone: dict[str, list[Figures]], rounds: int, seconds: int) -> None:
    """The table, the figures and the chart."""
    middle = {name: median(figures) for name, figures in found.items()}
    single = {name: median(figures) for name, figures in alone.items()}
    base = {name: ratios(name, found) for name in found}
    lines = [
        "# Serving, one row a request",
        "",
        f"Medians of {rounds} interleaved rounds of {seconds} s, one worker, {CLIENTS} clients, load from the same",
        f"machine ({os.cpu_count()} cores, load average at the end {os.getloadavg()[0]:.1f}).",
        "`python benchmarks/serving/run.py` measures them again; what is compared is said there. Ratios are medians of",
        "the ratios within each round; memory is the largest process.",
        "",
        "| server | requests/s | × MLServer | × plain BentoML | p50 / p99 ms | p50 of one | CPU ms | MB | errors |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, one in middle.items():
        mlserver, plain = base[name]
        lines.append(
            f"| {name} | {one.requests_a_second:,.0f} | {mlserver} | {plain} | {one.p50_ms:.2f} / {one.p99_ms:.2f} "
            f"| {single[name].p50_ms:.2f} | {one.cpu_ms:.3f} | {one.memory_mb:.0f} | {one.errors} |"
        )
    (HERE / "results.md").write_text("\n".join(lines) + "\n")
    kept = {name: [asdict(one) for one in figures] for name, figures in found.items()}
    kept_alone = {name: [asdict(one) for one in figures] for name, figures in alone.items()}
    (HERE / "results.json").write_text(json.dumps({"eight clients": kept, "one client": kept_alone}, indent=1) + "\n")
    print("\n" + "\n".join(lines))
    draw(middle)


def ratios(name: str, found: dict[str, list[Figures]]) -> tuple[str, str]:
    """How many times a peer's requests a second, round by round."""
    said = []
    for peer in ("MLServer", "BentoML as in its docs"):
        pairs = zip(found[name], found.get(peer, []), strict=False)
        times = [one.requests_a_second / other.requests_a_second for one, other in pairs]
        said.append(f"{statistics.median(times):.1f}" if times else "")
    return said[0], said[1]


def draw(middle: dict[str, Figures]) -> None:
    """A bar per server."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 0.42 * len(middle) + 1), layout="constrained")
    plot = figure.add_subplot()
    ordered = sorted(middle.items(), key=lambda item: item[1].requests_a_second)
    colours = ["#1f6feb" if name.startswith("ours") else "#c9d6e5" for name, _ in ordered]
    bars = plot.barh([name for name, _ in ordered], [one.requests_a_second for _, one in ordered], color=colours)
    plot.bar_label(
        bars, [f" {one.requests_a_second:,.0f}/s, p99 {one.p99_ms:.1f} ms" for _, one in ordered], fontsize=8
    )
    plot.spines[["top", "right"]].set_visible(False)
    plot.margins(x=0.25)
    plot.set(title=f"Requests a second, one worker, {CLIENTS} clients")
    figure.savefig(HERE / "results.png", dpi=90, metadata={"Software": None})


if __name__ == "__main__":
    sys.path.insert(0, str(HERE))
    main()
