"""What a model release is: a sealed folder of plain files from which a score can be computed and defended.

Here: the files, their reading and writing. Not here: where releases rest (`resources.release_store`), who made the
model, or Dagster, MLflow and pickle, none of which are needed to use one.

    release.json       which model this is: version, book, threshold, calibration, reasons, digests, evidence
    trees/*.npy        the model, as flat arrays
    model.onnx         the same model, portable, and the witness that the arrays are right
    origin.json        how it was made and what its scores meant then; read by those who decide, not when serving
    reference.parquet  the received columns of the training part, for drift; stays behind when a Bento is packed
    manifest.json      the SHA-256 of each of them
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from loan_assets.credit.scoring import Calibration, FlatTrees, probability
from loan_assets.refusal import Refusal
from loan_assets.sealed import verify

# Under this name the model is registered, released and asked for.
MODEL = "loan-default"
FORMAT = "loan-assets/release/2"
FACTS, TREES, ONNX = "release.json", "trees", "model.onnx"
ORIGIN, REFERENCE = "origin.json", "reference.parquet"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseFacts:
    """What `release.json` says; every digest is hexadecimal SHA-256 or a prefix of one."""

    model: str
    version: int
    book: str
    book_digest: str
    delivery_digest: str
    dataset_digest: str
    model_digest: str
    features: tuple[str, ...]
    reasons: dict[str, str]
    threshold: float
    calibration: Calibration = field(default_factory=Calibration)
    evidence: dict[str, float] = field(default_factory=dict)
    format: str = FORMAT


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """A verified release, ready to score."""

    digest: str
    facts: ReleaseFacts
    trees: FlatTrees

    def score(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """Probability of default, shape (rows,), for features of shape (rows, features) in `facts.features` order."""
        return self.probability(self.trees.log_odds(features))

    def probability(self, log_odds: NDArray[np.float64]) -> NDArray[np.float64]:
        """Probability of default from what the trees gave, after the release's calibration line."""
        return probability(log_odds, self.facts.calibration)


def write_release(folder: Path, facts: ReleaseFacts, trees: FlatTrees, onnx: bytes | None = None) -> None:
    """Write every file but the reference and the manifest; the caller seals. It scores without the witness too."""
    (folder / FACTS).write_text(json.dumps(asdict(facts), indent=1, sort_keys=True) + "\n")
    trees.save(folder / TREES)
    if onnx is not None:
        (folder / ONNX).write_bytes(onnx)


def read_release(folder: Path, *, expected: str | None = None, carries_reference: bool = True) -> Release:
    """Verify a release's digests, then load it. Nothing is parsed before its bytes have been checked.

    Args:
        folder: the release.
        expected: the digest it must have.
        carries_reference: False for the copy inside a Bento, which leaves the reference rows behind.

    Raises:
        Refusal: when a file is missing or altered, or the format is one this code does not know.
    """
    digest = verify(folder, expected=expected, left_behind=() if carries_reference else (REFERENCE,))
    facts = json.loads((folder / FACTS).read_text())
    if facts.get("format") != FORMAT:
        raise Refusal(
            f"{folder} is a release of format {facts.get('format')!r}; this code reads {FORMAT!r}.",
            "Run the version of loan_assets that wrote it, or materialize model_release again.",
        )
    facts["features"] = tuple(facts["features"])
    facts["calibration"] = Calibration(**facts["calibration"])
    try:
        said = ReleaseFacts(**facts)
    except TypeError as foreign:
        raise Refusal(
            f"{folder / FACTS} does not have the fields of {FORMAT!r}.", "Materialize model_release again."
        ) from foreign
    return Release(digest=digest, facts=said, trees=FlatTrees.load(folder / TREES))
