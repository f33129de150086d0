"""The story, on the real book: delivered, featured, trained, judged, registered, released, packed, served."""

from __future__ import annotations

import hashlib
import os
import shutil
from datetime import timedelta
from pathlib import Path

import dagster as dg
import numpy as np
import pandas as pd
import pytest

from loan_assets.books import LoanBook, tables
from loan_assets.books.calendar import months_of
from loan_assets.credit.scorecards import Scorecard
from loan_assets.definitions import defs
from loan_assets.policy import POLICY
from loan_assets.refusal import Refusal
from loan_assets.release import read_release
from loan_assets.resources.asset_store import AssetStore
from loan_assets.resources.catalog import DAYS
from loan_assets.resources.engine import Engine
from loan_assets.resources.feature_store import FeatureStoreDoor
from loan_assets.resources.registry import CHAMPION, RegisteredVersion, Registry
from loan_assets.resources.release_store import ReleaseStore
from loan_assets_tests.conftest import Home, loan_assets


def digests(root: Path) -> dict[str, str]:
    """The digest in force on every shelf."""
    return {str(path.parent.relative_to(root)): path.read_text().strip() for path in root.rglob("CURRENT")}


def test_the_command_prints_what_came_of_it(ran: Home) -> None:
    expected = ("AUC", "Approval ratio", "Model version   1, champion", "loan_default:v1-", "steady (0.00", "make dev")
    for words in expected:
        assert words in ran.printed
    assert "✗" not in ran.printed


def test_the_command_tells_of_every_asset_and_check_of_the_run(ran: Home) -> None:
    """Also of those that finish while a vendor's own progress is kept from the screen."""
    graph = defs.resolve_asset_graph()
    made = {key for key in graph.get_all_asset_keys() if graph.get(key).partitions_def != DAYS}
    assert {dg.AssetKey(name) for name in ("default_model", "champion", "monthly_statements")} <= made
    for key in made:
        assert f"✓ {key.to_user_string()} " in ran.printed
    for check in graph.asset_check_keys:
        if check.asset_key in made:
            assert f"✓ {check.asset_key.to_user_string()}: {check.name}" in ran.printed


def test_the_figures_reach_the_bar(ran: Home) -> None:
    card: Scorecard = ran.read("scorecard", Scorecard)
    assert card.out_of_fold.auc.value >= 0.786
    assert card.out_of_fold.brier.value <= 0.134
    assert card.out_of_fold.calibration_error.value <= 0.012
    assert card.holdout is not None
    assert card.holdout.rows == 6_000
    assert 0.29 <= card.threshold <= 0.33
    assert min(card.approval_ratios.values()) >= 0.8


def test_running_again_changes_nothing_and_registers_nothing(ran: Home) -> None:
    before = digests(ran.settings.store)
    again = loan_assets("run", home=ran.settings.home)
    assert again.returncode == 0, again.stdout + again.stderr
    assert digests(ran.settings.store) == before
    assert "Model version   1, champion" in again.stdout


def test_the_champion_in_mlflow_is_the_model_in_the_release(ran: Home, book: LoanBook) -> None:
    import mlflow

    mlflow.set_tracking_uri(ran.settings.mlflow_uri)
    mlflow.set_registry_uri(ran.settings.mlflow_uri)
    registry = Registry(tracking_uri=ran.settings.mlflow_uri, artifacts=ran.settings.mlflow_artifacts)
    assert registry.aliases() == {CHAMPION: 1}
    assert registry.half_registered() == ()
    assert float(registry.tags(1)["oof_auc"]) >= 0.786
    pipeline = mlflow.sklearn.load_model(f"models:/loan-default@{CHAMPION}")
    training_set: pd.DataFrame = ran.read("training_set")
    inputs = training_set[list(book.feature_names)].to_numpy("float64")
    release = ReleaseStore(root=str(ran.settings.releases)).champion_release()
    gap = np.abs(pipeline.predict_proba(inputs)[:, 1] - release.score(inputs.astype("float32"))).max()
    assert gap <= 1e-12


def test_a_backfill_equals_single_runs_byte_for_byte(ran: Home, book: LoanBook, tmp_path: Path) -> None:
    from loan_assets.definitions import defs as front_door
    from loan_assets.definitions import resources
    from loan_assets.settings import Settings

    settings = Settings.from_environment({"LOAN_HOME": str(tmp_path)})
    shutil.copytree(ran.settings.store / "raw_loan_book", settings.store / "raw_loan_book")
    shutil.copytree(ran.settings.store / "client_profiles", settings.store / "client_profiles")
    chosen = [
        asset
        for asset in front_door.assets or []
        if isinstance(asset, dg.AssetsDefinition)
        and asset.key.to_user_string()
        in ("raw_loan_book", "client_profiles", "monthly_statements", "borrower_features")
    ]
    defs = dg.Definitions(
        assets=chosen,
        jobs=[dg.define_asset_job("months", ["monthly_statements", "borrower_features"])],
        resources=resources(settings),
    )
    (tmp_path / "instance").mkdir()
    with dg.DagsterInstance.local_temp(str(tmp_path / "instance")) as instance:
        for month in months_of(book):
            assert defs.resolve_job_def("months").execute_in_process(instance=instance, partition_key=month).success
        for asset in ("monthly_statements", "borrower_features"):
            versions = {month: versions_of(instance, asset, month) for month in months_of(book)}
            stored = {month: digests(settings.store)[f"{asset}/{month}"] for month in months_of(book)}
            assert versions == {month: (digest, digest) for month, digest in stored.items()}
    names = [f"{asset}/{month}" for asset in ("monthly_statements", "borrower_features") for month in months_of(book)]
    single, together = digests(settings.store), digests(ran.settings.store)
    assert {name: single[name] for name in names} == {name: together[name] for name in names}


def versions_of(instance: dg.DagsterInstance, asset: str, month: str) -> tuple[str, str]:
    """A month's data version and the digest in its metadata, as Dagster holds them."""
    wanted = dg.AssetRecordsFilter(asset_key=dg.AssetKey(asset), asset_partitions=[month])
    made = instance.fetch_materializations(wanted, limit=1).records[0].asset_materialization
    assert made is not None
    return (made.tags or {})["dagster/data_version"], str(made.metadata["digest"].value)


def test_months_made_together_share_a_data_version_and_each_carries_its_own_digest(ran: Home, book: LoanBook) -> None:
    """Dagster holds one data version per asset and run; what each month holds is told by its digest either way."""
    for asset in ("monthly_statements", "borrower_features"):
        with dg.DagsterInstance.from_config(str(ran.settings.dagster_home)) as instance:
            versions = {month: versions_of(instance, asset, month) for month in months_of(book)}
        own = {month: digest for month, (_, digest) in versions.items()}
        assert own == {month: digests(ran.settings.store)[f"{asset}/{month}"] for month in months_of(book)}
        together = hashlib.sha256("".join(own[month] for month in sorted(own)).encode()).hexdigest()
        assert {version for version, _ in versions.values()} == {together}


def test_statements_are_the_delivery_unpivoted(ran: Home, received: pd.DataFrame, book: LoanBook) -> None:
    for lag, month in enumerate(reversed(months_of(book)), start=1):
        table: pd.DataFrame = ran.read(f"monthly_statements/{month}")
        assert len(table) == 30_000
        for measure in ("pay_status", "bill_amount", "payment_amount"):
            assert (table[measure].to_numpy() == received[f"{measure}_{lag}"].to_numpy()).all()


def test_a_planted_future_changes_nothing(ran: Home, book: LoanBook, tmp_path: Path) -> None:
    """Neither a later statement, nor an earlier one that became known later, reaches a decision."""
    door = FeatureStoreDoor(
        folder=str(tmp_path),
        registry=f"sqlite:///{tmp_path}/registry.db",
        online=str(tmp_path / "online.db"),
        engine=Engine(),
    )
    newest: pd.DataFrame = ran.read(f"borrower_features/{months_of(book)[-1]}").head(2_000)
    before: pd.DataFrame = ran.read(f"borrower_features/{months_of(book)[-2]}").head(2_000)
    rows = pd.concat([before, newest], ignore_index=True)
    decisions = newest[[book.key.name, tables.EVENT_TIME.name]].iloc[::-1].reset_index(drop=True)
    door.publish(rows, book)
    honest = door.as_known_at(decisions, book)
    assert honest[book.key.name].tolist() == decisions[book.key.name].tolist()

    event, created = tables.EVENT_TIME.name, tables.CREATED_TIME.name
    features = list(book.feature_names)
    poisoned = newest.assign(**dict.fromkeys(features, np.float32(-1e6)))
    later = poisoned.assign(**{event: newest[event] + timedelta(days=1), created: newest[created] + timedelta(days=1)})
    learned_later = poisoned.assign(**{created: newest[created] + timedelta(days=3)})
    door.publish(pd.concat([rows, later, learned_later], ignore_index=True), book)
    pd.testing.assert_frame_equal(door.as_known_at(decisions, book), honest)

    # The same rows, known in time, do change the answer: the test above could have failed.
    door.publish(pd.concat([rows.iloc[: len(before)], poisoned], ignore_index=True), book)
    assert (door.as_known_at(decisions, book)[features].to_numpy() == -1e6).all()


def test_a_kill_between_the_table_and_the_registry_is_mended_at_the_next_join(
    ran: Home, book: LoanBook, tmp_path: Path
) -> None:
    """The table that is read is always the table that was verified."""
    from loan_assets.resources.asset_store import TABLE, write_table

    door = FeatureStoreDoor(
        folder=str(tmp_path),
        registry=f"sqlite:///{tmp_path}/registry.db",
        online=str(tmp_path / "online.db"),
        engine=Engine(),
    )
    newest: pd.DataFrame = ran.read(f"borrower_features/{months_of(book)[-1]}").head(500)
    before: pd.DataFrame = ran.read(f"borrower_features/{months_of(book)[-2]}").head(500)
    decisions = newest[[book.key.name, tables.EVENT_TIME.name]]
    door.publish(before, book)
    assert (door.as_of(decisions, book) == before[tables.EVENT_TIME.name]).all()
    stale = door.as_known_at(decisions, book)
    door._shelves.write("offline", lambda folder: write_table(newest, folder / TABLE))
    fresh = door.as_known_at(decisions, book)
    assert (door.as_of(decisions, book) == newest[tables.EVENT_TIME.name]).all()
    names = list(book.feature_names)
    assert fresh[names].to_numpy().tolist() == newest[names].to_numpy().tolist()
    assert stale[names].to_numpy().tolist() != fresh[names].to_numpy().tolist()


def test_two_runs_at_once_are_told_apart(ran: Home) -> None:
    from loan_assets.running import only_run_in

    with only_run_in(ran.settings.home):
        refused = loan_assets("run", home=ran.settings.home)
    assert refused.returncode == 1
    assert f"process {os.getpid()} is running the graph" in refused.stderr


def test_an_altered_release_is_refused_before_it_is_loaded(ran: Home, tmp_path: Path) -> None:
    champion = ReleaseStore(root=str(ran.settings.releases)).champion()
    for name in ("release.json", "trees/value.npy", "model.onnx", "reference.parquet", "manifest.json"):
        copy = tmp_path / name.replace("/", "-")
        shutil.copytree(ran.settings.releases / champion.path, copy)
        altered = bytearray((copy / name).read_bytes())
        altered[len(altered) // 2] ^= 1
        (copy / name).write_bytes(altered)
        with pytest.raises(Refusal):
            read_release(copy, expected=champion.digest)


def test_a_model_below_the_floors_is_not_registered_and_the_champion_stays(ran: Home) -> None:
    from dataclasses import replace

    from loan_assets.assets.registry import model_version
    from loan_assets.credit.training import FittedModel

    card: Scorecard = ran.read("scorecard", Scorecard)
    model: FittedModel = ran.read("default_model", FittedModel)
    registry = Registry(tracking_uri=ran.settings.mlflow_uri, artifacts=ran.settings.mlflow_artifacts)
    failing = replace(card, below_the_floors=("AUC 0.6000 is below the floor 0.77",))
    with pytest.raises(Refusal, match="not registered: AUC"):
        model_version(dg.build_asset_context(), registry=registry, default_model=model, scorecard=failing)
    assert registry.aliases() == {CHAMPION: 1}
    stands: RegisteredVersion = ran.read("model_version", RegisteredVersion)
    assert stands.version == 1


def test_a_broken_delivery_stops_the_run_at_the_book_and_keeps_what_was_there(
    ran: Home, received: pd.DataFrame, tmp_path: Path
) -> None:
    received.head(1_000).to_csv(tmp_path / "short.csv", index=False)
    before = digests(ran.settings.store)
    done = loan_assets("run", home=ran.settings.home, LOAN_SOURCE=str(tmp_path / "short.csv"))
    assert done.returncode == 1
    assert "✗ raw_loan_book" in done.stdout
    assert "short.csv" in done.stderr
    assert "1,000 rows" in done.stderr
    assert "Traceback" not in done.stderr
    assert digests(ran.settings.store) == before


def test_a_directory_for_a_file_stops_the_run_with_our_words_not_the_vendor_s(tmp_path: Path) -> None:
    done = loan_assets("run", home=tmp_path, LOAN_SOURCE=str(tmp_path))
    assert done.returncode == 1
    assert "is a directory, not a file. Point LOAN_SOURCE at" in done.stderr
    assert "Error" not in done.stderr


def test_a_damaged_asset_is_named_by_the_doctor_and_mended_by_running_its_asset(ran: Home, tmp_path: Path) -> None:
    home = tmp_path / "copy"
    shutil.copytree(ran.settings.home, home)
    sound = loan_assets("doctor", home=home)
    assert sound.returncode == 0, sound.stdout
    shelf = home / "store" / "client_profiles"
    table = shelf / (shelf / "CURRENT").read_text()[:16] / "table.parquet"
    table.write_bytes(table.read_bytes()[:-10])
    damaged = loan_assets("doctor", home=home)
    assert damaged.returncode == 1
    assert "table.parquet is corrupt" in damaged.stdout
    store = AssetStore(root=str(home / "store"), keep=POLICY.versions_kept)
    with pytest.raises(Refusal, match="corrupt"):
        store.read("client_profiles", object)
    store.store.write("client_profiles", lambda folder: _rewrite(ran, folder))
    assert len(store.read("client_profiles", object)) == 30_000


def _rewrite(ran: Home, folder: Path) -> None:
    from loan_assets.resources.asset_store import TABLE, write_table

    write_table(ran.read("client_profiles"), folder / TABLE)


def test_windows_that_reach_before_the_book_have_missing_features_not_wrong_ones(ran: Home, book: LoanBook) -> None:
    first: pd.DataFrame = ran.read(f"borrower_features/{months_of(book)[0]}")
    assert first["average_utilisation"].isna().all()
    assert first["utilisation"].notna().all()


def test_the_doctor_says_what_to_do_in_an_empty_home(tmp_path: Path) -> None:
    done = loan_assets("doctor", home=tmp_path)
    assert done.returncode == 0, done.stdout
    assert "Run `loan-assets run`" in done.stdout
