"""The rule by which drift asks for a retraining, told day by day."""

import json
from datetime import date, timedelta

import pytest

from loan_assets.credit.vigilance import Check, Watch, asks_for_retraining, open_episode
from loan_assets.policy import POLICY

BAD, CALM, NONE = 0.5, 0.1, None


def lived(*scores: float | None, version: int = 1, watch: Watch | None = None, first: int = 1) -> tuple[Watch, int]:
    """The watch after a report a day, and how often a retraining was asked for."""
    watch = watch or Watch(seen=0)
    asked = 0
    for number, score in enumerate(scores, start=first):
        check = Check(day=day(number), model_version=version, score=score)
        watch, was_asked = seen(watch, check)
        asked += was_asked
    return watch, asked


def day(number: int) -> str:
    return (date(2026, 1, 31) + timedelta(days=number)).isoformat()


def seen(watch: Watch, check: Check) -> tuple[Watch, bool]:
    watch = Watch.from_json(watch.after([check], watch.seen + 1, POLICY.vigilance).to_json())
    episode = open_episode(watch, check.model_version, POLICY.vigilance)
    if not asks_for_retraining(watch, episode, POLICY.vigilance):
        return watch, False
    return watch.answered(episode), True


@pytest.mark.parametrize(
    ("scores", "asked"),
    [
        ((BAD, BAD), 0),
        ((BAD, BAD, BAD), 1),
        ((BAD, BAD, CALM, BAD, BAD, BAD), 1),
        ((BAD, BAD, CALM, BAD, BAD), 0),
        ((BAD, BAD, BAD, BAD, BAD, BAD, BAD), 1),
        ((BAD, BAD, BAD, CALM, BAD, BAD, BAD), 2),
        ((BAD, BAD, NONE, BAD), 1),
        ((BAD, NONE, NONE, BAD), 0),
        ((0.2, 0.2, 0.2), 0),
    ],
)
def test_three_bad_checks_in_a_row_ask_once_per_episode(scores: tuple[float | None, ...], asked: int) -> None:
    assert lived(*scores)[1] == asked


def test_making_a_day_again_replaces_it_and_asks_for_nothing_new() -> None:
    watch, _ = lived(BAD, BAD, BAD)
    for again in ("2026-02-03", "2026-02-02"):
        watch, asked = seen(watch, Check(day=again, model_version=1, score=BAD))
        assert not asked
    assert len(watch.checks) == 3


def test_a_day_made_again_three_times_is_one_check() -> None:
    watch, asked = lived(BAD)
    for _ in range(3):
        watch, again = seen(watch, Check(day="2026-02-01", model_version=1, score=BAD))
        asked += again
    assert asked == 0


def test_checks_against_another_version_do_not_count() -> None:
    watch, _ = lived(BAD, BAD)
    assert lived(BAD, version=2, watch=watch, first=3)[1] == 0
    assert lived(BAD, BAD, BAD, version=2, watch=watch, first=3)[1] == 1


def test_days_filled_in_late_take_their_place_in_the_calendar() -> None:
    watch, _ = lived(CALM, first=9)
    assert lived(BAD, BAD, BAD, watch=watch, first=1)[1] == 0


def test_an_episode_without_end_is_answered_once_and_the_next_one_again() -> None:
    watch, asked = lived(*[BAD] * 200)
    assert asked == 1
    watch, asked = lived(CALM, BAD, BAD, watch=watch, first=201)
    assert asked == 0
    watch, asked = lived(BAD, watch=watch, first=204)
    assert asked == 1


def test_a_calm_check_that_is_no_longer_remembered_has_ended_the_episode_all_the_same() -> None:
    watch, _ = lived(BAD, BAD, BAD, CALM)
    watch, _ = lived(*[NONE] * 80, watch=watch, first=5)
    assert lived(BAD, BAD, BAD, watch=watch, first=85)[1] == 1


def test_a_calm_check_against_another_version_ends_nothing() -> None:
    watch, _ = lived(BAD, BAD, BAD)
    watch, _ = lived(CALM, version=2, watch=watch, first=4)
    assert lived(BAD, BAD, BAD, watch=watch, first=5)[1] == 0


@pytest.mark.parametrize(("since", "asked"), [((), 0), ((CALM,), 1)])
def test_a_cursor_of_the_version_before_is_read_as_what_it_meant(since: tuple[float, ...], asked: int) -> None:
    watch, _ = lived(BAD, BAD, BAD, *since)
    before = json.loads(watch.to_json())
    del before["is_over"]
    read = Watch.from_json(json.dumps(before))
    assert lived(BAD, BAD, BAD, watch=read, first=4 + len(since))[1] == asked


def test_what_is_remembered_does_not_grow_for_ever() -> None:
    watch = Watch(seen=0)
    for number in range(200):
        watch = watch.after([Check(day=day(number), model_version=1, score=CALM)], number, POLICY.vigilance)
    assert len(watch.checks) == 60
    assert len(watch.to_json()) < 6_000
