"""What may be put in force for the endpoint: rows that the offline join would give as well."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pandas as pd
import pytest

from loan_assets.assets.features import (
    COMPUTED_BY,
    FeatureDefinitions,
    OnlineFeatures,
    feature_definitions,
    online_equals_offline,
    online_features,
)
from loan_assets.books import LoanBook
from loan_assets.refusal import Refusal
from loan_assets.resources.asset_store import AssetStore, read_table, write_table
from loan_assets.resources.engine import Engine
from loan_assets.resources.feature_store import FeatureStoreDoor
from loan_assets.resources.online_store import OnlineTables
from loan_assets.resources.pushed_statements import PushedStatements
from loan_assets_tests.conftest import Home


def test_an_online_table_that_differs_from_the_offline_join_is_never_put_in_force(
    ran: Home, book: LoanBook, tmp_path: Path
) -> None:
    """Two rows of a client that became known at one instant: nobody can say which of them is the newest."""
    door = FeatureStoreDoor(
        folder=str(tmp_path / "feast"),
        registry=f"sqlite:///{tmp_path}/registry.db",
        online=str(tmp_path / "online.db"),
        engine=Engine(),
    )
    online = OnlineTables(root=str(tmp_path / "online"))
    rows: pd.DataFrame = ran.read("borrower_features/2005-09").head(1_000)
    told: FeatureDefinitions = ran.read("feature_definitions", FeatureDefinitions)

    def put_online() -> object:
        return online_features(
            dg.build_asset_context(),
            io_manager=AssetStore.over(ran.settings),
            feature_store=door,
            online_tables=online,
            pushed_statements=PushedStatements(folder=str(tmp_path / "events")),
            feature_definitions=told,
        )

    door.publish(rows, book)
    put_online()
    sound = online.table().digest
    other = rows.head(100).assign(utilisation=rows["utilisation"] + 1)
    door.publish(pd.concat([rows, other], ignore_index=True), book)
    with pytest.raises(Refusal, match=r"newest rows of \d+ clients differ from the offline join"):
        put_online()
    assert online.table().digest == sound


def test_online_stores_that_differ_from_the_offline_join_are_counted(ran: Home, book: LoanBook, tmp_path: Path) -> None:
    door = FeatureStoreDoor(
        folder=str(ran.settings.feast),
        registry=ran.settings.feast_registry,
        online=ran.settings.feast_online,
        engine=Engine(),
    )
    online = OnlineTables(root=str(tmp_path))
    rows: pd.DataFrame = ran.read("borrower_features/2005-09")
    told: OnlineFeatures = ran.read("online_features", OnlineFeatures)

    def judged(newest: pd.DataFrame) -> dg.AssetCheckResult:
        online.publish(newest, book)
        result = online_equals_offline(
            io_manager=AssetStore.over(ran.settings),
            pushed_statements=PushedStatements(folder=str(tmp_path / "events")),
            feature_store=door,
            online_tables=online,
            online_features=told,
            client_profiles=ran.read("client_profiles"),
        )
        assert isinstance(result, dg.AssetCheckResult)
        return result

    assert judged(rows).passed
    altered = rows.assign(utilisation=rows["utilisation"].where(rows.index > 2, -1.0))
    said = judged(altered.iloc[:-5]).description or ""
    assert "3 clients that the offline join answers otherwise" in said
    assert "3 clients that Feast's online store answers otherwise" in said
    assert "5 clients too many or too few" in said


def test_months_that_another_book_computed_are_not_mixed_with_this_one_s(ran: Home, book: LoanBook) -> None:
    """A table says which book computed it, from the run that stored it onwards."""
    stored: pd.DataFrame = ran.read("borrower_features/2005-09")
    assert stored.attrs == {COMPUTED_BY: book.digest}
    old = stored.copy()
    old.attrs = {COMPUTED_BY: "an0old0book0"}
    months = {"2005-08": old, "2005-09": stored, "2005-10": old}
    places = ran.settings
    door = FeatureStoreDoor(
        folder=str(places.feast), registry=places.feast_registry, online=places.feast_online, engine=Engine()
    )
    with pytest.raises(Refusal, match=r"features of 2005-08, 2005-10 were not computed by the book in force"):
        feature_definitions(dg.build_asset_context(), feature_store=door, borrower_features=months)


def test_the_same_rows_give_the_same_bytes_and_another_book_gives_others(
    ran: Home, book: LoanBook, tmp_path: Path
) -> None:
    table: pd.DataFrame = ran.read("borrower_features/2005-09")
    other = table.copy()
    other.attrs = {COMPUTED_BY: "an0old0book0"}
    for name, frame in {"one": table, "again": table.copy(), "other": other}.items():
        write_table(frame, tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "again").read_bytes()
    assert (tmp_path / "one").read_bytes() != (tmp_path / "other").read_bytes()
    assert read_table(tmp_path / "other").attrs == other.attrs
