"""The online table: the newest features of every client as flat arrays, which an endpoint reads in microseconds.

Here: its files, their writing and reading. Not here: where it rests (`resources.online_store`) or how features come
about. It is written from the feature store and held equal to it by a check.

    online.json    the format, the book it was computed by, the features in order, the instant of the newest statement
    clients.npy    client numbers, int64, ascending, shape (clients,)
    as_of.npy      the instant of each client's newest statement, int64 microseconds since 1970 UTC, shape (clients,)
    features.npy   float32, shape (clients, features)

It is read into memory whole, so that what is answered from is what was verified. Rows that were pushed since stand in
a file beside it, `pushed/<first 16 of its digest>.log`, a line each: eight hexadecimal digits of CRC-32, the client,
and its row as in Redis (int64 microseconds, float32 features, little-endian) in hexadecimal digits. The last counts.
"""

from __future__ import annotations

import io
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from loan_assets.refusal import Refusal
from loan_assets.sealed import contents, in_force, pointed_at

FORMAT = "loan-assets/online/2"
SHELF = "clients"
PUSHED = "pushed"
FACTS, CLIENTS, AS_OF, FEATURES = "online.json", "clients.npy", "as_of.npy", "features.npy"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
AGAIN = "Materialize online_features again."


@dataclass(frozen=True, slots=True, kw_only=True)
class OnlineFacts:
    """What `online.json` says; `features_as_of` is ISO 8601, UTC."""

    book: str
    book_digest: str
    features: tuple[str, ...]
    features_as_of: str
    format: str = FORMAT


class UnknownClients(KeyError):
    """Client numbers that the table does not hold; `positions` are their places in the request."""

    def __init__(self, positions: Sequence[int]) -> None:
        super().__init__(positions)
        self.positions = tuple(positions)


@dataclass(frozen=True, slots=True, kw_only=True)
class OnlineTable:
    """A verified table."""

    digest: str
    facts: OnlineFacts
    clients: NDArray[np.int64]
    as_of: NDArray[np.int64]
    features: NDArray[np.float32]

    def rows_of(self, clients: Sequence[int]) -> NDArray[np.intp]:
        """Where these clients are, shape (len(clients),), in the order asked.

        Raises:
            UnknownClients: when some of them are not there.
        """
        wanted = np.asarray(clients, dtype=np.int64)
        found = np.minimum(self.clients.searchsorted(wanted), len(self.clients) - 1)
        strangers = self.clients[found] != wanted
        if strangers.any():
            raise UnknownClients(np.flatnonzero(strangers).tolist())
        return found

    def of(self, clients: Sequence[int]) -> NDArray[np.float32]:
        """The features of these clients, shape (len(clients), features), in the order asked.

        Raises:
            UnknownClients: when some of them are not there.
        """
        return np.asarray(self.features[self.rows_of(clients)])

    def with_rows(self, rows: Mapping[int, np.void]) -> OnlineTable:
        """The table with other rows for some of its clients.

        Raises:
            UnknownClients: when some of them are not there.
        """
        places, values = self.rows_of(list(rows)), np.array(list(rows.values()), dtype=row_of(len(self.facts.features)))
        as_of, features = self.as_of.copy(), self.features.copy()
        as_of[places], features[places] = values["as_of"], values["features"]
        return replace(self, as_of=as_of, features=features)


def instant_of(microseconds: int) -> datetime:
    """An entry of `as_of` as an instant, UTC."""
    return EPOCH + timedelta(microseconds=microseconds)


def write_online(
    folder: Path,
    facts: OnlineFacts,
    clients: NDArray[np.int64],
    as_of: NDArray[np.int64],
    features: NDArray[np.float32],
) -> None:
    """Write the table, clients in ascending order; the caller seals."""
    order = np.argsort(clients, kind="stable")
    (folder / FACTS).write_text(json.dumps(asdict(facts), indent=1, sort_keys=True) + "\n")
    np.save(folder / CLIENTS, clients[order].astype("int64"), allow_pickle=False)
    np.save(folder / AS_OF, as_of[order].astype("int64"), allow_pickle=False)
    np.save(folder / FEATURES, features[order].astype("float32"), allow_pickle=False)


def pointer_of(root: Path) -> str | None:
    """What changes when another table is put in force below a folder; None when there never was one."""
    return pointed_at(root / SHELF)


def facts_in_force(root: Path) -> OnlineFacts:
    """What is said of the table in force below a folder, whose rows are not looked at.

    Raises:
        Refusal: when there is none, or of a format that this code does not know.
    """
    digest = pointed_at(root / SHELF)
    if digest is None:
        raise Refusal(f"No online table is in force at {root}.", "Materialize online_features.")
    facts = json.loads((root / SHELF / digest[:16] / FACTS).read_text())
    if facts.get("format") != FORMAT:
        raise Refusal(f"{root} holds format {facts.get('format')!r}; this code reads {FORMAT!r}.", AGAIN)
    return OnlineFacts(**{**facts, "features": tuple(facts["features"])})


def read_online(root: Path) -> OnlineTable:
    """The table in force below a folder, verified before anything of it is parsed.

    Raises:
        Refusal: when there is none, it is damaged, or of a format that this code does not know.
    """
    digest, folder = in_force(root / SHELF)
    files = contents(folder, digest)
    facts = json.loads(files[FACTS])
    if facts.get("format") != FORMAT:
        raise Refusal(f"{folder} is of format {facts.get('format')!r}; this code reads {FORMAT!r}.", AGAIN)
    clients, as_of, features = (
        np.load(io.BytesIO(files[name]), allow_pickle=False) for name in (CLIENTS, AS_OF, FEATURES)
    )
    shapes = {as_of.shape[0], features.shape[0], len(clients)}
    if not len(clients) or len(shapes) > 1 or features.shape[1:] != (len(facts["features"]),):
        raise Refusal(f"{folder} is not an online table.", AGAIN)
    return OnlineTable(
        digest=digest,
        facts=OnlineFacts(**{**facts, "features": tuple(facts["features"])}),
        clients=clients,
        as_of=as_of,
        features=features,
    )


def row_of(features: int) -> np.dtype[np.void]:
    """How one client's row is packed."""
    return np.dtype([("as_of", "<i8"), ("features", "<f4", (features,))])


def packed(as_of: NDArray[np.int64], features: NDArray[np.float32]) -> NDArray[np.void]:
    """Rows as they are packed, shape (clients,)."""
    rows = np.empty(len(as_of), dtype=row_of(features.shape[1]))
    rows["as_of"], rows["features"] = as_of, features
    return rows


def require_book(facts: OnlineFacts | None, book_digest: str) -> None:
    """Make sure that a table is there whose rows a book's features may replace.

    Raises:
        Refusal: when there is none, or another book computed it.
    """
    if facts is None or facts.book_digest != book_digest:
        found = f"was computed by book {facts.book_digest}, not {book_digest}" if facts else "is not there yet"
        raise Refusal(f"The online table {found}: nothing that is pushed can be served.", AGAIN)


def pushed_file(root: Path, digest: str) -> Path:
    """Where rows stand that were pushed after a table was put in force."""
    return root / PUSHED / f"{digest[:16]}.log"


def pushed_line(client: int, row: np.void) -> bytes:
    """One client's row as it is appended."""
    said = b"%d %b" % (client, row.tobytes().hex().encode())
    return b"%08x %b\n" % (zlib.crc32(said), said)


def read_pushed(root: Path, digest: str, features: int, after: int = 0) -> tuple[dict[int, np.void], int]:
    """The rows that were pushed since so many bytes of their file, by client, and how many bytes hold all whole lines.

    Raises:
        Refusal: when a line is not what was written.
    """
    try:
        with pushed_file(root, digest).open("rb") as file:
            file.seek(after)
            lines = file.read()
    except FileNotFoundError:
        return {}, after
    whole = lines[: lines.rfind(b"\n") + 1]
    kind = row_of(features)
    rows = {}
    for line in whole.splitlines():
        checksum, _, said = line.partition(b" ")
        client, _, row = said.partition(b" ")
        if checksum != b"%08x" % zlib.crc32(said) or len(row) != 2 * kind.itemsize:
            raise Refusal("A row that was pushed is not what was written.", AGAIN)
        rows[int(client)] = np.frombuffer(bytes.fromhex(row.decode()), dtype=kind)[0]
    return rows, after + len(whole)
