"""The rule of succession over written-down facts: alarms, retrainings, verdicts, returns, and whole stories."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from typing import Any

import numpy as np
import pytest

from loan_assets.credit.candidates import Trial
from loan_assets.credit.succession import (
    ASKED,
    CANARY,
    INPUTS,
    OUTCOMES,
    PROMOTE,
    REJECT,
    SHADOW,
    WAIT,
    Action,
    Challenger,
    ChangeFound,
    Episode,
    Facts,
    Kind,
    RivalFound,
    Served,
    Situation,
    is_due,
    is_harmful,
    judged,
    retrained,
    watched,
)
from loan_assets.policy import POLICY

RULE = POLICY.succession
LIMIT = POLICY.vigilance.retrain_above
BAD, CALM, NONE = 0.5, 0.1, None
BETTER = Trial(
    metric="auc",
    champion=0.70,
    challenger=0.76,
    rows=300,
    auc_gain=0.06,
    auc_z=3.0,
    loss_gain=0.03,
    loss_z=3.0,
    all_auc_z=4.0,
    all_loss_z=4.0,
)
UNSURE = replace(BETTER, auc_gain=0.0, auc_z=0.0, loss_gain=0.0, loss_z=0.0, all_auc_z=0.0, all_loss_z=0.0)


def day(number: int) -> str:
    return (date(2025, 12, 31) + timedelta(days=number)).isoformat()


def change(since: int, *, evidence: float = 30.0, slope: float = 0.3, rate_ratio: float = 1.0) -> ChangeFound:
    return ChangeFound(evidence=evidence, since=day(since), rows=500, slope=slope, rate_ratio=rate_ratio)


def rival(evidence: float, auc_gain: float = 0.0, since: int = 1) -> RivalFound:
    return RivalFound(evidence=evidence, since=day(since), rows=400, auc_gain=auc_gain)


@dataclass
class Story:
    """Days lived one after another, and what was decided on each."""

    situation: Situation = field(default_factory=Situation)
    today: int = 0
    told: list[tuple[int, Action]] = field(default_factory=list)

    def live(
        self,
        share: float | Mapping[int, float] | None = None,
        *,
        outcomes: int = 0,
        trial: Trial | None = None,
        found: ChangeFound | None = None,
        rivals: Mapping[int, RivalFound] | None = None,
        asked: tuple[str, ...] = (),
    ) -> tuple[str, ...]:
        """One day in the order in which the platform decides; what was decided, by kind."""
        self.today += 1
        shares = {self.situation.champion: share} if isinstance(share, float) else share or {}
        facts = Facts(date=day(self.today), shares=shares, change=found, rivals=rivals or {}, asked=asked)
        self.situation, decided = watched(self.situation, facts, POLICY)
        if is_due(self.situation, facts, outcomes, RULE):
            self.situation, more = retrained(self.situation, day(self.today), outcomes, RULE)
            decided += more
        if self.situation.challenger is not None and trial is not None:
            self.situation, _, more = judged(self.situation, day(self.today), trial, RULE)
            decided += more
        self.told += [(self.today, action) for action in decided]
        return tuple(action.kind.value for action in decided)

    def days(self, *shares: float | None) -> Story:
        for share in shares:
            self.live(share)
        return self

    def of(self, kind: Kind) -> list[int]:
        return [today for today, action in self.told if action.kind == kind]


def promoted(story: Story) -> Story:
    """The inputs moved on day 1, and version 2 learned from it and took over on day 4."""
    story.days(BAD, BAD, BAD)
    assert story.live(BAD, outcomes=800, trial=BETTER) == ("retrain", "promote")
    return story


# --- alarms from inputs


@pytest.mark.parametrize(
    ("shares", "alarms"),
    [
        ((BAD, BAD), []),
        ((BAD, BAD, BAD), [3]),
        ((BAD,) * 40, [3]),
        ((BAD, BAD, CALM, BAD, BAD), []),
        ((BAD, BAD, BAD, CALM, BAD, BAD), [3]),
        ((BAD, BAD, BAD, CALM, BAD, BAD, BAD), [3, 7]),
        ((BAD, NONE, BAD, NONE, NONE, BAD), [6]),
        ((BAD, NONE, NONE), []),
        ((LIMIT, LIMIT, LIMIT), []),
        ((LIMIT + 1e-9,) * 3, [3]),
    ],
)
def test_three_checks_over_the_limit_alarm_once_until_a_calm_one(
    shares: tuple[float | None, ...], alarms: list[int]
) -> None:
    story = Story().days(*shares)
    assert story.of(Kind.ALARM) == alarms
    assert {action.kind for _, action in story.told} <= {Kind.ALARM}


def test_an_alarm_from_inputs_opens_an_episode_since_the_first_of_the_checks() -> None:
    story = Story().days(CALM, BAD, NONE, BAD, BAD)
    assert story.situation.episode == Episode(since=day(2), opened=day(5), causes=(INPUTS,))


def test_shares_against_an_archived_version_are_no_check_of_the_champion() -> None:
    story = Story(situation=Situation(champion=2, archived=(1,), newest=2))
    for shares in [{1: BAD, 2: CALM}] * 4 + [{1: BAD}] * 4:
        story.live(shares)
    assert story.told == []
    assert story.situation.calm == 4
    assert story.situation.consecutive == 0


def test_no_more_than_the_remembered_checks_are_kept() -> None:
    story = Story().days(*[BAD] * 30)
    assert len(story.situation.recent) == RULE.remembered_checks
    assert story.situation.consecutive == 30
    assert story.situation.recent[-1][0] == day(30)


def test_a_spell_of_other_inputs_is_over_after_calm_checks_and_its_days_are_remembered() -> None:
    story = Story().days(BAD, BAD, CALM, BAD)
    assert story.days(CALM).situation.passed == ()
    after = story.days(CALM).situation
    assert (after.passed, after.spell) == (((day(1), day(4)),), ())


def test_two_days_of_other_inputs_are_no_spell() -> None:
    assert Story().days(BAD, BAD, CALM, CALM).situation.passed == ()


# --- alarms from outcomes


@pytest.mark.parametrize(
    ("found", "harms"),
    [
        (change(1, evidence=RULE.change_evidence, slope=RULE.change_slope - 0.01), True),
        (change(1, evidence=RULE.change_evidence - 0.01, slope=0.0), False),
        (change(1, evidence=1e3, slope=RULE.change_slope), False),
        (change(1, evidence=RULE.rate_evidence, slope=1.0, rate_ratio=RULE.change_rate + 0.01), True),
        (change(1, evidence=RULE.rate_evidence - 0.01, slope=1.0, rate_ratio=3.0), False),
        (change(1, evidence=1e3, slope=1.0, rate_ratio=RULE.change_rate), False),
        (change(1, evidence=RULE.rate_evidence, slope=1.0, rate_ratio=1 / (RULE.change_rate + 0.01)), True),
        (change(1, evidence=RULE.rate_evidence, slope=1.0, rate_ratio=0.0), True),
        (change(1, evidence=1e3, slope=1.5, rate_ratio=1.0), False),
    ],
)
def test_a_change_harms_when_it_is_certain_and_large(found: ChangeFound, harms: bool) -> None:
    assert is_harmful(found, RULE) is harms
    assert Story().live(CALM, found=found) == (("alarm",) if harms else ())


def test_a_change_that_the_episode_knows_is_no_second_alarm_and_a_later_one_is() -> None:
    story = Story()
    told = [story.live(CALM, found=change(since)) for since in (10, 10, 13, 9, 14)]
    assert told == [("alarm",), (), (), (), ("alarm",)]
    assert story.situation.episode is not None
    assert story.situation.episode.since == day(14)


def test_a_known_change_stays_known_after_it_was_learned_and_another_opens_a_new_episode() -> None:
    story = Story()
    story.live(CALM, found=change(10), outcomes=800)
    assert story.live(CALM, found=change(12), outcomes=800) == ()
    assert story.live(CALM, found=change(20)) == ("alarm", "reject")
    assert story.situation.episode == Episode(since=day(20), opened=day(3), causes=(OUTCOMES,))
    assert story.situation.challenger is None


def test_another_change_opens_a_new_episode_even_where_rows_after_it_were_learned_from() -> None:
    story = Story()
    story.live(CALM, found=change(-20), outcomes=800)
    assert story.live(CALM, found=change(-5)) == ("alarm", "reject")
    assert story.situation.episode == Episode(since=day(-5), opened=day(2), causes=(OUTCOMES,))


def test_outcomes_that_speak_of_moved_inputs_alarm_once_and_the_day_that_was_seen_is_kept() -> None:
    story = Story().days(NONE, BAD, BAD, BAD)
    assert story.live(BAD, found=change(0)) == ("alarm",)
    assert story.live(BAD, found=change(0)) == ()
    assert story.situation.episode == Episode(since=day(2), opened=day(4), causes=(INPUTS, OUTCOMES))


def test_outcomes_say_nothing_new_of_moved_inputs_that_were_learned_from() -> None:
    story = Story().days(BAD, BAD, BAD)
    story.live(BAD, outcomes=800)
    assert story.live(BAD, found=change(2)) == ()


def test_inputs_seen_to_move_correct_the_day_that_outcomes_estimated() -> None:
    story = Story()
    story.live(BAD, found=change(-2))
    story.days(BAD, BAD)
    assert story.situation.episode == Episode(since=day(1), opened=day(1), causes=(OUTCOMES, INPUTS))


def test_of_two_estimated_days_the_earlier_one_counts() -> None:
    story = Story()
    story.live(CALM, asked=("by the button",))
    story.live(CALM, found=change(-20))
    assert story.situation.episode == Episode(since=day(-20), opened=day(1), causes=(ASKED, OUTCOMES))


def test_inputs_that_moved_before_the_last_fitting_open_no_new_episode() -> None:
    story = Story()
    story.live(CALM, found=change(1))
    story.days(BAD, BAD)
    story.live(NONE, outcomes=800)
    before = story.situation.episode
    assert story.live(BAD) == ("alarm",)
    assert story.situation.episode == before


def test_inputs_that_moved_on_the_day_of_the_last_fitting_open_no_new_episode() -> None:
    story = Story()
    story.live(CALM, found=change(1))
    story.live(BAD, outcomes=800)
    before = story.situation.episode
    story.days(BAD, BAD)
    assert story.of(Kind.ALARM) == [1, 4]
    assert story.situation.episode == before


def test_inputs_that_moved_after_the_last_fitting_open_a_new_episode() -> None:
    story = Story()
    story.live(CALM, found=change(1), outcomes=800)
    story.days(BAD, BAD, BAD)
    assert story.situation.episode == Episode(since=day(2), opened=day(4), causes=(INPUTS,))


def test_who_asks_is_heard_and_means_everything_since_the_champion_came() -> None:
    story = Story(situation=Situation(judged_from=day(-9)))
    assert story.live(CALM, asked=("by the button", "by the webhook")) == ("alarm", "alarm")
    assert [action.cause for _, action in story.told] == ["by the button", "by the webhook"]
    assert story.situation.episode == Episode(since=day(-9), opened=day(1), causes=(ASKED,))


def test_who_asks_again_while_the_answer_is_on_trial_is_heard_and_does_not_throw_it_away() -> None:
    story = Story().days(BAD, BAD, BAD)
    assert story.live(BAD, outcomes=800, trial=UNSURE) == ("retrain",)
    on_trial, episode = story.situation.challenger, story.situation.episode
    assert on_trial is not None
    assert episode is not None
    assert story.live(BAD, asked=("by the button",), outcomes=800) == ("alarm",)
    assert story.situation.challenger == on_trial
    assert story.situation.episode == replace(episode, causes=(INPUTS, ASKED), asked_again=True)
    # The one on trial is dismissed: then there is another answer to the one who asked, though outcomes are no more.
    worse = replace(BETTER, rows=301, against=("it is worse",))
    assert story.live(BAD, outcomes=800, trial=worse) == ("reject",)
    assert story.live(BAD, outcomes=800) == ("retrain",)
    assert story.live(BAD, outcomes=800, trial=worse) == ("reject",)
    assert story.days(*[BAD] * 9).of(Kind.RETRAIN) == [4, 7]


@pytest.mark.parametrize("stage", ["", SHADOW, CANARY])
def test_who_asks_when_no_other_answer_can_be_had_does_not_dismiss_the_one_on_trial(stage: str) -> None:
    spent = tuple(day(number) for number in range(RULE.budget))
    situation = replace(on_stage(stage) if stage else on_trial(), retrained=spent)
    story = Story(situation=situation, today=20)
    assert story.live(asked=("by the button",), outcomes=800) == ("alarm",)
    assert story.situation.challenger == situation.challenger


# --- when to retrain

OPEN = Situation(episode=Episode(since=day(1), opened=day(1), causes=(OUTCOMES,)))
LATE = 1 + RULE.deadline_days


def opened(**facts: Any) -> Situation:
    assert OPEN.episode is not None
    return replace(OPEN, episode=replace(OPEN.episode, **facts))


@pytest.mark.parametrize(
    ("today", "outcomes", "due"),
    [
        (1, RULE.enough_outcomes, True),
        (1, RULE.enough_outcomes - 1, False),
        (LATE - 1, RULE.enough_outcomes - 1, False),
        (LATE, RULE.least_outcomes, True),
        (LATE, RULE.least_outcomes - 1, False),
    ],
)
def test_retraining_waits_for_enough_outcomes_or_the_deadline(today: int, outcomes: int, due: bool) -> None:
    assert is_due(OPEN, Facts(date=day(today)), outcomes, RULE) is due


def test_enough_outcomes_are_answered_on_the_day_of_the_alarm() -> None:
    assert Story().live(CALM, found=change(1), outcomes=RULE.enough_outcomes) == ("alarm", "retrain")


def test_without_an_episode_nothing_is_due() -> None:
    assert not is_due(Situation(), Facts(date=day(1)), 100_000, RULE)


@pytest.mark.parametrize(("ago", "due"), [(RULE.cooldown_days - 1, False), (RULE.cooldown_days, True)])
def test_a_retraining_lets_two_days_pass(ago: int, due: bool) -> None:
    situation = replace(OPEN, retrained=(day(40 - ago),))
    assert is_due(situation, Facts(date=day(40)), 1_000, RULE) is due


@pytest.mark.parametrize(("first", "due"), [(RULE.budget_days - 1, False), (RULE.budget_days, True)])
def test_the_budget_counts_the_retrainings_of_thirty_days(first: int, due: bool) -> None:
    ago = (first, *range(2 * RULE.budget, 3, -2))[: RULE.budget]
    situation = replace(OPEN, retrained=tuple(day(60 - days) for days in ago))
    assert len(situation.retrained) == RULE.budget
    assert is_due(situation, Facts(date=day(60)), 1_000, RULE) is due


@pytest.mark.parametrize(("outcomes", "due"), [(1_599, False), (1_600, True)])
def test_the_answer_is_repeated_when_outcomes_have_doubled(outcomes: int, due: bool) -> None:
    assert is_due(opened(retrainings=1, rows=800), Facts(date=day(9)), outcomes, RULE) is due


def test_an_episode_is_answered_only_so_often() -> None:
    facts = Facts(date=day(9))
    assert is_due(opened(retrainings=RULE.retrainings - 1, rows=10), facts, 100_000, RULE)
    assert not is_due(opened(retrainings=RULE.retrainings, rows=10), facts, 100_000, RULE)


@pytest.mark.parametrize(
    ("evidence", "promotions", "due"),
    [(RULE.hint_evidence, 1, False), (RULE.hint_evidence - 0.01, 1, True), (RULE.hint_evidence, 0, True)],
)
def test_a_repeated_answer_waits_while_outcomes_hint_at_another_change(
    evidence: float, promotions: int, due: bool
) -> None:
    situation = opened(retrainings=1, rows=800, promotions=promotions)
    facts = Facts(date=day(9), change=change(8, evidence=evidence))
    assert is_due(situation, facts, 1_600, RULE) is due


def test_a_first_answer_does_not_wait_for_the_evidence_that_asked_for_it() -> None:
    assert is_due(OPEN, Facts(date=day(9), change=change(1)), RULE.enough_outcomes, RULE)


def test_a_retraining_puts_the_next_number_on_trial_and_remembers_what_it_learned_from() -> None:
    situation, actions = retrained(replace(OPEN, newest=7), day(5), 900, RULE)
    assert situation.challenger == Challenger(number=8, made=day(5))
    assert situation.newest == 8
    assert situation.episode == opened(retrainings=1, rows=900, fitted_on=day(5)).episode
    assert situation.retrained == (day(5),)
    assert [(action.kind, action.version) for action in actions] == [(Kind.RETRAIN, 8)]


def test_a_challenger_on_trial_gives_way_to_one_that_learned_from_more() -> None:
    before, _ = retrained(OPEN, day(5), 900, RULE)
    after, actions = retrained(before, day(9), 1_800, RULE)
    assert [(action.kind, action.version) for action in actions] == [(Kind.REJECT, 2), (Kind.RETRAIN, 3)]
    assert after.challenger == Challenger(number=3, made=day(9))


def test_retrainings_beyond_the_budget_s_days_are_forgotten_however_many_these_are() -> None:
    before = replace(OPEN, retrained=(day(1), day(2), day(3)))
    assert retrained(before, day(32), 900, RULE)[0].retrained == (day(3), day(32))
    assert retrained(before, day(32), 900, replace(RULE, budget_days=90))[0].retrained == (
        *before.retrained,
        day(32),
    )


def test_a_rule_of_many_checks_in_a_row_remembers_as_many() -> None:
    policy = replace(POLICY, vigilance=replace(POLICY.vigilance, consecutive=RULE.remembered_checks + 2))
    situation, alarms = Situation(), []
    for number in range(1, RULE.remembered_checks + 4):
        situation, decided = watched(situation, Facts(date=day(number), shares={1: BAD}), policy)
        alarms += [number for action in decided if action.kind is Kind.ALARM]
    assert alarms == [RULE.remembered_checks + 2]


def most_in_a_month(days: list[int]) -> int:
    return max(sum(first <= other < first + RULE.budget_days for other in days) for first in days)


@pytest.mark.parametrize("way", [INPUTS, OUTCOMES, ASKED, "all at once"])
def test_a_hundred_alarms_in_a_row_cost_at_most_the_budget(way: str) -> None:
    """Outcomes are plenty all the time, and every alarm speaks of a change of its own."""
    story = Story()
    while len(story.of(Kind.ALARM)) < 100:
        outcomes = 10_000 * 2 ** min(story.today, 40)
        if way == INPUTS:
            story.live(CALM if story.today % 4 == 0 else BAD, outcomes=outcomes)
        elif way == OUTCOMES:
            story.live(CALM, found=change(4 * story.today), outcomes=outcomes)
        else:
            story.live(CALM, asked=("again",) * (100 if way != ASKED else 1), outcomes=outcomes)
    assert 1 <= most_in_a_month(story.of(Kind.RETRAIN)) <= RULE.budget
    assert len(story.of(Kind.RETRAIN)) <= RULE.budget * (1 + story.today / RULE.budget_days)


def test_alarms_every_day_do_reach_the_budget_and_stop_there() -> None:
    story = Story()
    for _ in range(30):
        story.live(CALM, asked=("again",), outcomes=100_000)
    assert len(story.of(Kind.RETRAIN)) == RULE.budget


# --- verdicts


def on_trial(*, promotions: int = 0, looks: int = 0) -> Situation:
    situation, _ = retrained(opened(promotions=promotions), day(5), 900, RULE)
    assert situation.challenger is not None
    return replace(situation, challenger=replace(situation.challenger, looks=looks))


def verdict(trial: Trial, *, promotions: int = 0, looks: int = 0) -> str:
    return judged(on_trial(promotions=promotions, looks=looks), day(6), trial, RULE)[1]


REFIT = replace(
    BETTER,
    auc_gain=RULE.first_gain,
    auc_z=RULE.held_z,
    loss_gain=-RULE.blind_margin,
    all_auc_z=RULE.first_z,
    all_loss_z=0.0,
)
FITS = replace(REFIT, all_auc_z=RULE.held_z, all_loss_z=RULE.first_z)
LINE = replace(UNSURE, metric="log_loss", loss_gain=RULE.recalibration_gain, all_loss_z=RULE.recalibration_z)
AGAIN = replace(UNSURE, auc_gain=RULE.again_gain, auc_z=RULE.again_z, loss_gain=-RULE.blind_margin)


@pytest.mark.parametrize(
    ("at_the_limit", "promotions", "names"),
    [
        (REFIT, 0, ("auc_gain", "auc_z", "loss_gain", "all_auc_z")),
        (FITS, 0, ("auc_gain", "auc_z", "loss_gain", "all_auc_z", "all_loss_z")),
        (LINE, 0, ("loss_gain", "all_loss_z")),
        (AGAIN, 1, ("auc_gain", "auc_z", "loss_gain")),
    ],
)
def test_a_challenger_is_promoted_at_the_limits_and_waits_just_below_any(
    at_the_limit: Trial, promotions: int, names: tuple[str, ...]
) -> None:
    assert verdict(at_the_limit, promotions=promotions) == PROMOTE
    for name in names:
        below = replace(at_the_limit, **{name: getattr(at_the_limit, name) - 1e-6})
        assert verdict(below, promotions=promotions) == WAIT, name


def test_what_is_enough_for_a_repeated_answer_is_not_enough_for_a_first() -> None:
    assert (verdict(AGAIN, promotions=1), verdict(AGAIN)) == (PROMOTE, WAIT)


def test_what_speaks_against_a_challenger_outweighs_every_figure() -> None:
    after, said, actions = judged(on_trial(), day(6), replace(BETTER, against=("unfair", "blind")), RULE)
    assert said == REJECT
    assert actions == (Action(kind=Kind.REJECT, cause="unfair; blind", version=2),)
    assert (after.champion, after.challenger) == (1, None)


def test_a_challenger_that_is_not_surely_better_is_looked_at_six_times() -> None:
    situation, said = on_trial(), []
    for look in range(RULE.looks):
        situation, one, _ = judged(situation, day(6), replace(UNSURE, rows=UNSURE.rows + look), RULE)
        said.append(one)
    assert said == [WAIT] * (RULE.looks - 1) + [REJECT]
    assert situation.champion == 1
    assert situation.challenger is None


def test_a_day_without_a_later_outcome_is_no_look() -> None:
    once, _, _ = judged(on_trial(), day(6), UNSURE, RULE)
    for trial in (UNSURE, BETTER, replace(UNSURE, rows=0, against=("unfair",))):
        assert judged(once, day(7), trial, RULE) == (once, WAIT, ())
    assert judged(once, day(7), replace(BETTER, rows=BETTER.rows + 1), RULE)[1] == PROMOTE


def test_the_last_look_can_still_promote() -> None:
    assert verdict(BETTER, looks=RULE.looks - 1) == PROMOTE


def test_a_challenger_worse_by_both_figures_is_not_waited_for() -> None:
    worse = replace(UNSURE, auc_z=RULE.hopeless_z - 0.01, loss_z=RULE.hopeless_z - 0.01)
    assert verdict(worse) == REJECT
    assert verdict(replace(worse, auc_z=RULE.hopeless_z)) == WAIT
    assert verdict(replace(worse, loss_z=RULE.hopeless_z)) == WAIT


# --- promotion by steps

STEPS = replace(POLICY.promotion, by_steps=True)
ENOUGH = {
    SHADOW: Served(answers=STEPS.shadow_answers, farthest=STEPS.farthest),
    CANARY: Served(answers=STEPS.canary_answers, farthest=STEPS.farthest),
}


def step(
    situation: Situation, today: int, trial: Trial = BETTER, served: Served | None = None
) -> tuple[Situation, str]:
    after, said, actions = judged(situation, day(today), trial, RULE, STEPS, served or Served())
    assert bool(actions) == (said in {PROMOTE, REJECT})
    return after, said


def on_stage(stage: str) -> Situation:
    situation, said = step(on_trial(), 6)
    assert said == SHADOW
    if stage == CANARY:
        situation, said = step(situation, 7, served=ENOUGH[SHADOW])
        assert said == CANARY
    assert situation.champion == 1
    return situation


def test_where_steps_are_asked_for_the_better_challenger_takes_over_by_them() -> None:
    situation = on_stage(CANARY)
    assert situation.challenger is not None
    assert (situation.challenger.stage, situation.challenger.staged) == (CANARY, day(7))
    after, said = step(situation, 8, served=ENOUGH[CANARY])
    assert (said, after.champion, after.challenger) == (PROMOTE, 2, None)
    assert Situation.from_facts(json.loads(json.dumps(situation.as_facts()))) == situation


def test_what_is_not_better_takes_no_step() -> None:
    assert step(on_trial(), 6, UNSURE)[1] == WAIT
    assert step(on_trial(), 6, replace(BETTER, against=("unfair",)))[1] == REJECT


@pytest.mark.parametrize("stage", [SHADOW, CANARY])
def test_a_step_waits_for_its_answers_and_not_for_later_outcomes(stage: str) -> None:
    situation = on_stage(stage)
    served = replace(ENOUGH[stage], answers=ENOUGH[stage].answers - 1)
    assert step(situation, 9, replace(BETTER, rows=0), served) == (situation, stage)
    assert step(situation, 9, replace(BETTER, rows=0), ENOUGH[stage])[1] == {SHADOW: CANARY, CANARY: PROMOTE}[stage]


@pytest.mark.parametrize("stage", [SHADOW, CANARY])
@pytest.mark.parametrize(
    ("trial", "farthest", "why"),
    [
        (replace(BETTER, against=("unfair",)), 0.0, "unfair"),
        (replace(UNSURE, auc_z=-2.5, loss_z=-2.5), 0.0, "worse: auc"),
        (BETTER, 2 * STEPS.farthest, "scores are up to 2e-09 from what they should be"),
    ],
)
def test_whatever_speaks_against_a_challenger_on_its_way_dismisses_it(
    stage: str, trial: Trial, farthest: float, why: str
) -> None:
    served = replace(ENOUGH[stage], farthest=farthest)
    after, said, actions = judged(on_stage(stage), day(9), trial, RULE, STEPS, served)
    assert (said, after.champion, after.challenger) == (REJECT, 1, None)
    assert actions[0].cause.startswith(f"dismissed in {stage}: ")
    assert why in actions[0].cause


def test_a_challenger_on_its_way_is_not_overtaken_by_a_retraining() -> None:
    story = Story(situation=on_stage(SHADOW), today=15)
    assert story.live(outcomes=100_000) == ()
    assert Story(situation=on_trial(), today=15).live(outcomes=100_000) == ("reject", "retrain")


def test_another_alarm_leaves_who_stands_beside_the_champion_behind() -> None:
    story = Story(situation=on_stage(CANARY), today=9)
    assert story.live(found=change(20)) == ("alarm", "reject")
    assert story.situation.challenger is None


def test_a_promotion_archives_the_champion_and_the_count_of_checks_begins_again() -> None:
    story = promoted(Story())
    after = story.situation
    assert (after.champion, after.archived, after.challenger) == (2, (1,), None)
    assert (after.in_force_since, after.judged_from) == (day(4), day(1))
    assert (after.consecutive, after.spell, after.passed, after.calm) == (0, (), (), 0)
    assert after.episode is not None
    assert after.episode.promotions == 1
    assert [story.live(BAD) for _ in range(3)] == [(), (), ("alarm",)]


def test_what_was_remembered_of_the_old_champion_ends_with_it() -> None:
    spells = ((day(-9), day(-5)),)
    situation = replace(on_trial(), normal_since=day(1), normal_until=day(2), passed=spells, calm=1, is_answered=True)
    after, _, _ = judged(situation, day(6), BETTER, RULE)
    assert (after.normal_since, after.normal_until, after.passed, after.calm) == ("", "", (), 0)
    assert not after.is_answered


# --- how an episode ends


def test_inputs_that_calm_before_they_were_answered_close_the_episode() -> None:
    story = Story().days(BAD, BAD, BAD, CALM)
    assert story.situation.episode is not None
    after = story.days(CALM).situation
    assert (after.episode, after.judged_from, after.normal_since) == (None, "", "")
    assert story.live(CALM, outcomes=100_000) == ()


def test_a_challenger_of_inputs_that_calmed_is_rejected() -> None:
    story = Story().days(BAD, BAD, BAD)
    assert story.live(BAD, outcomes=800, trial=UNSURE) == ("retrain",)
    assert [story.live(CALM, trial=UNSURE), story.live(CALM, trial=BETTER)] == [(), ("reject",)]
    assert (story.situation.champion, story.situation.challenger) == (1, None)
    assert "calmed" in story.told[-1][1].cause


def test_a_change_of_outcomes_does_not_end_with_calm_inputs() -> None:
    story = Story()
    story.live(CALM, found=change(1))
    story.days(CALM, CALM, CALM)
    assert story.situation.episode is not None


def test_an_episode_that_was_answered_does_not_end_with_calm_inputs() -> None:
    story = promoted(Story()).days(CALM, CALM, CALM)
    assert story.situation.episode is not None


def test_an_episode_answered_as_often_as_may_be_ends_and_what_is_becomes_normal() -> None:
    spent = opened(retrainings=RULE.retrainings, rows=800)
    assert watched(replace(spent, challenger=Challenger(number=5, made=day(8))), Facts(date=day(9)), POLICY)[0].episode
    after, actions = watched(spent, Facts(date=day(9)), POLICY)
    assert (after.episode, actions) == (None, ())
    assert (after.judged_from, after.normal_since, after.normal_until) == (day(10), day(1), day(9))


def test_an_answered_episode_that_is_spent_leaves_the_champion_its_own_normal() -> None:
    spent = replace(opened(retrainings=RULE.retrainings, promotions=1), judged_from=day(1))
    after, _ = watched(spent, Facts(date=day(9)), POLICY)
    assert (after.episode, after.judged_from, after.normal_since) == (None, day(1), "")


def test_an_episode_without_an_end_is_given_up_and_its_challenger_rejected() -> None:
    situation = replace(opened(retrainings=1), challenger=Challenger(number=2, made=day(9)), newest=2)
    last = 1 + RULE.episode_days
    assert watched(situation, Facts(date=day(last)), POLICY) == (situation, ())
    after, actions = watched(situation, Facts(date=day(last + 1)), POLICY)
    assert (after.episode, after.challenger) == (None, None)
    assert [(action.kind, action.version) for action in actions] == [(Kind.REJECT, 2)]
    assert "too long" in actions[0].cause


# --- who comes back

SUCCEEDED = Situation(champion=2, archived=(1,), newest=2, in_force_since=day(0), judged_from=day(-5))


def test_inputs_that_an_archived_version_knew_bring_it_back_at_the_third_check() -> None:
    story = Story(situation=SUCCEEDED)
    told = [story.live({1: CALM, 2: BAD}) for _ in range(3)]
    assert told == [(), (), ("alarm", "rollback")]
    after = story.situation
    assert (after.champion, after.archived) == (1, (2,))
    assert (after.in_force_since, after.judged_from) == (day(3), day(1))


@pytest.mark.parametrize(
    ("shares", "champion"),
    [
        ((0.3, 0.2, 0.1), 1),
        ((0.3, 0.2, 0.11), 2),
        ((0.0, 0.0, None), 2),
    ],
)
def test_the_mean_of_three_shares_says_whether_inputs_are_known(
    shares: tuple[float | None, ...], champion: int
) -> None:
    story = Story(situation=SUCCEEDED)
    for share in shares:
        story.live({2: BAD} if share is None else {1: share, 2: BAD})
    assert story.situation.champion == champion


def test_only_the_newest_three_checks_say_whether_inputs_are_known() -> None:
    story = Story(situation=SUCCEEDED)
    for _ in range(4):
        story.live({1: 0.9, 2: BAD})
    assert [story.live({1: 0.0, 2: BAD}) for _ in range(3)] == [(), (), ("rollback",)]
    assert story.situation.judged_from == day(5)


def test_inputs_that_the_champion_knows_as_well_bring_nobody_back() -> None:
    story = Story(situation=SUCCEEDED)
    for _ in range(9):
        story.live({1: 0.0, 2: LIMIT})
    assert story.told == []


def test_of_two_archived_versions_the_one_that_the_inputs_resemble_more_comes_back() -> None:
    story = Story(situation=replace(SUCCEEDED, champion=3, archived=(1, 2), newest=3))
    for _ in range(3):
        story.live({1: 0.1, 2: 0.05, 3: BAD})
    assert (story.situation.champion, story.situation.archived) == (2, (1, 3))


@pytest.mark.parametrize(
    ("found", "champion"),
    [
        (rival(RULE.return_evidence, -RULE.return_margin), 1),
        (rival(RULE.return_evidence - 0.01, 0.1), 2),
        (rival(500.0, -RULE.return_margin - 1e-6), 2),
    ],
)
def test_outcomes_bring_an_archived_version_back_that_fits_them_and_ranks_no_worse(
    found: RivalFound, champion: int
) -> None:
    story = Story(situation=SUCCEEDED)
    assert story.live(CALM, rivals={1: found}) == (("rollback",) if champion == 1 else ())
    assert story.situation.champion == champion


def test_of_two_archived_versions_the_one_that_outcomes_speak_for_more_comes_back() -> None:
    story = Story(situation=replace(SUCCEEDED, champion=3, archived=(1, 2), newest=3))
    story.live(CALM, rivals={1: rival(20.0, since=-3), 2: rival(9.0)})
    assert (story.situation.champion, story.situation.judged_from) == (1, day(-3))


def test_inputs_are_believed_before_outcomes() -> None:
    story = Story(situation=replace(SUCCEEDED, champion=3, archived=(1, 2), newest=3))
    for _ in range(2):
        story.live({1: CALM, 2: BAD, 3: BAD})
    story.live({1: CALM, 2: BAD, 3: BAD}, rivals={2: rival(90.0)})
    assert story.situation.champion == 1


def test_after_a_return_no_episode_is_open_and_nobody_is_on_trial() -> None:
    story = Story(
        situation=replace(
            on_trial(promotions=1),
            champion=2,
            archived=(1,),
            normal_since=day(1),
            normal_until=day(2),
            recent=((day(0), {2: BAD}),),
            spell=(day(0),),
            passed=((day(-9), day(-5)),),
            calm=1,
            is_answered=True,
        )
    )
    assert story.live(NONE, rivals={1: rival(10.0)}, outcomes=100_000, trial=BETTER) == ("rollback", "reject")
    after = story.situation
    assert (after.episode, after.challenger, after.recent, after.spell, after.passed) == (None, None, (), (), ())
    assert (after.normal_since, after.normal_until, after.calm, after.is_answered) == ("", "", 0, False)


@pytest.mark.parametrize(("later", "is_open"), [(1, True), (RULE.undone_days, True), (RULE.undone_days + 1, False)])
def test_a_return_that_is_undone_within_a_week_leaves_its_question_open(later: int, is_open: bool) -> None:
    story = promoted(Story())
    question = story.situation.episode
    assert question is not None
    story.live(NONE, rivals={1: rival(10.0)})
    assert story.situation.champion == 1
    assert story.situation.episode is None
    story.days(*[NONE] * (later - 1))
    story.live(NONE, rivals={2: rival(10.0)})
    assert story.situation.champion == 2
    assert story.situation.episode == (question if is_open else None)
    # The third return in a row undoes the second, which closed nothing that was not asked before.
    story.live(NONE, rivals={1: rival(10.0)})
    assert story.situation.champion == 1
    assert story.situation.episode is None


def test_inputs_that_go_back_and_forth_reopen_nothing() -> None:
    story = promoted(Story())
    for _ in range(3):
        story.live({1: CALM, 2: BAD})
    assert story.situation.champion == 1
    for _ in range(3):
        story.live({1: BAD, 2: CALM})
    assert story.situation.champion == 2
    assert story.situation.episode is None


def test_the_question_that_is_reopened_is_the_one_from_before_the_day_of_the_return() -> None:
    story = promoted(Story())
    question = story.situation.episode
    assert story.live(NONE, found=change(20), rivals={1: rival(10.0)}) == ("alarm", "rollback")
    story.live(NONE, rivals={2: rival(10.0)})
    assert story.situation.episode == question


def test_a_question_that_was_answered_as_often_as_may_be_is_not_reopened() -> None:
    story = promoted(Story())
    assert story.situation.episode is not None
    spent = replace(story.situation.episode, retrainings=RULE.retrainings)
    story.situation = replace(story.situation, episode=spent, challenger=Challenger(number=3, made=day(4)))
    story.live(NONE, rivals={1: rival(10.0)})
    assert story.situation.left is not None
    story.live(NONE, rivals={2: rival(10.0)})
    assert (story.situation.champion, story.situation.episode, story.situation.normal_until) == (2, None, "")


def test_another_version_that_comes_back_does_not_open_what_was_asked_before() -> None:
    story = promoted(Story())
    story.live(NONE, rivals={1: rival(10.0)})
    story.situation = replace(story.situation, archived=(2, 3))
    story.live(NONE, rivals={3: rival(10.0)})
    assert story.situation.champion == 3
    assert story.situation.episode is None


# --- whole stories


def test_a_situation_survives_json_at_every_stage_of_a_story() -> None:
    story = Story()
    stages = [story.situation]
    for share in (CALM, BAD, BAD, BAD):
        story.live(share)
        stages.append(story.situation)
    story.live(BAD, outcomes=800, trial=UNSURE)
    stages.append(story.situation)
    assert story.situation.challenger is not None
    story.live(BAD, trial=BETTER)
    stages.append(story.situation)
    story.days(BAD, BAD, BAD, CALM, CALM)
    stages.append(story.situation)
    assert story.situation.passed
    back = promoted(Story())
    back.live(NONE, rivals={1: rival(10.0)})
    assert back.situation.left is not None
    for situation in (*stages, back.situation, replace(SUCCEEDED, normal_since=day(1), normal_until=day(2))):
        assert Situation.from_facts(json.loads(json.dumps(situation.as_facts()))) == situation


def test_a_world_that_shifts_and_returns_is_noticed_learned_and_left_again() -> None:
    story = Story().days(*[CALM] * 5)
    assert story.told == []
    outcomes = 0
    for _ in range(12):
        outcomes += 100
        is_new = story.situation.champion == 2
        story.live({1: BAD, 2: CALM} if is_new else BAD, outcomes=outcomes, trial=BETTER)
    for _ in range(5):
        story.live({1: CALM, 2: BAD} if story.situation.champion == 2 else CALM, outcomes=outcomes)
    said = [(today, action.kind.value, action.version) for today, action in story.told]
    assert said == [(8, "alarm", 1), (12, "retrain", 2), (12, "promote", 2), (20, "alarm", 2), (20, "rollback", 1)]
    assert story.situation.episode is None


def random_trial(generator: np.random.Generator) -> Trial:
    figures = generator.normal(0.5, 2.0, 4)
    return Trial(
        metric=str(generator.choice(["auc", "log_loss"])),
        champion=0.7,
        challenger=0.7,
        rows=int(generator.integers(0, 10_000)),
        auc_gain=float(generator.normal(0.02, 0.03)),
        auc_z=float(figures[0]),
        loss_gain=float(generator.normal(0.01, 0.02)),
        loss_z=float(figures[1]),
        all_auc_z=float(figures[2]),
        all_loss_z=float(figures[3]),
        against=("unfair",) if generator.random() < 0.1 else (),
    )


def live_at_random(story: Story, generator: np.random.Generator) -> None:
    situation = story.situation
    versions = (situation.champion, *situation.archived)
    moved = generator.random() < 0.6
    shares = {version: float(generator.uniform(0, 0.4) + 0.2 * moved) for version in versions}
    found = change(
        story.today - int(generator.integers(0, 12)),
        evidence=float(generator.exponential(10)),
        slope=float(generator.normal(0.8, 0.3)),
        rate_ratio=float(generator.lognormal(0, 0.2)),
    )
    story.live(
        shares if generator.random() < 0.85 else NONE,
        outcomes=int(generator.integers(0, 6_000)),
        trial=random_trial(generator),
        found=found if generator.random() < 0.7 else None,
        rivals={
            version: rival(float(generator.exponential(3)), float(generator.normal(0, 0.02)), story.today)
            for version in situation.archived
        },
        asked=("asked",) if generator.random() < 0.1 else (),
    )


@pytest.mark.parametrize("seed", range(8))
def test_whatever_happens_the_succession_stays_in_order(seed: int) -> None:
    generator = np.random.default_rng(seed)
    story, may_serve, made = Story(), {1}, set[int]()
    for _ in range(250):
        count = len(story.told)
        live_at_random(story, generator)
        for _, action in story.told[count:]:
            if action.kind == Kind.RETRAIN:
                assert action.version not in made | {1}
                made.add(action.version)
            elif action.kind in {Kind.PROMOTE, Kind.REJECT}:
                assert action.version in made
                assert action.version not in may_serve
                may_serve |= {action.version} if action.kind == Kind.PROMOTE else set()
        situation = story.situation
        assert {situation.champion, *situation.archived} == may_serve
        assert len({situation.champion, *situation.archived}) == 1 + len(situation.archived)
        assert situation.challenger is None or situation.episode is not None
        assert situation.newest == max({1, *made})
        story.situation = Situation.from_facts(json.loads(json.dumps(situation.as_facts())))
        assert story.situation == situation
    assert {action.kind for _, action in story.told} == set(Kind)
    assert most_in_a_month(story.of(Kind.RETRAIN)) <= RULE.budget


def test_a_challenger_that_another_alarm_or_a_return_leaves_behind_is_rejected_on_the_record() -> None:
    story = Story(situation=on_trial())
    assert story.live(found=change(20)) == ("alarm", "reject")
    story = Story(situation=replace(on_trial(), archived=(7,)))
    assert story.live(rivals={7: rival(30.0)}) == ("rollback", "reject")
    assert [action.version for _, action in story.told] == [7, on_trial().newest]
