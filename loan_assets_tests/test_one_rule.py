"""One history, lived through by the asset graph and by the backtest: they decide the same, line by line."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import dagster as dg
import numpy as np
import pandas as pd
import pytest

from loan_assets import sensors
from loan_assets.books import LoanBook, Role
from loan_assets.credit.backtest import DayDecided, DayOfHistory, Replay
from loan_assets.credit.candidates import Trial
from loan_assets.credit.daily import Arrived, JudgedBatch, performance_on
from loan_assets.credit.drift import DriftReport
from loan_assets.credit.ledger import Rows
from loan_assets.credit.quality import BatchQuality
from loan_assets.credit.succession import Facts
from loan_assets.definitions import defs as front_door
from loan_assets.definitions import resources
from loan_assets.example_history import Course, changed_world
from loan_assets.histories import line_of
from loan_assets.policy import POLICY
from loan_assets.prediction_record import PredictionRecord
from loan_assets.reign import RETRAIN, Reign
from loan_assets.resources.decisions import GATE
from loan_assets.running import QUIET
from loan_assets.settings import Settings
from loan_assets_tests.conftest import Home, without_its_day

COURSE = Course(days=19, rows=240)


@dataclass(frozen=True)
class Platform:
    """A home, and its graph in a Dagster instance of its own."""

    settings: Settings
    reign: Reign
    instance: dg.DagsterInstance

    def run(self, job: str, day: str | None = None) -> None:
        """Run a job of the front door on this home, the Bento left out.

        BentoML holds on to the first store that it was opened on in a process, and nothing here is served.
        """
        made = sensors.retrain.selection - dg.AssetSelection.assets("loan_bento")
        here = dg.Definitions(
            assets=front_door.assets,
            asset_checks=front_door.asset_checks,
            jobs=[sensors.daily_watch, sensors.succeed, dg.define_asset_job(RETRAIN, selection=made)],
            executor=dg.in_process_executor,
            resources=resources(self.settings),
        )
        done = here.resolve_job_def(job).execute_in_process(instance=self.instance, partition_key=day, run_config=QUIET)
        assert done.success

    def answer(self, day: str, requests: pd.DataFrame, book: LoanBook) -> None:
        """Put a day's answers by the champion on record."""
        releases = self.reign.history.releases
        release, version = releases.champion_release(), releases.champion().version
        rows = Rows.of(requests, book)
        scores = release.score(rows.features)
        watched = [column.name for column in book.with_role(Role.FEATURE, Role.PROTECTED)]
        folder = self.settings.predictions / day
        folder.mkdir(parents=True)
        with (folder / "one.log").open("wb") as log:
            for place, asked in enumerate(requests.to_dict("records")):
                record = PredictionRecord(
                    request_id=asked["request_id"],
                    row=0,
                    answered_at=f"{day}T09:00:00.000000+00:00",
                    route="/score",
                    asked_by="application",
                    client_id=int(asked[book.key.name]),
                    book=book.name,
                    book_digest=book.digest,
                    model_version=version,
                    release_digest=release.digest,
                    arm="champion",
                    default_probability=float(scores[place]),
                    decision="refuse" if scores[place] >= release.facts.threshold else "approve",
                    reasons=(),
                    received={name: float(asked[name]) for name in watched},
                    features=tuple(float(value) for value in rows.features[place]),
                )
                log.write(record.line())

    def line(self, day: str, served_by: int, champion: int) -> str:
        """What the stores say of a day, in the form of the backtest's line."""
        history = self.reign.history
        batch: JudgedBatch = history.store.read(f"batch_quality/{day}", JudgedBatch)
        drift: DriftReport = history.store.read(f"drift_report/{day}", DriftReport)
        arrived: Arrived = history.store.read(f"outcome_quality/{day}", Arrived)
        steps = [step for step in self.reign.decisions.steps() if step.date == day]
        gates = [step for step in steps if step.kind == GATE]
        trial = Trial(**gates[-1].evidence["trial"]) if gates else None
        ledger = history.ledger(day)
        decided = DayDecided(
            answered_by=np.empty(0, dtype=np.int64),
            date=day,
            served_by=served_by,
            champion=champion,
            batch=BatchQuality(
                status=batch.status,
                rows=batch.rows,
                reasons=batch.reasons,
                set_aside=batch.set_aside,
                left_out=batch.left_out,
                healthy=np.ones(0, dtype=bool),
                shows_volume=True,
            ),
            share=drift.shares.get(served_by),
            columns={one.column: one.distance for one in drift.columns},
            consecutive=int(next(step for step in steps if step.kind == "watch").evidence["consecutive"]),
            labels=arrived.status,
            label_rows=arrived.rows,
            label_reasons=arrived.reasons,
            released=arrived.released,
            facts=Facts(date=day),
            performance=performance_on(ledger, day, history.version(served_by, ledger)),
            trial=trial,
            verdict=str(gates[-1].evidence["verdict"]) if gates else "",
            actions=tuple(action for step in steps for action in step.actions),
            requests=(),
            scores=np.empty(0),
        )
        return line_of(decided, POLICY.vigilance.retrain_above)


@pytest.fixture
def platform(ran: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Platform:
    """A copy of the home in which the graph was run, without the day that it lived through."""
    settings = without_its_day(ran, tmp_path / "home")
    monkeypatch.setenv("DAGSTER_HOME", str(settings.dagster_home))
    reign = Reign.over(settings)
    return Platform(settings=settings, reign=reign, instance=dg.DagsterInstance.from_config(str(settings.dagster_home)))


@pytest.mark.filterwarnings("ignore::dagster.BetaWarning")  # of dagster-mlflow, which commands leave unsaid as well
def test_graph_and_backtest_decide_the_same_line_by_line(
    platform: Platform, received: pd.DataFrame, book: LoanBook
) -> None:
    training_set: pd.DataFrame = platform.reign.history.store.read("training_set", object)
    by_client = received.set_index(book.key.name, drop=False)
    parts = {
        part: by_client.loc[training_set.loc[training_set["part"] == part, book.key.name].astype("int64")]
        for part in ("train", "holdout")
    }
    told = changed_world(parts["holdout"], book, date(2026, 2, 1), COURSE)
    learned_from = parts["train"].reset_index(drop=True)
    replay = Replay.begun(learned_from, learned_from[book.label.name].to_numpy("int64"), book, POLICY)
    (platform.settings.home / "labels").mkdir()
    seen = []
    for day in told.days:
        expected = replay.live(DayOfHistory(date=day, requests=told.requests[day], outcomes=told.outcomes.get(day)))
        served_by = platform.reign.history.releases.champion().version
        platform.answer(day, told.requests[day], book)
        if day in told.outcomes:
            told.outcomes[day].to_parquet(platform.settings.home / "labels" / f"{day}.parquet", index=False)
        platform.run("daily_watch", day)
        due = platform.reign.what_is_due()
        if due is not None:
            platform.run(due)
        champion = platform.reign.history.releases.champion().version
        line = platform.line(day, served_by, champion)
        assert json.loads(line) == json.loads(line_of(expected, POLICY.vigilance.retrain_above))
        seen += [str(action.kind) for action in expected.actions]
        assert platform.reign.what_is_due() is None
        assert platform.reign.registry.aliases()["champion"] == champion
    assert {"alarm", "retrain", "promote", "rollback"} <= set(seen)
    # Asked again, a day that was decided stays as it was decided.
    steps = platform.reign.decisions.steps()
    decided = next(step for step in steps if step.kind == "watch" and step.actions)
    assert platform.reign.watch(decided.date, {1: 0.0}) == decided
    assert platform.reign.decisions.steps() == steps
