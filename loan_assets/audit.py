"""A day on record, for who has to answer for it: who was champion, by whose word, on which data, and how groups fared.

Here: lines put together from the journal, the releases, the log and the day's report on groups. Not here: any figure
that was not on record before (`credit.fairness`, `resources.decisions`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import date, datetime

from loan_assets.credit.in_life import LiveFairness
from loan_assets.refusal import BadInput, Refusal
from loan_assets.release import ReleaseFacts, read_release
from loan_assets.resources.asset_store import AssetStore
from loan_assets.resources.decisions import MOVED, Decisions, Step
from loan_assets.resources.prediction_logs import PredictionLogs
from loan_assets.resources.release_store import ReleaseStore
from loan_assets.settings import Settings

FAIRNESS = "live_fairness"


def told_of(settings: Settings, day: str) -> Iterator[str]:
    """What is on record of a day, line by line.

    Args:
        day: `2026-11-24` style, UTC.

    Raises:
        Refusal: when that is no day, or nobody was champion yet.
    """
    try:
        # Also 20261124 and 2026-W48-2 are ISO 8601; days on record are compared as they are written there.
        day = date.fromisoformat(day).isoformat()
    except ValueError:
        raise BadInput(f"{day[:40]!r} is no day.", "Name one like 2026-11-24.") from None
    steps = Decisions.over(settings).steps()
    in_force = _in_force_on(steps, day)
    if not in_force:
        raise Refusal(f"Nobody was champion on {day} yet.", "`loan-assets decisions` says since when there is one.")
    releases = ReleaseStore.over(settings)
    for move in in_force:
        yield from _champion(steps, move, releases)
    yield from _answers(settings, day)
    yield from _groups(settings, day)


def _in_force_on(steps: Sequence[Step], day: str) -> list[Step]:
    """The moves that put the versions in force which answered on a day: the last one before it, and its own."""
    moves = [step for step in steps if step.kind == MOVED and _day(step) <= day]
    before = [move for move in moves if _day(move) < day][-1:]
    return before + [move for move in moves if _day(move) == day]


def _day(step: Step) -> str:
    return datetime.fromisoformat(step.at).date().isoformat()


def _champion(steps: Sequence[Step], move: Step, releases: ReleaseStore) -> Iterator[str]:
    number = move.evidence["version"]
    decided = steps[move.evidence["decided_in"] - 1]
    causes = "; ".join(action.cause for action in decided.actions if action.version == number)
    yield f"Champion   version {number}, in force since {move.at[:19]} UTC"
    yield f"Approval   step {decided.number} of {decided.at[:19]} UTC, by {decided.by}: {causes}"
    digest, folder = releases.shelf_of(number)
    facts = read_release(folder, expected=digest).facts
    yield f"Release    {digest[:12]}, model {facts.model_digest[:12]}, threshold {facts.threshold:g}"
    yield (
        f"Data       delivery {facts.delivery_digest[:12]}, training set {facts.dataset_digest[:12]}, "
        f"book {facts.book} {facts.book_digest}"
    )
    yield f"Evidence   {_evidence(facts)}"


def _evidence(facts: ReleaseFacts) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in sorted(facts.evidence.items()))


def _answers(settings: Settings, day: str) -> Iterator[str]:
    records, damages = PredictionLogs.over(settings).records(day)
    counted = Counter((record.model_version, record.arm, record.decision) for record in records)
    for (version, arm, decision), count in sorted(counted.items()):
        yield f"Answers    {count:,} times {decision} by version {version} as {arm}"
    if not records:
        yield "Answers    none on record"
    for damage in damages:
        yield f"Answers    {damage.lines} lines of {damage.file} cannot be read"


def _groups(settings: Settings, day: str) -> Iterator[str]:
    store = AssetStore.over(settings)
    if not store.holds(f"{FAIRNESS}/{day}"):
        yield "Groups     no report yet: `loan-assets watch` makes it"
        return
    report: LiveFairness = store.read(f"{FAIRNESS}/{day}", LiveFairness)
    for one in report.groups:
        few = "" if one.is_judged else ", too few to be judged"
        yield f"Groups     {one.attribute} {one.group}: {one.approved:.1%} of {one.applications:,} approved{few}"
