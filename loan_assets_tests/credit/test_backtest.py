"""A replay of tables in memory: what enters the ledger, what is compared, and what a retraining makes."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from loan_assets.books import LoanBook
from loan_assets.credit.backtest import DayDecided, DayOfHistory, Replay, first_version
from loan_assets.credit.ledger import Rows
from loan_assets.credit.performance import line_through, ranking_of
from loan_assets.credit.quality import INSUFFICIENT, OK, QUARANTINED
from loan_assets.credit.scenarios import sudden_shift
from loan_assets.credit.succession import Kind
from loan_assets.histories import line_of
from loan_assets.policy import POLICY, Policy
from loan_assets.refusal import Refusal
from loan_assets_tests.small_history import CHANGE, DAYS, LATER, ROWS, day_name

KNOWN = 3_000
SMALL = replace(POLICY, boosting=replace(POLICY.boosting, trees=40), vigilance=replace(POLICY.vigilance, samples=60))
# So few that the outcomes of one day are enough.
HASTY = replace(SMALL, succession=replace(SMALL.succession, enough_outcomes=100, least_outcomes=50))


def history(received: pd.DataFrame, book: LoanBook, *, changes: bool) -> tuple[pd.DataFrame, list[DayOfHistory]]:
    """Known clients, and days of others; from the tenth on amounts are larger and it is the large limits that default.

    An outcome arrives three days after its request.
    """
    generator = np.random.default_rng(18)
    clients = received.iloc[generator.permutation(len(received))[: KNOWN + DAYS * ROWS]].reset_index(drop=True)
    asked, told = [], []
    for number in range(DAYS):
        rows = clients.iloc[KNOWN + number * ROWS :][:ROWS].reset_index(drop=True)
        label = rows[book.label.name].to_numpy()
        if changes and number >= CHANGE:
            label = (generator.random(ROWS) < np.where(rows["credit_limit"] > 140_000, 0.45, 0.06)).astype("int64")
            rows = sudden_shift(rows, book)
        ids = [f"q{number:02}-{row:03}" for row in range(ROWS)]
        asked.append(rows.drop(columns=book.label.name).assign(request_id=ids))
        at = f"{day_name(number + LATER)} 12:00+00:00"
        told.append(pd.DataFrame({"request_id": ids, "label": label, "label_timestamp": at}))
    days = [
        DayOfHistory(
            date=day_name(number), requests=asked[number], outcomes=told[number - LATER] if number >= LATER else None
        )
        for number in range(DAYS)
    ]
    return clients[:KNOWN], days


@pytest.fixture(scope="module")
def begun(received: pd.DataFrame, book: LoanBook) -> Replay:
    """A replay before its first day; to be copied, never lived through."""
    reference, _ = history(received, book, changes=False)
    return Replay.begun(reference, reference[book.label.name].to_numpy("int64"), book, SMALL)


@pytest.fixture(scope="module")
def quiet(received: pd.DataFrame, book: LoanBook) -> list[DayOfHistory]:
    return history(received, book, changes=False)[1]


def another(begun: Replay, policy: Policy) -> Replay:
    return replace(begun, policy=policy, versions=dict(begun.versions), held={})


@pytest.fixture
def replay(begun: Replay) -> Replay:
    return another(begun, SMALL)


@pytest.fixture(scope="module")
def hasty(begun: Replay, received: pd.DataFrame, book: LoanBook) -> tuple[Replay, list[DayDecided]]:
    """A change that is answered as soon as the outcomes of a single day have settled."""
    replay = another(begun, HASTY)
    return replay, list(replay.over(history(received, book, changes=True)[1]))


# --- the first version


def test_the_first_version_learned_from_the_whole_reference(begun: Replay) -> None:
    version = begun.versions[1]
    assert (version.number, version.rows, version.reference.rows, version.learned_until) == (1, KNOWN, KNOWN, -1)
    assert version.trees.cover[version.trees.roots[0]] == KNOWN


def test_its_normal_is_what_its_scores_mean_on_rows_that_it_did_not_see(begun: Replay) -> None:
    rows = begun.reference
    seen = ranking_of(begun.versions[1].log_odds(rows.features), rows.label)
    assert seen is not None
    assert seen.auc > 0.8
    on_seen = line_through(begun.versions[1].log_odds(rows.features), rows.label)
    assert begun.versions[1].normal.slope < on_seen.slope - 0.1
    refused = begun.versions[1].score(rows.features) >= begun.versions[1].threshold
    assert refused.mean() == pytest.approx(rows.label.mean(), abs=0.02)


def test_a_reference_of_too_few_rows_is_refused(begun: Replay, book: LoanBook) -> None:
    least = SMALL.succession.enough_outcomes
    few = begun.reference.where(np.arange(KNOWN) < least - 1)
    with pytest.raises(Refusal, match="too few"):
        first_version(few, book, SMALL)


# --- what a day brings


def test_a_quiet_day_is_compared_scored_and_kept(replay: Replay, quiet: list[DayOfHistory], book: LoanBook) -> None:
    decided = replay.live(quiet[0])
    assert (decided.batch.status, decided.served_by, decided.champion) == (OK, 1, 1)
    assert quiet[0].requests is not None
    rows = Rows.of(quiet[0].requests, book)
    np.testing.assert_array_equal(decided.scores, replay.versions[1].score(rows.features))
    assert decided.requests == tuple(quiet[0].requests["request_id"])
    assert (decided.share, decided.columns) == replay.versions[1].reference.share(rows.received, ROWS)
    assert len(replay.ledger.since("", labelled=False)) == ROWS


def test_requests_of_a_broken_feed_are_scored_and_neither_compared_nor_learned_from(
    replay: Replay, quiet: list[DayOfHistory]
) -> None:
    assert quiet[0].requests is not None
    broken = replace(quiet[0], requests=quiet[0].requests.assign(bill_amount_1=np.nan))
    decided = replay.live(broken)
    assert (decided.batch.status, decided.share, decided.facts.shares) == (QUARANTINED, None, {})
    assert len(decided.scores) == ROWS
    for day in quiet[1 : LATER + 1]:
        replay.live(day)
    assert replay.ledger.count_since("") == 0
    assert len(replay.ledger.since("", labelled=False)) == LATER * ROWS


def test_a_day_is_the_same_in_whatever_order_it_is_told(begun: Replay, quiet: list[DayOfHistory]) -> None:
    """Copies under other names, and names given twice, are told apart by what they say, not by their place."""
    rows = quiet[0].requests
    assert rows is not None
    copies = rows.head(5).assign(request_id=[f"a copy of {name}" for name in rows["request_id"].head(5)])
    given_twice = rows.iloc[5:8].assign(request_id=rows["request_id"].iloc[8:11].tolist())
    told = pd.concat([rows, copies, given_twice], ignore_index=True)
    lived = []
    for order in (told.index, told.index[::-1], np.random.default_rng(3).permutation(told.index)):
        replay = another(begun, SMALL)
        decided = replay.live(replace(quiet[0], requests=told.loc[order].reset_index(drop=True)))
        (asked,) = replay.ledger.days
        lived.append((decided.requests, asked.healthy.tolist(), asked.rows.features.tolist(), decided.scores.tolist()))
    assert not all(lived[0][1])
    assert lived[1:] == lived[:1] * 2


@pytest.mark.parametrize(("rows", "is_check"), [(49, False), (60, True)])
def test_a_day_too_small_is_no_check_and_yet_kept(
    rows: int, is_check: bool, replay: Replay, quiet: list[DayOfHistory], book: LoanBook
) -> None:
    assert quiet[0].requests is not None
    decided = replay.live(replace(quiet[0], requests=sudden_shift(quiet[0].requests, book).head(rows)))
    assert decided.batch.status == (OK if is_check else INSUFFICIENT)
    assert (decided.share is not None) is is_check
    assert decided.consecutive == int(is_check)
    assert len(replay.ledger.since("", labelled=False)) == rows


def test_a_day_without_traffic_leaves_no_trace_in_the_ledger(replay: Replay, quiet: list[DayOfHistory]) -> None:
    decided = replay.live(replace(quiet[0], requests=None))
    assert (decided.requests, len(decided.scores), decided.share, replay.ledger.days) == ((), 0, None, [])


def test_an_unreadable_file_of_requests_is_a_quarantined_day(replay: Replay, quiet: list[DayOfHistory]) -> None:
    decided = replay.live(replace(quiet[0], requests=None, unreadable_requests="it cannot be read"))
    assert (decided.batch.status, decided.batch.reasons) == (QUARANTINED, ("it cannot be read",))


def test_a_request_sent_again_on_a_later_day_keeps_its_first_outcome_and_place(
    replay: Replay, quiet: list[DayOfHistory]
) -> None:
    assert quiet[0].requests is not None
    assert quiet[1].requests is not None
    again = pd.concat([quiet[1].requests.iloc[3:], quiet[0].requests.head(3)], ignore_index=True)
    for day in (quiet[0], replace(quiet[1], requests=again), *quiet[2 : LATER + 1]):
        replay.live(day)
    assert (replay.ledger.days[0].label >= 0).all()
    assert (replay.ledger.days[1].label == -1).all()


def test_outcomes_are_told_of_the_version_that_served_with_their_interval(
    replay: Replay, quiet: list[DayOfHistory]
) -> None:
    decided = list(replay.over(quiet[: LATER + 1]))
    assert [day.performance for day in decided[:LATER]] == [{}] * LATER
    told = quiet[LATER].outcomes
    assert told is not None
    label, found = told["label"].to_numpy("int64"), decided[LATER].performance
    ranking = ranking_of(np.log(decided[0].scores / (1 - decided[0].scores)), label)
    assert ranking is not None
    assert (found["rows"], found["base_rate"]) == (ROWS, label.mean())
    assert found["brier"] == pytest.approx(np.mean((decided[0].scores - label) ** 2))
    assert [found[name] for name in ("auc", "auc_low", "auc_high")] == pytest.approx(
        [ranking.auc, ranking.low, ranking.high]
    )


def losing_defaults(day: DayOfHistory, kept: float) -> DayOfHistory:
    assert day.outcomes is not None
    outcomes = day.outcomes.copy()
    bad = outcomes.index[outcomes["label"] == 1]
    outcomes.loc[bad[int(len(bad) * kept) :], "label"] = 0
    return replace(day, outcomes=outcomes)


def test_outcomes_that_were_held_and_are_released_are_named_and_counted_from_then_on(
    replay: Replay, quiet: list[DayOfHistory]
) -> None:
    for day in (*quiet[:LATER], losing_defaults(quiet[LATER], 0.25)):
        held = replay.live(day)
    assert (held.labels, held.released, replay.ledger.count_since("")) == (QUARANTINED, (), 0)
    after = replay.live(losing_defaults(quiet[LATER + 1], 0.5))
    assert (after.labels, after.released, replay.ledger.count_since("")) == (OK, (held.date,), 2 * ROWS)
    assert json.loads(line_of(after, 0.2))["labels"]["released"] == [held.date]


def test_outcomes_that_cannot_be_read_or_are_broken_are_not_taken_over(
    replay: Replay, quiet: list[DayOfHistory]
) -> None:
    told = quiet[LATER].outcomes
    assert told is not None
    broken = replace(quiet[LATER], outcomes=told.assign(label=1))
    unreadable = replace(quiet[LATER + 1], outcomes=None, unreadable_outcomes="it cannot be read")
    decided = list(replay.over([*quiet[:LATER], broken, unreadable]))
    assert [day.labels for day in decided[LATER:]] == [QUARANTINED, QUARANTINED]
    assert decided[-1].label_reasons == ("it cannot be read",)
    assert replay.ledger.count_since("") == 0


def test_a_quiet_history_keeps_its_first_version(replay: Replay, quiet: list[DayOfHistory]) -> None:
    decided = list(replay.over(quiet))
    assert [action for day in decided for action in day.actions] == []
    assert set(replay.versions) == {1}


# --- what a retraining makes


def actions_of(decided: list[DayDecided], kind: Kind) -> list[tuple[int, int]]:
    """Day and version of every decision of a kind."""
    return [(at, action.version) for at, day in enumerate(decided) for action in day.actions if action.kind == kind]


def test_the_outcomes_of_a_single_day_make_a_challenger_that_is_tried_on_the_next(
    hasty: tuple[Replay, list[DayDecided]],
) -> None:
    replay, decided = hasty
    (at, number), *_ = actions_of(decided, Kind.RETRAIN)
    assert len(set(replay.ledger.since(day_name(CHANGE), labelled=True).day)) > 1
    assert replay.versions[number].rows <= 2 * ROWS
    trial = decided[at].trial
    assert trial is not None
    assert (trial.rows, decided[at].verdict) == (0, "wait")
    later = decided[at + 1].trial
    assert later is not None
    assert 0 < later.rows <= ROWS


def test_every_retraining_makes_the_version_of_the_next_number(hasty: tuple[Replay, list[DayDecided]]) -> None:
    replay, decided = hasty
    numbers = [number for _, number in actions_of(decided, Kind.RETRAIN)]
    assert numbers == list(range(2, 2 + len(numbers)))
    assert set(replay.versions) == {1, *numbers}
    assert {number: version.number for number, version in replay.versions.items()} == {
        one: one for one in {1, *numbers}
    }


def test_a_challenger_learned_from_no_request_of_the_old_world_as_new(
    hasty: tuple[Replay, list[DayDecided]],
) -> None:
    replay, decided = hasty
    for at, number in actions_of(decided, Kind.RETRAIN):
        version = replay.versions[number]
        assert CHANGE <= version.learned_until <= at - LATER
        assert version.reference.rows <= SMALL.succession.reference_days * ROWS


def test_who_serves_was_champion_at_the_end_of_the_day_before(hasty: tuple[Replay, list[DayDecided]]) -> None:
    _, decided = hasty
    assert actions_of(decided, Kind.PROMOTE)
    assert [day.served_by for day in decided[1:]] == [day.champion for day in decided[:-1]]
    for at, number in actions_of(decided, Kind.PROMOTE):
        assert (decided[at].served_by != number, decided[at + 1].served_by) == (True, number)


def test_a_challenger_that_takes_over_by_steps_answers_nobody_then_some_then_all(
    begun: Replay, received: pd.DataFrame, book: LoanBook, hasty: tuple[Replay, list[DayDecided]]
) -> None:
    promotion = replace(
        POLICY.promotion, by_steps=True, shadow_answers=2 * ROWS, canary_share=0.25, canary_answers=ROWS
    )
    replay = another(begun, replace(HASTY, promotion=promotion))
    decided = list(replay.over(history(received, book, changes=True)[1]))
    (at, number), *_ = actions_of(hasty[1], Kind.PROMOTE)
    assert [day.verdict for day in decided[at : at + 3]] == ["shadow", "shadow", "canary"]
    until = next(place for place, day in enumerate(decided) if day.verdict == "promote")
    assert (decided[until].champion, decided[until].actions[-1].version) == (number, number)
    by_canary = [int((day.answered_by == number).sum()) for day in decided[: until + 1]]
    assert by_canary[: at + 3] == [0] * (at + 3)
    assert sum(by_canary[at + 3 : until]) < promotion.canary_answers <= sum(by_canary[at + 3 :])
    for day in decided[at + 3 : until + 1]:
        own = day.answered_by == number
        assert own.mean() == pytest.approx(promotion.canary_share, abs=0.12)
        assert set(day.answered_by[~own]) == {1}
        requests = replay.ledger.days[decided.index(day)].rows
        for version in (1, number):
            asked = day.answered_by == version
            should = replay.versions[version].score(requests.features[asked])
            np.testing.assert_array_equal(day.scores[asked], should)
    assert set(decided[until + 1].answered_by) == {number}


def test_archived_versions_are_compared_with_every_batch_beside_the_champion(
    hasty: tuple[Replay, list[DayDecided]],
) -> None:
    _, decided = hasty
    first = actions_of(decided, Kind.PROMOTE)[0][0]
    assert all(set(day.facts.shares) == {1} for day in decided[: first + 1])
    assert {1, decided[first].champion} <= set(decided[first + 1].facts.shares)
    for day in decided:
        assert day.share == day.facts.shares[day.served_by]
