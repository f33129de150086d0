"""How the columns of a batch go together, where a feed that mixed them up betrays itself.

Here: columns that have lost their relation, and columns that came under each other's name. Not here: what a column is
by itself (`shapes`), or the relations of the reference (`norms`).

A broken feed breaks a column or two, or exchanges two families. Where many relations change together while the columns
of each family still go with each other, the world reports otherwise than before: that is drift, and no fault.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from loan_assets.credit.norms import (
    EVEN,
    Norms,
    Numbers,
    drawn_by_groups,
    positions,
    predicted,
    predicted_between,
)
from loan_assets.policy import Quality

Flags = NDArray[np.bool_]
Places = Sequence[int] | NDArray[np.intp]


def unrelated(values: Numbers, related: Numbers, usable: Flags, norms: Norms, quality: Quality) -> Flags:
    """Columns that go with their family no better than chance or the wrong way round; without a family, with nothing.

    Where only a part of a column's range, or of its prediction's, has arrived, relations weaken honestly: by
    Thorndike's formula, and where it is a small part by more than that.
    """
    error = len(values) ** -0.5
    strength, follows = norms.by_kin.strength, predicted(related, norms.by_kin)
    for group, members in enumerate(norms.groups.T):
        if members.max() == 1.0:
            follows[members == 1.0] = drawn_by_groups(related, norms, len(values))[group]
    part = _part(values, usable, norms)
    part = np.where(part > quality.whole_spread, 1.0, part)  # Chance in a small batch is no part.
    expected = strength * part / np.sqrt(1 - strength**2 * (1 - part**2))
    lost = np.clip(expected / 3, quality.lost_errors[0] * error, quality.lost_errors[1] * error)
    is_told = _is_clear(expected, error, quality) & (part >= quality.least_spread)
    is_lost = (is_told & (follows < lost)) | (
        _is_clear(strength, error, quality) & (follows < -quality.reversed_errors * error)
    )
    flags: Flags = usable & (strength > quality.least_strength) & is_lost
    return flags


def _part(values: Numbers, usable: Flags, norms: Norms) -> Numbers:
    """Which part of its usual spread each column has, or its prediction where that is less."""
    here = np.column_stack([positions(column, norm.ordered) for column, norm in zip(values.T, norms.each, strict=True)])
    here = np.where(usable, here - here.mean(axis=0), 0.0)
    spread = here.std(axis=0) / np.array([max(norm.spread, 1e-9) for norm in norms.each])
    weights = norms.by_kin.weights
    full = np.sqrt(np.einsum("it,ij,jt->t", weights, norms.related, weights)) * EVEN
    part: Numbers = np.minimum(spread, (here @ weights).std(axis=0) / np.maximum(full, 1e-9))
    return part


def _is_clear(strength: Numbers, error: float, quality: Quality) -> Flags:
    """Whether relations of this strength can be told from none at all, given the standard error of none."""
    clear: Flags = strength - quality.related_errors * (1 - strength**2) * error > quality.lost_errors[0] * error
    return clear


def exchanged(related: Numbers, usable: Flags, rows: int, norms: Norms, quality: Quality) -> Iterator[tuple[int, int]]:
    """The two columns, or two families, that fit the rest of the batch only when exchanged; then all of it must fit."""
    told = _told_apart(usable, rows, norms, quality)
    apart = np.where(told, predicted_between(related, norms), 0.0)
    # How far each pair is the wrong way round, beyond what chance and an honest delay of one measure do.
    beyond = apart + np.maximum(norms.between.strength * quality.swapped_share, quality.swapped_errors * rows**-0.5)
    if (beyond < 0).any():
        first, second = norms.pairs[beyond.argmin()]
        rightly = predicted_between(_renamed(related, [first], [second]), norms)
        if (rightly >= quality.fits_exchanged * norms.between.strength)[told].all():
            yield int(first), int(second)
    for one, other in combinations(norms.families, 2):
        is_whole = len(one) == len(other) and usable[one].all() and usable[other].all()
        if is_whole and _misfit(_renamed(related, one, other), norms) < quality.exchanged * _misfit(related, norms):
            yield int(one[0]), int(other[0])


def _told_apart(usable: Flags, rows: int, norms: Norms, quality: Quality) -> Flags:
    """The pairs of which so many rows show clearly which column is which."""
    first, second = norms.pairs.T
    measures = np.array([column.measure or column.name for column in norms.columns])
    errors = np.where(measures[first] == measures[second], quality.months_seen_errors, quality.swap_seen_errors)
    is_clear = norms.between.strength > np.maximum(errors * rows**-0.5, quality.least_between)
    told: Flags = is_clear & usable[first] & usable[second]
    return told


def _renamed(related: Numbers, one: Places, other: Places) -> Numbers:
    """The relations with some columns under the names of others, and those under theirs."""
    order = np.arange(len(related))
    order[one], order[other] = other, one
    return related[np.ix_(order, order)]


def _misfit(related: Numbers, norms: Norms) -> float:
    return float(((related - norms.related) ** 2).sum())
