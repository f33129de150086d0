"""The figures of outcomes against independent ones, and changes that are found, located, or rightly not seen."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from loan_assets.credit.performance import (
    FARTHEST,
    Line,
    compare,
    latest_change,
    line_through,
    losses,
    ranking_of,
)
from loan_assets.policy import POLICY

RULE = POLICY.succession
Numbers = NDArray[np.float64]
Labels = NDArray[np.int64]
Arrivals = list[tuple[Numbers, Labels]]
# About as well as the first version ranks: an AUC of 0.78 at a default rate of 0.22.
MEAN, SPREAD = -1.6, 1.2


def outcomes_of(log_odds: Numbers, generator: np.random.Generator) -> Labels:
    return (generator.random(log_odds.shape) < 1 / (1 + np.exp(-log_odds))).astype(np.int64)


def drawn(
    rows: int, generator: np.random.Generator, *, slope: float = 1.0, intercept: float = 0.0
) -> tuple[Numbers, Labels]:
    log_odds = generator.normal(MEAN, SPREAD, rows)
    return log_odds, outcomes_of(slope * log_odds + intercept, generator)


def normal(generator: np.random.Generator) -> Line:
    return line_through(*drawn(4_000, generator))


def changed(seed: int, *, quiet: int, then: int, rows: int = 250, **line: float) -> tuple[Arrivals, Line]:
    """Arrivals of which the last ones follow another line."""
    generator = np.random.default_rng(seed)
    baseline = normal(generator)
    arrivals = [drawn(rows, generator) for _ in range(quiet)]
    return [*arrivals, *(drawn(rows, generator, **line) for _ in range(then))], baseline


# --- the line


def test_the_line_recovers_slope_and_intercept() -> None:
    line = line_through(*drawn(60_000, np.random.default_rng(1), slope=0.6, intercept=-0.4))
    assert line.slope == pytest.approx(0.6, abs=0.03)
    assert line.intercept == pytest.approx(-0.4, abs=0.05)


def test_the_line_is_that_of_a_logistic_regression() -> None:
    from sklearn.linear_model import LogisticRegression

    log_odds, label = drawn(60_000, np.random.default_rng(2), slope=1.3, intercept=0.2)
    theirs = LogisticRegression(C=np.inf, tol=1e-10).fit(np.clip(log_odds, -FARTHEST, FARTHEST)[:, None], label)
    line = line_through(log_odds, label)
    # Held loosely to slope 1 and intercept 0: off by less than a thousandth with so many rows.
    assert line.place == pytest.approx([theirs.coef_[0, 0], theirs.intercept_[0]], abs=1e-3)


def test_few_rows_are_held_to_the_line_that_they_are_given() -> None:
    log_odds, label = np.array([-3.0, 1.0]), np.array([1, 0])
    alone = line_through(log_odds, label)
    held = line_through(log_odds, label, Line(slope=4.0, intercept=2.0, information=np.eye(2)))
    assert abs(alone.slope) < 2
    assert held.slope > alone.slope + 0.5
    assert held.intercept > alone.intercept + 0.5


def test_what_is_known_of_a_line_is_the_spread_of_its_estimates() -> None:
    generator = np.random.default_rng(3)
    lines = [line_through(*drawn(1_000, generator)) for _ in range(300)]
    expected = np.linalg.inv(np.mean([line.information for line in lines], axis=0))
    assert np.cov(np.array([line.place for line in lines]).T) == pytest.approx(expected, rel=0.3)


def test_one_surprising_client_counts_no_more_than_the_farthest_score() -> None:
    log_odds, label = drawn(500, np.random.default_rng(4))
    one = np.append(label, 1)
    assert line_through(np.append(log_odds, -FARTHEST), one).place == pytest.approx(
        line_through(np.append(log_odds, -200.0), one).place
    )


@pytest.mark.parametrize("seed", range(30))
def test_the_line_is_the_likeliest_where_defaults_are_far_rarer_or_commoner_than_before(seed: int) -> None:
    """Whole steps of Newton's method circle here, and evidence of a change comes out negative."""
    from scipy.optimize import minimize

    generator = np.random.default_rng(seed)
    before = Line(slope=1.0, intercept=0.0, information=np.diag([400.0, 400.0]))
    expected, rate = ((0.05, 0.25), (0.7, 0.02))[seed % 2]
    log_odds = generator.normal(np.log(expected / (1 - expected)), 0.6, 250)
    label = (generator.random(250) < rate).astype(np.int64)

    def cost(place: Numbers, held: Numbers, firmness: Numbers) -> float:
        score = log_odds * place[0] + place[1]
        moved = place - held
        return float((np.logaddexp(0.0, score) - label * score).sum() + 0.5 * moved @ firmness @ moved)

    loose = np.diag([0.25, 0.25])
    alone = minimize(cost, before.place, args=(before.place, loose), method="BFGS")
    np.testing.assert_allclose(line_through(log_odds, label, before).place, alone.x, atol=2e-3)
    found = latest_change([(log_odds, label), (log_odds, label)], before, 2)
    assert found is not None
    assert found.evidence > 20


def test_outcomes_that_scores_separate_wholly_give_finite_figures() -> None:
    log_odds = np.concatenate([np.full(60, -2.0), np.full(40, 3.0)])
    label = np.repeat([0, 1], [60, 40])
    line = line_through(log_odds, label)
    assert np.isfinite(line.place).all()
    assert np.isfinite(line.information).all()
    ranking = ranking_of(log_odds, label)
    assert ranking is not None
    assert (ranking.auc, ranking.low, ranking.high) == (1.0, 1.0, 1.0)
    found = compare(log_odds, -log_odds, label)
    assert found is not None
    assert (found.auc_first, found.auc_second, found.auc_z) == (1.0, 0.0, 0.0)
    assert found.loss_z < -10
    change = latest_change([(log_odds, label), (-log_odds, label)] * 2, line, 10)
    assert change is not None
    assert np.isfinite([change.evidence, change.slope, change.rate_ratio]).all()


# --- figures beside independent ones


def test_the_area_is_scikit_learn_s_with_ties_and_without() -> None:
    from sklearn.metrics import roc_auc_score

    log_odds, label = drawn(800, np.random.default_rng(5))
    for scores in (log_odds, np.round(log_odds, 1), np.round(log_odds)):
        ranking = ranking_of(scores, label)
        assert ranking is not None
        assert ranking.auc == pytest.approx(roc_auc_score(label, scores), abs=1e-12)


@pytest.mark.parametrize(("rows", "slope"), [(150, 1.0), (600, 1.0), (600, 0.0)])
def test_the_interval_covers_the_true_area_about_95_times_in_100(rows: int, slope: float) -> None:
    generator = np.random.default_rng(6)
    truth = ranking_of(*drawn(400_000, generator, slope=slope))
    assert truth is not None
    rankings = [ranking_of(*drawn(rows, generator, slope=slope)) for _ in range(600)]
    covered = [ranking.low <= truth.auc <= ranking.high for ranking in rankings if ranking is not None]
    assert len(covered) == 600
    assert 0.92 <= np.mean(covered) <= 0.975


def test_an_interval_ends_at_nothing_and_at_all() -> None:
    label = np.array([0, 0, 0, 1, 1, 1])
    best, worst = ranking_of(np.array([1.0, 2, 4, 3, 5, 6]), label), ranking_of(-np.array([1.0, 2, 4, 3, 5, 6]), label)
    assert best is not None
    assert worst is not None
    assert (best.high, worst.low) == (1.0, 0.0)


def test_paired_gains_are_in_the_standard_errors_of_a_bootstrap() -> None:
    from sklearn.metrics import log_loss, roc_auc_score

    generator = np.random.default_rng(7)
    first, label = drawn(700, generator)
    second = first + generator.normal(0, 0.7, len(first))
    found = compare(first, second, label)
    assert found is not None
    assert found.auc_gain == pytest.approx(roc_auc_score(label, second) - roc_auc_score(label, first), abs=1e-12)
    loss_gain = log_loss(label, 1 / (1 + np.exp(-first))) - log_loss(label, 1 / (1 + np.exp(-second)))
    assert found.loss_gain == pytest.approx(loss_gain, abs=1e-9)
    auc_gains, loss_gains = [], []
    gains = losses(first, label) - losses(second, label)
    for _ in range(800):
        rows = generator.integers(0, len(label), len(label))
        one, two = ranking_of(first[rows], label[rows]), ranking_of(second[rows], label[rows])
        assert one is not None
        assert two is not None
        auc_gains.append(two.auc - one.auc)
        loss_gains.append(gains[rows].mean())
    assert found.auc_gain / found.auc_z == pytest.approx(np.std(auc_gains), rel=0.15)
    assert found.loss_gain / found.loss_z == pytest.approx(np.std(loss_gains), rel=0.15)


def test_gains_are_of_the_second_over_the_first() -> None:
    log_odds, label = drawn(2_000, np.random.default_rng(8))
    found = compare(np.zeros(len(label)), log_odds, label)
    assert found is not None
    assert found.rows == 2_000
    assert found.auc_first == 0.5
    assert found.loss_first == pytest.approx(np.log(2))
    assert min(found.auc_gain, found.auc_z - 5, found.loss_gain, found.loss_z - 5) > 0


def test_a_version_compared_with_itself_gains_nothing() -> None:
    log_odds, label = drawn(500, np.random.default_rng(9))
    found = compare(log_odds, log_odds, label)
    assert found is not None
    assert (found.auc_gain, found.auc_z, found.loss_gain, found.loss_z) == (0.0, 0.0, 0.0, 0.0)


@pytest.mark.parametrize("outcome", [0, 1])
def test_one_outcome_only_ranks_nothing(outcome: int) -> None:
    log_odds, label = np.array([-1.0, 0.5, 2.0]), np.full(3, outcome)
    assert ranking_of(log_odds, label) is None
    assert compare(log_odds, -log_odds, label) is None


def test_a_single_defaulter_can_be_ranked() -> None:
    ranking = ranking_of(np.array([0.0, 1.0, 2.0]), np.array([0, 1, 0]))
    assert ranking is not None
    assert ranking.auc == 0.5


# --- changes


@pytest.mark.parametrize("rows", [100, 250, 1_000])
def test_unchanged_outcomes_stay_below_the_limit(rows: int) -> None:
    evidence = []
    for seed in range(6):
        arrivals, baseline = changed(seed, quiet=30, then=0, rows=rows)
        for day in range(RULE.longest_window, len(arrivals) + 1):
            found = latest_change(arrivals[:day], baseline, RULE.longest_window)
            assert found is not None
            evidence.append(found.evidence)
    assert max(evidence) < RULE.change_evidence
    # The strongest of twenty windows, each about chi-squared with two degrees of freedom.
    assert 2 < np.median(evidence) < 7


CHANGES: Sequence[tuple[dict[str, Any], Callable[[float, float], bool]]] = (
    ({"slope": 0.3, "intercept": -0.8}, lambda slope, _: 0.1 < slope < 0.5),
    ({"slope": -0.5, "intercept": -2.0}, lambda slope, _: slope < -0.2),
    ({"intercept": 0.6}, lambda slope, ratio: 0.8 < slope < 1.25 and 1.25 < ratio < 1.6),
    ({"intercept": -0.6}, lambda slope, ratio: 0.8 < slope < 1.25 and 0.55 < ratio < 0.75),
)


@pytest.mark.parametrize("line", range(len(CHANGES)))
def test_a_change_is_found_and_begins_with_its_first_arrival(line: int) -> None:
    facts, is_so = CHANGES[line]
    for seed in range(5):
        arrivals, baseline = changed(seed, quiet=8, then=5, **facts)
        found = latest_change(arrivals, baseline, RULE.longest_window)
        assert found is not None
        assert found.evidence > RULE.rate_evidence
        assert abs(found.position - 8) <= 2
        assert is_so(found.slope, found.rate_ratio), (found.slope, found.rate_ratio)


def test_the_second_arrival_of_a_large_change_is_enough() -> None:
    arrivals, baseline = changed(1, quiet=8, then=2, slope=-0.5, intercept=-2.0)
    found = latest_change(arrivals, baseline, RULE.longest_window)
    assert found is not None
    assert found.evidence > RULE.change_evidence
    assert found.position == 8


def test_one_strange_arrival_alone_is_no_change() -> None:
    generator = np.random.default_rng(11)
    baseline = normal(generator)
    assert latest_change([drawn(250, generator, slope=-1.0)], baseline, RULE.longest_window) is None
    assert latest_change([], baseline, RULE.longest_window) is None


def test_a_strange_arrival_after_quiet_ones_speaks_only_through_a_window_of_two() -> None:
    arrivals, baseline = changed(12, quiet=6, then=1, rows=250, slope=0.3, intercept=-0.8)
    found = latest_change(arrivals, baseline, RULE.longest_window)
    by_itself = latest_change([*arrivals[:-1], *arrivals[-1:], (np.empty(0), np.empty(0, dtype=np.int64))], baseline, 2)
    assert found is not None
    assert by_itself is not None
    assert found.rows >= 2 * 250
    assert found.position == 6
    assert found.evidence < by_itself.evidence


def test_no_window_is_longer_than_the_longest() -> None:
    arrivals, baseline = changed(13, quiet=0, then=12, slope=0.3, intercept=-0.8)
    found = latest_change(arrivals, baseline, 4)
    assert found is not None
    assert found.rows <= 4 * 250
    assert found.position >= 8


def test_what_arrived_before_is_added_to_what_was_known() -> None:
    """The longer a world has lasted, the less it is told from itself."""
    arrivals, baseline = changed(14, quiet=0, then=40, intercept=0.6)
    early = latest_change(arrivals[:10], baseline, RULE.longest_window)
    late = latest_change(arrivals, baseline, 2)
    assert early is not None
    assert late is not None
    assert early.evidence > RULE.rate_evidence
    assert early.rate_ratio > 1.25
    assert late.evidence < RULE.change_evidence
    assert late.rate_ratio < 1.2


def test_an_arrival_without_rows_changes_nothing() -> None:
    arrivals, baseline = changed(15, quiet=6, then=3, slope=0.3, intercept=-0.8)
    nothing = (np.empty(0), np.empty(0, dtype=np.int64))
    found = latest_change(arrivals, baseline, RULE.longest_window)
    padded = latest_change([nothing, *arrivals[:4], nothing, *arrivals[4:]], baseline, RULE.longest_window)
    assert found is not None
    assert padded is not None
    assert padded.evidence == pytest.approx(found.evidence)
    assert padded.rows == found.rows


def test_losses_are_bounded_by_the_farthest_score() -> None:
    lost = losses(np.array([0.0, -100.0, 100.0, 100.0]), np.array([1, 1, 0, 1]))
    assert lost == pytest.approx([np.log(2), np.log1p(np.exp(FARTHEST)), np.log1p(np.exp(FARTHEST)), 0.0], abs=3e-3)
    assert lost[1] == pytest.approx(np.log1p(np.exp(FARTHEST)), abs=1e-12)
