"""The plain rule lives through a replay without looking ahead, and is judged on the same requests."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from loan_assets.credit.backtest import DayDecided, Replay
from loan_assets.credit.ledger import UNKNOWN
from loan_assets.credit.plain_rule import IN_A_ROW, SHARE, Course, never_retrained, plain_rule
from loan_assets.credit.realised import Realised, realised
from loan_assets_tests.small_history import DAYS, LATER, ROWS

Replayed = tuple[Replay, list[DayDecided]]


@pytest.fixture(scope="module")
def worth(replayed: Replayed) -> Realised:
    return realised(*replayed)


def plain(replay: Replay, dates: list[str]) -> Course:
    first, boosting = replay.versions[1], replay.policy.boosting
    return plain_rule(replay.ledger, replay.reference, first, dates, replay.book, boosting)


def test_every_day_has_the_scores_of_its_requests(worth: Realised) -> None:
    assert [len(day.scores) for day in worth.plain_course.days] == [ROWS] * DAYS


def test_three_days_in_a_row_bring_a_model_that_serves_from_the_next_day(worth: Realised) -> None:
    run, version, promoted = 0, 1, []
    for day in worth.plain_course.days:
        assert day.version == version
        run = run + 1 if day.share is not None and day.share > SHARE else 0
        if run == IN_A_ROW:
            run, version = 0, version + 1
            promoted.append(day.date)
    assert worth.plain_course.promoted == tuple(promoted)
    assert promoted


def test_the_first_days_of_the_plain_rule_are_the_same_without_the_later_ones(
    replayed: Replayed, worth: Realised
) -> None:
    replay, days = replayed
    until = [day.date for day in days if day.date <= worth.plain_course.promoted[0]]
    for alone, whole in zip(plain(replay, until).days, worth.plain_course.days, strict=False):
        assert (alone.date, alone.version, alone.share) == (whole.date, whole.version, whole.share)
        np.testing.assert_array_equal(alone.scores, whole.scores)


def test_never_retraining_is_the_first_version_for_ever(replayed: Replayed) -> None:
    replay, days = replayed
    first = replay.versions[1]
    for served, asked in zip(
        never_retrained(replay.ledger, first, [day.date for day in days]).days, replay.ledger.days, strict=True
    ):
        np.testing.assert_array_equal(served.scores, first.log_odds(asked.rows.features))


def test_what_is_realised_is_the_auc_of_the_scores_that_were_served(replayed: Replayed, worth: Realised) -> None:
    replay, days = replayed
    label = np.concatenate([asked.label for asked in replay.ledger.days])
    score = np.concatenate([day.scores for day in days])
    known = label != UNKNOWN
    assert worth.policy == pytest.approx(roc_auc_score(label[known], score[known]), abs=1e-12)
    assert worth.rows == known.sum() <= ROWS * (DAYS - LATER)


def test_a_week_is_judged_by_its_own_requests(worth: Realised) -> None:
    assert [week.rows for week in worth.weeks[:8]] == [ROWS * min(day, 7) for day in range(1, 9)]
    assert worth.weeks[-1].rows <= ROWS * (7 - LATER)
