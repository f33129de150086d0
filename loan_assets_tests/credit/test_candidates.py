"""Challengers learn from what is older than what judges them, and the trial sees what is better and what is not."""

from dataclasses import fields, replace

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from loan_assets.books import LoanBook
from loan_assets.credit.backtest import first_version
from loan_assets.credit.candidates import RECIPES, REFITS, Recipe, Trial, challenger, chosen, fitted, learned, trial
from loan_assets.credit.judging import refusal_threshold
from loan_assets.credit.ledger import Rows
from loan_assets.credit.performance import Comparison, compare
from loan_assets.credit.scoring import Calibration, FlatTrees, probability
from loan_assets.credit.succession import PROMOTE, REJECT, WAIT, Challenger, Episode, Situation, judged
from loan_assets.credit.versions import Version
from loan_assets.policy import POLICY
from loan_assets_tests.credit.stumps import bills, stump

# Smaller trees and rougher limits than the policy's, for speed; the rule is the policy's.
SMALL = replace(POLICY, boosting=replace(POLICY.boosting, trees=60), vigilance=replace(POLICY.vigilance, samples=30))
OLD, DAYS, A_DAY = 5_000, 14, 100
Numbers = NDArray[np.float64]


@pytest.fixture(scope="module")
def clients(received: pd.DataFrame) -> pd.DataFrame:
    return received.sample(OLD + DAYS * A_DAY + 3_000, random_state=4).reset_index(drop=True)


def rows_of(table: pd.DataFrame, book: LoanBook, day: NDArray[np.int64] | None = None) -> Rows:
    rows = Rows.of(table, book, table["defaulted"].to_numpy("int64"))
    return replace(rows, day=np.full(len(table), -1) if day is None else day)


@pytest.fixture(scope="module")
def old(clients: pd.DataFrame, book: LoanBook) -> Rows:
    return rows_of(clients[:OLD], book)


@pytest.fixture(scope="module")
def quiet(clients: pd.DataFrame, book: LoanBook) -> Rows:
    """Two weeks in which nothing changed."""
    return rows_of(clients[OLD : OLD + DAYS * A_DAY], book, np.repeat(np.arange(DAYS), A_DAY))


@pytest.fixture(scope="module")
def fresh(clients: pd.DataFrame, book: LoanBook) -> Rows:
    """Clients whom no version and no choice has seen."""
    return rows_of(clients[OLD + DAYS * A_DAY :], book)


@pytest.fixture(scope="module")
def champion(old: Rows, book: LoanBook) -> Version:
    return first_version(old, book, SMALL)


def with_outcomes(rows: Rows, chance: Numbers, seed: int) -> Rows:
    return replace(rows, label=(np.random.default_rng(seed).random(len(rows)) < chance).astype(np.int64))


def at_another_rate(rows: Rows, champion: Version, seed: int = 1) -> Rows:
    """The champion ranks as ever, and half as many again default."""
    return with_outcomes(rows, 1 / (1 + np.exp(-champion.log_odds(rows.features) - 0.7)), seed)


def turned_round(rows: Rows, seed: int = 2) -> Rows:
    """It is the large limits that default."""
    return with_outcomes(rows, np.where(rows.received["credit_limit"] > 140_000, 0.45, 0.06), seed)


def shuffled(rows: Rows, seed: int = 3) -> Rows:
    return replace(rows, label=np.random.default_rng(seed).permutation(rows.label))


def are_alike(one: FlatTrees, other: FlatTrees) -> bool:
    return all(np.array_equal(getattr(one, item.name), getattr(other, item.name)) for item in fields(FlatTrees))


def verdict(found: Trial, *, looks: int = 0, promotions: int = 0) -> str:
    episode = Episode(since="2026-01-01", opened="2026-01-01", causes=("outcomes",), promotions=promotions)
    on_trial = Challenger(number=2, made="2026-01-09", looks=looks)
    return judged(Situation(episode=episode, challenger=on_trial, newest=2), "2026-01-09", found, SMALL.succession)[1]


# --- what is learned from and what is held out


@pytest.fixture(scope="module")
def turned(quiet: Rows) -> Rows:
    return turned_round(quiet)


@pytest.fixture(scope="module")
def made(old: Rows, turned: Rows, champion: Version, book: LoanBook) -> tuple[Version, Rows]:
    """A challenger in the world turned round, and the rows that judge it."""
    return challenger(2, RECIPES, old, turned, turned, champion, book, SMALL)


def test_held_out_rows_are_later_than_every_row_learned_from(made: tuple[Version, Rows], turned: Rows) -> None:
    version, held = made
    assert held.day.min() == version.learned_until + 1
    assert version.rows == (turned.day <= version.learned_until).sum()
    assert version.rows + len(held) == len(turned)
    assert 0.28 < len(held) / len(turned) < 0.4
    np.testing.assert_array_equal(held.features, turned.features[turned.day > version.learned_until])


@pytest.mark.parametrize("recipes", [RECIPES, REFITS])
def test_nothing_of_what_is_held_out_reaches_the_challenger(
    recipes: tuple[Recipe, ...],
    made: tuple[Version, Rows],
    old: Rows,
    turned: Rows,
    champion: Version,
    book: LoanBook,
) -> None:
    is_held = turned.day > made[0].learned_until
    other = replace(
        turned,
        label=np.where(is_held, 1 - turned.label, turned.label),
        features=np.where(is_held[:, None], np.float32(7), turned.features),
    )
    one, two = (challenger(2, recipes, old, rows, turned, champion, book, SMALL)[0] for rows in (turned, other))
    assert are_alike(one.trees, two.trees)
    assert (one.calibration, one.threshold, one.recipe) == (two.calibration, two.threshold, two.recipe)
    assert one.chosen_by == two.chosen_by
    assert one.normal.place != pytest.approx(two.normal.place, abs=0.1)


def test_days_of_unequal_size_are_held_out_whole_and_about_a_third_in_all(
    old: Rows, quiet: Rows, champion: Version, book: LoanBook
) -> None:
    # A day too small to learn from alone, before one that is all the rest, leaves nothing to try it on yet.
    cases = (((700, 700), 0), ((100, 900, 400), 1), ((500, 200, 400, 300), 2), ((100, 1_300), 1))
    for days, last in cases:
        rows = replace(quiet, day=np.repeat(np.arange(len(days)), days))
        version, held = challenger(2, RECIPES[:1], old, rows, rows, champion, book, SMALL)
        assert version.learned_until == last
        assert len(held) == sum(days[last + 1 :])


def test_days_without_some_of_either_outcome_are_not_learned_from_alone(
    old: Rows, quiet: Rows, champion: Version, book: LoanBook
) -> None:
    days = np.repeat(np.arange(4), 350)
    early = np.flatnonzero(days < 3)
    label = quiet.label[:1_400].copy()
    label[early] = np.where(np.arange(len(early)) < SMALL.succession.least_of_each_part - 1, 1, 0)
    rows = replace(quiet.where(np.arange(len(quiet)) < 1_400), day=days, label=label)
    version, held = challenger(2, RECIPES, old, rows, rows, champion, book, SMALL)
    assert (version.learned_until, len(held)) == (3, 0)


def test_a_single_day_is_learned_from_whole_and_tried_on_the_next(
    old: Rows, quiet: Rows, fresh: Rows, champion: Version, book: LoanBook
) -> None:
    today = turned_round(replace(quiet, day=np.zeros(len(quiet), dtype=np.int64)))
    version, held = challenger(2, RECIPES, old, today, today, champion, book, SMALL)
    assert (version.rows, version.learned_until, len(held)) == (len(today), 0, 0)
    assert verdict(trial(version, champion, held, today, book, SMALL)) == WAIT
    assert verdict(trial(version, champion, turned_round(fresh), today, book, SMALL)) == PROMOTE


def test_the_same_rows_and_seed_give_the_same_trees(
    made: tuple[Version, Rows], old: Rows, turned: Rows, champion: Version, book: LoanBook
) -> None:
    again, _ = challenger(2, RECIPES, old, turned, turned, champion, book, SMALL)
    assert are_alike(made[0].trees, again.trees)
    assert (made[0].calibration, made[0].chosen_by) == (again.calibration, again.chosen_by)


def test_the_choice_is_made_on_a_part_of_the_old_rows_and_the_fit_on_all(
    old: Rows, turned: Rows, champion: Version, book: LoanBook
) -> None:
    few = replace(SMALL, succession=replace(SMALL.succession, old_rows_tried=500))
    _, trees, _, _, _ = chosen(RECIPES[1:2], old, turned, champion, book, few)
    assert trees.cover[trees.roots[0]] == len(old) + len(turned)


def test_its_reference_are_the_applications_of_the_last_week_with_or_without_outcomes(
    old: Rows, turned: Rows, fresh: Rows, champion: Version, book: LoanBook
) -> None:
    seen = replace(fresh, day=np.repeat(np.arange(30), 100))
    version, _ = challenger(2, RECIPES[:1], old, turned, seen, champion, book, SMALL)
    assert version.reference.rows == 100 * SMALL.succession.reference_days


def test_it_refuses_as_many_as_default_among_those_it_has_not_seen(
    made: tuple[Version, Rows], turned: Rows, fresh: Rows
) -> None:
    learned = turned.where(turned.day <= made[0].learned_until)
    refused = made[0].score(fresh.features) >= made[0].threshold
    assert refused.mean() == pytest.approx(learned.label.mean(), abs=0.03)


def test_its_threshold_comes_from_scores_by_models_that_did_not_see_the_rows(
    old: Rows, turned: Rows, champion: Version, book: LoanBook
) -> None:
    recipe = Recipe(name="new rows only", old_weight=0.0)
    made, train, _ = learned((recipe,), old, turned, champion, book, SMALL)
    share = SMALL.refused_share_over_base_rate
    assert made.threshold == refusal_threshold(train.label, probability(made.estimates), share)
    seen = probability(made.trees.log_odds(train.features), made.calibration)
    assert made.threshold != refusal_threshold(train.label, seen, share)


def test_its_normal_is_the_line_over_what_was_held_out(made: tuple[Version, Rows]) -> None:
    from sklearn.linear_model import LogisticRegression

    version, held = made
    theirs = LogisticRegression(C=np.inf).fit(version.log_odds(held.features)[:, None], held.label)
    assert version.normal.place == pytest.approx([theirs.coef_[0, 0], theirs.intercept_[0]], abs=0.05)


# --- recipes and the choice among them


def test_a_recalibrated_candidate_ranks_exactly_as_the_champion(
    old: Rows, quiet: Rows, fresh: Rows, champion: Version, book: LoanBook
) -> None:
    new = at_another_rate(quiet, champion)
    trees, line = fitted(RECIPES[0], old, new, champion, book, SMALL)
    assert trees is champion.trees
    candidate = replace(champion, calibration=line)
    found = compare(champion.log_odds(fresh.features), candidate.log_odds(fresh.features), fresh.label)
    assert found is not None
    assert (found.auc_gain, found.auc_z) == (0.0, 0.0)
    assert candidate.score(new.features).mean() == pytest.approx(new.label.mean(), abs=0.002)
    assert champion.score(new.features).mean() < new.label.mean() - 0.08


def test_the_line_of_a_recalibrated_champion_replaces_its_line(
    old: Rows, quiet: Rows, champion: Version, book: LoanBook
) -> None:
    shifted = replace(champion, calibration=Calibration(slope=2.0, intercept=-1.0))
    ours, theirs = (fitted(RECIPES[0], old, quiet, one, book, SMALL)[1] for one in (champion, shifted))
    assert ours == theirs


def test_the_less_old_rows_count_the_less_is_kept_of_the_old_world(
    old: Rows, turned: Rows, champion: Version, book: LoanBook
) -> None:
    kept = [
        np.corrcoef(
            fitted(recipe, old, turned, champion, book, SMALL)[0].log_odds(old.features),
            champion.log_odds(old.features),
        )[0, 1]
        for recipe in RECIPES
    ]
    assert kept == sorted(kept, reverse=True)
    assert kept[0] == pytest.approx(1.0)
    assert kept[1] > kept[2] + 0.05
    assert kept[2] > kept[3] + 0.01


def test_new_rows_only_means_new_rows_only(
    old: Rows, quiet: Rows, turned: Rows, champion: Version, book: LoanBook
) -> None:
    one, two = (fitted(RECIPES[3], before, turned, champion, book, SMALL)[0] for before in (old, quiet))
    assert are_alike(one, two)


def test_where_only_the_rate_moved_the_champion_is_recalibrated_and_promoted(
    old: Rows, quiet: Rows, fresh: Rows, champion: Version, book: LoanBook
) -> None:
    new = at_another_rate(quiet, champion)
    version, held = challenger(2, RECIPES, old, new, new, champion, book, SMALL)
    assert version.recipe == "recalibrated"
    assert version.trees is champion.trees
    found = trial(version, champion, held, new, book, SMALL)
    assert (found.metric, found.against) == ("log_loss", ())
    assert found.champion - found.challenger == pytest.approx(found.loss_gain)
    assert found.z == found.loss_z
    assert verdict(found) == PROMOTE
    later = at_another_rate(fresh, champion, seed=9)
    after = compare(champion.log_odds(later.features), version.log_odds(later.features), later.label)
    assert after is not None
    assert after.loss_gain > SMALL.succession.recalibration_gain


def test_where_nothing_changed_the_champion_stays(old: Rows, quiet: Rows, champion: Version, book: LoanBook) -> None:
    version, held = challenger(2, RECIPES, old, quiet, quiet, champion, book, SMALL)
    assert version.recipe == "recalibrated"
    assert verdict(trial(version, champion, held, quiet, book, SMALL)) != PROMOTE


def test_a_relation_turned_round_is_learned_anew_and_ranks_better_on_fresh_rows(
    made: tuple[Version, Rows], turned: Rows, fresh: Rows, champion: Version, book: LoanBook
) -> None:
    version, held = made
    assert version.recipe in {recipe.name for recipe in REFITS}
    found = trial(version, champion, held, turned, book, SMALL)
    assert (found.metric, found.against, verdict(found)) == ("auc", (), PROMOTE)
    assert found.challenger - found.champion == pytest.approx(found.auc_gain)
    assert found.z == found.auc_z
    later = turned_round(fresh, seed=9)
    after = compare(champion.log_odds(later.features), version.log_odds(later.features), later.label)
    assert after is not None
    assert after.auc_gain > 0.1
    assert after.auc_z > 5


def test_a_refit_is_calibrated_in_the_world_that_it_learned(made: tuple[Version, Rows], fresh: Rows) -> None:
    later = turned_round(fresh, seed=9)
    assert made[0].score(later.features).mean() == pytest.approx(later.label.mean(), abs=0.03)


def test_a_world_with_a_model_of_its_own_is_refitted_and_its_trial_counts_held_out_rows_alone(
    old: Rows, quiet: Rows, champion: Version, book: LoanBook
) -> None:
    new = at_another_rate(quiet, champion)
    version, held = challenger(3, REFITS, old, new, new, champion, book, SMALL)
    assert version.recipe in {recipe.name for recipe in REFITS}
    assert version.chosen_by is None
    found = trial(version, champion, held, new, book, SMALL)
    assert (found.all_auc_z, found.all_loss_z) == (found.auc_z, found.loss_z)


def test_the_choice_is_told_by_models_that_did_not_see_the_rows(
    old: Rows, quiet: Rows, champion: Version, book: LoanBook
) -> None:
    """On outcomes that go with nothing, a model that saw them would rank them well."""
    noise = shuffled(quiet)
    _, trees, line, against_champion, _ = chosen(RECIPES[3:], old, noise, champion, book, SMALL)
    assert against_champion is not None
    assert against_champion.rows == len(noise)
    assert 0.45 < against_champion.auc_second < 0.55
    seen = compare(champion.log_odds(noise.features), trees.log_odds(noise.features), noise.label)
    assert seen is not None
    assert seen.auc_second > 0.7
    assert abs(line.slope) < 0.4


# --- the trial


@pytest.mark.parametrize("seed", range(3))
def test_a_challenger_that_learned_from_shuffled_outcomes_is_rejected(
    seed: int, old: Rows, quiet: Rows, champion: Version, book: LoanBook
) -> None:
    for recipes in (RECIPES, REFITS):
        learned = shuffled(quiet, seed)
        is_held = quiet.day >= 9
        mixed = replace(quiet, label=np.where(is_held, quiet.label, learned.label))
        version, held = challenger(2, recipes, old, mixed, mixed, champion, book, SMALL)
        found = trial(version, champion, held, mixed, book, SMALL)
        assert verdict(found, looks=SMALL.succession.looks - 1, promotions=recipes is REFITS) == REJECT
        assert version.recipe == "recalibrated" or found.auc_z < 0


def test_a_challenger_compared_with_itself_is_not_better(fresh: Rows, champion: Version, book: LoanBook) -> None:
    found = trial(champion.called(2), champion, fresh, fresh, book, SMALL)
    assert (found.auc_gain, found.auc_z, found.loss_gain, found.loss_z) == (0.0, 0.0, 0.0, 0.0)
    assert [verdict(found), verdict(found, looks=5), verdict(found, promotions=1)] == [WAIT, REJECT, WAIT]


@pytest.mark.parametrize("rarer", [0, 9, 10])
@pytest.mark.parametrize("outcome", [0, 1])
def test_too_few_of_either_outcome_are_no_trial_yet(
    outcome: int, rarer: int, fresh: Rows, champion: Version, book: LoanBook
) -> None:
    label = np.where(np.arange(len(fresh)) < rarer, 1 - outcome, outcome)
    found = trial(champion.called(2), champion, replace(fresh, label=label), fresh, book, SMALL)
    assert found.rows == (len(fresh) if rarer == 10 else 0)
    if not found.rows:
        assert verdict(found, looks=SMALL.succession.looks) == WAIT


def test_rows_of_the_choice_count_by_the_root_of_their_number(
    fresh: Rows, champion: Version, made: tuple[Version, Rows], book: LoanBook
) -> None:
    held = turned_round(fresh).where(np.arange(len(fresh)) < 900)
    alone = trial(replace(made[0], chosen_by=None), champion, held, held, book, SMALL)
    choice = Comparison(rows=1_600, auc_first=0, auc_second=0, auc_z=2.0, loss_first=0, loss_second=0, loss_z=-1.0)
    both = trial(replace(made[0], chosen_by=choice), champion, held, held, book, SMALL)
    assert (alone.all_auc_z, alone.all_loss_z) == (alone.auc_z, alone.loss_z)
    assert both.auc_z == alone.auc_z
    assert both.all_auc_z == pytest.approx((30 * alone.auc_z + 40 * 2.0) / 50)
    assert both.all_loss_z == pytest.approx((30 * alone.loss_z - 40) / 50)


def defaulting(small_bills: float, large_bills: float, book: LoanBook) -> Rows:
    """400 clients with small bills and 400 with large ones, and how many of each default."""
    label = np.concatenate([np.arange(400) < 400 * small_bills, np.arange(400) < 400 * large_bills])
    return bills(np.repeat([False, True], 400), book, label.astype(np.int64))


def test_a_challenger_that_ranks_hardly_better_than_a_coin_has_that_against_it(book: LoanBook) -> None:
    for held, said in ((defaulting(0.58, 0.42, book), ""), (defaulting(0.53, 0.47, book), "AUC 0.530")):
        found = trial(stump(2, slope=0.4), stump(1, slope=-1.0), held, held, book, SMALL)
        assert "; ".join(found.against).startswith(said)
        assert bool(found.against) is bool(said)


def test_a_challenger_that_loses_more_than_the_base_rate_has_that_against_it(book: LoanBook) -> None:
    held = defaulting(0.7, 0.3, book)
    assert trial(stump(2), stump(1), held, held, book, SMALL).against == ()
    over_sure = trial(stump(2, slope=3.0), stump(1), held, held, book, SMALL)
    assert ["base rate" in said for said in over_sure.against] == [True]


def test_a_challenger_that_had_to_be_flattened_has_that_against_it(book: LoanBook) -> None:
    held = defaulting(0.7, 0.3, book)
    assert trial(stump(2, slope=0.4), stump(1), held, held, book, SMALL).against == ()
    flattened = trial(stump(2, slope=0.39), stump(1), held, held, book, SMALL)
    assert ["flattened" in said for said in flattened.against] == [True]


def skewed(men_approved: float, women_approved: float, each: int, book: LoanBook) -> Rows:
    """As many men as women, of whom the stump approves such shares: those with large bills."""
    large = np.concatenate([np.arange(each) < each * men_approved, np.arange(each) < each * women_approved])
    return bills(large, book, sex=np.repeat([1.0, 2.0], each))


REFUSES_NOBODY = stump(1, threshold=1.1)


@pytest.mark.parametrize(
    ("men", "women", "each", "is_against"),
    [
        (0.74, 1.0, 400, True),
        (1.0, 0.74, 400, True),
        (0.77, 1.0, 400, False),  # below four fifths, but not surely
        (0.77, 1.0, 3_000, True),
        (0.81, 1.0, 3_000, False),
        (0.37, 0.5, 400, False),  # the same ratio of smaller shares is less sure
        (0.37, 0.5, 3_000, True),
        (0.5, 1.0, POLICY.floors.smallest_group - 1, False),
        (0.5, 1.0, POLICY.floors.smallest_group, True),
        (0.0, 0.0, 3_000, False),  # nobody is approved: all are treated alike
    ],
)
def test_groups_surely_treated_worse_than_four_fifths_speak_against_a_challenger(
    men: float, women: float, each: int, is_against: bool, book: LoanBook
) -> None:
    held = defaulting(0.7, 0.3, book)
    found = trial(stump(2), REFUSES_NOBODY, held, skewed(men, women, each, book), book, SMALL)
    assert ["by sex" in said for said in found.against] == [True] * is_against
    assert not is_against or verdict(found) == REJECT


def test_groups_that_the_champion_treats_as_badly_are_not_held_against_its_challenger(book: LoanBook) -> None:
    held, recent = defaulting(0.7, 0.3, book), skewed(0.5, 1.0, 3_000, book)
    assert trial(stump(2), stump(1), held, recent, book, SMALL).against == ()


def test_every_audited_attribute_is_looked_at_and_none_that_nobody_gave(book: LoanBook) -> None:
    held, large = defaulting(0.7, 0.3, book), np.repeat([False, True], 1_000)
    groups = {"education": (1, 2), "marital_status": (1, 2), "age": (30, 50), "sex": (1, 2)}
    for name, (one, other) in groups.items():
        given = {name: np.where(large, float(one), float(other))}
        recent = bills(large, book, **given)
        found = trial(stump(2), REFUSES_NOBODY, held, recent, book, SMALL)
        assert [f"by {name} " in said for said in found.against] == [True], name
