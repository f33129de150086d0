"""The online table: the newest features of every client as two flat arrays, which an endpoint reads in microseconds.

Here: its files, their writing and reading. Not here: where it rests (`resources.online_store`) or how features come
about. It is written from the feature store and held equal to it by a check.

    online.json    the book it was computed by, the features in order, the instant of the newest statement
    clients.npy    client numbers, int64, ascending, shape (clients,)
    features.npy   float32, shape (clients, features)
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from loan_assets.refusal import Refusal
from loan_assets.sealed import in_force, pointed_at

SHELF = "clients"
FACTS, CLIENTS, FEATURES = "online.json", "clients.npy", "features.npy"


@dataclass(frozen=True, slots=True, kw_only=True)
class OnlineFacts:
    """What `online.json` says; `features_as_of` is ISO 8601, UTC."""

    book: str
    book_digest: str
    features: tuple[str, ...]
    features_as_of: str


class UnknownClient(KeyError):
    """A client number that the table does not hold; `position` is its place in the request."""

    def __init__(self, position: int) -> None:
        super().__init__(position)
        self.position = position


@dataclass(frozen=True, slots=True, kw_only=True)
class OnlineTable:
    """A verified table in memory."""

    digest: str
    facts: OnlineFacts
    clients: NDArray[np.int64]
    features: NDArray[np.float32]

    def of(self, clients: Sequence[int]) -> NDArray[np.float32]:
        """The features of these clients, shape (len(clients), features), in the order asked.

        Raises:
            UnknownClient: for the first client number that is not there.
        """
        wanted = np.asarray(clients, dtype=np.int64)
        found = np.minimum(np.searchsorted(self.clients, wanted), len(self.clients) - 1)
        strangers = np.flatnonzero(self.clients[found] != wanted)
        if len(strangers):
            raise UnknownClient(int(strangers[0]))
        return self.features[found]


def write_online(folder: Path, facts: OnlineFacts, clients: NDArray[np.int64], features: NDArray[np.float32]) -> None:
    """Write the table, clients in ascending order; the caller seals."""
    order = np.argsort(clients, kind="stable")
    (folder / FACTS).write_text(json.dumps(asdict(facts), indent=1, sort_keys=True) + "\n")
    np.save(folder / CLIENTS, clients[order].astype("int64"), allow_pickle=False)
    np.save(folder / FEATURES, features[order].astype("float32"), allow_pickle=False)


class OnlineStore:
    """The table in force below a folder, read again when a newer one is put in force; a damaged one is not taken."""

    def __init__(self, root: Path) -> None:
        self._place = root / SHELF
        self._table: OnlineTable | None = None
        self._passed_over: set[str | None] = set()

    def table(self) -> OnlineTable:
        """The newest sound table.

        Raises:
            Refusal: when there is none; a table that was sound goes on serving while a newer one is damaged.
        """
        digest = pointed_at(self._place)
        known = self._table
        if known is not None and digest in {known.digest, *self._passed_over}:
            return known
        try:
            self._table = known = _read(self._place)
        except Refusal:
            if known is None:
                raise
            self._passed_over = {digest}
        return known


def _read(place: Path) -> OnlineTable:
    digest, folder = in_force(place)
    facts = json.loads((folder / FACTS).read_text())
    facts["features"] = tuple(facts["features"])
    table = OnlineTable(
        digest=digest,
        facts=OnlineFacts(**facts),
        clients=np.load(folder / CLIENTS, allow_pickle=False),
        features=np.load(folder / FEATURES, allow_pickle=False),
    )
    if table.features.shape != (len(table.clients), len(table.facts.features)) or not len(table.clients):
        raise Refusal(f"{folder} is not an online table.", "Materialize online_features again.")
    return table
