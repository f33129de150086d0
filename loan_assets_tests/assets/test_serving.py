"""What may be released, and by what every client may be scored: parts of one judged model, one book throughout."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd
import pytest

from loan_assets.assets.serving import batch_scores, every_client_is_scored_once, model_release
from loan_assets.books import LoanBook
from loan_assets.credit.scorecards import Scorecard
from loan_assets.credit.training import FittedModel
from loan_assets.refusal import Refusal
from loan_assets.release import ReleaseFacts, write_release
from loan_assets.resources.asset_store import write_table
from loan_assets.resources.engine import Engine
from loan_assets.resources.feature_store import FeatureStoreDoor
from loan_assets.resources.live_history import Memory
from loan_assets.resources.online_store import OnlineTables
from loan_assets.resources.registry import RegisteredVersion
from loan_assets.resources.release_store import ReleaseStore
from loan_assets_tests.conftest import Home

ANOTHER = "f" * 64


@pytest.fixture(scope="module")
def parts(ran: Home, received: pd.DataFrame) -> dict[str, Any]:
    """What the release in force was made of."""
    return {
        "model_version": ran.read("model_version", RegisteredVersion),
        "default_model": ran.read("default_model", FittedModel),
        "scorecard": ran.read("scorecard", Scorecard),
        "training_set": ran.read("training_set"),
        "raw_loan_book": received,
    }


def release(ran: Home, releases: Path, parts: dict[str, Any]) -> object:
    store, memory = ReleaseStore(root=str(releases)), Memory(store=str(ran.settings.store), releases=str(releases))
    return model_release(dg.build_asset_context(), release_store=store, memory=memory, **parts)


@pytest.mark.parametrize("part", ["model_version", "default_model", "scorecard"])
def test_parts_that_are_not_of_one_model_are_not_released(
    part: str, ran: Home, parts: dict[str, Any], tmp_path: Path
) -> None:
    mixed = {**parts, part: replace(parts[part], model_digest=ANOTHER)}
    with pytest.raises(Refusal, match=rf"not of one model: .*{part} of ffffffffffff"):
        release(ran, tmp_path, mixed)
    assert list(tmp_path.iterdir()) == []


def test_a_model_of_another_training_set_is_not_released(ran: Home, parts: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="not the training set in force"):
        release(ran, tmp_path, {**parts, "training_set": parts["training_set"].iloc[1:]})
    assert list(tmp_path.iterdir()) == []


def test_clients_of_the_training_set_that_the_delivery_lacks_are_counted_and_not_named(
    ran: Home, parts: dict[str, Any], tmp_path: Path
) -> None:
    seen = parts["training_set"].loc[parts["training_set"]["part"] == "train", "client_id"].iloc[-3:]
    received = parts["raw_loan_book"]
    with pytest.raises(Refusal, match="3 clients of the training set are not in the delivery") as refused:
        release(ran, tmp_path, {**parts, "raw_loan_book": received[~received["client_id"].isin(seen)]})
    assert not any(str(client) in str(refused.value) for client in seen)


def test_a_release_that_scores_unlike_its_onnx_copy_is_not_put_in_force(
    ran: Home, parts: dict[str, Any], tmp_path: Path
) -> None:
    model: FittedModel = parts["default_model"]
    warped = replace(model, trees=replace(model.trees, value=np.asarray(model.trees.value * 1.01)))
    with pytest.raises(Refusal, match=r"off its ONNX copy.*not put in force"):
        release(ran, tmp_path, {**parts, "default_model": warped})
    with pytest.raises(Refusal, match="No release is in force yet"):
        ReleaseStore(root=str(tmp_path)).champion()


def crowned(model: FittedModel, book_digest: str, root: Path) -> ReleaseStore:
    """A store whose champion is this model, said to be trained on a book of that digest."""
    facts = ReleaseFacts(
        model="loan-default",
        version=1,
        book="uci_credit_card",
        book_digest=book_digest,
        delivery_digest=ANOTHER,
        dataset_digest=model.dataset_digest,
        model_digest=model.model_digest,
        features=model.features,
        reasons={},
        threshold=0.3,
    )

    def fill(folder: Path) -> None:
        write_release(folder, facts, model.trees, model.onnx)
        write_table(pd.DataFrame({"age": [30]}), folder / "reference.parquet")

    store = ReleaseStore(root=str(root))
    store.crown(1, store.publish(1, fill)[0])
    return store


def scores(ran: Home, releases: ReleaseStore, online: OnlineTables) -> object:
    places = ran.settings
    door = FeatureStoreDoor(
        folder=str(places.feast), registry=places.feast_registry, online=places.feast_online, engine=Engine()
    )
    return batch_scores(
        dg.build_asset_context(),
        release_store=releases,
        feature_store=door,
        online_tables=online,
        default_outcomes=ran.read("default_outcomes"),
    )


def test_a_champion_of_another_book_scores_nobody(
    ran: Home, parts: dict[str, Any], book: LoanBook, tmp_path: Path
) -> None:
    releases = crowned(parts["default_model"], "another0book", tmp_path)
    with pytest.raises(Refusal, match=rf"in force is {book.digest}, but the champion is of book another0book"):
        scores(ran, releases, OnlineTables(root=str(ran.settings.online)))
    judged = every_client_is_scored_once(
        release_store=releases,
        batch_scores=ran.read("batch_scores"),
        default_outcomes=ran.read("default_outcomes"),
    )
    assert isinstance(judged, dg.AssetCheckResult)
    assert not judged.passed
    assert "scored by a model of book another0book" in str(judged.description)


def test_an_online_table_of_another_book_scores_nobody(
    ran: Home, parts: dict[str, Any], book: LoanBook, tmp_path: Path
) -> None:
    online = OnlineTables(root=str(tmp_path / "online"))
    another = replace(book, outcome_after=book.outcome_after * 2)
    newest: pd.DataFrame = ran.read("borrower_features/2005-09")
    online.publish(newest, another)
    with pytest.raises(Refusal, match=rf"the online table is of book {another.digest}"):
        scores(ran, crowned(parts["default_model"], book.digest, tmp_path / "releases"), online)
