"""What a day's evidence says: the facts that the rule of succession decides on, measured from the ledger.

Here: from ledger and versions to facts, challengers and trials. Not here: the rule (`succession`), the tests themselves
(`performance`, `straying`), or where ledger and versions come from.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from loan_assets.books import LoanBook
from loan_assets.credit.candidates import RECIPES, REFITS, Trial, challenger, trial
from loan_assets.credit.ledger import Ledger, Numbers, Rows, joined
from loan_assets.credit.performance import Line, compare, latest_change, line_through, losses
from loan_assets.credit.succession import ChangeFound, Facts, RivalFound, Situation
from loan_assets.credit.versions import Version
from loan_assets.policy import Policy

Versions = Mapping[int, Version]
Arrival = tuple[str, Numbers, NDArray[np.int64]]
# One client counts at most as much against a version as two nats.
MOST_OF_ONE = 2.0


def facts_of(
    ledger: Ledger, versions: Versions, situation: Situation, date: str, shares: Mapping[int, float], policy: Policy
) -> Facts:
    """Everything that the rule wants to know of a day.

    Args:
        shares: per version, the share of columns beyond their limit; empty where the batch gives no check.
    """
    return Facts(
        date=date,
        shares=shares,
        change=change_of(ledger, versions[situation.champion], situation, policy),
        rivals=rivals_of(ledger, versions, situation),
    )


def change_of(ledger: Ledger, champion: Version, situation: Situation, policy: Policy) -> ChangeFound | None:
    """The strongest change among the newest outcomes of the champion's time."""
    arrivals = _arrivals(ledger, champion, situation)
    found = latest_change(
        [(scores, label) for _, scores, label in arrivals],
        _normal(ledger, champion, situation),
        policy.succession.longest_window,
    )
    if found is None:
        return None
    return ChangeFound(
        evidence=found.evidence,
        since=_first_asked(ledger, arrivals[found.position :], situation),
        rows=found.rows,
        slope=found.slope,
        rate_ratio=found.rate_ratio,
    )


def rivals_of(ledger: Ledger, versions: Versions, situation: Situation) -> dict[int, RivalFound]:
    """Each archived champion beside the champion, on the newest outcomes of the champion's time."""
    if not situation.archived:
        return {}
    own = _arrivals(ledger, versions[situation.champion], situation)
    return {
        number: found
        for number in situation.archived
        if (found := _rival(own, _arrivals(ledger, versions[number], situation), ledger, situation)) is not None
    }


def challenger_of(
    ledger: Ledger, reference: Rows, champion: Version, situation: Situation, book: LoanBook, policy: Policy
) -> Version:
    """The challenger that the situation asks for, fitted on everything that is known.

    Args:
        reference: the rows that the first version was trained on, with outcomes.
    """
    episode, standing = situation.episode, situation.challenger
    assert episode is not None
    assert standing is not None
    made, _ = challenger(
        standing.number,
        RECIPES if not episode.promotions else REFITS,
        joined([_dayless(reference), ledger.before(episode.since)], book),
        ledger.since(episode.since, labelled=True),
        ledger.since(episode.since, labelled=False),
        champion,
        book,
        policy,
    )
    return made


def trial_of(ledger: Ledger, versions: Versions, situation: Situation, book: LoanBook, policy: Policy) -> Trial:
    """The challenger against the champion on the outcomes of requests later than any that it was trained on."""
    episode, standing = situation.episode, situation.challenger
    assert episode is not None
    assert standing is not None
    candidate = versions[standing.number]
    new = ledger.since(episode.since, labelled=True)
    held = new.where(new.day > candidate.learned_until)
    recent = ledger.since(episode.since, labelled=False)
    return trial(candidate, versions[situation.champion], held, recent, book, policy)


def _arrivals(ledger: Ledger, version: Version, situation: Situation) -> list[Arrival]:
    """Outcomes by arrival, oldest first, of requests that tell something about the champion.

    What arrived before a promotion was known to it; a version that came back was trained on none of what arrived since.
    """
    found = []
    for date in sorted(ledger.arrived):
        if not situation.is_returned and date <= situation.in_force_since:
            continue
        scores, label = ledger.arrival(date, version, situation.judged_from, situation.passed)
        if len(label):
            found.append((date, scores, label))
    return found


def _first_asked(ledger: Ledger, arrivals: list[Arrival], situation: Situation) -> str:
    """The earliest day that these arrivals tell of."""
    return ledger.first_asked([date for date, _, _ in arrivals], situation.judged_from, situation.passed)


def _normal(ledger: Ledger, champion: Version, situation: Situation) -> Line:
    """What the champion's scores mean when nothing has changed."""
    if not situation.normal_since:
        return champion.normal
    days = [one for one in ledger.days if situation.normal_since <= one.date <= situation.normal_until]
    scores, label = [np.empty(0)], [np.empty(0, dtype=np.int64)]
    for asked in days:
        chosen = asked.healthy & (asked.label >= 0)
        scores.append(ledger.scored(asked.day, champion)[chosen])
        label.append(asked.label[chosen])
    return line_through(np.concatenate(scores), np.concatenate(label))


def _rival(own: list[Arrival], other: list[Arrival], ledger: Ledger, situation: Situation) -> RivalFound | None:
    """The other version's lead, summed up since it was last behind."""
    lead, first = 0.0, 0
    for position, ((_, mine, label), (_, theirs, _)) in enumerate(zip(own, other, strict=True)):
        gain = np.clip(losses(mine, label) - losses(theirs, label), -MOST_OF_ONE, MOST_OF_ONE)
        lead += float(gain.sum())
        if lead <= 0:
            lead, first = 0.0, position + 1
    if first >= len(own):
        return None
    mine = np.concatenate([scores for _, scores, _ in own[first:]])
    theirs = np.concatenate([scores for _, scores, _ in other[first:]])
    label = np.concatenate([outcomes for _, _, outcomes in own[first:]])
    found = compare(mine, theirs, label)
    if found is None:
        return None
    since = _first_asked(ledger, own[first:], situation)
    return RivalFound(evidence=lead, since=since, rows=len(label), auc_gain=found.auc_gain)


def _dayless(rows: Rows) -> Rows:
    """Reference rows, which belong to no day of the ledger."""
    return Rows(features=rows.features, label=rows.label, received=rows.received, day=np.full(len(rows), -1))
