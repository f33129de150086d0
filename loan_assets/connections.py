"""Places on other machines: whether they answer, let us in, and keep the promises that the platform is built on.

Here: databases, buckets, Redis and an MLflow server, each asked what it would be asked in a run, all at the same time,
within seconds. Not here: what is in them (`doctor`). A platform whose places are folders of this machine has none.
"""

from __future__ import annotations

import ast
import os
import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from loan_assets.bucket import Bucket, is_bucket
from loan_assets.findings import BROKEN, MISSING, WELL, Finding
from loan_assets.online_redis import connected, is_redis
from loan_assets.refusal import Overtaken, Refusal
from loan_assets.settings import Settings, without_secrets

SECONDS = 5
LONGEST = 12.0
LOOPBACK = ("127.0.0.1", "localhost", "::1", None)
# Where each vendor keeps the steps by which its schema has changed, the newest of which a database must be at.
SCHEMAS = {
    "LOAN_DAGSTER_STORAGE": ("dagster", "_core/storage/alembic"),
    "LOAN_MLFLOW_URI": ("mlflow", "store/db_migrations"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """A place that a variable names, and what the platform keeps there."""

    variable: str
    role: str
    place: str

    def __str__(self) -> str:
        return f"{self.variable} ({self.role}, {without_secrets(self.place)})"


def connections_of(settings: Settings) -> tuple[Connection, ...]:
    """Every place that is not on this machine's disk."""
    named = (
        ("LOAN_DAGSTER_STORAGE", "Dagster's runs and events", settings.dagster_storage),
        ("LOAN_MLFLOW_URI", "MLflow's runs and versions", settings.mlflow_uri),
        ("LOAN_FEAST_REGISTRY", "Feast's registry", settings.feast_registry),
        ("LOAN_FEAST_ONLINE", "Feast's online store", settings.feast_online),
        ("LOAN_ONLINE", "the endpoint's features", settings.online),
        ("LOAN_STORE", "assets", settings.store_place),
        ("LOAN_FEAST_OFFLINE", "Feast's offline table", settings.feast_place),
        ("LOAN_RELEASES", "releases", settings.releases_place),
        ("LOAN_PREDICTIONS", "the endpoint's log", settings.predictions_place),
        ("LOAN_DECISIONS", "the journal of decisions", settings.decisions_place),
        ("LOAN_EVENTS", "pushed statements", settings.events_place),
        ("LOAN_BENTOS", "Bentos", settings.bentos_place),
        ("LOAN_MLFLOW_ARTIFACTS", "MLflow's artifacts", settings.mlflow_artifacts),
    )
    return tuple(
        Connection(variable=variable, role=role, place=place) for variable, role, place in named if _is_elsewhere(place)
    )


def examined(settings: Settings, needed: Collection[str] = ()) -> tuple[Finding, ...]:
    """What is found at every place elsewhere, in the order of `connections_of`; nothing takes longer than `LONGEST`.

    Args:
        needed: the variables of the places that are asked, of all by default.
    """
    known = tuple(one for one in connections_of(settings) if not needed or one.variable in needed)
    answers: dict[Connection, list[Finding]] = {}

    def ask(one: Connection) -> None:
        answers[one] = _examined(one)

    # Whoever is still waiting for an answer must not keep the process from ending.
    threads = [threading.Thread(target=ask, args=(one,), daemon=True) for one in known]
    until = time.monotonic() + LONGEST
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    silent = f"does not answer within {LONGEST:.0f} seconds"
    findings = [finding for one in known for finding in answers.get(one) or [_broken(one, silent, _UP)]]
    return (*findings, *_mixed_up(known))


def require(settings: Settings, needed: Collection[str] = ()) -> None:
    """Make sure that every place elsewhere can be used, before anything is begun that would be left half done.

    Args:
        needed: the variables of the places that have to be, of all by default.

    Raises:
        Refusal: naming every variable whose place cannot, what is wrong with it, and what to do.
    """
    broken = [finding for finding in examined(settings, needed) if finding.state == BROKEN]
    if broken:
        steps = dict.fromkeys(finding.next_step for finding in broken)
        raise Refusal(" ".join(f"{finding.found}." for finding in broken), " ".join(steps))


_UP = "Start it, or mend that variable, its network policy or its name."
_IN = "Mend the user, the password or the rights, in the secret that holds the variable."


def _examined(connection: Connection) -> list[Finding]:
    try:
        said = _look_for(connection)(connection)
    except Refusal as refusal:
        return [_broken(connection, refusal.cause.rstrip("."), refusal.next_step)]
    except Exception as unforeseen:  # whatever a vendor raises at a place of another kind
        return [_broken(connection, f"cannot be used ({type(unforeseen).__name__})", _UP)]
    findings = [Finding(place="Elsewhere", state=WELL, found=f"{connection}: {said}")]
    if not is_encrypted(connection.place):
        found = f"{connection} is reached without encryption"
        step = "Use sslmode=verify-full, rediss:// or https for whatever leaves this machine."
        findings.append(Finding(place="Elsewhere", state=MISSING, found=found, next_step=step))
    return findings


def _look_for(connection: Connection) -> Callable[[Connection], str]:
    if is_bucket(connection.place):
        return _bucket
    if is_redis(connection.place):
        return _redis
    return _database if connection.place.startswith("postgresql") else _server


def _database(connection: Connection) -> str:
    from sqlalchemy import create_engine, inspect, text
    from sqlalchemy.exc import OperationalError

    engine = create_engine(connection.place, connect_args={"connect_timeout": SECONDS})
    try:
        with engine.connect() as database:
            standby, may_create = database.execute(
                text("select pg_is_in_recovery(), has_schema_privilege(current_schema(), 'create')")
            ).one()
            (version,) = database.execute(text("show server_version")).one()
            tables = set(inspect(database).get_table_names())
            at = (
                database.execute(text("select version_num from alembic_version")).scalars().all()
                if ("alembic_version" in tables)
                else []
            )
    except OperationalError as failed:
        raise Refusal(f"{connection} {_words(failed)}.", _IN if _is_about_rights(failed) else _UP) from None
    finally:
        engine.dispose()
    if standby:
        raise Refusal(f"{connection} is a replica that cannot be written.", "Name the primary.")
    if not may_create:
        raise Refusal(f"{connection} does not let this user make tables.", _IN)
    return f"Postgres {version.split()[0]}, {_schema(connection, tables, at)}"


def _schema(connection: Connection, tables: set[str], at: Sequence[str]) -> str:
    """Whether a vendor's tables are those of the installed version.

    Raises:
        Refusal: when they are of another one, or only some of them are there.
    """
    if connection.variable not in SCHEMAS:
        return f"{len(tables)} tables"
    if not tables:
        return "empty, its tables are made at first use"
    package, steps = SCHEMAS[connection.variable]
    head, known = _newest(package, steps)
    if list(at) == [head]:
        return f"{package}'s tables at {head}"
    if at and at[0] not in known:
        found = f"holds tables of a newer {package} than is installed"
        raise Refusal(f"{connection} {found}.", f"Install that {package}, or restore a backup from before the upgrade.")
    found = f"at {at[0]}" if at else "without a version"
    raise Refusal(
        f"{connection} is half migrated: {package}'s tables are {found}, {head} is needed.",
        "Stop the platform, back it up, then run `loan-assets migrate`.",
    )


@cache
def _newest(package: str, steps: str) -> tuple[str, frozenset[str]]:
    """A vendor's last step and all of them: read, not imported as Alembic does, which takes a start seconds more.

    Raises:
        ValueError: when not just one step is the last.
    """
    found = find_spec(package)
    assert found is not None
    assert found.origin is not None
    files = (Path(found.origin).parent / steps / "versions").glob("*.py")
    steps_told = [told for file in files if "revision" in (told := _assigned(file))]
    known = frozenset(told["revision"] for told in steps_told)
    before = [told["down_revision"] for told in steps_told]
    (head,) = known.difference(*([one] if isinstance(one, str) else one or () for one in before))
    return head, known


def _assigned(file: Path) -> dict[str, Any]:
    """The literals that a module's own names are given."""
    told: dict[str, Any] = {}
    for statement in ast.parse(file.read_bytes()).body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)) if statement.value:
                with suppress(ValueError):  # not a literal
                    told[name] = ast.literal_eval(statement.value)
    return told


def newest_of(package: str) -> str:
    """The step at which the tables of an installed vendor are when they are new."""
    return _newest(package, dict(SCHEMAS.values())[package])[0]


def schema_of(package: str, url: str) -> tuple[str | None, bool]:
    """At which step a vendor's tables in a database are, None where there are none; and whether the vendor knows it."""
    from sqlalchemy import create_engine, inspect, text

    engine = create_engine(url)
    try:
        with engine.connect() as database:
            if "alembic_version" not in inspect(database).get_table_names():
                return None, True
            at = database.execute(text("select version_num from alembic_version")).scalar()
    finally:
        engine.dispose()
    return at, at in _newest(package, dict(SCHEMAS.values())[package])[1]


def _bucket(connection: Connection) -> str:
    """Whether objects can be made, made once only, replaced only when seen, listed and deleted."""
    bucket, name = Bucket(connection.place), f".examined/{uuid.uuid4().hex}"
    bucket.create(name, b"one")
    try:
        seen = bucket.read(name)
        if next(iter(bucket.names(".examined")), None) is None or seen is None:
            raise Refusal(f"{connection} does not show what was written there.", "Use a store that is consistent.")
        bucket.replace(name, b"two", seen)
        ways: tuple[Callable[[], None], ...] = (
            lambda: bucket.create(name, b"three"),
            lambda: bucket.replace(name, b"three", seen),
        )
        if not all(_is_overtaken(way) for way in ways):
            raise Refusal(
                f"{connection} ignores conditional writes: of two writers one would be lost unseen.",
                "Use a store that keeps If-Match and If-None-Match, as S3 does since 2024.",
            )
    finally:
        bucket.delete([name])
    sealed = os.environ.get("AWS_SERVER_SIDE_ENCRYPTION")
    return f"read, written once, replaced and deleted; encrypted {f'by {sealed}' if sealed else 'as the bucket says'}"


def _is_overtaken(way: Callable[[], None]) -> bool:
    try:
        way()
    except Overtaken:
        return True
    return False


def _redis(connection: Connection) -> str:
    from redis.exceptions import AuthenticationError, NoPermissionError, RedisError

    client: Any = connected(connection.place, SECONDS)
    name = f"loan:examined:{uuid.uuid4().hex}"
    try:
        client.set(name, "1", ex=10)
        client.delete(name)
        facts = client.info()
    except (AuthenticationError, NoPermissionError):
        raise Refusal(f"{connection} does not let this user in.", _IN) from None
    except RedisError as failed:
        raise Refusal(f"{connection} does not answer ({type(failed).__name__}).", _UP) from None
    finally:
        client.close()
    policy = str(facts.get("maxmemory_policy", ""))
    if policy.startswith("allkeys"):
        raise Refusal(
            f"{connection} may drop clients' features when its memory is full ({policy}).",
            "Set its maxmemory-policy to noeviction, and enough memory.",
        )
    return f"Redis {facts.get('redis_version', '?')}, {facts.get('used_memory_human', '?')} in use"


def _server(connection: Connection) -> str:
    """An MLflow server."""
    import urllib.error
    import urllib.request

    address = f"{connection.place.rstrip('/')}/version"
    try:
        with urllib.request.urlopen(address, timeout=SECONDS) as answered:
            return f"MLflow {answered.read(40).decode('utf-8', 'replace')}"
    except urllib.error.HTTPError as refused:
        raise Refusal(f"{connection} answers with status {refused.code}.", _IN) from None
    except OSError as failed:
        raise Refusal(f"{connection} does not answer ({type(failed).__name__}).", _UP) from None


def _mixed_up(known: tuple[Connection, ...]) -> Iterator[Finding]:
    """Two vendors that would take each other's tables for their own."""
    schemas = [one for one in known if one.variable in SCHEMAS and one.place.startswith("postgresql")]
    if len({without_secrets(one.place) for one in schemas}) < len(schemas):
        found = f"{' and '.join(one.variable for one in schemas)} name the same database"
        step = "Give each a database of its own: both keep their schema's version in one table of the same name."
        yield Finding(place="Elsewhere", state=BROKEN, found=found, next_step=step)


def _broken(connection: Connection, found: str, next_step: str) -> Finding:
    said = found if connection.variable in found else f"{connection} {found}"
    return Finding(place="Elsewhere", state=BROKEN, found=said, next_step=next_step)


def _is_elsewhere(place: str) -> bool:
    return "://" in place and not place.startswith(("sqlite:", "file:"))


def is_encrypted(place: str) -> bool:
    """Whether what travels to a place is encrypted, or never leaves this machine."""
    url = urlsplit(place)
    if is_bucket(place):
        return not os.environ.get("AWS_ENDPOINT_URL", "").startswith("http://") or (
            urlsplit(os.environ["AWS_ENDPOINT_URL"]).hostname in LOOPBACK
        )
    if url.hostname in LOOPBACK:
        return True
    if url.scheme.startswith("postgresql"):
        return parse_qs(url.query).get("sslmode", [""])[-1] in ("require", "verify-ca", "verify-full")
    return url.scheme in ("rediss", "https")


def _words(failed: Exception) -> str:
    """What a database said when it did not let us in, in words that name no secret."""
    said = str(getattr(failed, "orig", failed)).lower()
    known = {
        "password": "does not accept the password",
        "role": "does not know the user",
        "does not exist": "has no such database",
        "translate host": "is at a host whose name is not known",
        "timeout": f"does not answer within {SECONDS} seconds",
        "refused": "refuses the connection: nothing listens there",
        "ssl": "and this machine do not agree on encryption",
        "too many": "has no connection left to give",
        "starting up": "is starting up",
    }
    return next((words for part, words in known.items() if part in said), "cannot be used")


def _is_about_rights(failed: Exception) -> bool:
    said = str(getattr(failed, "orig", failed)).lower()
    return any(part in said for part in ("password", "role", "permission", "does not exist"))
