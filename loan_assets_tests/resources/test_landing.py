"""New months: seen when they arrive, read by the contract, and carried through the features to every score."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import dagster as dg
import numpy as np
import pandas as pd
import pytest

from loan_assets.books import LoanBook, compute_features, the_book
from loan_assets.books.calendar import month_after, months_of, statement_day
from loan_assets.definitions import defs as front_door
from loan_assets.definitions import resources
from loan_assets.refusal import Refusal
from loan_assets.resources.asset_store import TABLE, AssetStore, write_table
from loan_assets.resources.catalog import FIRST, LAST, ONE
from loan_assets.resources.landing import Landing
from loan_assets.resources.online_store import OnlineTables
from loan_assets.resources.versioned_store import Version
from loan_assets.running import months_there, why_it_failed
from loan_assets.sensors import statements_arrive
from loan_assets.settings import Settings
from loan_assets_tests.conftest import Home, loan_assets

NEXT, AFTER = "2005-10", "2005-11"
MEASURES = ["pay_status", "bill_amount", "payment_amount"]


@pytest.fixture(scope="module")
def october(received: pd.DataFrame) -> pd.DataFrame:
    """What September's statements would be after another month of paying nothing."""
    return pd.DataFrame(
        {
            "client_id": received["client_id"],
            "pay_status": (received["pay_status_1"] + 1).clip(upper=9),
            "bill_amount": received["bill_amount_1"] + 1_000,
            "payment_amount": 0,
        }
    )


def look(place: Path, cursor: str | None) -> dg.SensorResult:
    context = dg.build_sensor_context(cursor=cursor)
    result = statements_arrive(context, landing=Landing(place=str(place)))
    assert isinstance(result, dg.SensorResult)
    return result


def asked(result: dg.SensorResult) -> list[str | None]:
    return [request.partition_key for request in result.run_requests or []]


def test_a_month_is_asked_for_when_it_arrives_and_when_it_changes_and_not_otherwise(tmp_path: Path) -> None:
    assert asked(look(tmp_path / "nowhere", None)) == []
    first = tmp_path / f"statements-{NEXT}.csv"
    first.write_text("client_id\n1\n")
    arrived = look(tmp_path, None)
    assert asked(arrived) == [NEXT]
    assert asked(look(tmp_path, arrived.cursor)) == []
    first.write_text("client_id\n1\n2\n")
    changed = look(tmp_path, arrived.cursor)
    assert asked(changed) == [NEXT]
    keys = {request.run_key for result in (arrived, changed) for request in result.run_requests or []}
    assert len(keys) == 2
    (tmp_path / "statements-2005-11.parquet").write_bytes(b"PAR1")
    assert asked(look(tmp_path, changed.cursor)) == ["2005-11"]


def test_months_of_the_book_and_months_out_of_reach_are_left_alone(tmp_path: Path) -> None:
    for name in ("statements-2005-09.csv", "statements-2031-01.csv", "statements-october.csv", "notes.txt"):
        (tmp_path / name).write_text("x")
    result = look(tmp_path, None)
    assert asked(result) == []
    assert set(json.loads(str(result.cursor))["marks"]) == {"2005-09", "2031-01"}


def test_a_place_that_cannot_be_listed_is_named_and_asks_for_nothing() -> None:
    result = statements_arrive(dg.build_sensor_context(), landing=Landing(place="nosuch://user:secret@bucket/x"))
    assert isinstance(result, dg.SensorResult)
    assert asked(result) == []
    said = str(result.skip_reason)
    assert "nosuch://bucket/x" in said
    assert "secret" not in said


def test_a_month_is_read_from_any_prefix_and_in_either_form(book: LoanBook, october: pd.DataFrame) -> None:
    import fsspec

    with fsspec.open(f"memory://bank/landing/statements-{NEXT}.parquet", "wb") as file:
        october.to_parquet(file)
    landing = Landing(place="memory://bank/landing")
    assert set(landing.arrivals()) == {NEXT}
    frame, provenance = landing.read(NEXT, book) or pytest.fail("nothing has arrived")
    assert provenance.rows == 30_000
    assert (frame["bill_amount"] == october["bill_amount"]).all()


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (lambda table: table.drop(columns="bill_amount"), "lacks bill_amount"),
        (lambda table: table.assign(pay_status=77_777), r"pay_status: has a code outside the book \(30,000 rows\)"),
        (lambda table: table.assign(payment_amount=-77_777), r"payment_amount: is below 0 \(30,000 rows\)"),
        (lambda table: pd.concat([table, table.head(5)]), r"client_id: repeats \(10 rows\)"),
        (lambda table: table.assign(bill_amount=np.inf), r"bill_amount: is infinite \(30,000 rows\)"),
        (lambda table: table.head(0), "has no rows"),
    ],
)
def test_a_month_that_breaks_the_contract_is_refused(broken, said, book, october, tmp_path) -> None:  # type: ignore[no-untyped-def]
    broken(october).to_csv(tmp_path / f"statements-{NEXT}.csv", index=False)
    with pytest.raises(Refusal, match=said) as refused:
        Landing(place=str(tmp_path)).read(NEXT, book)
    assert f"statements-{NEXT}.csv" in str(refused.value)
    assert "77777" not in str(refused.value)


def test_a_month_that_breaks_the_contract_is_sent_to_the_landing_and_not_to_the_book(
    book: LoanBook, tmp_path: Path
) -> None:
    for content in (b"", b"\xff\x00 no table", b"client_id\n1\n"):
        (tmp_path / f"statements-{NEXT}.csv").write_bytes(content)
        with pytest.raises(Refusal) as refused:
            Landing(place=str(tmp_path)).read(NEXT, book)
        assert "LOAN_LANDING" in str(refused.value)
        assert "LOAN_SOURCE" not in str(refused.value)


def test_a_month_that_has_not_arrived_is_nothing_and_one_that_arrived_twice_is_told(
    book: LoanBook, tmp_path: Path
) -> None:
    assert Landing(place=str(tmp_path)).read(NEXT, book) is None
    for ending in ("csv", "parquet"):
        (tmp_path / f"statements-{NEXT}.{ending}").write_text("x")
    with pytest.raises(Refusal, match="2 files for 2005-10"):
        Landing(place=str(tmp_path)).read(NEXT, book)


def test_a_file_that_comes_back_is_asked_for_again(tmp_path: Path) -> None:
    """A, then B, then A as it was, its time included: three runs, for Dagster never repeats a run key."""
    file = tmp_path / f"statements-{NEXT}.csv"
    keys, cursor = [], None
    for content in ("client_id\n1\n", "client_id\n1\n2\n", "client_id\n1\n"):
        file.write_text(content)
        os.utime(file, (1_000_000, 1_000_000))
        result = look(tmp_path, cursor)
        cursor = result.cursor
        keys += [request.run_key for request in result.run_requests or []]
        assert asked(look(tmp_path, cursor)) == []
    assert len(set(keys)) == 3


def test_a_cursor_from_before_arrivals_were_counted_asks_for_nothing_twice(tmp_path: Path) -> None:
    (tmp_path / f"statements-{NEXT}.csv").write_text("client_id\n1\n")
    marks = json.loads(str(look(tmp_path, None).cursor))["marks"]
    assert asked(look(tmp_path, json.dumps(marks))) == []


def test_a_month_with_two_files_waits_alone_and_says_so(tmp_path: Path) -> None:
    (tmp_path / f"statements-{NEXT}.csv").write_text("client_id\n1\n")
    first = look(tmp_path, None)
    (tmp_path / f"statements-{NEXT}.parquet").write_bytes(b"PAR1")
    (tmp_path / f"statements-{AFTER}.csv").write_text("client_id\n1\n")
    second = look(tmp_path, first.cursor)
    assert asked(second) == [AFTER]
    third = look(tmp_path, second.cursor)
    assert asked(third) == []
    assert f"Two files or more for {NEXT}" in str(third.skip_reason)
    (tmp_path / f"statements-{NEXT}.parquet").unlink()
    assert asked(look(tmp_path, third.cursor)) == []  # the one that stayed has been answered
    (tmp_path / f"statements-{NEXT}.csv").write_text("client_id\n1\n2\n")
    assert asked(look(tmp_path, third.cursor)) == [NEXT]


def test_only_a_file_of_the_very_name_arrives(tmp_path: Path) -> None:
    for name in ("draft-statements-2005-11.csv", "statements-2005-11.csv.part", "old.statements-2005-11.parquet"):
        (tmp_path / name).write_text("x")
    assert Landing(place=str(tmp_path)).arrivals() == {}


def test_a_run_covers_the_book_and_every_month_that_is_there(book: LoanBook, tmp_path: Path) -> None:
    settings = Settings.from_environment({"LOAN_HOME": str(tmp_path)})
    assert months_there(settings) == months_of(book)
    stored = settings.store / "monthly_statements" / NEXT
    stored.mkdir(parents=True)
    (stored / "CURRENT").write_text("0")
    os.makedirs(settings.landing)
    landed = Path(settings.landing) / f"statements-{AFTER}.csv"
    landed.write_text("x")
    (Path(settings.landing) / "statements-2031-01.csv").write_text("x")
    assert months_there(settings) == (*months_of(book), NEXT, AFTER)
    landed.rename(landed.with_name("statements-2006-01.csv"))
    with pytest.raises(Refusal, match=r"The statements of 2005-11, 2005-12 have not arrived, but those of 2006-01"):
        months_there(settings)


LEAVERS = 300
ARCHIVED = f"monthly_statements/{NEXT}"
STAYS, AWAY, LEFT = 4_711, 1_234, 29_999


@dataclass(frozen=True, kw_only=True)
class Autumn:
    """A home in which two more months have arrived, and some clients have left."""

    settings: Settings
    before: dict[str, Version | None]
    requested: set[str]

    @property
    def store(self) -> AssetStore:
        return AssetStore(root=str(self.settings.store), keep=2)

    def of(self, shelf: str, client: int) -> dict[str, float]:
        table: pd.DataFrame = self.store.read(shelf, object)
        (row,) = table[table["client_id"] == client].to_dict("records")
        return {str(name): value for name, value in row.items()}


@contextmanager
def graph_of(settings: Settings) -> Iterator[tuple[dg.Definitions, dg.DagsterInstance]]:
    """The front door's graph over another home, with jobs of its own, and that home's history."""
    defs = dg.Definitions(
        assets=[one for one in front_door.assets or [] if isinstance(one, dg.AssetsDefinition)],
        asset_checks=front_door.asset_checks,
        jobs=[
            dg.define_asset_job("judge", dg.AssetSelection.checks_for_assets(dg.AssetKey("monthly_statements"))),
            dg.define_asset_job("monthly", ["monthly_statements", "borrower_features"]),
        ],
        resources=resources(settings),
    )
    with pytest.MonkeyPatch.context() as patch, dg.DagsterInstance.from_config(str(settings.dagster_home)) as instance:
        patch.setenv("DAGSTER_HOME", str(settings.dagster_home))
        yield defs, instance


@pytest.fixture(scope="module")
def autumn(ran: Home, october: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Autumn:
    home = tmp_path_factory.mktemp("autumn") / "home"
    shutil.copytree(ran.settings.home, home)
    settings = Settings.from_environment({"LOAN_HOME": str(home)})
    os.makedirs(settings.landing)
    staying = october.iloc[:-LEAVERS]
    for month, table in {NEXT: staying[staying["client_id"] != AWAY], AFTER: staying}.items():
        table.to_csv(Path(settings.landing) / f"statements-{month}.csv", index=False)
    store = AssetStore(root=str(settings.store), keep=2)
    before = {shelf: store.store.current(shelf) for shelf in ("training_set", "borrower_features/2005-09")}
    with graph_of(settings) as (defs, instance):
        looked = dg.evaluate_automation_conditions(defs, instance)
        done = defs.resolve_job_def("monthly").execute_in_process(instance=instance, tags={FIRST: NEXT, LAST: AFTER})
        assert all(evaluation.passed for evaluation in done.get_asset_check_evaluations())
        looked = dg.evaluate_automation_conditions(defs, instance, cursor=looked.cursor)
        names = {key.to_user_string() for key in defs.resolve_asset_graph().get_all_asset_keys()}
        requested = {name for name in names if looked.get_requested_partitions(dg.AssetKey(name))}
    before[ARCHIVED] = store.store.current(ARCHIVED)
    (Path(settings.landing) / f"statements-{NEXT}.csv").unlink()
    whole = loan_assets("run", home=home)
    assert whole.returncode == 0, whole.stdout + whole.stderr
    assert "✗" not in whole.stdout
    return Autumn(settings=settings, before=before, requested=requested)


def test_arrived_months_leave_the_past_alone(autumn: Autumn) -> None:
    for shelf, version in autumn.before.items():
        assert autumn.store.store.current(shelf) == version


def test_arrived_months_are_followed_by_themselves(autumn: Autumn) -> None:
    assert "feature_definitions" in autumn.requested


def test_an_arrived_month_reaches_features_online_store_and_scores(autumn: Autumn, book: LoanBook) -> None:
    profile = autumn.of("client_profiles", STAYS)
    received = {name: float(profile[name]) for name in ("credit_limit", "education")}
    for lag in range(book.window):
        held = autumn.of(f"monthly_statements/{month_after(AFTER, -lag)}", STAYS)
        received |= {f"{measure}_{lag + 1}": float(held[measure]) for measure in MEASURES}
    by_hand = [np.float32(value) for value in compute_features(book, received).values()]
    features = autumn.of(f"borrower_features/{AFTER}", STAYS)
    assert [features[name] for name in book.feature_names] == by_hand
    online = OnlineTables(root=str(autumn.settings.online)).table()
    assert online.of([STAYS])[0].tolist() == by_hand
    assert datetime.fromisoformat(online.facts.features_as_of) == statement_day(AFTER)
    assert autumn.of("batch_scores", STAYS)["features_as_of"] == pd.Timestamp(statement_day(AFTER))


def test_who_was_away_for_a_month_has_gaps_that_block_nobody(autumn: Autumn, book: LoanBook) -> None:
    features = autumn.of(f"borrower_features/{AFTER}", AWAY)
    assert any(np.isnan(features[name]) for name in book.feature_names)
    online = OnlineTables(root=str(autumn.settings.online)).table()
    np.testing.assert_array_equal(online.of([AWAY])[0], [features[name] for name in book.feature_names])


def test_who_has_left_has_no_newer_features_and_keeps_the_last_ones_online_and_in_the_scores(
    ran: Home, autumn: Autumn, book: LoanBook
) -> None:
    features: pd.DataFrame = autumn.store.read(f"borrower_features/{AFTER}", object)
    assert len(features) == 30_000 - LEAVERS
    assert LEFT not in set(features["client_id"])
    last = autumn.of("borrower_features/2005-09", LEFT)
    online = OnlineTables(root=str(autumn.settings.online)).table()
    assert len(online.clients) == 30_000
    assert online.of([LEFT])[0].tolist() == [last[name] for name in book.feature_names]
    assert statement_day(AFTER) - statement_day("2005-09") > book.feature_life
    scored = autumn.of("batch_scores", LEFT)
    assert scored["features_as_of"] == pd.Timestamp(statement_day("2005-09"))
    before: pd.DataFrame = ran.read("batch_scores")
    (was,) = before.loc[before["client_id"] == LEFT, "default_probability"]
    assert scored["default_probability"] == was


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (lambda table: table.head(28_499), "none of 1,501 of its 30,000 clients, where 5% may have left"),
        (
            lambda table: table.assign(client_id=table["client_id"] + 7),
            "statements of 7 clients that the book does not know",
        ),
    ],
)
def test_an_imperfect_month_is_refused_before_it_is_stored_and_blocks_no_other(  # type: ignore[no-untyped-def]
    changed, said, autumn, october
) -> None:
    december = "2005-12"
    changed(october).to_csv(Path(autumn.settings.landing) / f"statements-{december}.csv", index=False)
    with graph_of(autumn.settings) as (defs, instance):
        job = defs.resolve_job_def("monthly")
        refused = job.execute_in_process(instance=instance, partition_key=december, raise_on_error=False)
        assert not refused.success
        why = str(why_it_failed(refused.all_events))
        assert said in why
        assert "client_id" not in why
        assert autumn.store.store.current(f"monthly_statements/{december}") is None
        assert job.execute_in_process(instance=instance, partition_key=AFTER).success


@pytest.mark.parametrize("asset", ["monthly_statements", "borrower_features"])
def test_a_run_from_the_terminal_makes_every_month_anew_the_archived_one_from_its_shelf(
    asset: str, autumn: Autumn
) -> None:
    """Its file is no longer there: the statements stored from it are what there is to restate."""
    with graph_of(autumn.settings) as (_, instance):
        book_month, archived, landed = (made(instance, asset, month) for month in ("2005-09", NEXT, AFTER))
    assert book_month[0].run_id == archived[0].run_id
    assert archived[0].run_id in {record.run_id for record in landed}
    assert autumn.store.store.current(ARCHIVED) == autumn.before[ARCHIVED]
    if asset == "monthly_statements":
        kept = archived[0].asset_materialization
        assert kept is not None
        assert "no file in the landing" in str(kept.metadata["delivered_from"].value)


def made(instance: dg.DagsterInstance, asset: str, month: str) -> Sequence[dg.EventLogRecord]:
    """Every materialization of a month, newest first."""
    wanted = dg.AssetRecordsFilter(asset_key=dg.AssetKey(asset), asset_partitions=[month])
    return instance.fetch_materializations(wanted, limit=20).records


def test_a_month_that_neither_arrived_nor_is_stored_is_refused_with_the_next_step(autumn: Autumn) -> None:
    with graph_of(autumn.settings) as (defs, instance):
        job = defs.resolve_job_def("monthly")
        refused = job.execute_in_process(instance=instance, partition_key="2006-03", raise_on_error=False)
    assert "No file has arrived for 2006-03" in str(why_it_failed(refused.all_events))
    assert "statements-2005-10.csv (or .parquet) into LOAN_LANDING" in str(why_it_failed(refused.all_events))


def test_a_month_stored_badly_fails_its_own_check_with_counts_and_no_other_run(
    autumn: Autumn, october: pd.DataFrame
) -> None:
    from loan_assets.credit.statements import dated

    january = "2006-01"
    bad = dated(october.head(28_000), january, the_book())
    autumn.store.store.write(f"monthly_statements/{january}", lambda folder: write_table(bad, folder / TABLE))
    with graph_of(autumn.settings) as (defs, instance):
        assert defs.resolve_job_def("monthly").execute_in_process(instance=instance, partition_key=AFTER).success
        judged = defs.resolve_job_def("judge").execute_in_process(
            instance=instance, tags={ONE: january}, raise_on_error=False
        )
    (failed,) = [one for one in judged.get_asset_check_evaluations() if not one.passed]
    said = f"{january} holds none of 2,000 of its 30,000 clients, where 5% may have left"
    assert (failed.check_name, failed.description) == ("every_client_has_a_statement", said)
    why = why_it_failed(judged.all_events)
    assert why.cause == f"monthly_statements does not pass every_client_has_a_statement: {said}."
    assert why.next_step.startswith("Nothing that builds on monthly_statements was made.")
    shutil.rmtree(autumn.settings.store / "monthly_statements" / january)
