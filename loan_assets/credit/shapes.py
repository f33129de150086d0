"""The columns of a batch one by one: their values and their scale.

Here: columns that are constant, stuck, of the wrong sign or in other units. Not here: how they go together
(`relations`), or single rows (`reading`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from loan_assets.books import Role
from loan_assets.credit.norms import (
    EVEN,
    Norms,
    Numbers,
    moved_as_one,
    positions,
    powers_of_ten,
    quantiles,
    weights_among,
)
from loan_assets.policy import Quality

Flags = NDArray[np.bool_]


def _commonest(values: Numbers) -> tuple[float, float]:
    """The commonest known value and its share."""
    found, counts = np.unique(values[np.isfinite(values)], return_counts=True)
    if not len(found):
        return float("nan"), 0.0
    return float(found[counts.argmax()]), float(counts.max() / counts.sum())


def constant(values: Numbers, usable: Flags, norms: Norms, quality: Quality) -> Flags:
    """Columns with one value where the reference has many, unless the rest of the batch is of that segment too."""
    flags = np.zeros(len(norms.columns), dtype=bool)
    for place in np.flatnonzero(usable):
        value, share = _commonest(values[:, place])
        if share >= quality.constant_share and norms.each[place].distinct > 1:
            flags[place] = not _is_segment(int(place), value, values, usable, norms, quality)
    return flags


def _is_segment(place: int, value: float, values: Numbers, usable: Flags, norms: Norms, quality: Quality) -> bool:
    """Whether a batch looks like the clients of the reference who have this value, and not like clients at large.

    Where too few rows tell them apart a feature counts as broken; a protected attribute, from which no model learns,
    does not.
    """
    profile = next((atom.profile for atom in norms.each[place].atoms if atom.value == value), None)
    if profile is None:
        return False
    others = np.flatnonzero(usable & (np.arange(len(usable)) != place))
    weights = weights_among(norms.related, others, profile[others])
    expected = float(weights @ profile[others])
    found = float(weights @ _mean_positions(values, others, norms))
    if norms.columns[place].role is Role.PROTECTED:
        error = float(np.sqrt(max(expected, 0.0) / len(values)))
        return found > expected - quality.segment_errors * error
    return found > expected / 2


def _mean_positions(values: Numbers, places: NDArray[np.intp], norms: Norms) -> Numbers:
    """The mean position of each column in the reference, in standard deviations."""
    return np.array([positions(values[:, place], norms.each[place].ordered).mean() / EVEN for place in places])


def stuck(values: Numbers, usable: Flags, norms: Norms, quality: Quality) -> Flags:
    """Amounts and counts of which one value, other than nothing, is far commoner than any in the reference."""
    flags = np.zeros(len(norms.columns), dtype=bool)
    for place in np.flatnonzero(usable):
        if norms.columns[place].levels is None:
            ordinary = max(quality.stuck_share, quality.stuck_times * norms.each[place].commonest_share)
            flags[place] = _commonest(values[values[:, place] != 0, place])[1] > ordinary
    return flags


def negative(values: Numbers, usable: Flags, norms: Norms, quality: Quality) -> Flags:
    """Columns that are below zero far more often than in the reference."""
    ordinary = np.array([norm.negative_share for norm in norms.each])
    coded = np.array([column.levels is not None for column in norms.columns])
    flags: Flags = usable & ~coded & ((values < 0).mean(axis=0) > ordinary + quality.negative_more)
    return flags


def scaled(values: Numbers, usable: Flags, norms: Norms, quality: Quality) -> Flags:
    """Amounts of which every quantile has moved by an order of magnitude, alone or against those beside them."""
    powers = powers_of_ten(values[:, norms.amounts])
    many = np.isfinite(powers).sum(axis=0) >= quality.fewest_amounts
    moved = moved_as_one(quantiles(powers), norms.magnitudes)
    differences = powers[:, :, None] - powers[:, None, :]
    beside = moved_as_one(quantiles(differences), norms.ratios)
    enough = np.isfinite(differences).sum(axis=0) >= quality.fewest_amounts
    families = np.array([norms.columns[place].measure or "" for place in norms.amounts])
    siblings = (families[:, None] == families[None, :]) & ~np.eye(len(families), dtype=bool) & enough
    against = np.where(siblings, np.abs(beside) > quality.scale_beside, False).sum(axis=1)
    odd_one = (against * 2 > np.maximum(siblings.sum(axis=1), 1)) & many
    flags = np.zeros(len(norms.columns), dtype=bool)
    flags[norms.amounts] = many & ((moved > quality.scale_up) | (moved < -quality.scale_down))
    flags &= usable
    flags = flags & ~_explained(values, flags, usable, norms)
    flags[norms.amounts] |= odd_one & usable[norms.amounts]
    return flags


def _explained(values: Numbers, moved: Flags, usable: Flags, norms: Norms) -> Flags:
    """Which moved columns lie where those of other measures say: a segment of small debtors owes and pays little.

    The months beside a moved one are not asked: in a small batch a moved family is not seen whole.
    """
    explained = np.zeros_like(moved)
    beside_moved = np.zeros_like(moved)
    for family in norms.families:
        beside_moved[family] = moved[family].any()
    places, others = np.flatnonzero(moved), np.flatnonzero(usable & ~moved & ~beside_moved)
    if not len(places) or not len(others):
        return explained
    here, beside = _mean_positions(values, places, norms), _mean_positions(values, others, norms)
    for place, found in zip(places, here, strict=True):
        pull = norms.related[others, place]
        weights = weights_among(norms.related, others, pull)
        share = float(weights @ pull)  # of the column's variance that the others predict
        explained[place] = float(weights @ beside) / found > share / 2
    return explained
