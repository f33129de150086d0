"""A day on its way into memory: its requests and outcomes put in order, judged, compared and taken over.

Here: these steps, and what is kept of a day for the next. Not here: the verdicts themselves (`quality`,
`label_quality`), the rule (`succession`), or where days come from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from loan_assets.books import LoanBook, Role
from loan_assets.credit.batch_memory import BatchMemory
from loan_assets.credit.label_quality import LabelMemory, judge_labels
from loan_assets.credit.ledger import UNKNOWN, Ledger, Rows
from loan_assets.credit.norms import Norms
from loan_assets.credit.performance import ranking_of
from loan_assets.credit.quality import OK, QUARANTINED, REQUEST, BatchQuality, judge_batch, remember
from loan_assets.credit.scoring import probability
from loan_assets.credit.versions import Version
from loan_assets.policy import Policy

if TYPE_CHECKING:
    import pandas as pd

Outcome = tuple[str, int, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Feed:
    """What is remembered of batches: the last healthy days, and the row counts of those that show the volume."""

    memory: BatchMemory = field(default_factory=BatchMemory)
    volumes: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedBatch:
    """What is kept of a day's requests: the verdict, the names of the healthy ones, and the memory after the day."""

    status: str
    rows: int
    reasons: tuple[str, ...]
    set_aside: tuple[str, ...]
    left_out: tuple[str, ...]
    healthy: tuple[str, ...]
    feed: Feed


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrived:
    """What one arrival of outcomes came to, and what is remembered of arrivals after it.

    `taken` are those to take over now, `held` those that wait to be vouched for, `released` the days of earlier ones
    that are vouched for by this one.
    """

    status: str
    rows: int
    reasons: tuple[str, ...]
    set_aside: tuple[str, ...]
    taken: tuple[Outcome, ...]
    held: tuple[Outcome, ...]
    released: tuple[str, ...]
    memory: LabelMemory


def judged_batch(
    date: str,
    requests: pd.DataFrame | None,
    feed: Feed,
    norms: Norms,
    book: LoanBook,
    policy: Policy,
    unreadable: str = "",
) -> tuple[BatchQuality, Feed]:
    """The verdict on a day's requests, and what is remembered after it.

    Args:
        requests: what `ordered` gave, in the book's words; None where no file came.
        unreadable: why a file that came could not be read; empty where it could.
    """
    batch = judge_batch(requests, norms, book, feed.volumes, policy.quality, feed.memory)
    if unreadable:
        batch = replace(batch, status=QUARANTINED, reasons=(unreadable,))
    memory = feed.memory
    if requests is not None and batch.status == OK:
        memory = remember(memory, date, requests, norms, book, policy.quality)
    volumes = (*feed.volumes, batch.rows) if batch.shows_volume else feed.volumes
    return batch, Feed(memory=memory, volumes=volumes[-policy.quality.remembered_counts :])


def ordered(requests: pd.DataFrame) -> pd.DataFrame:
    """A day's rows by request, those of one request by what they say: however a file is ordered, it is the same day.

    To be called before the day is judged: of rows that repeat each other the first is the healthy one.
    """
    import pandas as pd

    if REQUEST not in requests.columns:
        return requests
    names = requests[REQUEST].astype(str)
    digests = pd.Series(0, index=names.index, dtype="uint64")
    repeated = names.duplicated(keep=False)
    if repeated.any():
        digests[repeated] = pd.util.hash_pandas_object(requests[repeated].astype(str), index=False)
    return requests.iloc[np.lexsort((digests.to_numpy(), names.to_numpy(dtype=str)))].reset_index(drop=True)


def applications_of(answers: pd.DataFrame) -> pd.DataFrame:
    """A day's logged applications in order, each under the name that an outcome would call it by.

    That is the request's own name where the request was about one application and nobody else used the name; the
    answer's name where it was not. Answers by client number carry nothing to compare and are left out.
    """
    from loan_assets.prediction_record import BY_APPLICATION

    asked = answers.loc[answers["asked_by"] == BY_APPLICATION]
    is_alone = ~asked[REQUEST].duplicated(keep=False)
    return ordered(asked.assign(**{REQUEST: asked[REQUEST].where(is_alone, asked["prediction_id"])}))


def rows_as_logged(answers: pd.DataFrame, book: LoanBook) -> Rows:
    """Logged applications with the features that were scored, and no outcome yet."""
    watched = [column.name for column in book.with_role(Role.FEATURE, Role.PROTECTED)]
    return Rows(
        features=answers[list(book.feature_names)].to_numpy(dtype="float32"),
        label=np.full(len(answers), UNKNOWN),
        received={name: answers[name].to_numpy(dtype="float64") for name in watched},
    )


def kept_of(batch: BatchQuality, requests: pd.DataFrame | None, feed: Feed) -> JudgedBatch:
    """The verdict on a day in the form in which it is kept."""
    healthy: tuple[str, ...] = ()
    if requests is not None and batch.status != QUARANTINED:
        healthy = tuple(requests[REQUEST].astype(str)[batch.healthy].drop_duplicates().sort_values())
    return JudgedBatch(
        status=batch.status,
        rows=batch.rows,
        reasons=batch.reasons,
        set_aside=batch.set_aside,
        left_out=batch.left_out,
        healthy=healthy,
        feed=feed,
    )


def ask(ledger: Ledger, date: str, answers: pd.DataFrame, batch: JudgedBatch) -> Rows:
    """Enter a day's logged applications into the ledger; returns the healthy ones."""
    applications = applications_of(answers)  # of which each has a name of its own
    names = tuple(applications[REQUEST].astype(str))
    rows = rows_as_logged(applications, ledger.book)
    healthy = np.isin(np.array(names, dtype=str), np.array(batch.healthy, dtype=str))
    return rows.where(ledger.ask(date, names, rows, healthy).healthy) if names else rows


def shares_of(
    rows: Rows, status: str, numbers: Sequence[int], versions: Mapping[int, Version], policy: Policy
) -> tuple[dict[int, float], dict[str, float]]:
    """Per version, the share of columns beyond their limit, and the distances to the first; empty where no check is.

    Args:
        rows: the day's healthy requests.
        status: the verdict on the day.
        numbers: the champion first, then the versions that could come back.
    """
    if status != OK or len(rows) < policy.vigilance.smallest_day:
        return {}, {}
    measured = {number: versions[number].reference.share(rows.received, len(rows)) for number in numbers}
    return {number: share for number, (share, _) in measured.items()}, measured[numbers[0]][1]


def judged_arrival(
    date: str,
    told: pd.DataFrame | None,
    ledger: Ledger,
    first: Version,
    memory: LabelMemory,
    policy: Policy,
    unreadable: str = "",
) -> Arrived:
    """The verdict on the outcomes that arrived on a day.

    Args:
        told: `request_id`, `label`, `label_timestamp` as received; None where no file came.
        ledger: every request up to the day.
        first: the version whose scores outcomes are held against, always the same one.
        unreadable: why the file that came could not be read, and so told nothing; empty where it could.
    """
    concerned = [request for request, _, _ in memory.waiting]
    if told is not None and REQUEST in told.columns:
        told = told.assign(**{REQUEST: told[REQUEST].astype(str)})
        concerned += told[REQUEST].tolist()
    verdict = judge_labels(told, ledger.asked(concerned, first), memory, policy.label_quality, date)
    if unreadable:
        verdict = replace(verdict, status=QUARANTINED, reasons=(unreadable,))
    return Arrived(
        status=verdict.status,
        rows=verdict.rows,
        reasons=verdict.reasons,
        set_aside=verdict.set_aside,
        taken=_outcomes(verdict.labels),
        held=_outcomes(verdict.held) if verdict.held is not None else (),
        released=verdict.released,
        memory=verdict.memory,
    )


def take_over(ledger: Ledger, date: str, arrived: Arrived, held: Mapping[str, Sequence[Outcome]]) -> None:
    """Enter a day's outcomes into the ledger, those first that were held and are vouched for now.

    Args:
        held: by the day on which they arrived, the outcomes that waited.
    """
    for day in arrived.released:
        ledger.settle(date, held[day])
    ledger.settle(date, arrived.taken)


def performance_on(ledger: Ledger, date: str, version: Version) -> dict[str, float]:
    """What the outcomes that arrived on a day say of a version, with the ends of the interval of its AUC."""
    scores, label = ledger.arrival(date, version)
    return performance_of(scores, label)


def performance_of(scores: NDArray[np.float64], label: NDArray[np.int64]) -> dict[str, float]:
    """Rows, base rate, Brier score and, where both outcomes are there, AUC with its interval.

    Args:
        scores: log-odds, shape (rows,).
        label: 1 where the client defaulted, shape (rows,).
    """
    if not len(label):
        return {}
    found = {"rows": float(len(label)), "base_rate": float(label.mean())}
    found["brier"] = float(((probability(scores) - label) ** 2).mean())
    ranking = ranking_of(scores, label)
    if ranking is not None:
        found |= {"auc": ranking.auc, "auc_low": ranking.low, "auc_high": ranking.high}
    return found


def _outcomes(labels: pd.DataFrame) -> tuple[Outcome, ...]:
    told = zip(labels[REQUEST].astype(str), labels["label"], labels["label_timestamp"], strict=True)
    return tuple((request, int(label), str(at)) for request, label, at in told)
