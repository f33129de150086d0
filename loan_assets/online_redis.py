"""The online table in Redis: the rows of `online_table`, one packed value a client, for endpoints on many machines.

Here: its keys, their writing and reading. Not here: the table in files (`online_table`) or who follows it (`bento`).

    loan:online                  the digest of the table in force; replaced in one step once every row is there
    loan:online:<digest>         what `online.json` says
    loan:online:<digest>:clients client numbers, int64, ascending
    loan:online:<digest>:<n>     one client's row: its newest statement, int64 microseconds, then float32 features

Little-endian throughout. A row that was pushed replaces the client's row of the table in force. Rows of a table that
was replaced stay for an hour, for endpoints that have not seen it yet.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loan_assets.online_table import (
    AGAIN,
    FORMAT,
    OnlineFacts,
    OnlineTable,
    UnknownClients,
    packed,
    require_book,
    row_of,
)
from loan_assets.refusal import Refusal

POINTER = "loan:online"
SECONDS_KEPT = 3_600
AT_ONCE = 5_000
# An endpoint that has to ask Redis would rather say that it cannot than let an applicant wait.
PATIENCE = 0.15


def is_redis(place: str) -> bool:
    """Whether a place is a Redis server."""
    return place.startswith(("redis://", "rediss://", "unix://"))


def connected(place: str, seconds: float = 10.0) -> Any:
    """A client of the server at a URL; nothing is asked yet."""
    from redis import Redis

    return Redis.from_url(place, socket_timeout=seconds, socket_connect_timeout=seconds)


@contextmanager
def told(place: str) -> Iterator[None]:
    """Turn what the client raises into a sentence without the credentials in the URL."""
    from redis.exceptions import RedisError

    try:
        yield
    except RedisError as failing:
        shown = place.rpartition("@")[2].partition("?")[0].removeprefix("redis://")
        raise Refusal(
            f"Redis at {shown} does not answer as it should ({type(failing).__name__}).",
            "Start it or mend LOAN_ONLINE; the table before stays in force.",
        ) from None


def publish(
    place: str, facts: OnlineFacts, clients: NDArray[np.int64], as_of: NDArray[np.int64], features: NDArray[np.float32]
) -> str:
    """Write every row, then put the table in force; returns its digest (64 hex characters).

    Raises:
        Refusal: when the server cannot be reached or refuses; the table before stays in force.
    """
    order = np.argsort(clients, kind="stable")
    numbers = clients[order].astype("<i8")
    values = packed(as_of[order], features[order])
    said = json.dumps(asdict(facts), sort_keys=True)
    digest = hashlib.sha256(said.encode() + numbers.tobytes() + values.tobytes()).hexdigest()
    with told(place):
        server = connected(place)
        before = _text(server.get(POINTER))
        if before == digest:
            return digest
        # Rows of this table that wait to be forgotten, because it was in force before, are wanted again.
        for start in range(0, len(numbers), AT_ONCE):
            rows = slice(start, start + AT_ONCE)
            server.mset(
                {_key(digest, int(n)): row.tobytes() for n, row in zip(numbers[rows], values[rows], strict=True)}
            )
        server.mset({f"{POINTER}:{digest}": said, f"{POINTER}:{digest}:clients": numbers.tobytes()})
        server.set(POINTER, digest)
        if before:
            _forget(server, before)
    return digest


def write_over(
    place: str, book_digest: str, clients: NDArray[np.int64], as_of: NDArray[np.int64], features: NDArray[np.float32]
) -> None:
    """Replace some clients' rows of the table in force; of one that takes its place meanwhile as well.

    Raises:
        Refusal: when no table of this book is in force, or the server cannot be reached; the same may be tried again.
    """
    values = packed(as_of, features)
    written: str | None = ""
    with told(place):
        server = connected(place)
        while (digest := pointer_of(server)) != written:
            require_book(read_facts(server, digest) if digest else None, book_digest)
            assert digest is not None  # there are facts of it
            with server.pipeline(transaction=False) as together:
                for client, value in zip(clients.tolist(), values, strict=True):
                    # A replaced table is forgotten in an hour, and this row with it.
                    together.set(_key(digest, client), value.tobytes(), keepttl=True)
                together.execute()
            written = digest


def pointer_of(server: Any) -> str | None:
    """The digest of the table in force; None when there never was one."""
    return _text(server.get(POINTER))


def read_facts(server: Any, digest: str) -> OnlineFacts:
    """What is said of a table.

    Raises:
        Refusal: when it is not there, or of a format that this code does not know.
    """
    said = server.get(f"{POINTER}:{digest}")
    facts = json.loads(said) if said else {}
    if facts.get("format") != FORMAT:
        raise Refusal(f"The online table in Redis is of format {facts.get('format')!r}, not {FORMAT!r}.", AGAIN)
    return OnlineFacts(**{**facts, "features": tuple(facts["features"])})


def keys_of(digest: str, clients: Sequence[int]) -> list[str]:
    """The keys of some clients' rows."""
    return [_key(digest, client) for client in clients]


def rows_from(values: Sequence[bytes | None], features: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The values of some rows as instants, shape (rows,), and features, shape (rows, features).

    Raises:
        UnknownClients: when some of them are not there.
        Refusal: when a row is not as long as the table's features make it.
    """
    strangers = [position for position, value in enumerate(values) if value is None]
    if strangers:
        raise UnknownClients(strangers)
    kind = row_of(features)
    content = b"".join(value for value in values if value is not None)
    if len(content) != len(values) * kind.itemsize:
        raise Refusal("The online table in Redis has rows of another length than its features.", AGAIN)
    rows = np.frombuffer(content, dtype=kind)
    return rows["as_of"].astype("int64"), rows["features"].astype("float32")


def read_table(place: str) -> OnlineTable:
    """The whole table in force, for a check of all of it.

    Raises:
        Refusal: when there is none, it is damaged, or the server cannot be reached.
    """
    with told(place):
        server = connected(place)
        digest = pointer_of(server)
        if digest is None:
            raise Refusal("No online table is in force in Redis.", "Materialize online_features.")
        facts = read_facts(server, digest)
        clients = np.frombuffer(server.get(f"{POINTER}:{digest}:clients") or b"", dtype="<i8").astype("int64")
        values: list[bytes | None] = []
        for start in range(0, len(clients), AT_ONCE):
            values += server.mget(keys_of(digest, clients[start : start + AT_ONCE].tolist()))
    as_of, features = rows_from(values, len(facts.features))
    return OnlineTable(digest=digest, facts=facts, clients=clients, as_of=as_of, features=features)


def _forget(server: Any, digest: str) -> None:
    """Let a replaced table go in an hour."""
    clients = np.frombuffer(server.get(f"{POINTER}:{digest}:clients") or b"", dtype="<i8").tolist()
    keys = [f"{POINTER}:{digest}", f"{POINTER}:{digest}:clients", *keys_of(digest, clients)]
    for start in range(0, len(keys), AT_ONCE):
        with server.pipeline(transaction=False) as together:
            for key in keys[start : start + AT_ONCE]:
                together.expire(key, SECONDS_KEPT)
            together.execute()


def _key(digest: str, client: int) -> str:
    return f"{POINTER}:{digest}:{client}"


def _text(value: Any) -> str | None:
    return value.decode() if value else None
