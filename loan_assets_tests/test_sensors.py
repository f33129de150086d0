"""What Dagster starts by itself when something changes, told on the real graph with bodies that do nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.asset_daemon_cursor import AssetDaemonCursor
from dagster._core.remote_origin import GrpcServerCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin

from loan_assets import sensors
from loan_assets.books import LoanBook
from loan_assets.books.calendar import month_after, months_of
from loan_assets.credit.pushed import PushedStatement
from loan_assets.definitions import defs as front_door
from loan_assets.resources.pushed_statements import PushedStatements

GRAPH = front_door.resolve_asset_graph()
BEFORE_THE_MODEL = {
    "client_profiles",
    "monthly_statements",
    "borrower_features",
    "default_outcomes",
    "feature_definitions",
    "online_features",
    "training_set",
}
AFTER_THE_MODEL = {"scorecard", "model_version", "model_release", "loan_bento"}


Failing = dict[str, Callable[[], object]]


def without_bodies(failing: Failing) -> dg.Definitions:
    """The graph as it hangs at the front door, its checks and its jobs, with assets that make nothing.

    Args:
        failing: the assets that fail when they are run, and what happens before; read at every run.
    """
    assets = [asset for asset in front_door.assets or [] if isinstance(asset, dg.AssetsDefinition)]
    specs = [spec for asset in assets for spec in asset.specs]
    whole_graph = dg.define_asset_job("whole_graph", selection=dg.AssetSelection.all() - sensors.daily)
    return dg.Definitions(assets=[without_body(spec, failing) for spec in specs], jobs=[whole_graph, sensors.retrain])


def without_body(spec: dg.AssetSpec, failing: Failing) -> dg.AssetsDefinition:
    name = spec.key.to_user_string()
    judged = [GRAPH.get_check_spec(key) for key in GRAPH.asset_check_keys if key.asset_key == spec.key]
    checks = [dg.AssetCheckSpec(check.name, asset=spec.key, blocking=check.blocking) for check in judged]

    @dg.multi_asset(name=name, specs=[spec], check_specs=checks, partitions_def=spec.partitions_def)
    def body() -> Iterator[Any]:
        if name in failing:
            failing[name]()
            raise dg.Failure(f"{name} is refused.")
        passed = [dg.AssetCheckResult(check_name=check.name, passed=True) for check in checks]
        yield dg.MaterializeResult(asset_key=spec.key, check_results=passed)

    return body


class House:
    """The graph in a history of its own, run and looked at tick by tick."""

    def __init__(self, instance: dg.DagsterInstance, months: tuple[str, ...]) -> None:
        self.failing: Failing = {}
        self._defs, self._instance, self._months = without_bodies(self.failing), instance, months
        self._cursor: AssetDaemonCursor | None = None

    def run(self, *assets: str, months: Iterable[str] = ()) -> bool:
        """Run these assets as the automation does, and their months; returns whether the run succeeded."""
        return self._run("__ASSET_JOB", [dg.AssetKey(asset) for asset in assets], _span(months))

    def run_job(self, job: str) -> bool:
        """Run a job of the front door, over every month of the book where it has months."""
        return self._run(job, None, _span(self._months) if job == "whole_graph" else {})

    def _run(self, job: str, assets: list[dg.AssetKey] | None, tags: dict[str, str]) -> bool:
        resolved = self._defs.resolve_job_def(job)
        return resolved.execute_in_process(
            instance=self._instance, asset_selection=assets, tags=tags, raise_on_error=False
        ).success

    def look(self) -> dict[str, set[str]]:
        """One tick: every asset that is requested, with its months (none for a table over all months)."""
        found = dg.evaluate_automation_conditions(self._defs, self._instance, cursor=self._cursor)
        self._cursor = found.cursor
        asked = {key: found.get_requested_partitions(key) for key in GRAPH.get_all_asset_keys()}
        return {key.to_user_string(): {one for one in months if one} for key, months in asked.items() if months}

    def settle(self) -> dict[str, set[str]]:
        """Run what is requested until nothing is; returns all of it."""
        everything: dict[str, set[str]] = {}
        for _ in range(8):
            asked = self.look()
            if not asked:
                return everything
            self.run(*asked, months=set().union(*asked.values()))
            everything = {name: everything.get(name, set()) | asked.get(name, set()) for name in everything | asked}
        raise AssertionError(f"no end of requests: {everything}")


def _span(months: Iterable[str]) -> dict[str, str]:
    held = sorted(months)
    edges = {"dagster/asset_partition_range_start": held[:1], "dagster/asset_partition_range_end": held[-1:]}
    return {name: edge for name, (edge,) in edges.items()} if held else {}


@pytest.fixture
def house(tmp_path: Path, book: LoanBook) -> Iterator[House]:
    """After a whole run that Dagster's daemon has seen."""
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        house = House(instance, months_of(book))
        house.look()
        assert house.run_job("whole_graph")
        assert house.look() == {}
        yield house


def test_after_a_whole_run_nothing_is_requested(house: House) -> None:
    assert house.settle() == {}


def test_a_new_delivery_reaches_the_training_set_and_no_model(house: House, book: LoanBook) -> None:
    house.run("raw_loan_book")
    first = house.look()
    assert set(first) >= {"client_profiles", "monthly_statements", "borrower_features", "default_outcomes"}
    assert "online_features" not in first  # its turn comes when every month is there
    house.run(*first, months=months_of(book))
    requested = first | house.settle()
    assert set(requested) == BEFORE_THE_MODEL | {"batch_scores"}  # scored anew, by the champion
    assert requested["monthly_statements"] == requested["borrower_features"] == set(months_of(book))


def test_a_new_month_reaches_its_features_the_online_store_and_the_scores(house: House, book: LoanBook) -> None:
    october = month_after(months_of(book)[-1], 1)
    house.run("monthly_statements", months=[october])
    requested = house.settle()
    assert requested.pop("borrower_features") == {october}
    assert set(requested) == {"feature_definitions", "online_features", "training_set", "batch_scores"}


def test_a_month_that_is_delivered_again_reaches_the_months_whose_window_holds_it(house: House, book: LoanBook) -> None:
    house.run("monthly_statements", months=[months_of(book)[-2]])
    assert house.settle()["borrower_features"] == set(months_of(book)[-2:])


def test_a_new_model_reaches_everything_behind_it(house: House) -> None:
    house.run("default_model")
    assert set(house.settle()) == AFTER_THE_MODEL


def test_a_new_champion_scores_every_client_anew(house: House) -> None:
    house.run("champion")
    assert set(house.settle()) == {"batch_scores"}


def test_a_retraining_that_succeeds_is_followed_by_nothing(house: House) -> None:
    assert house.run_job("retrain")
    assert house.settle() == {}


@pytest.mark.parametrize("is_seen_at_work", [False, True])
def test_a_retraining_that_was_refused_is_not_tried_again_until_there_is_another_model(
    house: House, is_seen_at_work: bool
) -> None:
    house.failing["model_version"] = house.look if is_seen_at_work else dict
    assert not house.run_job("retrain")
    assert [house.look() for _ in range(3)] == [{}, {}, {}]
    house.run("default_model")
    assert set(house.look()) == AFTER_THE_MODEL
    house.run(*AFTER_THE_MODEL)
    assert [house.look() for _ in range(3)] == [{}, {}, {}]
    house.failing.clear()
    house.run("default_model")
    assert set(house.settle()) == AFTER_THE_MODEL


def test_while_a_model_is_refused_new_features_release_nothing(house: House, book: LoanBook) -> None:
    house.failing["model_version"] = dict
    house.run_job("retrain")
    house.look()
    house.run("monthly_statements", months=[month_after(months_of(book)[-1], 1)])
    requested = set(house.settle())
    assert "online_features" in requested
    assert not requested & AFTER_THE_MODEL


def test_features_that_failed_are_tried_again_when_their_statements_change(house: House, book: LoanBook) -> None:
    newest = months_of(book)[-1]
    house.failing["borrower_features"] = dict
    house.run("monthly_statements", months=[newest])
    assert set(house.settle()) == {"borrower_features"}
    house.failing.clear()
    assert house.look() == {}
    house.run("monthly_statements", months=[newest])
    assert house.settle()["borrower_features"] == {newest}


PAST, NEXT = "2005-08", "2005-10"
REACHED = {
    dg.DagsterRunStatus.QUEUED: "PIPELINE_ENQUEUED",
    dg.DagsterRunStatus.STARTING: "PIPELINE_STARTING",
    dg.DagsterRunStatus.STARTED: "PIPELINE_START",
    dg.DagsterRunStatus.CANCELING: "PIPELINE_CANCELING",
}


@dg.op
def taken() -> None:
    """A month that is taken."""


@dg.op
def cut_off() -> None:
    """A month whose store is away."""
    raise dg.Failure("Postgres is away")


class Takings:
    """Statements that are pushed, the sensor that looks at them, and the runs that follow, in a history of its own."""

    def __init__(self, place: Path, book: LoanBook) -> None:
        self.instance = dg.DagsterInstance.ephemeral()
        self.record, self._book, self._cursor = PushedStatements(folder=str(place)), book, ""
        self.keys: set[str] = set()

    def push(self, name: str, month: str) -> None:
        known = datetime(2005, 11, 2, tzinfo=UTC)
        measures = {"pay_status": 1, "bill_amount": 2.5, "payment_amount": 0.0}
        event = PushedStatement(event_id=name, client=7, month=month, known_at=known, measures=measures)
        self.record.record(event, self._book)

    def look(self, after: float = 0.0) -> dict[str, str]:
        """The months that are asked for, so many seconds from now, and by which key."""
        context = dg.build_sensor_context(instance=self.instance, cursor=self._cursor)
        now = time.time() + after
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("loan_assets.sensors.time.time", lambda: now)
            result = sensors.statements_are_pushed(context, pushed_statements=self.record)
        assert isinstance(result, dg.SensorResult)
        self._cursor = str(result.cursor)
        return {str(one.partition_key): str(one.run_key) for one in result.run_requests or []}

    def run(self, asked: dict[str, str], work: dg.OpDefinition) -> None:
        """What was asked for, run to its end."""
        for month, key in asked.items():
            assert key not in self.keys
            self.keys.add(key)
            job = dg.GraphDefinition(name="month_of_statements", node_defs=[work]).to_job()
            tags = {"dagster/run_key": key, "dagster/partition": month}
            job.execute_in_process(instance=self.instance, tags=tags, raise_on_error=False)

    def begin(self, month: str, key: str, status: dg.DagsterRunStatus) -> str:
        """A run that is somewhere on its way; its id."""
        job = dg.GraphDefinition(name="month_of_statements", node_defs=[taken]).to_job()
        tags = {"dagster/run_key": key, "dagster/partition": month}
        # Dagster queues no run that it could not launch; nothing listens there.
        server = RemoteRepositoryOrigin(GrpcServerCodeLocationOrigin(host="127.0.0.1", port=1), "__repository__")
        origin = RemoteJobOrigin(server, job.name)
        run = self.instance.create_run_for_job(job, tags=tags, remote_job_origin=origin).run_id
        if (reached := REACHED.get(status)) is not None:
            self.instance.report_dagster_event(dg.DagsterEvent(reached, job_name=job.name), run_id=run)
        return run


@pytest.fixture
def takings(tmp_path: Path, book: LoanBook) -> Iterator[Takings]:
    made = Takings(tmp_path, book)
    with made.instance:
        yield made


def test_months_of_which_statements_were_pushed_are_asked_for_once(takings: Takings) -> None:
    assert takings.look() == {}
    takings.push("october", NEXT)
    asked = takings.look()
    assert set(asked) == {NEXT}
    takings.run(asked, taken)
    assert [takings.look(after) for after in (0, 300, 90_000)] == [{}, {}, {}]
    takings.push("october restated", NEXT)
    takings.push("august", PAST)
    asked = takings.look()
    assert set(asked) == {PAST, NEXT}
    takings.run(asked, taken)
    assert takings.look() == {}
    for run in takings.instance.get_runs():  # histories are cleared out
        takings.instance.delete_run(run.run_id)
    assert takings.look() == {}


def test_a_taking_that_failed_is_asked_for_again_at_growing_distances_until_it_succeeds(takings: Takings) -> None:
    takings.push("october", NEXT)
    takings.run(takings.look(), cut_off)
    assert takings.look(59) == {}
    takings.run(takings.look(61), cut_off)
    assert takings.look(61) == {}
    takings.run(takings.look(241), taken)
    assert takings.look(90_000) == {}
    assert len(takings.keys) == 3


def test_a_taking_that_fails_each_time_is_given_up_until_more_is_pushed(takings: Takings) -> None:
    takings.push("october", NEXT)
    for after in (0, 61, 241, 961):
        asked = takings.look(after)
        assert set(asked) == {NEXT}
        takings.run(asked, cut_off)
    assert [takings.look(after) for after in (0, 90_000)] == [{}, {}]
    takings.push("october restated", NEXT)
    assert set(takings.look()) == {NEXT}


@pytest.mark.parametrize("status", REACHED)
def test_while_a_month_is_being_taken_nothing_more_of_it_is_asked_for_and_afterwards_it_is(
    takings: Takings, status: dg.DagsterRunStatus
) -> None:
    """The run may have read the record before the second event; two at once would leave the month to the slower."""
    takings.push("october", NEXT)
    (key,) = takings.look().values()
    run = takings.begin(NEXT, key, status)
    takings.push("october restated", NEXT)
    takings.push("august", PAST)
    assert set(takings.look()) == {PAST}
    takings.instance.report_run_failed(takings.instance.get_run_by_id(run))  # type: ignore[arg-type]
    asked = takings.look()
    assert asked[NEXT] != key


def test_a_taking_that_was_made_and_never_queued_is_asked_for_by_the_same_key(takings: Takings) -> None:
    takings.push("october", NEXT)
    (key,) = takings.look().values()
    takings.begin(NEXT, key, dg.DagsterRunStatus.NOT_STARTED)
    assert takings.look(90_000) == {NEXT: key}


def test_months_that_were_asked_for_before_takings_were_tried_again_are_left_alone(takings: Takings) -> None:
    takings.push("october", NEXT)
    takings._cursor = sensors.Landed(arrivals=3, marks=takings.record.months()).to_json()
    assert takings.look(90_000) == {}
    takings.push("october restated", NEXT)
    assert takings.look()[NEXT].endswith("-4")
