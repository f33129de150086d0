"""Facts, challengers and trials measured from a ledger that anybody can count: one split, and outcomes to order."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import pytest

from loan_assets.books import LoanBook
from loan_assets.credit.candidates import REFITS
from loan_assets.credit.deliberation import MOST_OF_ONE, challenger_of, change_of, facts_of, rivals_of, trial_of
from loan_assets.credit.ledger import Ledger, Rows
from loan_assets.credit.performance import line_through, losses
from loan_assets.credit.succession import Challenger, Episode, Situation
from loan_assets.credit.versions import Version
from loan_assets.policy import POLICY
from loan_assets_tests.credit.stumps import bills, stump

SMALL = replace(POLICY, boosting=replace(POLICY.boosting, trees=20), vigilance=replace(POLICY.vigilance, samples=20))
A_DAY = 200
# Shares of small and of large bills that default: as the stump says, and the other way round.
AS_EVER, TURNED = (0.73, 0.27), (0.27, 0.73)


def day(number: int) -> str:
    return (date(2026, 1, 5) + timedelta(days=number)).isoformat()


def one_day(shares: tuple[float, float], book: LoanBook) -> Rows:
    half = A_DAY // 2
    label = np.concatenate([np.arange(half) < half * share for share in shares]).astype(np.int64)
    given = {"credit_limit": np.arange(A_DAY, dtype="float64")}
    return bills(np.repeat([False, True], half), book, label, **given)


def lived(worlds: Sequence[tuple[float, float]], book: LoanBook, *, later: int = 1) -> Ledger:
    """A day for each world; its outcomes arrive so many days later, those of the last days not yet."""
    ledger = Ledger(book=book)
    for number, shares in enumerate(worlds):
        rows = one_day(shares, book)
        asked = replace(rows, label=np.full(A_DAY, -1))
        ledger.ask(day(number), [f"{number}-{row}" for row in range(A_DAY)], asked, np.arange(A_DAY) % 10 != 0)
        if number >= later:
            told = one_day(worlds[number - later], book).label
            at = f"{day(number)} 12:00"
            ledger.settle(day(number), [(f"{number - later}-{row}", int(told[row]), at) for row in range(A_DAY)])
    return ledger


HEALTHY = A_DAY * 9 // 10
FIRST, SECOND = stump(1), stump(2, slope=-1.0)
VERSIONS = {1: FIRST, 2: SECOND}


def known(version: Version, rows: int = 50_000) -> Version:
    """The version with what its scores mean known well."""
    normal = version.normal
    return replace(version, normal=replace(normal, information=normal.information * rows))


# --- rivals


def test_without_an_archived_version_there_is_no_rival(book: LoanBook) -> None:
    assert rivals_of(lived([AS_EVER] * 4, book), VERSIONS, Situation()) == {}


@pytest.mark.parametrize("archived", [stump(1), stump(1, slope=0.5), stump(1, intercept=1.0), stump(1, slope=-1.0)])
def test_an_archived_version_that_is_no_better_leads_by_nothing(archived: Version, book: LoanBook) -> None:
    champion = stump(2)
    situation = Situation(champion=2, archived=(1,), newest=2)
    assert rivals_of(lived([AS_EVER] * 6, book), {1: archived, 2: champion}, situation) == {}


def test_a_lead_is_summed_up_since_the_archived_version_was_last_behind(book: LoanBook) -> None:
    ledger = lived([TURNED] * 5 + [AS_EVER] * 4, book)
    situation = Situation(champion=2, archived=(1,), newest=2)
    found = rivals_of(ledger, VERSIONS, situation)[1]
    label = one_day(AS_EVER, book).label[np.arange(A_DAY) % 10 != 0]
    scores = np.repeat([1.0, -1.0], A_DAY // 2)[np.arange(A_DAY) % 10 != 0]
    a_day = float((losses(-scores, label) - losses(scores, label)).sum())
    assert found.evidence == pytest.approx(3 * a_day)
    assert (found.rows, found.since) == (3 * HEALTHY, day(5))
    assert found.auc_gain == pytest.approx(0.46, abs=0.01)


def test_one_client_counts_no_more_than_two_nats(book: LoanBook) -> None:
    ledger = lived([(1.0, 0.0)] * 2, book)
    versions = {1: stump(1, slope=5.0), 2: stump(2, slope=-5.0)}
    found = rivals_of(ledger, versions, Situation(champion=2, archived=(1,), newest=2))[1]
    assert found.evidence == pytest.approx(HEALTHY * MOST_OF_ONE)


def test_every_archived_version_is_looked_at(book: LoanBook) -> None:
    versions = {1: stump(1), 2: stump(2, slope=0.2), 3: stump(3, slope=-1.0)}
    situation = Situation(champion=3, archived=(1, 2), newest=3)
    found = rivals_of(lived([AS_EVER] * 4, book), versions, situation)
    assert found[1].evidence > found[2].evidence > 0


def test_outcomes_of_one_kind_only_rank_nobody(book: LoanBook) -> None:
    situation = Situation(champion=2, archived=(1,), newest=2)
    versions = {1: stump(1, intercept=-2.0), 2: stump(2)}
    assert rivals_of(lived([(0.0, 0.0)] * 4, book), versions, situation) == {}


# --- which outcomes tell something about the champion


def rows_that_count(situation: Situation, ledger: Ledger) -> int:
    """The rows of the longest window, where the world has been another from the first day on."""
    found = change_of(ledger, known(VERSIONS[situation.champion]), situation, POLICY)
    return found.rows if found is not None else 0


@pytest.fixture
def turned(book: LoanBook) -> Ledger:
    """Ten days that are the wrong way round for the first version, nine with outcomes."""
    return lived([TURNED] * 10, book)


def test_all_outcomes_tell_something_about_the_first_champion(turned: Ledger) -> None:
    assert rows_that_count(Situation(), turned) == 9 * HEALTHY


def test_requests_before_the_champion_s_time_do_not_count_whenever_their_outcome_came(turned: Ledger) -> None:
    assert rows_that_count(Situation(judged_from=day(3)), turned) == 6 * HEALTHY


def test_requests_of_spells_that_have_passed_do_not_count(turned: Ledger) -> None:
    situation = Situation(passed=((day(0), day(1)), (day(4), day(5))))
    assert rows_that_count(situation, turned) == 5 * HEALTHY


@pytest.fixture
def as_ever(book: LoanBook) -> Ledger:
    """The same for a second version, that learned the other way round."""
    return lived([AS_EVER] * 10, book)


def test_what_arrived_before_a_promotion_was_known_to_who_was_promoted(as_ever: Ledger) -> None:
    promoted = Situation(champion=2, archived=(1,), newest=2, in_force_since=day(4), judged_from=day(1))
    assert rows_that_count(promoted, as_ever) == 5 * HEALTHY
    found = rivals_of(as_ever, VERSIONS, promoted)[1]
    assert (found.rows, found.since) == (5 * HEALTHY, day(4))


def test_a_version_that_came_back_learned_from_none_of_what_arrived_since(turned: Ledger) -> None:
    back = Situation(champion=1, archived=(2,), newest=2, in_force_since=day(4), is_returned=True, judged_from=day(1))
    assert rows_that_count(back, turned) == 8 * HEALTHY
    again = replace(back, champion=2, archived=(1,))
    assert rows_that_count(again, turned) == 8 * HEALTHY


def test_without_outcomes_of_its_time_there_is_nothing_to_say_of_a_champion(turned: Ledger, book: LoanBook) -> None:
    assert change_of(turned, FIRST, Situation(judged_from=day(9)), POLICY) is None
    assert change_of(Ledger(book=book), FIRST, Situation(), POLICY) is None


# --- changes


def test_a_change_is_dated_by_the_day_of_its_first_requests(book: LoanBook) -> None:
    ledger = lived([AS_EVER] * 6 + [TURNED] * 6, book, later=2)
    found = change_of(ledger, known(FIRST), Situation(), POLICY)
    assert found is not None
    assert (found.since, found.rows) == (day(6), 4 * HEALTHY)
    assert found.evidence > POLICY.succession.change_evidence
    assert found.slope < 0
    assert found.rate_ratio == pytest.approx(1.0, abs=0.05)


def test_a_change_begins_no_earlier_than_the_champion_s_time(book: LoanBook) -> None:
    """Where outcomes of one day arrive on several, the newest arrivals also tell of days before it."""
    ledger = Ledger(book=book)
    for number in range(14):
        rows = one_day(TURNED, book)
        names = [f"{number}-{row}" for row in range(A_DAY)]
        ledger.ask(day(number), names, replace(rows, label=np.full(A_DAY, -1)), np.ones(A_DAY, dtype=bool))
        late = [row for row in range(A_DAY) if row % 3]
        for source, chosen in ((number - 1, range(0, A_DAY, 3)), (number - 6, late)):
            if source >= 0:
                at = f"{day(number)} 12:00"
                ledger.settle(day(number), [(f"{source}-{row}", int(rows.label[row]), at) for row in chosen])
    for begun in (day(9), day(11)):
        situation = Situation(champion=1, in_force_since=day(8), judged_from=begun)
        found = change_of(ledger, known(FIRST), situation, POLICY)
        assert found is not None
        assert found.since == begun


def test_no_window_is_longer_than_the_policy_s(turned: Ledger) -> None:
    short = replace(POLICY, succession=replace(POLICY.succession, longest_window=4))
    found = change_of(turned, known(FIRST), Situation(), short)
    assert found is not None
    assert found.rows == 4 * HEALTHY


def test_what_was_given_up_on_is_normal_from_then_on(turned: Ledger) -> None:
    as_before = Situation(judged_from=day(5))
    given_up = replace(as_before, normal_since=day(0), normal_until=day(4))
    before, after = (change_of(turned, known(FIRST), one, POLICY) for one in (as_before, given_up))
    assert before is not None
    assert after is not None
    assert before.evidence > 100
    assert after.evidence < 1
    assert after.slope == pytest.approx(1.0, abs=0.05)


def test_the_normal_days_are_those_from_the_first_to_the_last_named(book: LoanBook) -> None:
    worlds = [AS_EVER, TURNED, TURNED, AS_EVER, *[TURNED] * 5]
    ledger = lived(worlds, book)
    evidence = {}
    for first, last in ((1, 2), (0, 2), (1, 3)):
        situation = Situation(judged_from=day(4), normal_since=day(first), normal_until=day(last))
        found = change_of(ledger, FIRST, situation, POLICY)
        assert found is not None
        evidence[first, last] = found.evidence
    assert evidence[1, 2] < 1
    assert min(evidence[0, 2], evidence[1, 3]) > 20


def test_the_facts_of_a_day_are_its_shares_the_champion_s_change_and_its_rivals(as_ever: Ledger) -> None:
    situation = Situation(champion=2, archived=(1,), newest=2)
    facts = facts_of(as_ever, VERSIONS, situation, day(9), {2: 0.3, 1: 0.1}, POLICY)
    assert (facts.date, facts.shares, facts.asked) == (day(9), {2: 0.3, 1: 0.1}, ())
    assert facts.change == change_of(as_ever, SECOND, situation, POLICY)
    assert facts.change is not None
    assert facts.rivals == rivals_of(as_ever, VERSIONS, situation)
    assert set(facts.rivals) == {1}


# --- challengers and trials

KNOWN_ROWS = 600


def on_trial(since: int, *, promotions: int = 0, number: int = 5) -> Situation:
    return Situation(
        newest=number,
        episode=Episode(since=day(since), opened=day(since), causes=("outcomes",), promotions=promotions),
        challenger=Challenger(number=number, made=day(11)),
    )


@pytest.fixture(scope="module")
def changed(book: LoanBook) -> Ledger:
    """Four days as ever and eight turned round, outcomes after two days."""
    return lived([AS_EVER] * 4 + [TURNED] * 8, book, later=2)


@pytest.fixture(scope="module")
def reference(book: LoanBook) -> Rows:
    """What the first version learned from, as it is read: of no day."""
    rows = [one_day(AS_EVER, book) for _ in range(KNOWN_ROWS // A_DAY)]
    return Rows(
        features=np.concatenate([one.features for one in rows]),
        label=np.concatenate([one.label for one in rows]),
        received={name: np.tile(rows[0].received[name], len(rows)) for name in rows[0].received},
    )


def test_a_challenger_bears_its_number_and_learns_the_new_world(
    changed: Ledger, reference: Rows, book: LoanBook
) -> None:
    made = challenger_of(changed, reference, FIRST, on_trial(4), book, SMALL)
    assert made.number == 5
    # Outcomes of six turned days are known; the older four are learned from.
    assert (made.rows, made.learned_until) == (4 * HEALTHY, 7)
    assert made.log_odds(one_day(TURNED, book).features)[0] < 0 < made.log_odds(one_day(TURNED, book).features)[-1]
    assert made.chosen_by is not None


def test_its_reference_are_all_healthy_applications_of_the_new_world_s_last_week(
    changed: Ledger, reference: Rows, book: LoanBook
) -> None:
    made = challenger_of(changed, reference, FIRST, on_trial(4), book, SMALL)
    assert made.reference.rows == 7 * HEALTHY
    limits = next(scale for scale in made.reference.scales if scale.column.name == "credit_limit")
    assert set(limits.values) == set(np.arange(A_DAY)[np.arange(A_DAY) % 10 != 0])


def test_in_a_world_that_has_a_model_the_challenger_is_refitted_on_all_that_is_known(
    changed: Ledger, reference: Rows, book: LoanBook
) -> None:
    """Where the world before was the same, older rows are worth keeping: the reference, and the days before."""
    ledger = lived([AS_EVER] * 12, book, later=2)
    made = challenger_of(ledger, reference, FIRST, on_trial(4, promotions=1), book, SMALL)
    assert made.recipe in {recipe.name for recipe in REFITS[:2]}
    assert made.chosen_by is None
    assert made.trees.cover[made.trees.roots[0]] == KNOWN_ROWS + 4 * HEALTHY + made.rows


def test_a_trial_is_on_every_outcome_later_than_what_was_learned(changed: Ledger, book: LoanBook) -> None:
    candidate = replace(stump(5, slope=-1.0), learned_until=6)
    versions = {1: FIRST, 5: candidate}
    found = trial_of(changed, versions, on_trial(4), book, SMALL)
    assert found.rows == 3 * HEALTHY
    assert found.champion == pytest.approx(0.27, abs=0.01)
    assert found.challenger == pytest.approx(0.73, abs=0.01)
    early = replace(candidate, learned_until=-1)
    assert trial_of(changed, {1: FIRST, 5: early}, on_trial(4), book, SMALL).rows == 6 * HEALTHY


def test_groups_are_compared_on_applications_of_the_new_world_with_or_without_outcomes(book: LoanBook) -> None:
    """Men have small bills and women large ones, on the last days, of which no outcome is known yet."""
    ledger = lived([AS_EVER] * 12, book, later=3)
    candidate = replace(stump(5), learned_until=6)
    versions = {1: stump(1, threshold=1.1), 5: candidate}
    assert trial_of(ledger, versions, on_trial(4), book, SMALL).against == ()
    for asked in ledger.days[9:]:
        asked.rows.received["sex"][:] = np.repeat([1.0, 2.0], A_DAY // 2)
    found = trial_of(
        ledger, versions, on_trial(4), book, replace(SMALL, floors=replace(SMALL.floors, smallest_group=9))
    )
    assert ["by sex" in said for said in found.against] == [True]


def test_the_line_of_the_champion_s_trial_is_its_normal(as_ever: Ledger) -> None:
    scores = np.repeat([1.0, -1.0], 400)
    label = np.repeat([1, 0, 1, 0], [300, 100, 100, 300])
    own = replace(FIRST, normal=line_through(scores, label))
    found = change_of(as_ever, own, Situation(), POLICY)
    assert found is not None
    assert found.evidence < 3
