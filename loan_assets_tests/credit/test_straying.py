"""How far batches stray from what a version learned from, beside independent distances and on unchanged days."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from loan_assets.books import Column, LoanBook
from loan_assets.credit.drift import by_evidently, watched
from loan_assets.credit.scenarios import sudden_shift
from loan_assets.credit.straying import Reference, Scale
from loan_assets.policy import POLICY

VIGILANCE = POLICY.vigilance
SIZES = (100, 250, 1_000)


@pytest.fixture(scope="module")
def known(received: pd.DataFrame, book: LoanBook) -> pd.DataFrame:
    """What a version learned from."""
    return received.sample(12_000, random_state=3)[[column.name for column in watched(book)]]


@pytest.fixture(scope="module")
def others(received: pd.DataFrame, known: pd.DataFrame) -> pd.DataFrame:
    """Clients of the same world that it did not learn from."""
    return received.drop(known.index)[known.columns].reset_index(drop=True)


@pytest.fixture(scope="module")
def reference(known: pd.DataFrame, book: LoanBook) -> Reference:
    return Reference.of(known, watched(book), VIGILANCE)


@pytest.fixture(scope="module")
def columns(book: LoanBook) -> dict[str, Column]:
    return {column.name: column for column in watched(book)}


def quiet_shares(reference: Reference, others: pd.DataFrame, rows: int, seed: int, count: int) -> list[float]:
    """The share of every one of so many unchanged days."""
    generator = np.random.default_rng(seed)
    days = (others.iloc[generator.choice(len(others), rows, replace=False)] for _ in range(count))
    return [reference.share(day, rows)[0] for day in days]


# --- distances


def by_scipy(current: pd.Series, reference: pd.Series, column: Column) -> float:
    """The same distance from another hand."""
    from scipy.spatial.distance import jensenshannon
    from scipy.stats import wasserstein_distance

    now, then = current.dropna().astype("float64"), reference.dropna().astype("float64")
    if column.levels is None:
        return float(wasserstein_distance(then, now) / then.std(ddof=0))
    codes = sorted({*now, *then})
    return float(jensenshannon(*([(values == code).mean() for code in codes] for values in (then, now))))


def with_gaps(table: pd.DataFrame) -> pd.DataFrame:
    """A tenth of every column is missing, in other rows of each."""
    generator = np.random.default_rng(1)
    return table.astype("float64").where(generator.random(table.shape) > 0.1)


BATCHES: dict[str, Callable[[pd.DataFrame, LoanBook], pd.DataFrame]] = {
    "unchanged": lambda rows, book: rows.head(400),
    "shifted": lambda rows, book: sudden_shift(rows.head(400), book),
    "with gaps": lambda rows, book: with_gaps(rows.head(400)),
    "one client": lambda rows, book: rows.head(1),
    "codes never seen": lambda rows, book: rows.head(60).assign(education=9.0, bill_amount_1=1e7),
}


@pytest.mark.parametrize("batch", BATCHES)
def test_distances_are_those_of_another_hand(
    batch: str, reference: Reference, known: pd.DataFrame, others: pd.DataFrame, book: LoanBook
) -> None:
    rows = BATCHES[batch](others, book)
    ours = reference.distances(rows)
    assert list(ours) == [column.name for column in watched(book)]
    for column in watched(book):
        theirs = by_scipy(rows[column.name], known[column.name], column)
        assert ours[column.name] == pytest.approx(theirs, abs=1e-12), column.name


def test_distances_are_evidently_s_with_missing_values_on_both_sides(
    known: pd.DataFrame, others: pd.DataFrame, book: LoanBook
) -> None:
    then, now = with_gaps(known.head(2_000)), with_gaps(sudden_shift(others.head(300), book))
    theirs, _ = by_evidently(now, then, watched(book), dict.fromkeys((c.name for c in watched(book)), 0.1), VIGILANCE)
    ours = Reference.of(then, watched(book), VIGILANCE).distances(now)
    assert ours == pytest.approx(theirs, abs=1e-12)


def test_a_sample_by_its_rows_lies_as_far_as_by_its_values(reference: Reference, known: pd.DataFrame) -> None:
    rows = np.random.default_rng(2).integers(0, len(known), 300)
    for scale in reference.scales:
        sample = known[scale.column.name].to_numpy("float64")[rows]
        assert scale.distance_of_rows(rows) == pytest.approx(scale.distance(sample), abs=1e-12), scale.column.name


def test_a_reference_does_not_stray_from_itself(reference: Reference, known: pd.DataFrame) -> None:
    assert max(reference.distances(known).values()) < 1e-7


def test_a_constant_column_that_moves_is_far_and_one_that_stays_is_not(columns: dict[str, Column]) -> None:
    scale = Scale.of(np.full(50, 7.0), columns["age"])
    assert scale.distance(np.full(9, 7.0)) == 0.0
    assert scale.distance(np.full(9, 8.0)) == pytest.approx(1_000.0)


def test_infinite_values_are_missing(columns: dict[str, Column]) -> None:
    values, broken = np.arange(40.0), np.array([np.inf, -np.inf, np.nan])
    scale = Scale.of(np.append(values, broken), columns["age"])
    assert scale.distance(np.append(values + 1, broken)) == pytest.approx(1 / values.std())


@pytest.mark.parametrize("name", ["bill_amount_2", "education"])
def test_a_column_that_is_empty_or_not_there_is_left_out(
    name: str, reference: Reference, known: pd.DataFrame, others: pd.DataFrame, book: LoanBook
) -> None:
    for rows in (others.head(200).assign(**{name: np.nan}), others.head(200).drop(columns=name)):
        assert set(reference.share(rows, 200)[1]) == set(known.columns) - {name}
    for table in (known.drop(columns=name), known.assign(**{name: np.nan})):
        lacking = Reference.of(table, watched(book), VIGILANCE)
        assert name not in lacking.share(others.head(200), 200)[1]


def test_a_batch_of_which_nothing_can_be_compared_has_no_share(reference: Reference) -> None:
    assert reference.share({"sex": np.full(80, np.nan)}, 80) == (0.0, {})


def test_the_share_is_of_the_columns_that_could_be_compared(
    reference: Reference, others: pd.DataFrame, book: LoanBook
) -> None:
    moved = others.head(300).assign(credit_limit=lambda rows: rows["credit_limit"] * 4)
    share, distances = reference.share(moved[["credit_limit", "sex", "age", "education"]], 300)
    assert share == 0.25
    assert distances["credit_limit"] > 1


# --- limits


def test_limits_shrink_as_batches_grow(reference: Reference) -> None:
    few, more, many = (reference.limits(rows) for rows in SIZES)
    for name in few:
        assert few[name] > more[name] > many[name] or few[name] <= 0.07, name
        assert few[name] >= more[name] >= many[name] >= 0.05, name


def test_a_limit_is_the_policy_s_quantile_of_fresh_samples(reference: Reference, known: pd.DataFrame) -> None:
    """The reference is a sample of 12,000 itself, which hardly widens the limit of 250."""
    generator = np.random.default_rng(4)
    scale = next(one for one in reference.scales if one.column.name == "credit_limit")
    rows = reference._size(250)
    strayed = [scale.distance_of_rows(generator.integers(0, len(known), rows)) for _ in range(2_000)]
    below = np.mean(np.array(strayed) <= reference.limits(250)["credit_limit"])
    assert abs(below - VIGILANCE.quantile) < 0.02


def test_a_batch_is_judged_by_the_limits_of_the_next_smaller_size(reference: Reference) -> None:
    assert 250 / 1.1 < reference._size(250) <= 250
    assert reference.limits(250) is reference.limits(reference._size(250) + 1)
    assert reference._size(0) >= 1


def test_a_reference_that_is_a_small_sample_itself_has_wider_limits(known: pd.DataFrame, book: LoanBook) -> None:
    small = known.head(500)
    # The same rows ten times over: what chance does to a batch is the same, what is known of the world is not.
    tenfold = pd.concat([small] * 10, ignore_index=True)
    few, many = (Reference.of(table, watched(book), VIGILANCE).limits(250) for table in (small, tenfold))
    size = Reference.of(small, watched(book), VIGILANCE)._size(250)
    expected = np.sqrt((1 + size / 500) / (1 + size / 5_000))
    ratios = [few[name] / many[name] for name in few if many[name] > 0.06]
    assert np.median(ratios) == pytest.approx(expected, rel=0.05)


def test_a_difference_too_small_to_matter_is_no_move_however_many_rows_show_it(
    known: pd.DataFrame, book: LoanBook
) -> None:
    at_least = replace(VIGILANCE, number_moved=3.0, code_moved=0.9)
    limits = Reference.of(known.head(800), watched(book), at_least).limits(100)
    assert {limits[column.name] for column in watched(book) if column.levels is None} == {3.0}
    assert {limits[column.name] for column in watched(book) if column.levels is not None} == {0.9}


def test_the_same_seed_gives_the_same_limits(known: pd.DataFrame, book: LoanBook) -> None:
    once, again = (Reference.of(known.head(2_000), watched(book), VIGILANCE).limits(120) for _ in range(2))
    other = Reference.of(known.head(2_000), watched(book), replace(VIGILANCE, seed=6)).limits(120)
    assert once == again
    assert once != other


def test_a_column_with_gaps_has_the_limits_of_what_is_known_of_it(known: pd.DataFrame, book: LoanBook) -> None:
    """Half of a column is missing: samples of it hold half as many values and stray about as far as those do."""
    halved = known.assign(credit_limit=known["credit_limit"].where(np.arange(len(known)) % 2 == 0))
    limit = Reference.of(halved, watched(book), VIGILANCE).limits(400)["credit_limit"]
    whole = Reference.of(known, watched(book), VIGILANCE)
    assert limit == pytest.approx(whole.limits(200)["credit_limit"], rel=0.2)
    assert limit > 1.2 * whole.limits(400)["credit_limit"]


def test_a_column_that_hardly_any_client_of_the_reference_gave_still_has_a_limit(
    known: pd.DataFrame, others: pd.DataFrame, book: LoanBook
) -> None:
    sparse = known.head(2_000).assign(sex=lambda rows: rows["sex"].where(np.arange(len(rows)) < 20))
    measured = Reference.of(sparse, watched(book), VIGILANCE)
    assert measured.limits(60)["sex"] >= VIGILANCE.code_moved
    assert np.isfinite(list(measured.limits(60).values())).all()


# --- days


@pytest.mark.parametrize("rows", SIZES)
def test_unchanged_days_are_seldom_over_the_limit_and_never_three_in_a_row(
    rows: int, reference: Reference, others: pd.DataFrame
) -> None:
    over = np.array(quiet_shares(reference, others, rows, 10, 150)) > VIGILANCE.retrain_above
    assert over.mean() <= 0.04
    assert not (over[:-2] & over[1:-1] & over[2:]).any()


def test_a_version_of_few_rows_is_not_alarmed_by_its_own_chance(
    known: pd.DataFrame, others: pd.DataFrame, book: LoanBook
) -> None:
    """What a small reference strays by itself is the same on every day, and would be three in a row."""
    for start in range(0, 6_000, 1_000):
        small = Reference.of(known.iloc[start : start + 700], watched(book), replace(VIGILANCE, samples=150))
        over = np.array(quiet_shares(small, others, 250, start, 12)) > VIGILANCE.retrain_above
        assert not (over[:-2] & over[1:-1] & over[2:]).any()


@pytest.mark.parametrize("rows", SIZES)
def test_every_day_of_a_sudden_shift_is_over_the_limit(
    rows: int, reference: Reference, others: pd.DataFrame, book: LoanBook
) -> None:
    shares = quiet_shares(reference, sudden_shift(others, book), rows, 11, 20)
    assert min(shares) > VIGILANCE.retrain_above
