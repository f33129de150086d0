"""What a healthy batch of applications looks like: ranges, spreads and how columns go together.

Here: the norms read once off the reference, and the measures of a batch in the same terms. Not here: what follows from
them (`shapes`, `relations`) or drift (`drift`): every measure here is blind to the changes that an honest world makes.

Relations are rank correlations, which no growth, inflation or recoding to worse codes alters. What a column should be
is predicted linearly from the ranks of the others, with weights from the reference.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from loan_assets.books import Column, LoanBook, Role
from loan_assets.policy import Quality

if TYPE_CHECKING:
    import pandas as pd

Numbers = NDArray[np.float64]

QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)
# The spread of positions that are spread evenly from -0.5 to 0.5.
EVEN = 12**-0.5
# Keeps the weights finite where two columns of the reference are copies of each other.
RIDGE = 1e-3
# A position among 1,000 values is known to a thousandth, and found while the values are in the cache.
THINNED = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Atom:
    """A value that many clients of the reference share, and the mean standard ranks of those clients."""

    value: float
    profile: Numbers


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnNorm:
    """One column of the reference: how many values it has, which are common, how often it is null or negative.

    `ordered` are its values in order, thinned out; `spread` is that of their positions among themselves.
    """

    distinct: int
    null_share: float
    negative_share: float
    commonest_share: float
    atoms: tuple[Atom, ...]
    ordered: Numbers
    spread: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """Linear predictions of ranks: `weights` of shape (columns, targets), `strength` the correlation they reach."""

    weights: Numbers
    strength: Numbers


@dataclass(frozen=True, slots=True, kw_only=True)
class Norms:
    """The reference as a batch is compared with it.

    `related` are the rank correlations of the columns. `amounts` are the positions of those measured in the book's
    currency; `magnitudes` their quantiles in powers of ten, `ratios` those of every pair. `families` are the columns of
    each monthly measure, newest month first; `groups` of shape (columns, groups) averages each of them, and leaves a
    column of no family alone. `by_kin` predicts each column from its family, one without a family from all others;
    `between` the difference of the two columns of each of `pairs`, of two families or of none and one from those alone.
    """

    columns: tuple[Column, ...]
    each: tuple[ColumnNorm, ...]
    amounts: NDArray[np.intp]
    magnitudes: Numbers
    ratios: Numbers
    related: Numbers
    families: tuple[NDArray[np.intp], ...]
    groups: Numbers
    by_kin: Prediction
    pairs: NDArray[np.intp]
    between: Prediction


def norms_of(reference: pd.DataFrame, book: LoanBook, quality: Quality) -> Norms:
    """The norms of a reference table in the book's words; columns that it lacks are not watched."""
    columns = tuple(c for c in book.with_role(Role.FEATURE, Role.PROTECTED) if c.name in reference.columns)
    values = reference[[column.name for column in columns]].to_numpy("float64")
    related = correlations(values)
    measures = np.array([column.measure or column.name for column in columns])
    kin = measures[:, None] == measures[None, :]
    has_kin = kin.sum(axis=0) > 1
    groups = np.where(np.triu(kin).sum(axis=0) == 1, kin / kin.sum(axis=0), 0.0)
    pairs = np.array(list(combinations(range(len(columns)), 2)), dtype=np.intp).reshape(-1, 2)
    scores = _standard_ranks(values)
    amounts = np.array([i for i, column in enumerate(columns) if column.unit == book.currency], dtype=np.intp)
    powers = powers_of_ten(values[:, amounts])
    return Norms(
        columns=columns,
        each=tuple(_column_norm(values[:, i], scores, quality) for i in range(len(columns))),
        amounts=amounts,
        magnitudes=quantiles(powers),
        ratios=quantiles(powers[:, :, None] - powers[:, None, :]),
        related=related,
        families=_families(columns),
        groups=groups[:, groups.any(axis=0)],
        by_kin=_prediction(related, np.where(has_kin, kin, True) & ~np.eye(len(columns), dtype=bool)),
        pairs=pairs,
        between=_prediction_between(related, pairs, kin, has_kin),
    )


def correlations(values: Numbers) -> Numbers:
    """Spearman's rank correlations of shape (columns, columns); 0 where a column does not vary."""
    ranked = _standard_ranks(values)
    length = np.sqrt((ranked**2).sum(axis=0))
    ranked = ranked / np.where(length > 0, length, np.inf)
    related: Numbers = ranked.T @ ranked
    np.fill_diagonal(related, 1.0)
    return related


def predicted(related: Numbers, prediction: Prediction) -> Numbers:
    """How well each column of a batch follows its prediction, as a correlation; 0 where nothing can be told."""
    weights = prediction.weights
    spread = np.sqrt(np.maximum(np.einsum("it,it->t", weights, related @ weights), 0.0))
    return _over((related * weights).sum(axis=0), spread)


def predicted_between(related: Numbers, norms: Norms) -> Numbers:
    """How well the difference of each pair's columns follows its prediction; negative where they changed places."""
    weights = norms.between.weights
    first, second = norms.pairs.T
    pull = np.einsum("it,it->t", weights, related[:, first] - related[:, second])
    spread = np.sqrt(np.maximum(np.einsum("it,it->t", weights, related @ weights), 0.0))
    apart = np.sqrt(np.maximum(2 - 2 * related[first, second], 0.0))
    return _over(pull, spread * apart)


def drawn_by_groups(related: Numbers, norms: Norms, rows: int) -> Numbers:
    """How well each group of columns can be predicted from the others at all, as a correlation, of shape (groups,).

    The weights are the batch's own: a relation that has taken another form still counts. Corrected for the number of
    groups (Ezekiel, 1930), so that chance is about 0.
    """
    among = norms.groups.T @ related @ norms.groups
    size = np.sqrt(np.diag(among))
    left = 1 / np.diag(np.linalg.inv(among / np.outer(size, size) + RIDGE * np.eye(len(size))))
    found: Numbers = np.sqrt(np.maximum(1 - left * (rows - 1) / max(rows - len(size), 1), 0.0))
    return found


def positions(values: Numbers, ordered: Numbers) -> Numbers:
    """Where values lie among the ordered values of the reference, from -0.5 to 0.5, ties in their middle."""
    below, up_to = (np.searchsorted(ordered, values, side=side) for side in ("left", "right"))
    return (below + up_to) / (2 * len(ordered)) - 0.5


def powers_of_ten(values: Numbers) -> Numbers:
    """The magnitude of each number as a power of ten; NaN for nothing."""
    sizes = np.abs(values)
    return np.log10(np.where((sizes > 0) & np.isfinite(sizes), sizes, np.nan))


def quantiles(powers: Numbers) -> Numbers:
    """The five quantiles of each column, of shape (5, ...); NaN where a column holds nothing."""
    ordered = np.sort(powers, axis=0)  # NaN goes to the end
    known = np.isfinite(powers).sum(axis=0)
    places = np.array(QUANTILES).reshape(-1, *[1] * known.ndim) * np.maximum(known - 1, 0)
    low = np.floor(places).astype("int64")
    high = np.minimum(low + 1, np.maximum(known - 1, 0))
    below, above = (np.take_along_axis(ordered, index, axis=0) for index in (low, high))
    found: Numbers = below + (above - below) * (places - low)
    return found


def moved_as_one(now: Numbers, then: Numbers) -> Numbers:
    """By how much every quantile has moved at least, in one direction; 0 where they disagree or are not known.

    A part of the reference, however one-sided, moves its own far quantiles little; a change of units moves them all.
    """
    moved = now - then
    up, down = moved.min(axis=0), moved.max(axis=0)
    return np.nan_to_num(np.where(up > 0, up, np.where(down < 0, down, 0.0)), nan=0.0)


def weights_among(related: Numbers, used: NDArray[np.intp], pull: Numbers) -> Numbers:
    """The linear weights of some columns for what pulls on each of them with these correlations."""
    among = related[np.ix_(used, used)] + RIDGE * np.eye(len(used))
    return np.linalg.solve(among, pull).astype("float64")


def _standard_ranks(values: Numbers) -> Numbers:
    """Average ranks of each column, centred, as a share of the rows; an unknown value counts as the middle."""
    import pandas as pd

    ranks = pd.DataFrame(values).rank(pct=True).to_numpy()
    centred: Numbers = ranks - np.nanmean(np.where(np.isfinite(ranks).any(axis=0), ranks, 0.0), axis=0)
    return np.nan_to_num(centred, nan=0.0)


def _families(columns: tuple[Column, ...]) -> tuple[NDArray[np.intp], ...]:
    measures = dict.fromkeys(column.measure for column in columns if column.measure is not None)
    return tuple(
        np.array(
            sorted((i for i, column in enumerate(columns) if column.measure == measure), key=lambda i: columns[i].lag),
            dtype=np.intp,
        )
        for measure in measures
    )


def _column_norm(values: Numbers, scores: Numbers, quality: Quality) -> ColumnNorm:
    known = values[np.isfinite(values)]
    found, counts = np.unique(known, return_counts=True)
    shares = counts / max(len(known), 1)
    spread = np.where(scores.std(axis=0) > 0, scores.std(axis=0), np.inf)
    other = found != 0
    ordered = np.sort(known)[:: max(1, len(known) // THINNED)]
    return ColumnNorm(
        distinct=len(found),
        null_share=float(np.isnan(values).mean()),
        negative_share=float((known < 0).mean()) if len(known) else 0.0,
        commonest_share=float(shares[other].max()) if other.any() else 0.0,
        atoms=tuple(
            Atom(value=float(value), profile=scores[values == value].mean(axis=0) / spread)
            for value in found[shares >= quality.atom_share]
        ),
        ordered=ordered,
        spread=float(positions(ordered, ordered).std()) if len(ordered) else 0.0,
    )


def _prediction(related: Numbers, may_use: NDArray[np.bool_]) -> Prediction:
    """Weights for every column from the columns that `may_use` allows, of shape (columns, targets)."""
    weights = np.zeros_like(related)
    for target in range(len(related)):
        used = np.flatnonzero(may_use[:, target])
        weights[used, target] = weights_among(related, used, related[used, target])
    return Prediction(weights=weights, strength=predicted(related, Prediction(weights=weights, strength=weights[0])))


def _prediction_between(
    related: Numbers, pairs: NDArray[np.intp], kin: NDArray[np.bool_], has_kin: NDArray[np.bool_]
) -> Prediction:
    weights = np.zeros((len(related), len(pairs)))
    strength = np.zeros(len(pairs))
    for number, (first, second) in enumerate(pairs):
        apart = not kin[first, second] and has_kin[[first, second]].any()
        may_use = (kin[first] | kin[second]) if apart else np.ones(len(related), dtype=bool)
        used = np.setdiff1d(np.flatnonzero(may_use), (first, second))
        pull = related[used, first] - related[used, second]
        weights[used, number] = weights_among(related, used, pull)
        explained = max(float(weights[used, number] @ pull), 0.0)
        strength[number] = np.sqrt(explained / max(2 - 2 * related[first, second], RIDGE))
    return Prediction(weights=weights, strength=strength)


def _over(above: Numbers, below: Numbers) -> Numbers:
    return np.divide(above, below, out=np.zeros_like(above), where=below > RIDGE)
