"""Trees as tables: the same bits as the trees, SHAP values that add up and that the shap package agrees with."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from loan_assets.books import LoanBook
from loan_assets.credit.lookup import TreeTables
from loan_assets.credit.scoring import FlatTrees
from loan_assets.credit.training import FittedModel, fit, flatten, inputs_of, train
from loan_assets.policy import POLICY
from loan_assets.refusal import Refusal
from loan_assets_tests.conftest import Home


@pytest.fixture(scope="module")
def training_set(ran: Home) -> pd.DataFrame:
    table: pd.DataFrame = ran.read("training_set")
    return table


@pytest.fixture(scope="module")
def trees(ran: Home) -> FlatTrees:
    model: FittedModel = ran.read("default_model", FittedModel)
    return model.trees


@pytest.fixture(scope="module")
def tables(trees: FlatTrees, book: LoanBook) -> TreeTables:
    return TreeTables.of(trees, len(book.features))


@pytest.fixture(scope="module")
def rows(training_set: pd.DataFrame, book: LoanBook) -> NDArray[np.float32]:
    return inputs_of(training_set, book).astype("float32")


def test_tables_give_the_bits_of_the_trees_for_every_client(
    tables: TreeTables, trees: FlatTrees, rows: NDArray[np.float32]
) -> None:
    assert len(rows) == 30_000
    assert np.array_equal(tables.log_odds(tables.entries_of(rows)), trees.log_odds(rows))


def test_missing_features_take_the_side_they_took_in_training(
    tables: TreeTables, trees: FlatTrees, rows: NDArray[np.float32]
) -> None:
    holed = rows[:5_000].copy()
    holed[np.random.default_rng(4).random(holed.shape) < 0.2] = np.nan
    assert np.array_equal(tables.log_odds(tables.entries_of(holed)), trees.log_odds(holed))


def test_a_number_at_a_threshold_goes_where_the_tree_sends_it(tables: TreeTables, trees: FlatTrees) -> None:
    features = int(trees.feature.max()) + 1
    asked = trees.left != np.arange(len(trees.left))
    edges = np.repeat(trees.threshold[asked][:, None].astype("float32"), features, axis=1)
    beside = np.concatenate([edges, np.nextafter(edges, np.float32(np.inf)), np.nextafter(edges, np.float32(-np.inf))])
    assert np.array_equal(tables.log_odds(tables.entries_of(beside)), trees.log_odds(beside))


def test_contributions_add_up_to_the_score(tables: TreeTables, trees: FlatTrees, rows: NDArray[np.float32]) -> None:
    contributions = tables.contributions(tables.entries_of(rows))
    assert np.abs(contributions.sum(axis=1) + tables.expected - trees.log_odds(rows)).max() <= 1e-9


def test_contributions_are_those_of_shap(tables: TreeTables, training_set: pd.DataFrame, book: LoanBook) -> None:
    import shap

    inputs = inputs_of(training_set, book)
    seen = (training_set["part"] == "train").to_numpy()
    pipeline = fit(inputs[seen], training_set[book.label.name].to_numpy()[seen], book, POLICY.boosting)
    explainer = shap.TreeExplainer(pipeline[-1], feature_perturbation="tree_path_dependent")
    ours = tables.contributions(tables.entries_of(inputs[:2_000].astype("float32")))
    assert np.abs(explainer.shap_values(inputs[:2_000]) - ours).max() <= 1e-9
    assert float(np.squeeze(explainer.expected_value)) == pytest.approx(tables.expected, abs=1e-9)


def test_the_same_row_is_explained_alike_alone_and_in_company(tables: TreeTables, rows: NDArray[np.float32]) -> None:
    together = tables.contributions(tables.entries_of(rows[:500]))
    for row in range(0, 500, 37):
        alone = tables.contributions(tables.entries_of(rows[row : row + 1]))
        assert np.array_equal(alone[0], together[row])


def test_tables_that_disagree_with_their_trees_are_noticed(tables: TreeTables, trees: FlatTrees) -> None:
    drawn = np.random.default_rng(1).normal(size=(50, len(tables.shap[0]))).astype("float32")
    assert tables.agree_with(trees, drawn)
    assert not replace(tables, leaf=tables.leaf * (1 + 1e-12)).agree_with(trees, drawn)
    assert not replace(tables, shap=tables.shap * 1.001).agree_with(trees, drawn)


def test_trees_that_cannot_be_explained_are_not_trained(training_set: pd.DataFrame, book: LoanBook) -> None:
    bushy = replace(POLICY.boosting, leaves=16, depth=6, trees=3)
    with pytest.raises(Refusal, match=r"A tree asks \d+ questions; .* holds 7.*leaves to 8 or fewer"):
        train(training_set, book, bushy)


def test_a_tree_that_is_one_leaf_has_tables_too(book: LoanBook, training_set: pd.DataFrame) -> None:
    inputs = inputs_of(training_set, book)[:400]
    label = training_set[book.label.name].to_numpy()[:400]
    stump = flatten(fit(inputs, label, book, replace(POLICY.boosting, smallest_leaf=300, trees=2)))
    tables = TreeTables.of(stump, inputs.shape[1])
    assert tables.agree_with(stump, inputs.astype("float32"))
