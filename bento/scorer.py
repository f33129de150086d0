"""From an application as received to an answer: the book's features, the release's trees, the release's threshold.

Here: reading an application and scoring it, with numpy and the standard library. Not here: HTTP (`service`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from loan_assets.books import Column, Kind, LoanBook, Role, book_named, compute_features
from loan_assets.credit.scoring import is_refused
from loan_assets.refusal import Refusal
from loan_assets.release import Release, read_release

# Beyond this a double no longer holds every whole number; no column of a book is near it.
LARGEST = 2.0**53


class BadApplication(ValueError):
    """An application that cannot be scored; the message names the row and the field, never the value."""


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

    def answer(self, applications: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """One answer per application, in order.

        Raises:
            BadApplication: for the first application with a field that is missing, unknown or outside the book.
        """
        needed = self.book.with_role(Role.FEATURE)
        known = {column.name for column in self.book.received if column.role is not Role.LABEL}
        features = np.empty((len(applications), len(self.book.features)), dtype="float32")
        for row, application in enumerate(applications):
            unknown = sorted(set(application) - known)
            if unknown:
                # A name that is not the book's own may be anything, a person's name included: it is counted, not said.
                raise BadApplication(f"application {row}: {len(unknown)} of its fields are not in the book")
            received = {column.name: _number(column, application, row) for column in needed}
            features[row] = list(compute_features(self.book, received).values())
        estimates = self.release.score(features)
        refused = is_refused(estimates, self.release.facts.threshold)
        return [
            {
                "default_probability": float(estimate),
                "decision": "refuse" if is_refusal else "approve",
                "model_version": self.release.facts.version,
                "release_digest": self.release.digest[:12],
            }
            for estimate, is_refusal in zip(estimates, refused, strict=True)
        ]


def _number(column: Column, application: Mapping[str, Any], row: int) -> float:
    """A field's value as the float that the features were computed from in training."""
    where = f"application {row}: {column.name}"
    if column.name not in application:
        raise BadApplication(f"{where} is missing")
    value = application[column.name]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadApplication(f"{where} is not a number")
    if not abs(value) <= LARGEST:
        raise BadApplication(f"{where} is not a finite number of a size that can be computed with")
    if column.kind is Kind.INTEGER and value != int(value):
        raise BadApplication(f"{where} is not a whole number")
    if column.levels is not None and value not in column.levels:
        raise BadApplication(f"{where} is not one of {sorted(column.levels)}")
    if column.low is not None and value < column.low:
        raise BadApplication(f"{where} is below {column.low:g}")
    if column.high is not None and value > column.high:
        raise BadApplication(f"{where} is above {column.high:g}")
    return float(value)
