"""The reign over real stores: what is in force follows the journal, whatever happens, whenever a process is killed."""

from __future__ import annotations

import random
import shutil
import sqlite3
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd
import pytest

from loan_assets.asked_runs import FIRST_WAIT
from loan_assets.books import LoanBook, Role
from loan_assets.credit.daily import Arrived, Feed, JudgedBatch
from loan_assets.credit.label_quality import LabelMemory
from loan_assets.credit.ledger import Rows
from loan_assets.credit.quality import OK
from loan_assets.credit.scoring import Calibration
from loan_assets.credit.succession import CANARY, SHADOW, Action, Kind
from loan_assets.credit.versions import Origin
from loan_assets.policy import Promotion
from loan_assets.prediction_record import PredictionRecord, Shadow
from loan_assets.refusal import Refusal
from loan_assets.reign import RETRAIN, SUCCEED, Reign
from loan_assets.release import ORIGIN, REFERENCE, write_release
from loan_assets.resources.asset_store import _save
from loan_assets.resources.decisions import FIRST, GATE, MOVED, NAMED, PERSON, STAGED, WATCH
from loan_assets.resources.experiments import alone
from loan_assets.resources.live_history import Memory
from loan_assets.resources.prediction_logs import PredictionLogs
from loan_assets.resources.registry import CHALLENGER, CHAMPION, Candidate, Registry
from loan_assets.sensors import act_on_decisions
from loan_assets.standing import Mode
from loan_assets_tests.conftest import Home, loan_assets
from loan_assets_tests.kill_drill import FIRST_DAY, Warm, answer_as_canary, last_of, on_trial, reign_of, warm
from loan_assets_tests.services import free_port, until

DAYS = ("2026-02-02", "2026-02-03", "2026-02-04", "2026-02-05", "2026-02-06")
BY_STEPS = Promotion(by_steps=True, shadow_answers=60, canary_answers=25)


@pytest.fixture(scope="module")
def begun(ran: Home, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose first version is in force, and in which two more were made, judged and released."""
    home = tmp_path_factory.mktemp("reign") / "home"
    for place in ("mlflow", "decisions", "releases"):
        shutil.copytree(ran.settings.home / place, home / place)
    journal = home / "decisions" / "journal.log"
    journal.write_bytes(b"".join(journal.read_bytes().splitlines(keepends=True)[:2]))
    reign = reign_of(home)
    release(reign, 2, ordered=FIRST_DAY)
    release(reign, 3, ordered="")
    return home


def release(reign: Reign, number: int, *, ordered: str) -> None:
    """Make a version of the first one's trees that thinks everybody a little more likely to default."""
    tags = reign.registry.tags(1)
    evidence = {name: value for name, value in tags.items() if name not in ("identity", "model_digest", "gate")}
    candidate = Candidate(identity=f"number {number}", model_digest=tags["model_digest"], evidence=evidence)
    version, is_new = reign.registry.register(candidate)
    assert (version.version, is_new) == (number, True)
    releases = reign.history.releases
    first, source = releases.champion_release(), Path(releases.root) / releases.champion().path
    calibration = Calibration(slope=1.0, intercept=0.6 + number / 100)
    origin = Origin.from_json((source / ORIGIN).read_text())
    origin = replace(origin, recipe="recalibrated", ordered=ordered, since=ordered, champion=1)

    def fill(folder: Path) -> None:
        facts = replace(first.facts, version=number, calibration=calibration)
        write_release(folder, facts, first.trees, (source / "model.onnx").read_bytes())
        shutil.copy2(source / REFERENCE, folder / REFERENCE)
        (folder / ORIGIN).write_text(origin.to_json())

    releases.publish(number, fill)


@pytest.fixture
def reign(begun: Path, tmp_path: Path) -> Reign:
    home = tmp_path / "home"
    shutil.copytree(begun, home)
    return reign_of(home)


def by_steps(reign: Reign) -> Reign:
    policy = replace(reign.history.policy, promotion=BY_STEPS)
    return replace(reign, history=replace(reign.history, policy=policy))


def kinds(reign: Reign) -> list[str]:
    return [step.kind for step in reign.decisions.steps()]


def in_force(reign: Reign) -> tuple[int, int]:
    """The versions that pointer and alias name."""
    return reign.history.releases.champion().version, reign.registry.aliases()[CHAMPION]


def beside(reign: Reign) -> tuple[int, str, float] | None:
    stands = reign.history.releases.standings().challenger
    return (stands.version, stands.mode.value, stands.share) if stands else None


# What a person asks for, and what is in force.


def test_the_first_version_is_put_in_force_once(reign: Reign) -> None:
    shutil.rmtree(reign.decisions.folder)
    shutil.rmtree(Path(reign.history.releases.root) / "standing")
    assert reign.what_is_due() is None
    moved = reign.put_in_force()
    assert moved is not None
    assert (moved.kind, moved.evidence["version"], moved.evidence["before"]) == (MOVED, 1, 0)
    assert in_force(reign) == (1, 1)
    assert reign.put_in_force() is None
    assert reign.begun() == moved
    assert kinds(reign) == [FIRST, MOVED]


def test_where_nothing_was_registered_nothing_begins(tmp_path: Path) -> None:
    reign = reign_of(tmp_path)
    assert (reign.begun(), reign.put_in_force(), reign.what_is_due()) == (None, None, None)
    for asked in (reign.ask, partial(reign.roll_back, None), partial(reign.approve, 1)):
        with pytest.raises(Refusal, match="There is no champion yet"):
            asked("why", "who")
    assert reign.decisions.steps() == ()


def test_a_promotion_moves_alias_then_pointer_and_says_how_long_it_took(reign: Reign) -> None:
    last = last_of(reign)
    action = Action(kind=Kind.PROMOTE, cause="better", version=2)
    situation = replace(on_trial(last.situation, 2), champion=2, archived=(1,), challenger=None)
    decided = reign.decisions.record(GATE, DAYS[1], (action,), situation, after=last.number)
    assert in_force(reign) == (1, 1)
    assert reign.what_is_due() == SUCCEED
    moved = reign.put_in_force()
    assert moved is not None
    assert moved.evidence["seconds"] >= 0
    said = {name: moved.evidence[name] for name in ("version", "before", "decided_in")}
    assert said == {"version": 2, "before": 1, "decided_in": decided.number}
    assert in_force(reign) == (2, 2)
    assert CHALLENGER not in reign.registry.aliases() or reign.registry.aliases()[CHALLENGER] != 2
    assert reign.what_is_due() is None
    assert reign.put_in_force() is None
    assert kinds(reign)[-2:] == [GATE, MOVED]


def test_a_person_brings_the_last_champion_back_with_the_cause_on_record(reign: Reign) -> None:
    reign.approve(2, "first", "the board")
    reign.approve(3, "then", "the board")
    decided, moved, waits = reign.roll_back(None, "complaints", "the engineer on call")
    assert moved is not None
    assert waits == ""
    assert (decided.kind, decided.by, decided.situation.champion) == (PERSON, "the engineer on call", 2)
    (action,) = decided.actions
    assert (action.kind, action.version) == (Kind.ROLLBACK, 2)
    assert action.cause == "complaints (asked by the engineer on call)"
    assert in_force(reign) == (2, 2)
    assert decided.situation.is_returned
    assert kinds(reign)[-3:] == [PERSON, MOVED, NAMED]
    with pytest.raises(Refusal, match=r"Version 2 came back already, on .* Name the version .* one of: 1, 3"):
        reign.roll_back(None, "asked twice", "the engineer on call")
    assert in_force(reign) == (2, 2)
    reign.roll_back(1, "an older one", "the engineer on call")
    assert in_force(reign) == (1, 1)
    assert last_of(reign).situation.archived == (3, 2)


def test_who_comes_back_answers_although_mlflow_is_away_and_its_alias_follows(reign: Reign) -> None:
    reign = by_steps(reign)
    reign.approve(3, "first", "the board")
    answer_as_canary(reign)
    assert beside(reign) is not None
    away = replace(reign, registry=Registry(tracking_uri=f"http://127.0.0.1:{free_port()}", artifacts=""))
    _, moved, waits = away.roll_back(1, "complaints", "the engineer on call")
    assert moved is not None
    assert moved.kind == MOVED
    assert "Version 1 is in force, and MLflow's alias has not followed yet. MLflow at http" in waits
    assert "run again" not in waits
    assert (in_force(reign), beside(reign)) == ((1, 3), None)
    assert reign.what_is_due() == SUCCEED
    with pytest.raises(Refusal, match="Version 1 is in force, and MLflow's alias"):
        away.put_in_force()
    assert kinds(reign)[-3:] == [PERSON, MOVED, STAGED]
    assert reign.put_in_force() is None
    assert in_force(reign) == (1, 1)
    assert kinds(reign)[-1] == NAMED
    assert reign.what_is_due() is None
    assert reign.put_in_force() is None
    assert kinds(reign)[-1] == NAMED


def test_a_new_version_waits_for_mlflow_and_nobody_is_told_to_decide_again(reign: Reign) -> None:
    away = replace(reign, registry=Registry(tracking_uri=f"http://127.0.0.1:{free_port()}", artifacts=""))
    for put in (lambda: away.approve(2, "better", "the board"), away.put_in_force):
        with pytest.raises(Refusal, match=r"Version 2 is decided on and not in force yet\. MLflow at http") as refused:
            put()
        assert "`loan-assets put-in-force`" in refused.value.next_step
        assert in_force(reign) == (1, 1)
    with pytest.raises(Refusal, match=r"Version 2 is decided on and not in force yet\. What was decided"):
        reign.approve(2, "better", "the board")
    assert kinds(reign) == [FIRST, MOVED, PERSON]
    assert reign.what_is_due() == SUCCEED
    assert reign.put_in_force() is not None
    assert in_force(reign) == (2, 2)


def test_the_command_brings_back_whatever_is_away_but_releases_and_journal(reign: Reign) -> None:
    reign.approve(2, "first", "the board")
    home, port = Path(reign.decisions.folder).parent, free_port()
    bucket = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "nobody",
        "AWS_SECRET_ACCESS_KEY": "nothing",
    }
    away = {
        "LOAN_MLFLOW_URI": f"http://127.0.0.1:{port}",
        "LOAN_DAGSTER_STORAGE": f"postgresql://nobody@127.0.0.1:{port}/dagster",
        "LOAN_ONLINE": f"redis://127.0.0.1:{port}/0",
        "LOAN_STORE": "s3://away/store",
        "LOAN_PREDICTIONS": "s3://away/predictions",
        "LOAN_OUTCOMES": "s3://away/outcomes",
        **bucket,
    }
    done = loan_assets("rollback", "--why", "complaints", home=home, **away)
    assert done.returncode == 0, done.stderr
    assert "Version 1 is in force after" in done.stdout
    assert "MLflow's alias has not followed yet" in done.stderr
    assert "Traceback" not in done.stderr
    assert in_force(reign) == (1, 2)
    assert reign.what_is_due() == SUCCEED
    refused = loan_assets("rollback", "--why", "complaints", home=home, LOAN_RELEASES="s3://away/releases", **bucket)
    assert refused.returncode == 1
    assert "LOAN_RELEASES" in refused.stderr


def test_of_two_who_come_back_at_once_mlflow_names_the_one_that_was_decided_last(reign: Reign) -> None:
    reign.approve(2, "first", "the board")
    reign.approve(3, "then", "the board")
    with ThreadPoolExecutor() as pool:
        with alone(reign.registry.tracking_uri, "registry"):
            returning = [pool.submit(reign.roll_back, 1, "complaints", "the engineer on call")]
            until(lambda: in_force(reign) == (1, 3), 30)
            returning += [pool.submit(reign.roll_back, 2, "more complaints", "another")]
            until(lambda: in_force(reign) == (2, 3), 30)
        assert [one.result(timeout=60)[2] for one in returning] == ["", ""]
    assert in_force(reign) == (2, 2)
    assert reign.what_is_due() is None
    assert [step.evidence["version"] for step in reign.decisions.steps() if step.kind == MOVED] == [1, 2, 3, 1, 2]


def test_what_never_was_champion_does_not_come_back(reign: Reign) -> None:
    with pytest.raises(Refusal, match="No other version was champion yet"):
        reign.roll_back(None, "why", "who")
    reign.approve(2, "why", "who")
    steps = reign.decisions.steps()
    for number in (2, 3, 9):
        with pytest.raises(Refusal, match=f"Version {number} never was champion") as refused:
            reign.roll_back(number, "why", "who")
        assert refused.value.next_step == "Versions that can come back: 1."
    assert reign.decisions.steps() == steps
    assert in_force(reign) == (2, 2)


def test_a_damaged_release_neither_comes_back_nor_is_approved(reign: Reign) -> None:
    reign.approve(2, "why", "who")
    steps = reign.decisions.steps()
    for number in (1, 3):
        _, folder = reign.history.releases.shelf_of(number)
        (folder / "release.json").write_text("{}")
    with pytest.raises(Refusal, match="is corrupt"):
        reign.roll_back(1, "why", "who")
    with pytest.raises(Refusal, match="is corrupt"):
        reign.approve(3, "why", "who")
    assert reign.decisions.steps() == steps
    assert in_force(reign) == (2, 2)


def test_a_person_puts_a_version_in_force_that_nobody_ordered(reign: Reign) -> None:
    decided, moved = reign.approve(3, "the board has seen it", "the chief risk officer")
    assert moved is not None
    assert (decided.kind, decided.by) == (PERSON, "the chief risk officer")
    (action,) = decided.actions
    assert (action.kind, action.version) == (Kind.PROMOTE, 3)
    assert action.cause.startswith("the board has seen it (approved by the chief risk officer; ")
    assert in_force(reign) == (3, 3)
    assert last_of(reign).situation.archived == (1,)


def test_neither_the_champion_nor_what_was_not_released_is_approved(reign: Reign) -> None:
    steps = reign.decisions.steps()
    with pytest.raises(Refusal, match="Version 1 is champion already"):
        reign.approve(1, "why", "who")
    with pytest.raises(Refusal, match="Version 9 has no release"):
        reign.approve(9, "why", "who")
    assert reign.decisions.steps() == steps
    assert in_force(reign) == (1, 1)


# By steps.


@dataclass(frozen=True)
class Served:
    """A platform whose policy takes steps, and the applications that it is asked about."""

    reign: Reign
    received: pd.DataFrame
    book: LoanBook
    logs: Path

    def answer(self, day: str, rows: int, *, off: float = 0.0) -> list[str]:
        """A day at the endpoint as the pointer says, its log read and its batch found healthy.

        Args:
            off: how far the challenger's scores are from what they should be.
        """
        history = self.reign.history
        standings = history.releases.standings()
        asked = self.received.sample(rows, random_state=int(day[-2:]))
        features = Rows.of(asked, self.book).features
        scored = {
            one.version: (history.version(one.version).score(features), one.digest)
            for one in (standings.champion, standings.challenger)
            if one is not None
        }
        watched = [column.name for column in self.book.with_role(Role.FEATURE, Role.PROTECTED)]
        names, folder = [f"{day}-{row}" for row in range(rows)], self.logs / day
        folder.mkdir(parents=True)
        with (folder / "one.log").open("wb") as log:
            for place, client in enumerate(asked.to_dict("records")):
                other, shadow = standings.challenger, None
                is_canary = other is not None and other.mode is Mode.CANARY and place % 4 == 0
                version = other.version if is_canary and other else standings.champion.version
                if other is not None and other.mode is Mode.SHADOW:
                    score, digest = scored[other.version]
                    shadow = Shadow(
                        model_version=other.version,
                        release_digest=digest,
                        default_probability=float(score[place]) + off,
                        decision="approve",
                    )
                score, digest = scored[version]
                record = PredictionRecord(
                    request_id=names[place],
                    row=0,
                    answered_at=f"{day}T09:00:00.000000+00:00",
                    route="/score",
                    asked_by="application",
                    client_id=int(client[self.book.key.name]),
                    book=self.book.name,
                    book_digest=self.book.digest,
                    model_version=version,
                    release_digest=digest,
                    arm="canary" if is_canary else "champion",
                    default_probability=float(score[place]) + (off if is_canary else 0.0),
                    decision="approve",
                    reasons=(),
                    received={name: float(client[name]) for name in watched},
                    features=tuple(float(value) for value in features[place]),
                    shadow=shadow,
                )
                log.write(record.line())
        read, damages = PredictionLogs(folder=str(self.logs)).read(day, self.book)
        assert (len(read), damages) == (rows, ())
        self.keep(f"prediction_log/{day}", read)
        batch = JudgedBatch(
            status=OK, rows=rows, reasons=(), set_aside=(), left_out=(), healthy=tuple(sorted(names)), feed=Feed()
        )
        self.keep(f"batch_quality/{day}", batch)
        return names

    def outcomes(self, arrive: str, asked: str, by: int) -> None:
        """The outcomes of a day, drawn from what one version thinks of its clients."""
        history = self.reign.history
        log: pd.DataFrame = history.store.read(f"prediction_log/{asked}", object)
        likely = history.version(by).score(log[list(self.book.feature_names)].to_numpy("float32"))
        label = np.random.default_rng(5).random(len(log)) < likely
        told = tuple(
            (str(name), int(value), f"{arrive}T12:00:00+00:00")
            for name, value in zip(log["request_id"], label, strict=True)
        )
        arrived = Arrived(
            status=OK, rows=len(told), reasons=(), set_aside=(), taken=told, held=(), released=(), memory=LabelMemory()
        )
        self.keep(f"outcome_quality/{arrive}", arrived)

    def keep(self, shelf: str, what: object) -> None:
        self.reign.history.store.store.write(shelf, partial(_save, what))

    def looked(self, day: str) -> tuple[str, tuple[int, str, float] | None]:
        """A day is looked at, the challenger judged and the verdict carried out, as the jobs do."""
        self.reign.watch(day, {})
        return self.judged()

    def judged(self) -> tuple[str, tuple[int, str, float] | None]:
        assert self.reign.what_is_due() == SUCCEED
        step = self.reign.judge()
        assert step is not None
        self.reign.put_in_force()
        assert self.reign.what_is_due() is None
        return str(step.evidence["verdict"]), beside(self.reign)


@pytest.fixture
def platform(reign: Reign, received: pd.DataFrame, book: LoanBook, tmp_path: Path) -> Served:
    """Version 2 was made to order and is better: 1,500 outcomes are as it says."""
    platform = Served(reign=by_steps(reign), received=received, book=book, logs=tmp_path / "logs")
    platform.answer(DAYS[0], 1_500)
    platform.outcomes(DAYS[1], DAYS[0], by=2)
    last = last_of(reign)
    situation = on_trial(last.situation, 2)
    assert situation.episode is not None
    episode = replace(situation.episode, causes=("outcomes",), rows=1_500)
    reign.decisions.record(WATCH, DAYS[1], (), replace(situation, episode=episode), after=last.number)
    return platform


def test_a_better_challenger_takes_over_by_steps_as_the_answers_come_in(platform: Served) -> None:
    reign = platform.reign
    assert platform.judged() == ("shadow", (2, "shadow", 0.0))
    platform.answer(DAYS[2], 40)
    assert platform.looked(DAYS[2]) == ("shadow", (2, "shadow", 0.0))
    platform.answer(DAYS[3], 80)
    assert platform.looked(DAYS[3]) == ("canary", (2, "canary", BY_STEPS.canary_share))
    assert in_force(reign) == (1, 1)
    platform.answer(DAYS[4], 80)
    assert platform.looked(DAYS[4]) == ("canary", (2, "canary", BY_STEPS.canary_share))
    platform.answer("2026-02-07", 80)
    assert platform.looked("2026-02-07") == ("promote", None)
    assert in_force(reign) == (2, 2)
    promoted = [action for step in reign.decisions.steps() for action in step.actions if action.kind is Kind.PROMOTE]
    assert promoted[-1].cause.endswith("40 answers as a canary")
    staged = [step.evidence for step in reign.decisions.steps() if step.kind == STAGED]
    assert [(one["challenger"], one["stage"]) for one in staged] == [(2, "shadow"), (2, "canary"), (0, "")]


def test_the_same_day_is_judged_once(platform: Served) -> None:
    platform.judged()
    steps = platform.reign.decisions.steps()
    assert platform.reign.judge() == next(step for step in reversed(steps) if step.kind == GATE)
    assert platform.reign.put_in_force() is None
    assert platform.reign.decisions.steps() == steps


@pytest.mark.parametrize("stage", [SHADOW, CANARY])
def test_scores_that_are_not_the_platforms_dismiss_the_challenger(platform: Served, stage: str) -> None:
    platform.judged()
    if stage == CANARY:
        platform.answer(DAYS[2], 80)
        assert platform.looked(DAYS[2])[0] == CANARY
    platform.answer(DAYS[3], 80, off=2e-9)
    verdict, stands = platform.looked(DAYS[3])
    assert (verdict, stands) == ("reject", None)
    assert in_force(platform.reign) == (1, 1)
    rejected = [step for step in platform.reign.decisions.steps() if step.kind == GATE][-1]
    assert f"dismissed in {stage}: the endpoint's scores are up to 2e-09 from" in rejected.actions[0].cause


def test_a_last_bit_is_not_another_model(platform: Served) -> None:
    platform.judged()
    platform.answer(DAYS[2], 80, off=1e-12)
    assert platform.looked(DAYS[2])[0] == CANARY


def test_a_new_alarm_dismisses_who_stands(platform: Served) -> None:
    platform.judged()
    step = platform.reign.ask("a merger", "the board")
    assert [action.kind for action in step.actions] == [Kind.ALARM, Kind.REJECT, Kind.RETRAIN]
    assert platform.reign.what_is_due() == SUCCEED
    platform.reign.put_in_force()
    assert beside(platform.reign) is None
    assert platform.reign.what_is_due() == RETRAIN


def test_a_run_that_failed_is_asked_for_again_by_the_sensor(platform: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    reign, history = platform.reign, platform.reign.history
    reign.ask("drift", "monitoring", ["A"])
    memory = Memory(store=history.store.root, releases=history.releases.root)

    @dg.op
    def fail() -> None:
        raise dg.Failure("the store is away")

    @dg.job
    def retrain() -> None:
        fail()

    with dg.DagsterInstance.ephemeral() as instance:

        def looked() -> tuple[str, ...]:
            with dg.build_sensor_context(instance=instance) as context:
                said = act_on_decisions(context, decisions=reign.decisions, memory=memory, registry=reign.registry)
            assert isinstance(said, dg.SensorResult | dg.SkipReason)
            return (
                tuple(str(one.run_key) for one in said.run_requests or ()) if isinstance(said, dg.SensorResult) else ()
            )

        (key,) = looked()
        assert key == f"{RETRAIN}-{last_of(reign).number}"
        ran = retrain.execute_in_process(instance=instance, tags={"dagster/run_key": key}, raise_on_error=False)
        assert not ran.success
        assert looked() == ()
        late = time.time() + FIRST_WAIT + 1
        monkeypatch.setattr("loan_assets.sensors.time", SimpleNamespace(time=lambda: late))
        assert looked() == (f"{key}-1",)


def test_an_alarm_that_is_raised_again_is_the_same_alarm(platform: Served) -> None:
    reign = platform.reign
    first = reign.ask("drift", "monitoring", ["A"])
    assert [action.kind for action in first.actions] == [Kind.ALARM, Kind.REJECT, Kind.RETRAIN]
    assert reign.ask("drift, more of it", "monitoring", ["A"]) == first
    assert last_of(reign) == first
    second = reign.ask("drift and delays", "monitoring", ["B", "A"])
    assert [action.kind for action in second.actions] == [Kind.ALARM]
    assert reign.ask("delays", "monitoring", ["B"]) == second
    assert reign.ask("both", "monitoring", ["A", "B"]) == second
    assert last_of(reign) == second
    # What a person says is known by its words.
    third = reign.ask("a merger", "the board")
    assert reign.ask("a merger", "the board") == third
    assert reign.ask("a merger", "the regulator").number == third.number + 1


def test_an_alarm_against_another_champion_is_another(reign: Reign) -> None:
    first = reign.ask("drift", "monitoring", ["A"])
    reign.approve(2, "why", "who")
    again = reign.ask("drift", "monitoring", ["A"])
    assert again.number > first.number
    assert again.actions[0].version == 2


def test_a_hundred_alarms_at_once_order_one_retraining(platform: Served) -> None:
    before = last_of(platform.reign).number
    for number in range(100):
        platform.reign.ask("drift", "monitoring", [f"alert {number % 10}"])
    asked = [step for step in platform.reign.decisions.steps() if step.number > before]
    assert len(asked) == 10
    assert [action.kind for step in asked for action in step.actions].count(Kind.RETRAIN) == 1


def test_a_rollback_dismisses_who_stands(reign: Reign) -> None:
    reign = by_steps(reign)
    reign.approve(3, "why", "who")
    answer_as_canary(reign)
    assert beside(reign) == (2, "canary", BY_STEPS.canary_share)
    reign.roll_back(None, "why", "who")
    assert (in_force(reign), beside(reign)) == ((1, 1), None)
    assert reign.what_is_due() is None


def test_who_is_dismissed_leaves_before_another_is_trained(reign: Reign) -> None:
    last = last_of(reign)
    reign.decisions.record(GATE, DAYS[1], (), on_trial(last.situation, 2, CANARY), {"challenger": 2}, after=last.number)
    reign.put_in_force()
    last = last_of(reign)
    ordered = on_trial(last.situation, 4)
    assert ordered.challenger is not None
    ordered = replace(ordered, challenger=replace(ordered.challenger, made=DAYS[2]))
    reign.decisions.record(WATCH, DAYS[2], (), ordered, after=last.number)
    assert reign.what_is_due() == SUCCEED
    assert reign.judge() is None
    reign.put_in_force()
    assert beside(reign) is None
    assert reign.what_is_due() == RETRAIN


def test_who_was_put_there_by_a_person_stays(reign: Reign) -> None:
    reign = by_steps(reign)
    reign.history.releases.challenge(3, Mode.CANARY, 0.3)
    assert reign.put_in_force() is None
    assert reign.what_is_due() is None
    reign.approve(2, "why", "who")
    assert beside(reign) == (3, "canary", 0.3)
    assert reign.what_is_due() is None


def test_a_person_may_let_stand_whom_the_journal_let_stand_before(reign: Reign) -> None:
    reign = by_steps(reign)
    last = last_of(reign)
    reign.decisions.record(GATE, DAYS[1], (), on_trial(last.situation, 2, SHADOW), {"challenger": 2}, after=last.number)
    reign.put_in_force()
    reign.approve(2, "why wait", "the board")
    reign.roll_back(1, "too early", "the board")
    reign.history.releases.challenge(2, Mode.SHADOW)
    assert reign.put_in_force() is None
    assert beside(reign) == (2, "shadow", 0.0)
    assert reign.what_is_due() is None


# Killed at every instant.


@dataclass(frozen=True)
class Drill:
    """A place in which a deed is done again and again, each time from the same start, and killed."""

    warmed: Warm
    start: Path

    def reset(self) -> None:
        shutil.rmtree(self.warmed.home)
        shutil.copytree(self.start, self.warmed.home)

    def ask(self, work: str) -> Any:
        return self.warmed.ask(work)["gave"]

    def kill(self, deed: str, *, at: int = -1, seconds: float = 0.0) -> None:
        """From the start, and killed; a random moment may come after the end."""
        self.reset()
        told = self.warmed.ask(deed, at=at, seconds=seconds)
        assert told["is_killed"] or seconds

    def journal(self) -> bytes:
        return (self.warmed.home / "decisions" / "journal.log").read_bytes()

    def disk(self, aside: Path) -> tuple[object, ...]:
        """What rests in the home, but for instants and what is another in each process."""
        shutil.rmtree(aside, ignore_errors=True)
        shutil.copytree(self.warmed.home, aside)
        with closing(sqlite3.connect(aside / "mlflow" / "mlflow.db")) as tables:
            aliases = tables.execute("select alias, version from registered_model_aliases order by alias").fetchall()
        left = sorted((aside / "releases").rglob("*"))
        files = [path for path in left if not path.name.endswith((".lock", "holder"))]
        drafts = [path.name for path in files if ".draft-" in str(path.parent)]
        rest = {str(path): path.read_bytes() for path in files if path.is_file() and ".draft-" not in str(path)}
        return self.journal().count(b"\n"), aliases, drafts, rest

    def holds(self, old: dict[str, Any], new: dict[str, Any]) -> None:
        """After a kill: what is in force is whole, and a fresh process brings everything into agreement."""
        told = self.journal()
        assert told.startswith((self.start / "decisions" / "journal.log").read_bytes())
        mended = self.ask("mend")
        before, after = mended["before"], mended["after"]
        assert before["champion"] in (old["champion"], new["champion"])
        assert before["was_judged"]
        assert before["challenger"] in (old["challenger"], new["challenger"], None)
        right = new if before["steps"] > old["steps"] else old
        for part in ("champion", "challenger", "decided", "due"):
            assert after[part] == right[part], part
        assert after["aliases"][CHAMPION] == right["champion"]
        assert after["steps"] == right["steps"]
        # The sensor asks for the run exactly where something is left to do.
        parts = ("champion", "challenger", "steps")
        assert before["due"] == (None if all(before[part] == right[part] for part in parts) else SUCCEED)
        assert mended["stays"]
        assert self.journal().startswith(told[: told.rfind(b"\n") + 1])


# What is done, and what was done before it.
STORIES: dict[str, tuple[str, ...]] = {
    "promote": (),
    "roll_back": ("promote",),
    "stand_in_shadow": (),
    "answer_as_canary": ("stand_in_shadow",),
    "promote_from_canary": ("stand_in_shadow", "answer_as_canary"),
    "dismiss": ("stand_in_shadow", "answer_as_canary"),
    "approve_another": ("stand_in_shadow", "answer_as_canary"),
}


@pytest.fixture(scope="module")
def warmed(begun: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warm]:
    home = tmp_path_factory.mktemp("drill") / "home"
    shutil.copytree(begun, home)
    with warm(home) as process:
        process.ask("seen")  # MLflow's own tables have followed the copy
        shutil.copytree(home, home.with_name("begun"))
        yield process


@pytest.fixture
def drill(request: pytest.FixtureRequest, warmed: Warm, tmp_path: Path) -> Drill:
    first = Drill(warmed=warmed, start=warmed.home.with_name("begun"))
    first.reset()
    for deed in STORIES[request.node.callspec.params["deed"]]:
        warmed.ask(deed)
    start = tmp_path / "start"
    shutil.copytree(warmed.home, start)
    return Drill(warmed=warmed, start=start)


@pytest.mark.parametrize("deed", list(STORIES))
def test_a_kill_at_any_instant_leaves_the_old_or_the_new_and_a_fresh_process_agrees(
    drill: Drill, deed: str, tmp_path: Path
) -> None:
    old = drill.ask("seen")
    instants = drill.warmed.ask(deed, at=0)["instants"]
    new = drill.ask("seen")
    assert (old["due"], new["due"]) == (None, None)
    assert new["steps"] > old["steps"]
    assert instants >= 15
    disk: tuple[object, ...] = ()
    states = 0
    for at in range(1, instants + 1):
        drill.kill(deed, at=at)
        disk, before = drill.disk(tmp_path / "aside"), disk
        if disk != before:
            states += 1
            drill.holds(old, new)
    assert states >= 5
    sys.stdout.write(f"{deed}: killed at {instants} instants, {states} states of the disk\n")


@pytest.mark.parametrize("deed", ["promote", "roll_back", "promote_from_canary"])
def test_a_kill_at_a_random_moment_leaves_the_old_or_the_new(drill: Drill, deed: str) -> None:
    old = drill.ask("seen")
    drill.ask(deed)
    new = drill.ask("seen")
    generator = random.Random(deed)
    for _ in range(6):
        drill.kill(deed, seconds=generator.uniform(0.0, 0.15))
        drill.holds(old, new)


@pytest.mark.parametrize("deed", ["stand_in_shadow", "answer_as_canary"])
def test_who_a_kill_left_standing_is_dismissed_by_the_next_decision(drill: Drill, deed: str) -> None:
    instants = drill.warmed.ask(deed, at=0)["instants"]
    for at in range(1, instants + 1):
        drill.kill(deed, at=at)
        drill.ask("dismiss")
        assert drill.ask("seen")["challenger"] is None
