"""What Prometheus reads of the platform: what the journal, the assets and the runs say, each of it read once."""

from __future__ import annotations

import math
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import numpy as np
import pandas as pd
import pytest
from prometheus_client.parser import text_string_to_metric_families

from loan_assets.backup_figures import BackupFigures
from loan_assets.books import LoanBook
from loan_assets.credit.in_life import LiveFairness
from loan_assets.credit.succession import Action, Challenger, Episode, Kind, Situation
from loan_assets.figures import page
from loan_assets.journal_figures import VERDICTS, decided, verdict_of
from loan_assets.place import place_at
from loan_assets.platform_metrics import PlatformMetrics
from loan_assets.policy import POLICY
from loan_assets.refusal import Away
from loan_assets.resources.asset_store import AssetStore
from loan_assets.resources.decisions import FIRST, GATE, MOVED, PERSON, WATCH, Decisions, Known, Step
from loan_assets.run_figures import Rates
from loan_assets.vault import Backup, Vault
from loan_assets_tests.conftest import Home
from loan_assets_tests.services import free_port

DAY = "2026-11-24"
MEGABYTE = 1_000_000


def figures(content: bytes) -> dict[str, float]:
    """Every sample by its name and labels."""
    families = text_string_to_metric_families(content.decode())
    return {
        " ".join((sample.name, *sample.labels.values())): sample.value
        for family in families
        for sample in family.samples
    }


def of_steps(
    steps: tuple[Step, ...], now: datetime, deliveries: tuple[float, ...] = (), outcomes: tuple[float, ...] = ()
) -> dict[str, float]:
    return figures(page(decided(steps, POLICY, now, deliveries, outcomes)))


def recorded(folder: Path) -> Decisions:
    """A journal: version 1 stands, inputs move, version 2 takes over and is left again."""
    journal = Decisions(folder=str(folder))

    def put(kind: str, situation: Situation, *kinds: Kind, **evidence: object) -> None:
        actions = [Action(kind=one, cause="why", version=situation.champion) for one in kinds]
        steps = journal.steps()
        journal.record(kind, DAY, actions, situation, evidence, after=len(steps))

    first = Situation(champion=1, newest=1)
    put(FIRST, first, Kind.PROMOTE)
    put(MOVED, first, version=1, before=0, seconds=0.5, decided_in=1)
    moved = replace(first, consecutive=3, retrained=(DAY,), episode=Episode(since=DAY, opened=DAY, causes=("inputs",)))
    on_trial = replace(moved, challenger=Challenger(number=2, made=DAY))
    put(WATCH, on_trial, Kind.ALARM, Kind.RETRAIN, shares={"1": 0.42})
    second = replace(on_trial, champion=2, archived=(1,), consecutive=0, challenger=None)
    put(GATE, second, Kind.PROMOTE, challenger=2, verdict="promote")
    put(MOVED, second, version=2, before=1, seconds=1.5, decided_in=4)
    back = replace(second, champion=1, archived=(2,), episode=None)
    put(WATCH, back, Kind.ROLLBACK, shares={"1": 0.05, "2": 0.6})
    return journal


def test_the_page_says_what_the_journal_says(tmp_path: Path, book: LoanBook) -> None:
    journal = recorded(tmp_path)
    steps = journal.steps()
    now = datetime.fromisoformat(steps[-1].at) + timedelta(seconds=600)
    trial = of_steps(steps[:3], now)
    assert trial["evidently_data_drift_score"] == trial["loan_drift_score 1"] == 0.42
    assert trial["loan_drift_consecutive_breaches"] == 3
    assert (trial["loan_question_open"], trial["loan_challenger_version"]) == (1, 2)
    left = POLICY.succession.budget - ((now.date() - datetime.fromisoformat(DAY).date()).days < 30)
    assert trial["loan_retrainings_left"] == left
    metrics = PlatformMetrics(journal, None, book, POLICY)
    waits = figures(metrics.page(now))
    assert waits == of_steps(steps, now)
    assert waits["evidently_data_drift_score"] == 0.05
    assert waits["loan_drift_score 2"] == 0.6
    assert waits["loan_champion_version"] == 1
    assert waits["loan_decided_not_in_force_seconds"] == pytest.approx(600, abs=1)
    assert (waits["loan_decisions_total promote"], waits["loan_decisions_total rollback"]) == (2, 1)
    assert waits["loan_gate_verdicts_total better promote"] == 1
    assert "loan_time_to_revert_seconds" not in waits
    # Another day is looked at: the decision waits no less for it.
    journal.record(WATCH, DAY, (), steps[-1].situation, {}, after=6)
    assert figures(metrics.page(now))["loan_decided_not_in_force_seconds"] == pytest.approx(600, abs=1)
    evidence = {"version": 1, "before": 2, "seconds": 2.5, "decided_in": 6}
    journal.record(MOVED, DAY, (), steps[-1].situation, evidence, after=7)
    done = figures(metrics.page(datetime.now(UTC)))
    assert (done["loan_time_to_revert_seconds"], done["loan_decided_not_in_force_seconds"]) == (2.5, 0)


def test_that_nobody_ever_watched_is_told_from_the_day_there_was_something_to_watch(tmp_path: Path) -> None:
    steps = recorded(tmp_path).steps()
    now = datetime.fromisoformat(steps[0].at) + timedelta(hours=40)
    assert steps[2].kind == WATCH
    assert of_steps(steps[:2], now)["loan_last_watch_seconds"] == 40 * 3_600
    assert of_steps(steps[:3], now)["loan_last_watch_seconds"] < 40 * 3_600
    assert "loan_last_watch_seconds" not in of_steps((), now)


def test_the_newest_backup_is_told_by_its_age_and_grows_old_where_its_place_is_away(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = datetime(2026, 11, 24, 2, 30, tzinfo=UTC)
    told = BackupFigures(bucket)

    def age(after: timedelta, of: BackupFigures = told) -> float | None:
        return figures(page(of.figures(made + after))).get("loan_backup_age_seconds")

    assert age(timedelta(), BackupFigures("")) is None
    assert age(timedelta()) == math.inf
    vault = Vault(place_at(bucket))
    for hour in (1, 2):
        at = (made.replace(hour=hour)).isoformat()
        vault.write(Backup(made=at, package="0.1.0", book="a", book_digest="b", parts={}))
    assert age(timedelta(minutes=4)) == math.inf  # a place is not listed at every scrape
    assert age(timedelta(minutes=5)) == 5 * 60
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    assert age(timedelta(minutes=60)) == 60 * 60


def test_who_asks_while_the_figures_are_read_is_told_so_and_waits_for_nobody(
    tmp_path: Path, book: LoanBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, over = threading.Event(), threading.Event()
    known_since = Decisions.known_since

    def long(self: Decisions, known: Known) -> Known:
        begun.set()
        assert over.wait(20)
        return known_since(self, known)

    monkeypatch.setattr(Decisions, "known_since", long)
    metrics, now = PlatformMetrics(recorded(tmp_path), None, book, POLICY), datetime.now(UTC)
    with ThreadPoolExecutor() as askers:
        first = askers.submit(metrics.page, now)
        assert begun.wait(20)
        second = askers.submit(metrics.page, now)
        try:
            with pytest.raises(Away, match="figures are still being read"):
                second.result(timeout=5)
        finally:
            over.set()
        assert figures(first.result()) == figures(metrics.page(now))


def test_a_model_s_lead_is_from_the_data_that_it_was_ordered_on_and_a_return_has_none(tmp_path: Path) -> None:
    steps = recorded(tmp_path).steps()
    begun, second = (datetime.fromisoformat(steps[place].at).timestamp() for place in (1, 4))
    now, delivered, told = datetime.now(UTC), (begun - 90.0,), (begun - 60.0, second + 60.0)
    assert of_steps(steps[:2], now, delivered, told)["loan_lead_time_seconds"] == pytest.approx(90)
    lead = of_steps(steps, now, delivered, told)["loan_lead_time_seconds"]
    assert lead == pytest.approx(second - begun + 60.0)
    moved = replace(steps[4], number=7, evidence={"version": 1, "before": 2, "seconds": 2.5, "decided_in": 6})
    assert of_steps((*steps, moved), now, delivered, told)["loan_lead_time_seconds"] == lead
    by_word = replace(steps[3], kind=PERSON)
    asked = of_steps((*steps[:3], by_word, steps[4]), now, (second - 5.0,), told)
    assert asked["loan_lead_time_seconds"] == pytest.approx(5.0)
    assert "loan_lead_time_seconds" not in of_steps(steps, now)


@pytest.mark.parametrize(
    ("evidence", "said"),
    [
        ({"challenger": 3}, ("reject", "nothing_new")),
        ({"verdict": "promote"}, ("promote", "better")),
        ({"verdict": "wait"}, ("wait", "undecided")),
        ({"verdict": "shadow"}, ("shadow", "on_stage")),
        ({"verdict": "canary"}, ("canary", "on_stage")),
        ({"verdict": "reject", "trial": {"against": ["the approval ratio by sex is 0.7"]}}, ("reject", "unfair")),
        ({"verdict": "reject", "trial": {"against": ["AUC 0.5 is below the floor"]}}, ("reject", "below_floor")),
        (
            {"verdict": "reject", "trial": {"against": []}, "served": {"farthest": 0.1}},
            ("reject", "unlike_at_endpoint"),
        ),
        ({"verdict": "reject", "trial": {"against": []}, "served": None}, ("reject", "not_better")),
    ],
)
def test_what_the_gate_said_is_one_of_a_few_verdicts_and_causes(
    evidence: dict[str, object], said: tuple[str, str], tmp_path: Path
) -> None:
    step = replace(recorded(tmp_path).steps()[3], evidence=evidence)
    assert verdict_of(step, POLICY) == said
    assert said in VERDICTS


def test_of_a_journal_only_what_is_new_is_read_and_a_restored_one_anew(tmp_path: Path) -> None:
    journal, file = recorded(tmp_path), tmp_path / "journal.log"
    known = journal.known_since(journal.known_since(journal.known_since(Known())))
    assert known.steps == journal.steps()
    before = file.read_bytes()
    journal.record(WATCH, DAY, (), known.steps[-1].situation, {}, after=6)
    written = file.read_bytes()
    file.write_bytes(b"#" * len(before) + written[len(before) :])  # what was read is not read again
    assert [step.number for step in journal.known_since(known).steps] == [1, 2, 3, 4, 5, 6, 7]
    file.write_bytes(before.splitlines(keepends=True)[0])
    assert len(journal.known_since(known).steps) == 1


def test_steps_of_a_journal_in_a_bucket_are_known_on_other_machines(bucket: str, tmp_path: Path) -> None:
    here, there = (Decisions(folder=str(tmp_path / name), bucket=bucket) for name in ("here", "there"))
    situation = Situation(champion=1, newest=1)
    here.record(FIRST, DAY, (), situation, after=0)
    known = there.known_since(Known())
    here.record(WATCH, DAY, (), situation, after=1)
    assert [len(known.steps), len(there.known_since(known).steps)] == [1, 2]


@dg.asset
def busy() -> pd.DataFrame:
    held = np.ones(40 * MEGABYTE)  # 320 MB
    for _ in range(4):
        np.sort(held[: 5 * MEGABYTE] * np.arange(5 * MEGABYTE) % 7)
    return pd.DataFrame({"held": [len(held)]})


@dg.asset_check(asset=busy)
def is_there(busy: pd.DataFrame) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=len(busy) == 1)


@dg.asset
def refused(busy: pd.DataFrame) -> pd.DataFrame:
    raise dg.Failure("the store is away")


def test_what_steps_cost_is_measured_where_they_run_and_read_once(tmp_path: Path, book: LoanBook) -> None:
    store, rates = AssetStore(root=str(tmp_path / "store"), keep=2), Rates(cpu=0.036, gigabyte=0.0036)
    with dg.DagsterInstance.ephemeral(str(tmp_path)) as instance:
        resources = {"io_manager": store}
        run = dg.materialize([busy, is_there, refused], instance=instance, resources=resources, raise_on_error=False)
        made = instance.get_latest_materialization_event(dg.AssetKey("busy"))
        metrics = PlatformMetrics(Decisions(folder=str(tmp_path)), instance, book, POLICY, rates)
        now = datetime.now(UTC)
        said = figures(metrics.page(now))
        assert 0.1 < said["loan_step_cpu_seconds_total busy"] < said["loan_step_seconds_total busy"] * 1.5
        idle = said["loan_step_peak_memory_bytes busy_is_there"]
        assert said["loan_step_peak_memory_bytes busy"] > idle + 200 * MEGABYTE
        assert said["loan_step_cpu_seconds_total refused"] < said["loan_step_cpu_seconds_total busy"]
        whole = sum(said[f"loan_step_cpu_seconds_total {step}"] for step in ("busy", "busy_is_there", "refused"))
        assert said["loan_run_cpu_seconds_total assets"] == said["loan_last_run_cpu_seconds assets"]
        assert said["loan_run_cpu_seconds_total assets"] == pytest.approx(whole)
        held = said["loan_step_peak_memory_bytes busy"] / 1e9 * said["loan_step_seconds_total busy"]
        price = (said["loan_step_cpu_seconds_total busy"] * 0.036 + held * 0.0036) / 3600
        assert said["loan_step_cost_total busy"] == pytest.approx(price)
        assert said["loan_runs_ended_total assets failure"] == said["loan_failed_runs"] == 1
        assert made is not None
        assert made.asset_materialization is not None
        shown = made.asset_materialization.metadata
        assert 0 < float(str(shown["cpu_seconds"].value)) <= said["loan_step_cpu_seconds_total busy"]
        # What was added up is not read again, and does not fall when Dagster forgets it.
        instance.event_log_storage.delete_events(run.run_id)
        assert figures(metrics.page(now)) == said
        later = figures(metrics.page(now + timedelta(hours=2)))
        assert (later["loan_failed_runs"], later["loan_runs_ended_total assets failure"]) == (0, 1)
        # A run that ended since is added, once.
        dg.materialize([busy, is_there], instance=instance, resources=resources)
        for _ in range(2):
            more = figures(metrics.page(datetime.now(UTC)))
            assert {more[f"loan_runs_ended_total assets {how}"] for how in ("success", "failure")} == {1.0}
            assert more["loan_run_cpu_seconds_total assets"] == pytest.approx(
                said["loan_run_cpu_seconds_total assets"] + more["loan_last_run_cpu_seconds assets"]
            )
        without = figures(PlatformMetrics(Decisions(folder=str(tmp_path)), instance, book, POLICY).page(now))
        assert not [name for name in without if "cost" in name]


def test_runs_that_wait_are_counted_and_told_how_long(tmp_path: Path, book: LoanBook) -> None:
    @dg.job
    def waiting() -> None:
        pass

    with dg.DagsterInstance.ephemeral() as instance:
        instance.create_run_for_job(waiting, status=dg.DagsterRunStatus.STARTED)
        instance.create_run_for_job(waiting, status=dg.DagsterRunStatus.NOT_STARTED)
        instance.create_run_for_job(waiting, status=dg.DagsterRunStatus.NOT_STARTED)
        metrics = PlatformMetrics(Decisions(folder=str(tmp_path)), instance, book, POLICY)
        said = figures(metrics.page(datetime.now(UTC) + timedelta(minutes=40)))
    assert (said["loan_runs executed"], said["loan_runs queued"]) == (1, 2)
    assert said["loan_longest_queued_seconds"] == pytest.approx(2400, abs=60)


def test_the_page_says_what_the_newest_assets_say(ran: Home, book: LoanBook) -> None:
    day = ran.settings.store.joinpath("live_fairness").iterdir()
    fairness: LiveFairness = ran.read(f"live_fairness/{max(path.name for path in day if path.is_dir())}", LiveFairness)
    with dg.DagsterInstance.from_config(str(ran.settings.dagster_home)) as instance:
        journal = Decisions.over(ran.settings)
        said = figures(PlatformMetrics(journal, instance, book, POLICY).page(datetime.now(UTC)))
    for attribute, ratio in fairness.approval_ratios.items():
        assert said[f"loan_approval_ratio {attribute}"] == pytest.approx(ratio)
        assert said[f"loan_approval_ratio_standard_error {attribute}"] == pytest.approx(fairness.errors[attribute])
    assert said["loan_features_age_seconds"] == 0
    assert said["loan_features_life_seconds"] == 45 * 86400
    assert said["loan_drift_reports_total steady"] >= 1
    assert said["loan_drift_distance_ratio credit_limit"] > 0
    assert 0 < said["loan_lead_time_seconds"] < 1800
    assert said["loan_run_cpu_seconds_total whole_graph"] > said["loan_step_cpu_seconds_total default_model"] > 1
