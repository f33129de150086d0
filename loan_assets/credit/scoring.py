"""From features to a probability of default: boosted trees as flat arrays.

Here: the one scorer that the platform and the serving box share; numpy and nothing else. Not here: fitting (`training`)
or the folder in which the arrays travel (`release`).
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

# As many rows as have their place in every tree kept in a core's own cache.
CHUNK_ROWS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class FlatTrees:
    """Every node of every tree in one array per fact; a leaf points at itself.

    Shapes: `feature`, `threshold`, `left`, `right`, `missing_left`, `value`, `cover` are (nodes,), `roots` is (trees,),
    `baseline` and `depth` are (1,). `value` and `baseline` are log-odds, in double precision as in scikit-learn;
    `cover` is how many training rows reached the node.
    """

    feature: NDArray[np.int32]
    threshold: NDArray[np.float64]
    left: NDArray[np.int32]
    right: NDArray[np.int32]
    missing_left: NDArray[np.bool_]
    value: NDArray[np.float64]
    cover: NDArray[np.int64]
    roots: NDArray[np.int32]
    baseline: NDArray[np.float64]
    depth: NDArray[np.int32]

    def log_odds(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """Log-odds of default, shape (rows,), for features of shape (rows, features) in the book's order.

        A missing feature (NaN) takes the side it took in training. Rows are independent: any batch gives the same bits.
        """
        rows = np.ascontiguousarray(features, dtype=np.float32)
        # A node's children stand side by side, so that a step down is one look into one array.
        children = np.stack([self.right, self.left], axis=1).ravel().astype(np.intp)
        feature, roots = self.feature.astype(np.intp), self.roots.astype(np.intp)
        parts = [
            self._chunk(rows[start : start + CHUNK_ROWS], feature, roots, children)
            for start in range(0, len(rows), CHUNK_ROWS)
        ]
        return np.concatenate(parts) if parts else np.empty(0)

    def _chunk(
        self,
        rows: NDArray[np.float32],
        feature: NDArray[np.intp],
        roots: NDArray[np.intp],
        children: NDArray[np.intp],
    ) -> NDArray[np.float64]:
        numbers, row_begins = rows.ravel(), np.arange(len(rows))[:, None] * rows.shape[1]
        is_missing = np.isnan(numbers)
        has_missing = bool(is_missing.any())
        node = np.repeat(roots[None], len(rows), axis=0)
        for _ in range(int(self.depth[0])):
            at = feature.take(node) + row_begins
            goes_left = numbers.take(at) <= self.threshold.take(node)  # a missing one does not
            if has_missing:
                goes_left |= is_missing.take(at) & self.missing_left.take(node)
            node = children.take(2 * node + goes_left)
        # Trees are added one after the other, as in training: a pairwise sum would round differently.
        total = np.cumsum(self.value.take(node), axis=1)[:, -1]
        return np.asarray(total + self.baseline[0])

    def save(self, folder: Path) -> None:
        """Write one `.npy` file per array; the same arrays give the same bytes."""
        folder.mkdir(parents=True, exist_ok=True)
        for field in fields(self):
            np.save(folder / f"{field.name}.npy", getattr(self, field.name), allow_pickle=False)

    @classmethod
    def load(cls, folder: Path) -> FlatTrees:
        """Read what `save` wrote; pickled arrays are refused by numpy."""
        return cls(**{field.name: np.load(folder / f"{field.name}.npy", allow_pickle=False) for field in fields(cls)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """A straight line on the log-odds: slope 1 and intercept 0 leave them as the trees gave them."""

    slope: float = 1.0
    intercept: float = 0.0


def probability(log_odds: NDArray[np.float64], calibration: Calibration | None = None) -> NDArray[np.float64]:
    """Probability of default from log-odds, after the calibration line."""
    if calibration is not None:
        log_odds = log_odds * calibration.slope + calibration.intercept
    return np.asarray(1.0 / (1.0 + np.exp(-log_odds)))


def is_refused(default_probability: NDArray[np.float64], threshold: float) -> NDArray[np.bool_]:
    """Whether each applicant is refused: at or above the threshold."""
    return default_probability >= threshold
