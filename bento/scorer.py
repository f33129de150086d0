"""From what was asked to an answer: the book's features, the release's trees, the release's threshold.

Here: reading applications and client numbers and scoring them, with numpy and the standard library. Not here: HTTP
(`service`) or the log (`prediction_log`).
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loan_assets.books import Column, Kind, LoanBook, Role, book_named, compute_features
from loan_assets.credit.scoring import is_refused
from loan_assets.online_table import OnlineTable, UnknownClient
from loan_assets.prediction_record import BY_APPLICATION, BY_CLIENT, PredictionRecord
from loan_assets.refusal import Refusal
from loan_assets.release import Release, read_release

# Beyond this a double no longer holds every whole number; no column of a book is near it.
LARGEST = 2.0**53
MOST_ROWS = 1_000


class BadRequest(ValueError):
    """What was asked cannot be scored; the message names the row and the field, never the value."""


class NobodyKnown(BadRequest):
    """A client number that the online table does not hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request that was read: one row of features, what was received and whose it is, for each answer wanted."""

    by: str
    features: NDArray[np.float32]
    received: Sequence[Mapping[str, float]]
    clients: Sequence[int | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scorer:
    """One release and the book it was trained on."""

    book: LoanBook
    release: Release

    @classmethod
    def open(cls, folder: Path) -> Scorer:
        """Verify and load a release, and the book it names.

        Raises:
            Refusal: when the release is damaged, or was trained on a book that computes other features.
        """
        release = read_release(folder, carries_reference=False)
        book = book_named(release.facts.book)
        if release.facts.book_digest != book.digest:
            raise Refusal(
                f"The release was trained on book {release.facts.book} {release.facts.book_digest}; this box carries "
                f"{book.name} {book.digest}.",
                "Materialize loan_bento again, so that the box carries the book of its release.",
            )
        return cls(book=book, release=release)

    def read_applications(self, applications: object) -> Asked:
        """Applications as received: a list of objects with the book's columns; protected ones may be left out.

        Raises:
            BadRequest: for the first application with a field that is missing, unknown or outside the book.
        """
        rows = [self._application(row, application) for row, application in enumerate(_rows(applications))]
        features = np.empty((len(rows), len(self.book.features)), dtype="float32")
        for row, received in enumerate(rows):
            features[row] = list(compute_features(self.book, received).values())
        key = self.book.key.name
        clients = [int(received.pop(key)) if key in received else None for received in rows]
        return Asked(by=BY_APPLICATION, features=features, received=rows, clients=clients)

    def read_clients(self, clients: object, table: OnlineTable) -> Asked:
        """Client numbers, whose newest features the online table holds.

        Raises:
            BadRequest: for the first entry that is no client number.
            NobodyKnown: for the first client that the table does not hold.
            Refusal: when the table was computed by another book than this release's.
        """
        if (table.facts.book_digest, table.facts.features) != (self.book.digest, self.release.facts.features):
            raise Refusal(
                f"The online table was computed by book {table.facts.book} {table.facts.book_digest}, the release was "
                f"trained on {self.book.name} {self.book.digest}.",
                "Run `loan-assets run`, then serve the Bento it built.",
            )
        key = self.book.key.name
        numbers = [int(_number(self.book.key, number, f"{key}s[{row}]")) for row, number in enumerate(_rows(clients))]
        try:
            features = table.of(numbers)
        except UnknownClient as unknown:
            raise NobodyKnown(f"{key}s[{unknown.position}] is not a client of the bank") from None
        return Asked(by=BY_CLIENT, features=features, received=[{} for _ in numbers], clients=numbers)

    def answer(self, asked: Asked, now: Callable[[], datetime]) -> list[PredictionRecord]:
        """One record per row asked, in order."""
        estimates = self.release.score(asked.features)
        refused = is_refused(estimates, self.release.facts.threshold)
        answered_at = now().isoformat(timespec="microseconds")
        return [
            PredictionRecord(
                prediction_id=uuid.uuid4().hex,
                answered_at=answered_at,
                asked_by=asked.by,
                client_id=client,
                book=self.book.name,
                book_digest=self.book.digest,
                model_version=self.release.facts.version,
                release_digest=self.release.digest[:12],
                default_probability=float(estimate),
                decision="refuse" if is_refusal else "approve",
                received=received,
            )
            for estimate, is_refusal, received, client in zip(
                estimates, refused, asked.received, asked.clients, strict=True
            )
        ]

    def _application(self, row: int, application: object) -> dict[str, float]:
        where = f"applications[{row}]"
        if not isinstance(application, Mapping):
            raise BadRequest(f"{where} is not an object with the book's fields")
        known = {column.name: column for column in self.book.received if column.role is not Role.LABEL}
        strangers = len(set(application) - set(known))
        if strangers:
            # A name that is not the book's own may be anything, a person's name included: it is counted, not said.
            raise BadRequest(f"{where}: {strangers} of its fields are not in the book")
        missing = next((c.name for c in self.book.with_role(Role.FEATURE) if c.name not in application), None)
        if missing:
            raise BadRequest(f"{where}: {missing} is missing")
        return {name: _number(known[name], value, f"{where}: {name}") for name, value in application.items()}


def _rows(asked: object) -> Sequence[Any]:
    if not isinstance(asked, list) or not asked:
        raise BadRequest("a list with at least one entry is expected")
    if len(asked) > MOST_ROWS:
        raise BadRequest(f"at most {MOST_ROWS:,} entries are answered at once")
    return asked


def _number(column: Column, value: object, where: str) -> float:
    """A field's value as the float that the features were computed from in training."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadRequest(f"{where} is not a number")
    if not abs(value) <= LARGEST:
        raise BadRequest(f"{where} is not a finite number of a size that can be computed with")
    if column.kind is Kind.INTEGER and value != int(value):
        raise BadRequest(f"{where} is not a whole number")
    if column.levels is not None and value not in column.levels:
        raise BadRequest(f"{where} is not one of {sorted(column.levels)}")
    if column.low is not None and value < column.low:
        raise BadRequest(f"{where} is below {column.low:g}")
    if column.high is not None and value > column.high:
        raise BadRequest(f"{where} is above {column.high:g}")
    return float(value)
