"""Servers of one's own for tests, on loopback: an S3 that keeps everything in memory, a Postgres, a Redis.

Here: starting and stopping them, by process id. Not here: what is tested against them.
"""

from __future__ import annotations

import os
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
from redis.exceptions import RedisError

from loan_assets import online_redis

PASSWORD = "s3cret"
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
        self._bin = programs[-1] if programs else Path(str(shutil.which("initdb"))).resolve().parent
        (folder / "password").write_text(PASSWORD)
        if os.geteuid() == 0:
            for place in (folder, folder / "password"):
                shutil.chown(place, "postgres")
        making = ["-A", "scram-sha-256", "-U", "postgres", "--pwfile", str(folder / "password"), "-E", "UTF8"]
        self._as_postgres(self.program("initdb"), "-D", str(self._folder), *making)
        options = f"-c port={self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder} -c fsync=off"
        self._as_postgres(
            self.program("pg_ctl"), "-D", str(self._folder), "-w", "-o", options, "-l", str(folder / "log"), "start"
        )

    @staticmethod
    def is_there() -> bool:
        """Whether this machine has its programs."""
        return bool(shutil.which("initdb") or list(Path("/usr/lib/postgresql").glob("*/bin/initdb")))

    def program(self, name: str) -> str:
        """Where one of its programs is."""
        return str(self._bin / name)

    def database(self, name: str) -> str:
        """The URL of a new, empty database."""
        self.execute(f'drop database if exists "{name}" with (force)')
        self.execute(f'create database "{name}"')
        return self.url(name)

    def url(self, database: str, user: str = "postgres") -> str:
        """The URL of a database for a user, all of whom have the same password."""
        return f"postgresql://{user}:{PASSWORD}@127.0.0.1:{self.port}/{database}"

    def execute(self, *statements: str, database: str = "postgres") -> None:
        """Execute statements, each in a transaction of its own."""
        connection = psycopg2.connect(self.url(database))
        connection.autocommit = True  # a database is not made inside a transaction
        with closing(connection), connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)

    def stop(self) -> None:
        """End the server at once."""
        self._as_postgres(self.program("pg_ctl"), "-D", str(self._folder), "-m", "immediate", "stop")

    def _as_postgres(self, *command: str) -> None:
        # Postgres refuses to run as root.
        other = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        subprocess.run([*other, *command], check=True, stdout=subprocess.DEVNULL, cwd="/")


class RedisServer:
    """A Redis that wants a password, can be stopped and started, and keeps nothing on disk."""

    def __init__(self, folder: Path) -> None:
        self.port, self._folder = free_port(), folder
        self.start()

    @staticmethod
    def is_there() -> bool:
        """Whether this machine has the program."""
        return shutil.which("redis-server") is not None

    def place(self, database: int = 0, password: str = PASSWORD) -> str:
        """The URL of one of its databases."""
        return f"redis://:{password}@127.0.0.1:{self.port}/{database}"

    def start(self, *options: str) -> None:
        """Start it and wait until it answers."""
        settings = ["--port", str(self.port), "--bind", "127.0.0.1", "--requirepass", PASSWORD, "--save", ""]
        command = [str(shutil.which("redis-server")), *settings, "--dir", str(self._folder), *options]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        until(self._answers, 20)

    def _answers(self) -> bool:
        try:
            return bool(online_redis.connected(self.place()).ping())
        except RedisError:
            return False

    def empty(self) -> None:
        """Forget everything."""
        online_redis.connected(self.place()).flushall()

    def stop(self) -> None:
        """End it; what it held is gone."""
        self._process.terminate()
        self._process.wait(timeout=20)
