"""How far a version's training data and a batch lie apart, column by column, and how far chance alone would take them.

Here: the reference of one model version, the distance of a batch from it, and the limit that a batch of that size may
not pass. Not here: Evidently's report on the same distances (`drift`) or what follows from them (`succession`).

A fixed limit is a trap: samples of 100 unchanged applicants differ from their own population by more than samples of
1,000. Each column's limit is therefore a high quantile of the distance between the reference and same-size samples of
it, and never under the distance at which a difference matters at all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from loan_assets.books import Column
from loan_assets.policy import Vigilance

if TYPE_CHECKING:
    import pandas as pd

Numbers = NDArray[np.float64]
# Sizes are told apart in steps of a tenth: the limit of 500 rows is off by less than a twentieth for 549.
STEP = 1.1
# Below Evidently's floor a constant column would divide by nothing.
SMALLEST_SPREAD = 0.001


@dataclass(frozen=True, kw_only=True)
class Scale:
    """One column of a reference, sorted once: its distinct values, their cumulative shares, each row's place."""

    column: Column
    values: Numbers
    below: Numbers
    place: NDArray[np.int64]
    spread: float

    @classmethod
    def of(cls, values: Numbers, column: Column) -> Scale:
        """Measure a column; missing and infinite values are left out."""
        known = values[np.isfinite(values)]
        distinct, place, counts = np.unique(known, return_inverse=True, return_counts=True)
        below = np.cumsum(counts) / max(len(known), 1)
        spread = max(float(np.std(known)), SMALLEST_SPREAD) if len(known) else SMALLEST_SPREAD
        return cls(column=column, values=distinct, below=below, place=place, spread=spread)

    def distance(self, batch: Numbers) -> float:
        """Evidently's distance of a batch: Wasserstein in standard deviations for numbers, Jensen-Shannon for codes."""
        known = np.sort(batch[np.isfinite(batch)])
        if not len(known) or not len(self.values):
            return float("nan")
        if self.column.levels is not None:
            codes, counts = np.unique(known, return_counts=True)
            every = np.union1d(codes, self.values)
            now, then = np.zeros(len(every)), np.zeros(len(every))
            now[np.searchsorted(every, codes)] = counts / len(known)
            then[np.searchsorted(every, self.values)] = np.diff(self.below, prepend=0.0)
            return _jensen_shannon(now, then)
        at = np.searchsorted(self.values, known, side="right")
        merged = np.insert(self.values, at, known)
        then = np.insert(self.below, at, np.concatenate([[0.0], self.below])[at])
        now = np.zeros(len(merged))
        now[at + np.arange(len(known))] = 1 / len(known)
        gaps = np.abs(np.cumsum(now) - then)[:-1]
        return float((gaps * np.diff(merged)).sum() / self.spread)

    def distance_of_rows(self, rows: NDArray[np.int64]) -> float:
        """The same for a sample of the reference's own rows, without sorting."""
        counts = np.bincount(self.place[rows], minlength=len(self.values)) / len(rows)
        if self.column.levels is not None:
            return _jensen_shannon(counts, np.diff(self.below, prepend=0.0))
        gaps = np.abs(np.cumsum(counts) - self.below)[:-1]
        return float((gaps * np.diff(self.values)).sum() / self.spread)


@dataclass(frozen=True, kw_only=True)
class Reference:
    """The received columns that one model version learned from, ready to measure batches against."""

    scales: tuple[Scale, ...]
    rows: int
    vigilance: Vigilance
    _limits: dict[int, dict[str, float]] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(
        cls, received: pd.DataFrame | Mapping[str, Numbers], columns: Sequence[Column], vigilance: Vigilance
    ) -> Reference:
        """Sort the reference's columns; those that the table lacks are not compared."""
        scales = [
            Scale.of(np.asarray(received[column.name], dtype="float64"), column)
            for column in columns
            if column.name in received
        ]
        rows = max((len(scale.place) for scale in scales), default=0)
        return cls(scales=tuple(scales), rows=rows, vigilance=vigilance)

    def distances(self, batch: pd.DataFrame | Mapping[str, Numbers]) -> dict[str, float]:
        """Every column's distance; columns that the batch lacks, or that hold nothing, are left out."""
        measured = {
            scale.column.name: scale.distance(np.asarray(batch[scale.column.name], dtype="float64"))
            for scale in self.scales
            if scale.column.name in batch
        }
        return {name: distance for name, distance in measured.items() if np.isfinite(distance)}

    def limits(self, rows: int) -> dict[str, float]:
        """How far each column of an unchanged batch of this size strays at most, up to the policy's quantile."""
        size = self._size(rows)
        if size not in self._limits:
            self._limits[size] = self._limits_of(size)
        return self._limits[size]

    def share(self, batch: pd.DataFrame | Mapping[str, Numbers], rows: int) -> tuple[float, dict[str, float]]:
        """The share of compared columns that lie beyond their limit, and every column's distance."""
        distances, limits = self.distances(batch), self.limits(rows)
        beyond = [name for name, distance in distances.items() if distance > limits[name]]
        return (len(beyond) / len(distances) if distances else 0.0), distances

    def _size(self, rows: int) -> int:
        """The next smaller size that has limits of its own: smaller samples stray further, so none is judged harder."""
        return int(STEP ** np.floor(np.log(max(rows, 2)) / np.log(STEP)))

    def _limits_of(self, size: int) -> dict[str, float]:
        vigilance = self.vigilance
        generator = np.random.default_rng(vigilance.seed)
        # The reference is a sample too, and what it strays by itself is the same on every day.
        wider = float(np.sqrt(1 + size / max(self.rows, 1)))
        drawn = [generator.integers(0, self.rows, size) for _ in range(vigilance.samples)]
        limits = {}
        for scale in self.scales:
            whole = len(scale.place)
            # Of a column that few clients gave, a sample may hold nothing, which is no distance.
            known = (rows[rows < whole] if whole < self.rows else rows for rows in drawn)
            strayed = [scale.distance_of_rows(rows) for rows in known if len(rows)] or [0.0]
            matters = vigilance.number_moved if scale.column.levels is None else vigilance.code_moved
            limits[scale.column.name] = max(float(np.quantile(strayed, vigilance.quantile)) * wider, matters)
        return limits


def _jensen_shannon(now: Numbers, then: Numbers) -> float:
    """The Jensen-Shannon distance, natural logarithm, of two distributions over the same codes."""
    middle = (now + then) / 2

    def information(shares: Numbers) -> float:
        there = shares > 0
        return float((shares[there] * np.log(shares[there] / middle[there])).sum())

    return float(np.sqrt(max(information(now) + information(then), 0.0) / 2))
