"""Training on the real training set: same bytes twice, copies that agree, constraints that hold."""

import numpy as np
import pandas as pd
import pytest

from loan_assets.books import LoanBook, Role
from loan_assets.credit import fairness
from loan_assets.credit.scoring import probability
from loan_assets.credit.training import FittedModel, inputs_of, onnx_probability, part_of_each_row, train
from loan_assets.policy import POLICY
from loan_assets.refusal import Refusal
from loan_assets_tests.conftest import Home


@pytest.fixture(scope="module")
def training_set(ran: Home) -> pd.DataFrame:
    table: pd.DataFrame = ran.read("training_set")
    return table


@pytest.fixture(scope="module")
def stored(ran: Home) -> FittedModel:
    model: FittedModel = ran.read("default_model", FittedModel)
    return model


def test_training_again_gives_the_same_bytes(training_set: pd.DataFrame, stored: FittedModel, book: LoanBook) -> None:
    _, again = train(training_set, book, POLICY.boosting)
    assert again.model_digest == stored.model_digest
    assert again.dataset_digest == stored.dataset_digest
    assert again.onnx == stored.onnx


def test_flat_trees_and_onnx_agree_with_scikit_learn_on_every_row(stored: FittedModel) -> None:
    assert stored.flat_gap <= 1e-12
    assert stored.onnx_gap <= 1e-6


def test_one_row_at_a_time_gives_the_bits_of_the_batch(
    training_set: pd.DataFrame, stored: FittedModel, book: LoanBook
) -> None:
    inputs = inputs_of(training_set, book).astype("float32")
    together = probability(stored.trees.log_odds(inputs))
    for row in range(0, len(inputs), 311):
        assert probability(stored.trees.log_odds(inputs[row : row + 1]))[0] == together[row]


def test_a_longer_delay_never_lowers_and_a_larger_payment_never_raises_the_risk(
    training_set: pd.DataFrame, stored: FittedModel, book: LoanBook
) -> None:
    inputs = inputs_of(training_set, book).astype("float32")[:2_000]
    before = stored.trees.log_odds(inputs)
    for position, feature in enumerate(book.features):
        if feature.direction:
            raised = inputs.copy()
            raised[:, position] += np.float32(abs(inputs[:, position]).max() / 4 + 1)
            assert ((stored.trees.log_odds(raised) - before) * feature.direction >= -1e-12).all(), feature.name


def test_altered_trees_no_longer_agree_with_their_onnx_copy(
    training_set: pd.DataFrame, stored: FittedModel, book: LoanBook
) -> None:
    from dataclasses import replace

    inputs = inputs_of(training_set, book).astype("float32")
    bent = replace(stored.trees, value=stored.trees.value * 1.001)
    gap = np.abs(probability(bent.log_odds(inputs)) - onnx_probability(stored.onnx, inputs)).max()
    assert gap > POLICY.parity.onnx


def test_the_holdout_is_the_published_split(received: pd.DataFrame) -> None:
    from sklearn.model_selection import train_test_split

    label = received["defaulted"].to_numpy()
    _, held = train_test_split(np.arange(30_000), test_size=0.2, stratify=label, random_state=42)
    parts = part_of_each_row(label, POLICY.splits)
    assert set(np.flatnonzero(parts == "holdout")) == set(held)


def test_a_book_whose_feature_reads_a_protected_column_cannot_train(training_set: pd.DataFrame, book: LoanBook) -> None:
    from dataclasses import replace

    from loan_assets.books import Feature

    def years(age: float) -> float:
        """Age, which must never be an input."""
        return age * 1.0

    leaking = replace(book, features=(*book.features, Feature(function=years, reason="Never.")))
    with pytest.raises(Refusal, match="years read protected columns"):
        inputs_of(training_set.assign(years=1.0), leaking)


def test_one_outcome_only_is_refused(training_set: pd.DataFrame, book: LoanBook) -> None:
    with pytest.raises(Refusal, match="same outcome"):
        train(training_set[training_set["defaulted"] == 0], book, POLICY.boosting)


def test_ratios_are_read_on_approvals_and_small_groups_are_not_judged(book: LoanBook) -> None:
    group = pd.Series(["a"] * 1_000 + ["b"] * 1_000 + ["c"] * 10)
    refused = np.array([True] * 200 + [False] * 800 + [True] * 400 + [False] * 600 + [True] * 10)
    label = np.tile([0, 1], 1_005)
    outcomes = fairness.outcomes_by_group({"letter": group}, label, refused, smallest=100)
    assert fairness.approval_ratios(outcomes) == {"letter": pytest.approx(0.6 / 0.8)}
    assert [outcome.is_judged for outcome in outcomes] == [True, True, False]


def test_every_protected_attribute_is_audited(book: LoanBook) -> None:
    assert {column.name for column in book.with_role(Role.PROTECTED)} < {column.name for column in book.audited}
