"""Servers of one's own for tests, on loopback: an S3 that keeps everything in memory, a Postgres.

Here: starting and stopping them, by process id. Not here: what is tested against them.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import psycopg2

# Whatever key is shown, the emulator lets it in; without one a client looks for a machine's role.
KEYS = {
    "AWS_ACCESS_KEY_ID": "emulated",
    "AWS_SECRET_ACCESS_KEY": "emulated",
    "AWS_REGION": "us-east-1",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_ALLOW_HTTP": "true",
}


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def until(holds: Callable[[], bool], seconds: float) -> None:
    """Wait until something holds; fail when it does not in time."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.1)


class S3:
    """An S3 emulator with one bucket, `bank`."""

    def __init__(self) -> None:
        self.port = free_port()
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self.environment = {**KEYS, "AWS_ENDPOINT_URL": self.endpoint}
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until(self._has_bucket, 60)

    def _has_bucket(self) -> bool:
        request = urllib.request.Request(f"{self.endpoint}/bank", method="PUT")
        try:
            with urllib.request.urlopen(request, timeout=10) as answered:
                return bool(answered.status == 200)
        except (urllib.error.URLError, ConnectionError):
            return False

    def stop(self) -> None:
        """End the server; everything in it is gone."""
        self._process.terminate()
        self._process.wait(timeout=20)


class Postgres:
    """A Postgres cluster in a folder, with a database of one's own whenever one is asked for."""

    def __init__(self, folder: Path) -> None:
        self.port, self._folder = free_port(), folder / "cluster"
        programs = sorted(Path("/usr/lib/postgresql").glob("*/bin")) if not shutil.which("initdb") else []
        self._bin = programs[-1] if programs else Path(str(shutil.which("initdb"))).parent
        shutil.chown(folder, "postgres")
        self._as_postgres(
            str(self._bin / "initdb"), "-D", str(self._folder), "-A", "trust", "-U", "postgres", "-E", "UTF8"
        )
        options = f"-c port={self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder} -c fsync=off"
        self._as_postgres(
            str(self._bin / "pg_ctl"), "-D", str(self._folder), "-w", "-o", options, "-l", str(folder / "log"), "start"
        )

    @staticmethod
    def is_there() -> bool:
        """Whether this machine has its programs."""
        return bool(shutil.which("initdb") or list(Path("/usr/lib/postgresql").glob("*/bin/initdb")))

    def database(self, name: str) -> str:
        """The URL of a new, empty database."""
        server = f"postgresql://postgres@127.0.0.1:{self.port}"
        connection = psycopg2.connect(f"{server}/postgres")
        connection.autocommit = True  # a database is not made inside a transaction
        with closing(connection), connection.cursor() as cursor:
            cursor.execute(f'create database "{name}"')
        return f"{server}/{name}"

    def stop(self) -> None:
        """End the server at once."""
        self._as_postgres(str(self._bin / "pg_ctl"), "-D", str(self._folder), "-m", "immediate", "stop")

    def _as_postgres(self, *command: str) -> None:
        # Postgres refuses to run as root.
        subprocess.run(["runuser", "-u", "postgres", "--", *command], check=True, stdout=subprocess.DEVNULL, cwd="/")
