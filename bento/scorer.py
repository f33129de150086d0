"""From what was asked to an answer: the book's features, the release's trees, the release's threshold and reasons.

Here: scoring applications and clients with numpy, and the record of each answer. Not here: bodies (`reading`), HTTP
(`application`), which release scores (`releases`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bento.reading import Received
from loan_assets.books import LoanBook, book_named, compute_features
from loan_assets.credit.lookup import TreeTables
from loan_assets.credit.reasons import Sentences, principal_reasons
from loan_assets.policy import POLICY, Explanation
from loan_assets.prediction_record import Shadow
from loan_assets.refusal import Refusal
from loan_assets.release import Release, read_release

REHEARSED_ROWS = 256
# From here on one pass of arrays is faster than row after row of floats; both give the same bits.
MANY = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request that was read: rows of features, what was received and whose it is, for each answer wanted.

    `as_of` holds the instant of each row's newest statement, ISO 8601, and `stale` whether that is past its life; both
    are empty where the features were computed from what was sent.
    """

    by: str
    features: NDArray[np.float32]
    received: Sequence[Received]
    clients: Sequence[int | None]
    as_of: Sequence[str] = ()
    stale: Sequence[bool] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What is answered for one row."""

    default_probability: float
    decision: str
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scorer:
    """One verified release, the book it was trained on, and its trees as tables."""

    book: LoanBook
    release: Release
    tables: TreeTables
    sentences: Sentences
    label: str

    @classmethod
    def open(cls, folder: Path, *, expected: str | None = None) -> Scorer:
        """Verify and load a release and the book it names, and rehearse it.

        Raises:
            Refusal: when the release is damaged, was trained on a book that computes other features, or its tables do
                not answer as its trees do.
        """
        release = read_release(folder, expected=expected, carries_reference=expected is not None)
        book = book_named(release.facts.book)
        if release.facts.book_digest != book.digest:
            raise Refusal(
                f"The release was trained on book {release.facts.book} {release.facts.book_digest}; this box carries "
                f"{book.name} {book.digest}.",
                "Materialize loan_bento again, so that the box carries the book of its release.",
            )
        features = release.facts.features
        if features != book.feature_names:
            raise Refusal(
                f"Release {release.digest[:12]} takes other features than its book computes.", "Release it again."
            )
        tables = TreeTables.of(release.trees, len(features))
        if not tables.agree_with(release.trees, _rehearsal(release, len(features))):
            raise Refusal(f"The tables of release {release.digest[:12]} disagree with its trees.", "Release it again.")
        return cls(
            book=book,
            release=release,
            tables=tables,
            sentences=Sentences(features=features, texts=tuple(release.facts.reasons[name] for name in features)),
            label=release.digest[:12],
        )

    @property
    def texts(self) -> Mapping[str, str]:
        """The sentence for each reason's code."""
        return self.release.facts.reasons

    @property
    def version(self) -> int:
        """The registry version of the release."""
        return self.release.facts.version

    def features_of(self, rows: Sequence[Received]) -> NDArray[np.float32]:
        """The features of applications, shape (len(rows), features), in the book's order."""
        if len(rows) < MANY:
            return np.array([list(compute_features(self.book, row).values()) for row in rows], dtype="float32")
        names = {name for feature in self.book.features for name in feature.inputs}
        columns = {name: np.array([row[name] for row in rows], dtype="float64") for name in names}
        return np.stack(list(compute_features(self.book, columns).values()), axis=1).astype("float32")

    def verdicts(self, features: NDArray[np.float32], explanation: Explanation = POLICY.explanation) -> list[Verdict]:
        """The verdict on each row of features, shape (rows, features), with the reasons of every refusal."""
        entries = self.tables.entries_of(features)
        facts = self.release.facts
        estimates = self.release.probability(self.tables.log_odds(entries)).tolist()
        verdicts = []
        for row, estimate in enumerate(estimates):
            if estimate < facts.threshold:
                verdicts.append(Verdict(default_probability=estimate, decision="approve", reasons=()))
                continue
            (weights,) = self.tables.contributions(entries[row : row + 1]).tolist()
            reasons = tuple(principal_reasons(weights, self.sentences, explanation))
            verdicts.append(Verdict(default_probability=estimate, decision="refuse", reasons=reasons))
        return verdicts

    def shadows(self, features: NDArray[np.float32]) -> list[Shadow]:
        """What this release would have answered, for the log."""
        threshold = self.release.facts.threshold
        return [
            Shadow(
                model_version=self.version,
                release_digest=self.label,
                default_probability=estimate,
                decision="refuse" if estimate >= threshold else "approve",
            )
            for estimate in self.release.score(features).tolist()
        ]


def _rehearsal(release: Release, features: int) -> NDArray[np.float32]:
    """Rows that visit both sides of the trees' questions, with some features missing."""
    generator = np.random.default_rng(0)
    asked = [release.trees.threshold[release.trees.feature == place] for place in range(features)]
    drawn = [generator.choice(values if len(values) else np.zeros(1), REHEARSED_ROWS) for values in asked]
    rows = np.stack(drawn, axis=1).astype("float32")
    rows[generator.random(rows.shape) < 0.05] = np.nan
    return rows
