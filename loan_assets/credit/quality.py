"""Whether a day's batch of applications is fit to be compared and learned from.

Here: the verdict on one day, its reasons and which rows are healthy. Not here: what healthy looks like (`norms`), what
is remembered (`batch_memory`), or whether the world has moved (`drift`): honest change, however strong, is no fault.

A reason names a column, a rule and a count, never a value.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from loan_assets.books import LoanBook
from loan_assets.credit.batch_memory import BatchMemory, Digests, digests_of_rows, digests_of_words
from loan_assets.credit.conformance import Breach
from loan_assets.credit.norms import Norms, Numbers, correlations
from loan_assets.credit.reading import Reading, read
from loan_assets.credit.relations import exchanged, unrelated
from loan_assets.credit.shapes import constant, negative, scaled, stuck
from loan_assets.policy import Quality

if TYPE_CHECKING:
    import pandas as pd

OK, QUARANTINED, INSUFFICIENT = "ok", "quarantined", "insufficient"
REQUEST = "request_id"
WHOLE_TABLE = "(all)"

Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchQuality:
    """The verdict on one day.

    `reasons` say why it is quarantined or cannot be judged; `set_aside` counts single rows that were not healthy on a
    day that is. `healthy` marks the rows to compare and learn from, of shape (rows,). `shows_volume` is whether the day
    says how many rows are usual: it has rows and nothing but their number is wrong.
    """

    status: str
    rows: int
    reasons: tuple[str, ...]
    set_aside: tuple[str, ...]
    left_out: tuple[str, ...]
    healthy: Flags
    shows_volume: bool


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
        earlier: the row counts of the recent days that show the volume (`BatchQuality.shows_volume`), oldest first, as
            many as `quality.remembered_counts`. With those of healthy days alone a lasting change is never accepted.
        memory: what is known of earlier healthy days, this one not included.
    """
    if batch is None:
        return _without_rows(INSUFFICIENT, "no traffic")
    if len(batch) == 0:
        return _without_rows(QUARANTINED, str(Breach(column=WHOLE_TABLE, rule="the file has no rows", rows=0)))
    found = read(batch, norms)
    requests, applications = _digests(batch, found, book)
    unfit = [*found.unfit, *_repetitions(batch, requests, applications, memory or BatchMemory())]
    few = max(quality.handful, quality.unfit_share * len(batch))
    gross = [
        (column, rule, flags) for column, rule, flags in unfit if flags.sum() > _allowed(rule, few, batch, quality)
    ]
    healthy = ~np.any([flags for _, _, flags in unfit], axis=0) if unfit else np.ones(len(batch), dtype=bool)
    reasons = [Breach(column=name, rule="is missing", rows=len(batch)) for name in found.missing]
    reasons += [Breach(column=column, rule=rule, rows=int(flags.sum())) for column, rule, flags in gross]
    if not reasons and (~healthy).sum() > 2 * max(few, quality.duplicate_share * len(batch)):
        reasons.append(Breach(column=WHOLE_TABLE, rule="is unfit in one column or another", rows=int((~healthy).sum())))
    reasons += _sent_before(requests, applications, memory or BatchMemory(), quality)
    broken = {column for column, _, _ in gross} | set(found.missing) | set(found.left_out)
    if healthy.sum() >= quality.smallest_batch:
        reasons += _structure(found.values[healthy], broken, norms, quality)
    shows_volume = not reasons
    reasons += _volume(len(batch), earlier, quality)
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
        left_out=found.left_out,
        healthy=healthy,
        shows_volume=shows_volume,
    )


def remember(
    memory: BatchMemory, day: str, batch: pd.DataFrame, norms: Norms, book: LoanBook, quality: Quality
) -> BatchMemory:
    """The memory after a healthy day."""
    requests, applications = _digests(batch, read(batch, norms), book)
    if requests is None:
        raise ValueError(f"a batch without {REQUEST} is not a healthy one")
    return memory.after(day, requests, applications, quality)


def _without_rows(status: str, reason: str) -> BatchQuality:
    return BatchQuality(
        status=status,
        rows=0,
        reasons=(reason,),
        set_aside=(),
        left_out=(),
        healthy=np.zeros(0, dtype=bool),
        shows_volume=False,
    )


def _allowed(rule: str, few: float, batch: pd.DataFrame, quality: Quality) -> float:
    """How many rows may break a rule before the day is condemned; rows that repeat within a day are less strange."""
    return max(few, quality.duplicate_share * len(batch)) if rule == REPEATS else few


REPEATS = "repeats another row of the day"


def _digests(batch: pd.DataFrame, found: Reading, book: LoanBook) -> tuple[Digests | None, Digests]:
    requests = digests_of_words(batch[REQUEST]) if REQUEST in batch.columns else None
    keys = np.zeros(len(batch), dtype=np.uint64)
    if book.key.name in batch.columns:
        keys = digests_of_words(batch[book.key.name])
    return requests, digests_of_rows(found.values, keys)


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
    """Far fewer or more rows than usual, and than on the last days where these agree on another volume."""
    if len(earlier) < quality.fewest_earlier_days:
        return
    usual = float(np.median(earlier[-quality.remembered_counts :]))
    last = earlier[-quality.days_to_settle :]
    is_settled = len(last) == quality.days_to_settle and max(last) <= quality.agreeing_days * min(last)
    known = (usual, float(np.median(last))) if is_settled else (usual,)
    if all(rows < quality.least_of_usual * volume for volume in known):
        yield Breach(column=WHOLE_TABLE, rule=f"far fewer rows than the usual {usual:,.0f}", rows=rows)
    if all(rows > quality.most_of_usual * volume for volume in known):
        yield Breach(column=WHOLE_TABLE, rule=f"far more rows than the usual {usual:,.0f}", rows=rows)


def _structure(values: Numbers, broken: set[str], norms: Norms, quality: Quality) -> Iterator[Breach]:
    """Faults that no single row shows: each column's values, their scale, and how columns go together."""
    usable = np.array([column.name not in broken for column in norms.columns])
    same = constant(values, usable, norms, quality)
    varied = usable & ~same
    related = correlations(np.where(usable, values, np.nan))
    for rule, flags in {
        "is constant": same,
        "holds one value far too often": stuck(values, varied, norms, quality),
        "has changed its sign": negative(values, varied, norms, quality),
        "is in other units": scaled(values, varied, norms, quality),
        "does not go with the other columns of its row": unrelated(values, related, varied, norms, quality),
    }.items():
        for place in np.flatnonzero(flags):
            yield Breach(column=norms.columns[place].name, rule=rule, rows=len(values))
    for first, second in exchanged(related, varied, len(values), norms, quality):
        names = norms.columns[first].name, norms.columns[second].name
        yield Breach(column=names[0], rule=f"has changed places with {names[1]}", rows=len(values))
