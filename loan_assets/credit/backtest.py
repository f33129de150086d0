"""What a policy would have done on a history: the same rule as in the running platform, day by day, nothing ahead.

Here: the replay, over tables in memory. Not here: the files of a history (`loan_assets.histories`), the rule
(`succession`) or its evidence (`deliberation`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from loan_assets.books import LoanBook
from loan_assets.credit.arms import falls_into
from loan_assets.credit.candidates import Trial
from loan_assets.credit.daily import (
    Arrived,
    Feed,
    Outcome,
    judged_arrival,
    judged_batch,
    ordered,
    performance_on,
    shares_of,
    take_over,
)
from loan_assets.credit.deliberation import challenger_of, facts_of, trial_of
from loan_assets.credit.drift import watched as watched_columns
from loan_assets.credit.judging import refusal_threshold
from loan_assets.credit.label_quality import LabelMemory
from loan_assets.credit.ledger import Ledger, Rows
from loan_assets.credit.norms import Norms, norms_of
from loan_assets.credit.performance import line_through
from loan_assets.credit.quality import QUARANTINED, REQUEST, BatchQuality
from loan_assets.credit.scoring import Calibration
from loan_assets.credit.straying import Reference
from loan_assets.credit.succession import (
    CANARY,
    SHADOW,
    Action,
    Challenger,
    Facts,
    Served,
    Situation,
    is_due,
    judged,
    retrained,
    watched,
)
from loan_assets.credit.training import fit, flatten, out_of_fold
from loan_assets.credit.versions import Version
from loan_assets.policy import Policy
from loan_assets.refusal import Refusal

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, kw_only=True)
class DayOfHistory:
    """What a day brought: requests as received, in the book's words, and outcomes that arrived; None where no file is.

    `unreadable_*` say why a file that is there could not be read.
    """

    date: str
    requests: pd.DataFrame | None
    outcomes: pd.DataFrame | None
    unreadable_requests: str = ""
    unreadable_outcomes: str = ""


@dataclass(frozen=True, kw_only=True)
class DayDecided:
    """A day's line: what was found, what was decided, and every request's score by the version that answered it.

    That is `served_by`, the champion, for all but the clients of a canary.
    """

    date: str
    served_by: int
    champion: int
    batch: BatchQuality
    share: float | None
    columns: dict[str, float]
    consecutive: int
    labels: str
    label_rows: int
    label_reasons: tuple[str, ...]
    released: tuple[str, ...]
    facts: Facts
    performance: dict[str, float]
    trial: Trial | None
    verdict: str
    actions: tuple[Action, ...]
    requests: tuple[str, ...]
    scores: NDArray[np.float64]
    answered_by: NDArray[np.int64]


@dataclass(kw_only=True)
class Replay:
    """A history in progress: what is remembered from one day to the next."""

    book: LoanBook
    policy: Policy
    reference: Rows
    norms: Norms
    versions: dict[int, Version]
    situation: Situation = field(default_factory=Situation)
    ledger: Ledger = field(init=False)
    feed: Feed = field(default_factory=Feed)
    arrivals: LabelMemory = field(default_factory=LabelMemory)
    held: dict[str, tuple[Outcome, ...]] = field(default_factory=dict)
    answers: int = 0

    def __post_init__(self) -> None:
        self.ledger = Ledger(book=self.book)

    @classmethod
    def begun(cls, reference: pd.DataFrame, label: NDArray[np.int64], book: LoanBook, policy: Policy) -> Replay:
        """The first version trained on the reference, and its normal estimated out of fold.

        Raises:
            Refusal: when the reference cannot be learned from.
        """
        rows = Rows.of(reference, book, label)
        return cls(
            book=book,
            policy=policy,
            reference=rows,
            norms=norms_of(reference, book, policy.quality),
            versions={1: first_version(rows, book, policy)},
        )

    def over(self, days: Iterable[DayOfHistory]) -> Iterator[DayDecided]:
        """Live through the days in order."""
        for day in days:
            yield self.live(day)

    def live(self, day: DayOfHistory) -> DayDecided:
        """One day: score, judge the batch and the outcomes, then decide."""
        served_by = self.situation.champion
        if day.requests is not None:
            day = replace(day, requests=ordered(day.requests))
        batch, self.feed = judged_batch(
            day.date, day.requests, self.feed, self.norms, self.book, self.policy, day.unreadable_requests
        )
        rows, ids, scores, answered_by = self._asked(day, batch, self.versions[served_by])
        numbers = (served_by, *self.situation.archived)
        shares, columns = shares_of(rows, batch.status, numbers, self.versions, self.policy)
        outcomes = self._settled(day)
        facts = facts_of(self.ledger, self.versions, self.situation, day.date, shares, self.policy)
        self.situation, actions = watched(self.situation, facts, self.policy)
        consecutive = self.situation.consecutive
        trial, verdict, more = self._succeeded(facts)
        return DayDecided(
            date=day.date,
            served_by=served_by,
            champion=self.situation.champion,
            batch=batch,
            share=shares.get(served_by),
            columns=columns,
            consecutive=consecutive,
            labels=outcomes.status,
            label_rows=outcomes.rows,
            label_reasons=outcomes.reasons,
            released=outcomes.released,
            facts=facts,
            performance=performance_on(self.ledger, day.date, self.versions[served_by]),
            trial=trial,
            verdict=verdict,
            actions=(*actions, *more),
            requests=ids,
            scores=scores,
            answered_by=answered_by,
        )

    def _asked(
        self, day: DayOfHistory, batch: BatchQuality, champion: Version
    ) -> tuple[Rows, tuple[str, ...], NDArray[np.float64], NDArray[np.int64]]:
        """Take the requests into the ledger, each id once, and score all of them; whose scores they are comes last."""
        if day.requests is None or REQUEST not in day.requests.columns:
            return Rows.of(_nothing(self.book), self.book), (), np.empty(0), np.empty(0, dtype=np.int64)
        first = ~day.requests[REQUEST].astype(str).duplicated().to_numpy()
        taken = day.requests.loc[first]
        ids = tuple(taken[REQUEST].astype(str))
        rows = Rows.of(taken, self.book)
        healthy = batch.healthy[first] & (batch.status != QUARANTINED)
        asked = self.ledger.ask(day.date, ids, rows, healthy)
        scores, answered_by = champion.score(rows.features), np.full(len(ids), champion.number)
        challenger = self.situation.challenger
        if challenger is not None and challenger.stage == SHADOW:
            self.answers += len(ids)
        if challenger is not None and challenger.stage == CANARY:
            is_canary = self._canaries(taken, challenger)
            self.answers += int(is_canary.sum())
            answered_by[is_canary] = challenger.number
            scores[is_canary] = self.versions[challenger.number].score(rows.features)[is_canary]
        return rows.where(asked.healthy), ids, scores, answered_by

    def _canaries(self, requests: pd.DataFrame, challenger: Challenger) -> NDArray[np.bool_]:
        """Which requests the canary answers: the clients' numbers decide as at the endpoint."""
        key, share = self.book.key.name, self.policy.promotion.canary_share
        names = requests[key if key in requests.columns else REQUEST]
        return np.array([falls_into(share, str(name), str(challenger.number)) for name in names], dtype=bool)

    def _settled(self, day: DayOfHistory) -> Arrived:
        """Judge what arrived, and take it over; what was held and turns out to be sound is taken over as well."""
        arrived = judged_arrival(
            day.date, day.outcomes, self.ledger, self.versions[1], self.arrivals, self.policy, day.unreadable_outcomes
        )
        self.arrivals = arrived.memory
        if arrived.held:
            self.held[day.date] = arrived.held
        take_over(self.ledger, day.date, arrived, self.held)
        for date in arrived.released:
            del self.held[date]
        return arrived

    def _succeeded(self, facts: Facts) -> tuple[Trial | None, str, tuple[Action, ...]]:
        """Retrain where it is due, and judge the challenger where one is on trial."""
        actions: tuple[Action, ...] = ()
        episode, succession = self.situation.episode, self.policy.succession
        outcomes = self.ledger.count_since(episode.since, succession.least_of_each) if episode else 0
        date = facts.date
        if is_due(self.situation, facts, outcomes, succession):
            self.situation, actions = retrained(self.situation, date, outcomes, succession)
            assert self.situation.challenger is not None
            champion = self.versions[self.situation.champion]
            made = challenger_of(self.ledger, self.reference, champion, self.situation, self.book, self.policy)
            self.versions[made.number] = made
        if self.situation.challenger is None:
            return None, "", actions
        trial = trial_of(self.ledger, self.versions, self.situation, self.book, self.policy)
        stage = self.situation.challenger.stage
        served = Served(answers=self.answers)
        self.situation, verdict, more = judged(self.situation, date, trial, succession, self.policy.promotion, served)
        if self.situation.challenger is None or self.situation.challenger.stage != stage:
            self.answers = 0
        return trial, verdict, (*actions, *more)


def first_version(rows: Rows, book: LoanBook, policy: Policy) -> Version:
    """The version that serves from the first day, trained on the whole reference."""
    inputs = rows.features.astype("float64")
    if len(rows) < policy.succession.enough_outcomes:
        raise Refusal(
            f"The reference has {len(rows):,} rows, too few to train on.",
            f"Give {policy.succession.enough_outcomes:,} rows or more.",
        )
    estimate = out_of_fold(inputs, rows.label, book, policy.boosting, policy.splits)
    trees = flatten(fit(inputs, rows.label, book, policy.boosting))
    return Version(
        number=1,
        recipe="reference",
        trees=trees,
        calibration=Calibration(),
        threshold=refusal_threshold(rows.label, estimate, policy.refused_share_over_base_rate),
        reference=Reference.of(rows.received, watched_columns(book), policy.vigilance),
        normal=line_through(np.log(estimate / (1 - estimate)), rows.label),
        rows=len(rows),
        learned_until=-1,
    )


def _nothing(book: LoanBook) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame({column.name: np.empty(0) for column in book.received})
