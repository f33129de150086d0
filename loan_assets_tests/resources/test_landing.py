"""New months: seen when they arrive, read by the contract, and carried through the features to every score."""

from __future__ import annotations

import json
import os
import shutil
from datetime import datetime
from pathlib import Path

import dagster as dg
import numpy as np
import pandas as pd
import pytest

from loan_assets.books import LoanBook, compute_features
from loan_assets.books.calendar import month_after, months_of, statement_day
from loan_assets.refusal import Refusal
from loan_assets.resources.asset_store import AssetStore
from loan_assets.resources.landing import Landing
from loan_assets.resources.online_store import OnlineTables
from loan_assets.sensors import statements_arrive
from loan_assets.settings import Settings
from loan_assets_tests.conftest import Home

NEXT = "2005-10"
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
    assert set(json.loads(str(result.cursor))) == {"2005-09", "2031-01"}


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
    (arrival,) = landing.arrivals()
    assert arrival.month == NEXT
    frame, provenance = landing.read(NEXT, book)
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


def test_a_month_that_has_not_arrived_and_one_that_arrived_twice_are_told(book: LoanBook, tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="No file has arrived for 2005-10"):
        Landing(place=str(tmp_path)).read(NEXT, book)
    for ending in ("csv", "parquet"):
        (tmp_path / f"statements-{NEXT}.{ending}").write_text("x")
    with pytest.raises(Refusal, match="two files for 2005-10"):
        Landing(place=str(tmp_path)).read(NEXT, book)


def test_an_arrived_month_reaches_features_online_store_and_scores_and_leaves_the_past_alone(
    ran: Home, book: LoanBook, october: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from loan_assets.definitions import defs as front_door
    from loan_assets.definitions import resources

    home = tmp_path / "home"
    shutil.copytree(ran.settings.home, home)
    settings = Settings.from_environment({"LOAN_HOME": str(home)})
    os.makedirs(settings.landing)
    october.to_csv(Path(settings.landing) / f"statements-{NEXT}.csv", index=False)
    store = AssetStore(root=str(settings.store), keep=2)
    before = {shelf: store.store.current(shelf) for shelf in ("training_set", "borrower_features/2005-09")}

    chosen = [one for one in front_door.assets or [] if isinstance(one, dg.AssetsDefinition)]
    monthly = dg.define_asset_job("monthly", ["monthly_statements", "borrower_features"])
    follows = ["feature_definitions", "online_features", "training_set", "batch_scores"]
    defs = dg.Definitions(
        assets=chosen,
        asset_checks=front_door.asset_checks,
        jobs=[monthly, dg.define_asset_job("follows", follows)],
        resources=resources(settings),
    )
    with dg.DagsterInstance.from_config(str(settings.dagster_home)) as instance:
        monkeypatch.setenv("DAGSTER_HOME", str(settings.dagster_home))
        for job, month in (("monthly", NEXT), ("follows", None)):
            done = defs.resolve_job_def(job).execute_in_process(instance=instance, partition_key=month)
            assert done.success
            assert all(evaluation.passed for evaluation in done.get_asset_check_evaluations())

    for shelf, version in before.items():
        assert store.store.current(shelf) == version
    client = 4_711

    def of(shelf: str) -> dict[str, float]:
        table: pd.DataFrame = store.read(shelf, object)
        (row,) = table[table["client_id"] == client].to_dict("records")
        return {str(name): value for name, value in row.items()}

    profile = of("client_profiles")
    received = {name: float(profile[name]) for name in ("credit_limit", "education")}
    for lag in range(book.window):
        held = of(f"monthly_statements/{month_after(NEXT, -lag)}")
        received |= {f"{measure}_{lag + 1}": float(held[measure]) for measure in MEASURES}
    by_hand = [np.float32(value) for value in compute_features(book, received).values()]
    features = of(f"borrower_features/{NEXT}")
    assert [features[name] for name in book.feature_names] == by_hand
    online = OnlineTables(root=str(settings.online)).table()
    assert online.of([client])[0].tolist() == by_hand
    assert datetime.fromisoformat(online.facts.features_as_of) == statement_day(NEXT)
    scores: pd.DataFrame = store.read("batch_scores", object)
    assert (scores["features_as_of"] == statement_day(NEXT)).all()
    assert months_of(book)[-1] == "2005-09"
