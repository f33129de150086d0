"""Databases as files: SQLite by its own backup, Postgres by pg_dump and pg_restore.

Here: taking a consistent copy while others write, and putting one back. Not here: what is in them, or which there are
(`backup_parts`).
"""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

from loan_assets.refusal import Refusal
from loan_assets.settings import without_secrets

SECONDS = 3_600
WAIT = 30.0


def copy_sqlite(source: Path, target: Path) -> None:
    """Copy a SQLite file as it is at one instant, whoever writes to it meanwhile.

    Raises:
        Refusal: when it is no sound database, or is held for longer than half a minute.
    """
    target.unlink(missing_ok=True)
    try:
        with (
            closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True, timeout=WAIT)) as database,
            closing(sqlite3.connect(target)) as copy,
        ):
            database.backup(copy)
    except sqlite3.Error as failed:
        raise Refusal(
            f"{source} cannot be copied ({type(failed).__name__}: {failed}).",
            "`loan-assets doctor` says whether it is damaged; mend it and run again.",
        ) from None


def dump(url: str, file: Path) -> None:
    """Write a Postgres database as it is at one instant into a file of pg_dump's custom format.

    Raises:
        Refusal: when pg_dump is missing, older than the server, or fails.
    """
    server = _server_version(url)
    tool = _tool("pg_dump", server)
    _run([tool, "--format=custom", "--no-owner", "--no-privileges", f"--file={file}"], url, f"pg_dump of {_shown(url)}")


def load(url: str, file: Path) -> None:
    """Put a dump into a Postgres database, in one transaction: all of it, or nothing.

    What a killed restore has left there is replaced.

    Raises:
        Refusal: when pg_restore is missing, older than the server, or fails; nothing was changed then.
    """
    tool = _tool("pg_restore", _server_version(url))
    options = ["--single-transaction", "--exit-on-error", "--no-owner", "--no-privileges", "--clean", "--if-exists"]
    _run([tool, *options], url, f"pg_restore into {_shown(url)}", file)


def is_empty(url: str) -> bool:
    """Whether a Postgres database has no table.

    Raises:
        Refusal: when it cannot be reached.
    """
    return _asked(url, "select count(*) from pg_tables where schemaname = current_schema()") == "0"


def _server_version(url: str) -> int:
    """The server's major version."""
    return int(_asked(url, "show server_version_num")) // 10_000


def _asked(url: str, question: str) -> str:
    from sqlalchemy import create_engine, text
    from sqlalchemy.exc import SQLAlchemyError

    engine = create_engine(url, connect_args={"connect_timeout": 5})
    try:
        with engine.connect() as database:
            return str(database.execute(text(question)).scalar())
    except SQLAlchemyError as failed:
        raise Refusal(
            f"{_shown(url)} cannot be used ({type(failed).__name__}).",
            "`loan-assets doctor --connections` says what is wrong with it; mend that and run again.",
        ) from None
    finally:
        engine.dispose()


def _tool(name: str, server: int) -> str:
    step = f"Install it (Debian: apt-get install postgresql-client-{server}), then run again."
    found = shutil.which(name)
    if found is None:
        raise Refusal(f"{name} is not installed.", step)
    said = subprocess.run([found, "--version"], capture_output=True, text=True, check=False).stdout
    version = re.search(r"(\d+)", said)
    if version is None or int(version[1]) < server:
        raise Refusal(f"{name} is of version {version[1] if version else '?'}, the server of {server}.", step)
    return found


def _run(command: list[str], url: str, what: str, *files: Path) -> None:
    """Run a tool on a database; the password travels in the environment, where other users cannot see it."""
    from sqlalchemy.engine import make_url

    place = make_url(url).set(drivername="postgresql")
    # What is asked for behind the question mark counts, as with every client of Postgres.
    asked = place.query.get("password", place.password or "")
    password = asked if isinstance(asked, str) else asked[-1]
    database = place.set(password=None).difference_update_query(["password"]).render_as_string(hide_password=False)
    environment = {**os.environ, "PGPASSWORD": str(password), "PGCONNECT_TIMEOUT": "10"}
    arguments = [*command, f"--dbname={database}", *map(str, files)]
    try:
        done = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=False, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        raise Refusal(f"{what} took longer than {SECONDS // 60} minutes.", "See what holds it; run again.") from None
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no reason was given"])[0][:300]
        raise Refusal(f"{what} failed: {last}", "Mend what it says and run again; nothing was changed there.")


def _shown(url: str) -> str:
    return without_secrets(url)
