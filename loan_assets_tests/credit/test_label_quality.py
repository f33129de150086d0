"""Broken label feeds are refused, and a world in which the champion fails is not."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from loan_assets.books import LoanBook, Role
from loan_assets.credit.base_rates import DOUBTFUL, IMPOSSIBLE
from loan_assets.credit.label_quality import NONE, OK, QUARANTINED, LabelMemory, LabelVerdict, judge_labels
from loan_assets.policy import POLICY

LABELS = POLICY.label_quality
FIRST = pd.Timestamp("2026-03-01", tz="UTC")

Change = Callable[[pd.DataFrame], pd.DataFrame]


@dataclass(frozen=True)
class World:
    """Clients with the champion's score, and how their loans end."""

    clients: pd.DataFrame
    outcome: pd.Series

    def arrival(self, rows: int, number: int) -> tuple[pd.DataFrame, pd.DataFrame, str]:
        """Labels of requests of five days before, those requests, and the day of arrival."""
        drawn = self.clients.sample(rows, random_state=number)
        arrived_on = FIRST + pd.Timedelta(days=number)
        ids = [f"{number}-{index}" for index in drawn.index]
        asked_on = (arrived_on - pd.Timedelta(days=5)).strftime("%Y-%m-%d")
        asked = drawn.assign(request_id=ids, day=asked_on).reset_index(drop=True)
        at = arrived_on + pd.Timedelta(hours=3)
        outcome = self.outcome.loc[drawn.index].to_numpy()
        arrived = pd.DataFrame({"request_id": ids, "label": outcome, "label_timestamp": at})
        return arrived, asked, arrived_on.strftime("%Y-%m-%d")

    def judged(
        self, rows: int, number: int, memory: LabelMemory, change: Change = lambda labels: labels
    ) -> LabelVerdict:
        arrived, asked, day = self.arrival(rows, number)
        return judge_labels(change(arrived), asked, memory, LABELS, day)


@pytest.fixture(scope="module")
def world(received: pd.DataFrame, book: LoanBook) -> World:
    """The real outcomes, scored by a plain linear model of the statuses with an AUC near the champion's."""
    from sklearn.linear_model import LogisticRegression

    features = received[[column.name for column in book.with_role(Role.FEATURE, Role.PROTECTED)]]
    statuses = features.filter(like="pay_status")
    inputs = np.column_stack([statuses, statuses > 0, statuses > 1, features["credit_limit"] / 1e5])
    score = LogisticRegression(max_iter=2_000).fit(inputs, received["defaulted"]).predict_proba(inputs)[:, 1]
    return World(clients=features.assign(score=score), outcome=received["defaulted"])


def another(world: World, outcome: np.ndarray) -> World:
    return World(clients=world.clients, outcome=pd.Series(outcome, index=world.outcome.index))


def partly_random(world: World, kept: float) -> World:
    generator = np.random.default_rng(1)
    fresh = generator.permutation(world.outcome.to_numpy())
    return another(world, np.where(generator.random(len(fresh)) < kept, world.outcome, fresh))


@pytest.fixture(scope="module")
def known(world: World) -> dict[int, LabelMemory]:
    memories = {}
    for rows in (100, 250):
        memory = LabelMemory()
        for number in range(5):
            memory = world.judged(rows, number, memory).memory
        memories[rows] = memory
    return memories


def shuffled(labels: pd.DataFrame) -> pd.DataFrame:
    return labels.assign(label=np.random.default_rng(len(labels)).permutation(labels["label"].to_numpy()))


def in_part(column: str, value: Any) -> Change:
    def change(labels: pd.DataFrame) -> pd.DataFrame:
        return labels.assign(**{column: labels[column].astype(object).where(labels.index % 5 > 0, value)})

    return change


FAULTS: dict[str, Change] = {
    "all paid": lambda labels: labels.assign(label=0),
    "all defaulted": lambda labels: labels.assign(label=1),
    "flipped": lambda labels: labels.assign(label=1 - labels["label"]),
    "unknown requests": lambda labels: labels.assign(
        request_id=labels["request_id"].where(labels.index % 3 > 0, "x" + labels["request_id"])
    ),
    "contradictions": lambda labels: pd.concat([labels, labels.assign(label=1 - labels["label"])]),
    "another code": in_part("label", 2),
    "words": in_part("label", "paid"),
    "numbers as text": lambda labels: labels.assign(label=labels["label"].astype(str)),
    "empty": in_part("label", None),
    "before the request": in_part("label_timestamp", pd.Timestamp("2026-01-01", tz="UTC")),
    "from the future": in_part("label_timestamp", pd.Timestamp("2027-01-01", tz="UTC")),
    "no label": lambda labels: labels.drop(columns="label"),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("rows", [100, 250])
def test_a_broken_label_feed_is_refused(fault: str, rows: int, world: World, known: dict[int, LabelMemory]) -> None:
    for memory in (LabelMemory(), known[rows]):
        verdict = world.judged(rows, 9, memory, FAULTS[fault])
        assert (verdict.status, len(verdict.labels)) == (QUARANTINED, 0)
        assert verdict.rows > 0
        assert verdict.reasons


def test_an_arrival_that_lost_nearly_all_of_its_defaults_is_refused(
    world: World, known: dict[int, LabelMemory]
) -> None:
    def defaults_lost(labels: pd.DataFrame) -> pd.DataFrame:
        return labels[(labels["label"] == 0) | (labels.index % 20 == 0)]

    for number in range(10, 14):
        verdict = world.judged(250, number, known[250], defaults_lost)
        assert verdict.status == QUARANTINED
        assert "label: has a base rate that no change of the world explains" in verdict.reasons[0]


def judged_after(world: World, few: int, number: int, memory: LabelMemory, change: Change) -> LabelVerdict:
    """An arrival of 250 judged where an earlier, smaller one may be waiting."""
    arrived, asked, day = world.arrival(250, number)
    _, earlier, _ = world.arrival(few, 9)
    return judge_labels(change(arrived), pd.concat([earlier, asked]), memory, LABELS, day)


def test_what_waited_for_an_arrival_that_is_held_is_held_with_it(world: World, known: dict[int, LabelMemory]) -> None:
    few = world.judged(10, 9, known[250])
    assert (few.status, len(few.memory.waiting)) == (NONE, 10)
    doubtful = world.judged(250, 10, known[250], shuffled).memory
    for waiting, rows in (((), 250), (few.memory.waiting, 260)):
        held = judged_after(world, 10, 11, replace(doubtful, waiting=waiting), shuffled)
        assert (held.status, len(held.labels), held.memory.waiting) == (QUARANTINED, 0, ())
        assert held.held is not None
        assert len(held.held) == rows


def test_a_broken_arrival_does_not_take_along_what_waited(world: World, known: dict[int, LabelMemory]) -> None:
    waiting = world.judged(10, 9, known[250]).memory
    broken = judged_after(world, 10, 10, waiting, FAULTS["flipped"])
    assert (broken.status, broken.memory.waiting, broken.held) == (QUARANTINED, waiting.waiting, None)
    assert len(judged_after(world, 10, 11, broken.memory, lambda labels: labels).labels) == 260


def test_shuffled_outcomes_are_refused_and_what_follows_them_is_taken(
    world: World, known: dict[int, LabelMemory]
) -> None:
    memory, reasons = known[250], []
    for number in range(10, 14):
        verdict = world.judged(250, number, memory, shuffled)
        reasons.append(verdict.reasons)
        memory = LabelMemory.from_json(verdict.memory.to_json())
    assert reasons == [("label: goes with nothing known about the applicants (250 rows)",)] * 4
    repaired = world.judged(250, 14, memory)
    assert (repaired.status, repaired.released) == (OK, ())


def test_a_hundred_shuffled_outcomes_a_day_are_refused_within_days(world: World, known: dict[int, LabelMemory]) -> None:
    memory, statuses = known[100], []
    for number in range(10, 16):
        verdict = world.judged(100, number, memory, shuffled)
        memory = verdict.memory
        statuses.append(verdict.status)
    assert statuses[-3:] == [QUARANTINED] * 3


@pytest.mark.parametrize("rows", [100, 250])
def test_unchanged_arrivals_are_all_taken(rows: int, world: World) -> None:
    memory = LabelMemory()
    for number in range(40):
        verdict = world.judged(rows, number, memory)
        assert (verdict.status, verdict.rows, verdict.set_aside) == (OK, rows, ())
        memory = verdict.memory
    assert len(memory.to_json()) < 20_000


@pytest.mark.parametrize("rows", [100, 250])
def test_a_base_rate_that_doubles_or_falls_is_news_by_its_second_day(
    rows: int, world: World, known: dict[int, LabelMemory]
) -> None:
    generator = np.random.default_rng(2)
    outcome, score = world.outcome.to_numpy(), world.clients["score"].to_numpy()
    more = np.maximum(outcome, generator.random(len(outcome)) < 1.2 * score)
    fewer = outcome * (generator.random(len(outcome)) < 0.4)
    for changed in (another(world, more), another(world, fewer)):
        memory = known[rows]
        held: set[str] = set()
        for number in range(20, 40):
            verdict = changed.judged(rows, number, memory)
            memory = LabelMemory.from_json(verdict.memory.to_json())
            held -= set(verdict.released)
            assert verdict.status == OK or not held
            held |= {verdict.memory.leaning[-1].day} if verdict.status == QUARANTINED else set()
        assert not held


def losing(share: float) -> Change:
    """A feed in which so many of the defaults are lost."""
    return lambda labels: labels[
        (labels["label"] == 0) | (np.random.default_rng(len(labels)).random(len(labels)) >= share)
    ]


def test_defaults_lost_day_after_day_are_refused_together_where_one_day_could_not_tell(
    world: World, known: dict[int, LabelMemory]
) -> None:
    alone = [world.judged(250, number, known[250], losing(0.9)) for number in range(10, 15)]
    assert any(DOUBTFUL in verdict.reasons[0] for verdict in alone)
    memory = known[250]
    for number in range(10, 15):
        verdict = world.judged(250, number, memory, losing(0.9))
        memory = LabelMemory.from_json(verdict.memory.to_json())
        assert (verdict.status, len(verdict.labels)) == (QUARANTINED, 0)
    assert IMPOSSIBLE in verdict.reasons[0]
    repaired = world.judged(250, 15, memory)
    assert (repaired.status, repaired.released, repaired.memory.leaning) == (OK, (), ())


def test_one_day_beyond_the_base_rates_known_is_held_and_only_its_like_releases_it(
    world: World, known: dict[int, LabelMemory]
) -> None:
    odd = world.judged(250, 10, known[250], losing(0.75))
    assert (odd.status, DOUBTFUL in odd.reasons[0]) == (QUARANTINED, True)
    usual = world.judged(250, 11, odd.memory)
    assert (usual.status, usual.released) == (OK, ())
    like = world.judged(250, 11, odd.memory, losing(0.6))
    assert (like.status, like.released) == (OK, ("2026-03-11",))
    assert [one.day for one in like.memory.healthy[-2:]] == ["2026-03-11", "2026-03-12"]


def test_after_a_refused_day_one_on_the_boundary_is_refused_and_an_ordinary_one_taken(
    world: World, known: dict[int, LabelMemory]
) -> None:
    memory = world.judged(250, 10, known[250], losing(0.95)).memory
    boundary = world.judged(250, 11, memory, losing(0.85))
    assert boundary.reasons[0].startswith(f"label: {IMPOSSIBLE}")
    for number, before in ((11, memory), (12, boundary.memory)):
        assert world.judged(250, number, before).status == OK


def test_a_memory_from_before_arrivals_were_judged_together_can_be_read(known: dict[int, LabelMemory]) -> None:
    facts = json.loads(known[250].to_json())
    del facts["leaning"]
    assert LabelMemory.from_json(json.dumps(facts)) == known[250]


def test_a_changed_concept_is_taken_and_what_was_held_of_it_is_released(
    world: World, known: dict[int, LabelMemory]
) -> None:
    """The champion's AUC falls to 0.55, the base rate stays: other clients default now."""
    generator = np.random.default_rng(3)
    limit = world.clients["credit_limit"].rank(pct=True) - 0.5
    other = generator.random(len(limit)) < 1 / (1 + np.exp(1.5 - 3 * limit))
    changed = another(world, np.where(generator.random(len(limit)) < 0.4, world.outcome, other).astype("int64"))
    for concept in (changed, partly_random(world, 0.5)):
        memory, held, released = known[250], set(), set()
        for number in range(20, 32):
            verdict = concept.judged(250, number, memory)
            memory = verdict.memory
            released |= set(verdict.released)
            held |= {number} if verdict.status == QUARANTINED else set()
        assert len(held) - len(released) <= 2
        assert verdict.status == OK


def test_the_latest_label_wins_and_a_tie_of_contradictions_is_set_aside(world: World) -> None:
    def corrected(labels: pd.DataFrame) -> pd.DataFrame:
        later = labels.head(10).assign(
            label=1 - labels["label"], label_timestamp=labels["label_timestamp"] + pd.Timedelta(hours=1)
        )
        tied = labels.iloc[20:22].assign(label=1 - labels["label"])
        return pd.concat([later, labels, labels.tail(5), tied])

    arrived, _, _ = world.arrival(250, 3)
    verdict = world.judged(250, 3, LabelMemory(), corrected)
    taken = verdict.labels.set_index("request_id")["label"]
    assert (verdict.status, verdict.rows) == (OK, 248)
    assert (taken[arrived["request_id"].head(10)].to_numpy() == 1 - arrived["label"].head(10)).all()
    assert verdict.set_aside == ("label: contradicts another of the same time (4 rows)",)


def test_corrections_of_a_refused_file_are_taken(world: World, known: dict[int, LabelMemory]) -> None:
    refused = world.judged(250, 7, known[250], FAULTS["all paid"])
    arrived, asked, _ = world.arrival(250, 7)
    later = arrived.assign(label_timestamp=arrived["label_timestamp"] + pd.Timedelta(days=2))
    verdict = judge_labels(later, asked, refused.memory, LABELS, "2026-03-10")
    assert (verdict.status, verdict.rows) == (OK, 250)


def test_a_few_labels_wait_for_the_next_ones(world: World) -> None:
    first = world.judged(20, 1, LabelMemory())
    assert (first.status, first.rows, len(first.labels)) == (NONE, 20, 0)
    _, asked_first, _ = world.arrival(20, 1)
    arrived, asked, day = world.arrival(20, 2)
    waiting = LabelMemory.from_json(first.memory.to_json())
    second = judge_labels(arrived, pd.concat([asked_first, asked]), waiting, LABELS, day)
    assert (second.status, second.rows, second.memory.waiting) == (OK, 40, ())


def test_a_day_without_labels_is_no_verdict(world: World, known: dict[int, LabelMemory]) -> None:
    _, asked, day = world.arrival(100, 1)
    verdict = judge_labels(None, asked, known[100], LABELS, day)
    assert (verdict.status, verdict.memory) == (NONE, known[100])


def instants(kind: str) -> Callable[[pd.DataFrame], pd.DataFrame]:
    """The instants of an arrival in another form that means the same, or in one that means nothing."""
    forms: dict[str, Callable[[pd.Series], Any]] = {
        "text": lambda at: at.map(lambda one: one.isoformat()),
        "categories of text": lambda at: at.map(lambda one: one.isoformat()).astype("category"),
        "categories of instants": lambda at: at.astype("category"),
        "instants as objects": lambda at: at.astype(object),
        "days": lambda at: at.map(lambda one: one.date()).astype(object),
        "without a zone": lambda at: at.dt.tz_localize(None),
        "truth": lambda at: True,
        "spans": lambda at: pd.to_timedelta(np.arange(len(at)), "s"),
        "numbers": lambda at: at.astype("int64"),
        "numbers and text": lambda at: [1, *at.map(lambda one: one.isoformat())[1:]],
        "nothing": lambda at: None,
    }
    return lambda labels: labels.assign(label_timestamp=forms[kind](labels["label_timestamp"]))


@pytest.mark.parametrize(
    "kind",
    ["text", "categories of text", "categories of instants", "instants as objects", "days", "without a zone"],
)
def test_an_instant_is_read_however_it_is_kept(kind: str, world: World) -> None:
    verdict = world.judged(250, 3, LabelMemory(), instants(kind))
    assert (verdict.status, verdict.rows, verdict.set_aside) == (OK, 250, ())


@pytest.mark.parametrize("kind", ["truth", "spans", "numbers", "nothing"])
def test_what_is_no_instant_is_refused_by_name(kind: str, world: World) -> None:
    verdict = world.judged(250, 3, LabelMemory(), instants(kind))
    assert (verdict.status, verdict.reasons) == (QUARANTINED, ("label_timestamp: is not a time (250 rows)",))


def test_one_instant_that_is_a_number_is_set_aside_alone(world: World) -> None:
    verdict = world.judged(250, 3, LabelMemory(), instants("numbers and text"))
    assert (verdict.status, verdict.rows) == (OK, 249)
    assert verdict.set_aside == ("label_timestamp: is not a time (1 row)",)
