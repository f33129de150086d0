"""What the checks of the training set and the model say when they fail: what, and how many, never a value."""

from __future__ import annotations

from dataclasses import replace

import dagster as dg
import numpy as np
import pytest

from loan_assets.assets.model import copies_agree_with_scikit_learn, every_decision_has_its_features
from loan_assets.credit.training import FittedModel
from loan_assets_tests.conftest import Home


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda table: table, None),
        (lambda table: table.iloc[7:], "7 decisions lost, added or repeated"),
        (lambda table: table.iloc[::-1], "the decisions are in another order"),
        (lambda table: table.assign(utilisation=np.float32("nan")), "30,000 feature values are missing"),
    ],
)
def test_decisions_that_the_join_lost_or_left_without_features_are_counted(ran: Home, change, said) -> None:  # type: ignore[no-untyped-def]
    judged = every_decision_has_its_features(
        training_set=change(ran.read("training_set")), default_outcomes=ran.read("default_outcomes")
    )
    assert isinstance(judged, dg.AssetCheckResult)
    assert (judged.passed, judged.description) == (said is None, said)


def test_a_copy_that_disagrees_is_named_with_its_gap(ran: Home) -> None:
    model: FittedModel = ran.read("default_model", FittedModel)
    judged = copies_agree_with_scikit_learn(default_model=replace(model, onnx_gap=0.25))
    assert isinstance(judged, dg.AssetCheckResult)
    assert not judged.passed
    assert judged.description == "the ONNX copy is 2.5e-01 off where 1e-06 is allowed"
