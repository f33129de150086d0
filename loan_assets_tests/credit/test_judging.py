import numpy as np
import pytest
from scipy.stats import ks_2samp
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from loan_assets.credit.judging import below_the_floors, judge, refusal_threshold
from loan_assets.policy import Evidence, Floors

EVIDENCE = Evidence(resamples=60)


def some(seed: int, rows: int = 4_000, ties: bool = False) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    estimate = generator.beta(2, 6, rows)
    if ties:
        estimate = np.round(estimate, 2).clip(0.01, 0.99)
    return (generator.random(rows) < estimate).astype("int64"), estimate


@pytest.mark.parametrize("ties", [False, True])
def test_the_figures_are_scikit_learn_s(ties: bool) -> None:
    label, estimate = some(1, ties=ties)
    found = judge(label, estimate, EVIDENCE)
    assert found.auc.value == pytest.approx(roc_auc_score(label, estimate), abs=1e-12)
    assert found.average_precision.value == pytest.approx(average_precision_score(label, estimate), abs=1e-12)
    assert found.brier.value == pytest.approx(brier_score_loss(label, estimate), abs=1e-12)
    line = LogisticRegression(C=np.inf, tol=1e-10).fit(np.log(estimate / (1 - estimate))[:, None], label)
    assert found.calibration_slope.value == pytest.approx(line.coef_[0, 0], abs=1e-5)


def test_the_calibration_error_is_the_mean_gap_of_ten_equal_bins() -> None:
    label, estimate = some(6, 5_000)
    bins = np.array_split(np.argsort(estimate), 10)
    expected = np.mean([abs(label[rows].mean() - estimate[rows].mean()) for rows in bins])
    assert judge(label, estimate, EVIDENCE).calibration_error.value == pytest.approx(expected, abs=1e-3)
    spoilt = judge(label, np.clip(estimate + 0.1, 0.01, 0.99), EVIDENCE)
    assert spoilt.calibration_error.value == pytest.approx(0.1, abs=0.02)


def test_ks_is_the_two_sample_statistic() -> None:
    label, estimate = some(7)
    expected = ks_2samp(estimate[label == 1], estimate[label == 0]).statistic
    assert judge(label, estimate, EVIDENCE).ks.value == pytest.approx(expected, abs=1e-12)


def test_intervals_hold_their_figure_and_shrink_with_rows() -> None:
    few, many = judge(*some(2, 1_000), EVIDENCE), judge(*some(2, 16_000), EVIDENCE)
    for found in (few, many):
        assert found.auc.low < found.auc.value < found.auc.high
    assert many.auc.high - many.auc.low < (few.auc.high - few.auc.low) / 2


def test_an_estimate_that_is_no_probability_is_refused() -> None:
    label, estimate = some(3)
    estimate[5] = np.nan
    with pytest.raises(ValueError, match="1 estimates are not probabilities"):
        judge(label, estimate, EVIDENCE)


def test_the_threshold_refuses_as_many_as_default() -> None:
    label, estimate = some(4, 20_000)
    threshold = refusal_threshold(label, estimate, 1.0)
    assert (estimate >= threshold).mean() == pytest.approx(label.mean(), abs=0.002)


def test_each_floor_stops_a_model_that_falls_below_it() -> None:
    good = judge(*some(5), EVIDENCE)
    lenient = Floors(auc=0.5, brier=0.3, calibration_error=0.1)
    assert below_the_floors(good, {"sex": 0.9}, lenient) == ()
    assert "AUC" in below_the_floors(good, {"sex": 0.9}, Floors(auc=0.99, brier=0.3, calibration_error=0.1))[0]
    assert "Brier" in below_the_floors(good, {"sex": 0.9}, Floors(auc=0.5, brier=0.01, calibration_error=0.1))[0]
    assert "sex is 0.790" in below_the_floors(good, {"sex": 0.79}, lenient)[0]
    assert below_the_floors(good, {"sex": float("nan")}, lenient) != ()
