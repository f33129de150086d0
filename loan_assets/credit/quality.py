"""Whether a day's batch of applications is fit to be compared and learned from.

Here: the verdict on one day, its reasons and which rows are healthy. Not here: what healthy looks like (`norms`), what
is remembered (`batch_memory`), or whether the world has moved (`drift`): honest change, however strong, is no fault.

A reason names a column, a rule and a count, never a value.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from loan_assets.books import Column, Kind, LoanBook, Role
from loan_assets.credit.batch_memory import BatchMemory, Digests, digests_of_rows, digests_of_words
from loan_assets.credit.conformance import Breach
from loan_assets.credit.norms import (
    Norms,
    Numbers,
    correlations,
    fits_exchanged,
    moved_as_one,
    positions,
    powers_of_ten,
    predicted,
    predicted_between,
    quantiles,
    weights_among,
)
from loan_assets.policy import Quality

if TYPE_CHECKING:
    import pandas as pd

OK, QUARANTINED, INSUFFICIENT = "ok", "quarantined", "insufficient"
REQUEST = "request_id"
WHOLE_TABLE = "(all)"
# The spread of positions that are spread evenly from -0.5 to 0.5.
EVEN = 12**-0.5

Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchQuality:
    """The verdict on one day.

    `reasons` say why it is quarantined or cannot be judged; `set_aside` counts single rows that were not healthy on a
    day that is. `healthy` marks the rows to compare and learn from, of shape (rows,).
    """

    status: str
    rows: int
    reasons: tuple[str, ...]
    set_aside: tuple[str, ...]
    left_out: tuple[str, ...]
    healthy: Flags


@dataclass(frozen=True, slots=True, kw_only=True)
class _Read:
    """A batch as numbers: `values` of shape (rows, columns), NaN for what is no number; `unfit` by column and rule."""

    values: Numbers
    unfit: tuple[tuple[str, str, Flags], ...]
    missing: tuple[str, ...]
    left_out: tuple[str, ...]


def judge_batch(
    batch: pd.DataFrame | None,
    norms: Norms,
    book: LoanBook,
    earlier: Sequence[int],
    quality: Quality,
    memory: BatchMemory | None = None,
) -> BatchQuality:
    """Judge one day.

    Args:
        batch: the day's table in the book's words, as received; None where no file came.
        earlier: the row counts of the last healthy days.
        memory: what is known of earlier healthy days, this one not included.
    """
    if batch is None:
        return _without_rows(INSUFFICIENT, "no traffic")
    if len(batch) == 0:
        return _without_rows(QUARANTINED, str(Breach(column=WHOLE_TABLE, rule="the file has no rows", rows=0)))
    read = _read(batch, norms)
    requests, applications = _digests(batch, read, book)
    unfit = [*read.unfit, *_repetitions(batch, requests, applications, memory or BatchMemory())]
    few = max(quality.handful, quality.unfit_share * len(batch))
    gross = [
        (column, rule, flags) for column, rule, flags in unfit if flags.sum() > _allowed(rule, few, batch, quality)
    ]
    healthy = ~np.any([flags for _, _, flags in unfit], axis=0) if unfit else np.ones(len(batch), dtype=bool)
    reasons = [Breach(column=name, rule="is missing", rows=len(batch)) for name in read.missing]
    reasons += [Breach(column=column, rule=rule, rows=int(flags.sum())) for column, rule, flags in gross]
    if not reasons and (~healthy).sum() > 2 * max(few, quality.duplicate_share * len(batch)):
        reasons.append(Breach(column=WHOLE_TABLE, rule="is unfit in one column or another", rows=int((~healthy).sum())))
    reasons += _volume(len(batch), earlier, quality)
    reasons += _sent_before(requests, applications, memory or BatchMemory(), quality)
    broken = {column for column, _, _ in gross} | set(read.missing) | set(read.left_out)
    if healthy.sum() >= quality.smallest_batch:
        reasons += _structure(read.values[healthy], broken, norms, quality)
    status = QUARANTINED if reasons else OK
    said = tuple(dict.fromkeys(str(reason) for reason in reasons))
    if status == OK and healthy.sum() < quality.smallest_batch:
        rows = Breach(column=WHOLE_TABLE, rule="too few healthy rows to judge", rows=int(healthy.sum()))
        status, said = INSUFFICIENT, (str(rows),)
    return BatchQuality(
        status=status,
        rows=len(batch),
        reasons=said,
        set_aside=tuple(str(Breach(column=c, rule=r, rows=int(flags.sum()))) for c, r, flags in unfit),
        left_out=read.left_out,
        healthy=healthy,
    )


def remember(
    memory: BatchMemory, day: str, batch: pd.DataFrame, norms: Norms, book: LoanBook, quality: Quality
) -> BatchMemory:
    """The memory after a healthy day."""
    requests, applications = _digests(batch, _read(batch, norms), book)
    if requests is None:
        raise ValueError(f"a batch without {REQUEST} is not a healthy one")
    return memory.after(day, requests, applications, quality)


def _without_rows(status: str, reason: str) -> BatchQuality:
    return BatchQuality(
        status=status, rows=0, reasons=(reason,), set_aside=(), left_out=(), healthy=np.zeros(0, dtype=bool)
    )


def _allowed(rule: str, few: float, batch: pd.DataFrame, quality: Quality) -> float:
    """How many rows may break a rule before the day is condemned; rows that repeat within a day are less strange."""
    return max(few, quality.duplicate_share * len(batch)) if rule == REPEATS else few


def _read(batch: pd.DataFrame, norms: Norms) -> _Read:
    names = [str(name) for name in batch.columns]
    values = np.full((len(batch), len(norms.columns)), np.nan)
    text = np.zeros(values.shape, dtype=bool)
    for place, column in enumerate(norms.columns):
        if names.count(column.name) == 1:
            values[:, place], text[:, place] = _numbers(batch[column.name])
    null = np.isnan(values) & ~text
    protected = np.array([column.role is Role.PROTECTED for column in norms.columns])
    # Who sends no protected attribute need not, for one client or for all; one of them alone missing is a fault.
    withheld = null[:, protected].all(axis=1) if protected.any() else np.zeros(len(batch), dtype=bool)
    missing, left_out, unfit = [], [], []
    for place, column in enumerate(norms.columns):
        empty = null[:, place] & ~(withheld if protected[place] else False)
        if protected[place] and withheld.all():
            left_out.append(column.name)
        elif column.name not in names:
            missing.append(column.name)
        else:
            rules = _rules(column, values[:, place], text[:, place], empty, norms.each[place].null_share > 0)
            unfit += [(column.name, rule, flags) for rule, flags in rules if flags.any()]
    return _Read(values=values, unfit=tuple(unfit), missing=tuple(missing), left_out=tuple(left_out))


def _numbers(received: pd.Series[Any]) -> tuple[Numbers, Flags]:
    """A column as numbers, and where it holds something else: a number written as text is text."""
    import pandas as pd

    if pd.api.types.is_numeric_dtype(received.dtype):
        return received.to_numpy("float64", na_value=np.nan), np.zeros(len(received), dtype=bool)
    numbers = pd.to_numeric(received.astype(object), errors="coerce").to_numpy("float64", na_value=np.nan)
    known = received.notna().to_numpy()
    text = known & (np.isnan(numbers) | np.array([not _is_number(value) for value in received], dtype=bool))
    return np.where(text, np.nan, numbers), text


def _is_number(value: object) -> bool:
    from decimal import Decimal
    from numbers import Number

    return isinstance(value, Number | Decimal)


def _rules(
    column: Column, values: Numbers, text: Flags, empty: Flags, may_be_null: bool
) -> Iterator[tuple[str, Flags]]:
    """Which rows break which rule of the book."""
    infinite = np.isinf(values)
    known = np.isfinite(values)
    yield "is not a number", text
    yield "is infinite", infinite
    if not (column.nullable or may_be_null):
        yield "is empty", empty
    if column.levels is not None:
        yield "has a code outside the book", known & ~np.isin(values, list(column.levels))
    elif column.kind is Kind.INTEGER:
        yield "is not a whole number", known & (np.where(known, values, 0) % 1 != 0)
    if column.low is not None:
        yield f"is below {column.low:g}", known & (values < column.low)
    if column.high is not None:
        yield f"is above {column.high:g}", known & (values > column.high)


REPEATS = "repeats another row of the day"


def _digests(batch: pd.DataFrame, read: _Read, book: LoanBook) -> tuple[Digests | None, Digests]:
    requests = digests_of_words(batch[REQUEST]) if REQUEST in batch.columns else None
    keys = np.zeros(len(batch), dtype=np.uint64)
    if book.key.name in batch.columns:
        keys = digests_of_words(batch[book.key.name])
    return requests, digests_of_rows(read.values, keys)


def _repetitions(
    batch: pd.DataFrame, requests: Digests | None, applications: Digests, memory: BatchMemory
) -> Iterator[tuple[str, str, Flags]]:
    """Rows that were there before, on this day or an earlier one; the first of a day's copies is not one of them."""
    if requests is not None:
        for rule, flags in {
            "is empty": batch[REQUEST].isna().to_numpy(),
            "repeats": _is_copy(requests),
            "is known from an earlier day": memory.seen_requests(requests),
        }.items():
            if flags.any():
                yield REQUEST, rule, flags
    copies = _is_copy(applications)
    if copies.any():
        yield WHOLE_TABLE, REPEATS, copies


def _is_copy(digests: Digests) -> Flags:
    _, first = np.unique(digests, return_index=True)
    copies = np.ones(len(digests), dtype=bool)
    copies[first] = False
    return copies


def _sent_before(
    requests: Digests | None, applications: Digests, memory: BatchMemory, quality: Quality
) -> Iterator[Breach]:
    if requests is None:
        yield Breach(column=REQUEST, rule="is missing", rows=len(applications))
    elif memory.seen_share(requests) > quality.unfit_share and memory.seen_requests(requests).sum() > quality.handful:
        seen = round(memory.seen_share(requests) * len(requests))
        yield Breach(column=REQUEST, rule="is known from an earlier day", rows=seen)
    share = memory.repeated_share(applications)
    if share > quality.repeated_share:
        rows = round(share * len(applications))
        yield Breach(column=WHOLE_TABLE, rule="the rows of an earlier day came again", rows=rows)


def _volume(rows: int, earlier: Sequence[int], quality: Quality) -> Iterator[Breach]:
    if len(earlier) < quality.fewest_earlier_days:
        return
    usual = float(np.median(earlier))
    if rows < quality.least_of_usual * usual:
        yield Breach(column=WHOLE_TABLE, rule=f"far fewer rows than the usual {usual:,.0f}", rows=rows)
    if rows > quality.most_of_usual * usual:
        yield Breach(column=WHOLE_TABLE, rule=f"far more rows than the usual {usual:,.0f}", rows=rows)


def _structure(values: Numbers, broken: set[str], norms: Norms, quality: Quality) -> Iterator[Breach]:
    """Faults that no single row shows: each column's values, their scale, and how columns go together."""
    usable = np.array([column.name not in broken for column in norms.columns])
    constant = _constant(values, usable, norms, quality)
    stuck = _stuck(values, usable & ~constant, norms, quality)
    negative = _negative(values, usable & ~constant, norms, quality)
    scaled = _scaled(values, usable & ~constant, norms, quality)
    related = correlations(np.where(usable, values, np.nan))
    apart = _unrelated(values, related, usable & ~constant, norms, quality)
    for rule, flags in {
        "is constant": constant,
        "holds one value far too often": stuck,
        "has changed its sign": negative,
        "is in other units": scaled,
        "does not go with the other columns of its row": apart,
    }.items():
        for place in np.flatnonzero(flags):
            yield Breach(column=norms.columns[place].name, rule=rule, rows=len(values))
    for first, second in _swapped(related, usable & ~constant, len(values), norms, quality):
        names = norms.columns[first].name, norms.columns[second].name
        yield Breach(column=names[0], rule=f"has changed places with {names[1]}", rows=len(values))


def _commonest(values: Numbers) -> tuple[float, float]:
    """The commonest known value and its share."""
    found, counts = np.unique(values[np.isfinite(values)], return_counts=True)
    if not len(found):
        return float("nan"), 0.0
    return float(found[counts.argmax()]), float(counts.max() / counts.sum())


def _constant(values: Numbers, usable: Flags, norms: Norms, quality: Quality) -> Flags:
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


def _stuck(values: Numbers, usable: Flags, norms: Norms, quality: Quality) -> Flags:
    flags = np.zeros(len(norms.columns), dtype=bool)
    for place in np.flatnonzero(usable):
        if norms.columns[place].levels is None:
            ordinary = max(quality.stuck_share, quality.stuck_times * norms.each[place].commonest_share)
            flags[place] = _commonest(values[values[:, place] != 0, place])[1] > ordinary
    return flags


def _negative(values: Numbers, usable: Flags, norms: Norms, quality: Quality) -> Flags:
    ordinary = np.array([norm.negative_share for norm in norms.each])
    coded = np.array([column.levels is not None for column in norms.columns])
    flags: Flags = usable & ~coded & ((values < 0).mean(axis=0) > ordinary + quality.negative_more)
    return flags


def _scaled(values: Numbers, usable: Flags, norms: Norms, quality: Quality) -> Flags:
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


def _unrelated(values: Numbers, related: Numbers, usable: Flags, norms: Norms, quality: Quality) -> Flags:
    """Columns, or families of columns, that follow their prediction no better than chance or the wrong way round.

    Where only a part of a column's range, or of its prediction's, has arrived, relations weaken honestly: by
    Thorndike's formula, and where it is a small part by more than that.
    """
    error = len(values) ** -0.5
    here = np.column_stack([positions(column, norm.ordered) for column, norm in zip(values.T, norms.each, strict=True)])
    here = np.where(usable, here - here.mean(axis=0), 0.0)
    spread = here.std(axis=0) / np.array([max(norm.spread, 1e-9) for norm in norms.each])
    flags = np.zeros(len(usable), dtype=bool)
    alone = [np.array([place]) for place in range(len(usable))]
    for prediction, together in ((norms.by_all, alone), (norms.by_others, norms.families)):
        strength, follows = prediction.strength, predicted(related, prediction)
        full = np.sqrt(np.einsum("it,ij,jt->t", prediction.weights, norms.related, prediction.weights)) * EVEN
        part = np.minimum(spread, (here @ prediction.weights).std(axis=0) / np.maximum(full, 1e-9))
        # Chance in a small batch is no part; for families, whose relations bend more, it is taken as one.
        part = np.where((part > quality.whole_spread) & (together is alone), 1.0, part)
        expected = strength * part / np.sqrt(1 - strength**2 * (1 - part**2))
        for group in together:
            used = group[usable[group] & (strength[group] > quality.least_strength)]
            if not len(used) or (len(group) > 1 and part[used].mean() < quality.whole_spread):
                continue
            level, clear = follows[used].mean(), expected[used].mean()
            lost = np.clip(clear / 3, quality.lost_errors[0] * error, quality.lost_errors[1] * error)
            is_told = _is_clear(clear, error, quality) and part[used].mean() >= quality.least_spread
            is_reversed = _is_clear(float(strength[used].mean()), error, quality)
            flags[used] |= (is_told and level < lost) or (is_reversed and level < -quality.reversed_errors * error)
    return flags


def _is_clear(strength: float, error: float, quality: Quality) -> bool:
    """Whether a relation of this strength can be told from none at all, given the standard error of none."""
    return bool(strength - quality.related_errors * (1 - strength**2) * error > quality.lost_errors[0] * error)


def _swapped(related: Numbers, usable: Flags, rows: int, norms: Norms, quality: Quality) -> Iterator[tuple[int, int]]:
    """Pairs of columns, or of families, that fit the rest of the batch only when exchanged."""
    error = rows**-0.5
    strength = norms.between.strength
    measures = np.array([column.measure or column.name for column in norms.columns])
    limit = -np.maximum(strength * quality.swapped_share, quality.swapped_errors * error)
    first, second = norms.pairs.T
    errors = np.where(measures[first] == measures[second], quality.months_seen_errors, quality.swap_seen_errors)
    clear = (strength > np.maximum(errors * error, quality.least_between)) & usable[first] & usable[second]
    for number in np.flatnonzero(clear & (predicted_between(related, norms) < limit)):
        yield int(first[number]), int(second[number])
    for one, other in combinations(norms.families, 2):
        is_whole = len(one) == len(other) and usable[one].all() and usable[other].all()
        if is_whole and fits_exchanged(related, norms, one, other) > quality.exchanged:
            yield int(one[0]), int(other[0])
