"""The page of a backtest stands alone, tells every decision, and escapes what it is told."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from loan_assets.books import LoanBook
from loan_assets.credit.backtest import DayDecided, Replay
from loan_assets.credit.chronicle import departures, told_together
from loan_assets.credit.day_axis import Axis, Panel
from loan_assets.credit.panels import Told
from loan_assets.credit.realised import Realised, Week, realised
from loan_assets.credit.succession import Action, Kind
from loan_assets.credit.timeline import page_of, sentence
from loan_assets.policy import POLICY

Replayed = tuple[Replay, list[DayDecided]]


class Elements(HTMLParser):
    """Which elements are open, and every one that was closed out of order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)


@pytest.fixture(scope="module")
def told(replayed: Replayed) -> Told:
    replay, days = replayed
    worth = realised(replay, days)
    return Told(days=days, versions=replay.versions, worth=worth, book=replay.book, policy=replay.policy)


@pytest.fixture(scope="module")
def page(told: Told) -> str:
    return page_of(told)


def test_the_page_is_well_formed_and_the_same_again(told: Told, page: str) -> None:
    elements = Elements()
    elements.feed(page)
    assert (elements.open, elements.wrong) == ([], [])
    assert page_of(told) == page


def test_the_page_needs_nothing_but_itself(page: str) -> None:
    assert not re.search(r"https?:|<script|<link|<img|<iframe|@import|url\((?!#)| on\w+=", page)
    assert "prefers-color-scheme:dark" in page


def test_the_page_tells_every_decision_with_its_day(told: Told, page: str) -> None:
    table = page[page.index("<h2>Decisions</h2>") : page.index("<h2>Versions</h2>")]
    decided = [day.date for day in told.days for _ in day.actions]
    assert re.findall(r"<td class=\"whole\">(\d{4}-\d\d-\d\d)</td>", table) == decided
    for kind in (Kind.ALARM, Kind.RETRAIN, Kind.PROMOTE):
        assert page.count(f'class="mark {kind}" d=') > told.count(kind) > 0


def test_the_page_says_what_the_policy_was_worth(told: Told, page: str) -> None:
    for auc in (told.worth.policy, told.worth.never, told.worth.plain):
        assert f"{auc:.3f}" in page
    assert "better than never retraining" in sentence(told)


def test_no_client_and_no_request_is_on_the_page(told: Told, page: str) -> None:
    assert not any(request in page for day in told.days for request in day.requests)


def test_words_from_outside_are_escaped(told: Told) -> None:
    day = told.days[0]
    said = "<script>alert('x')</script> & more"
    action = Action(kind=Kind.ALARM, cause=said, version=1)
    spoilt = replace(day, actions=(action,), batch=replace(day.batch, status="quarantined", reasons=(said,)))
    page = page_of(replace(told, days=[spoilt, *told.days[1:]]))
    assert "<script" not in page
    assert "&lt;script&gt;" in page


def test_days_of_which_nothing_is_known_have_a_page_too(told: Told) -> None:
    worth = Realised(
        rows=0,
        policy=None,
        never=None,
        plain=None,
        over_never=None,
        over_plain=None,
        plain_course=told.worth.plain_course,
        weeks=(Week(rows=0),),
    )
    bare = replace(told.days[0], share=None, columns={}, facts=replace(told.days[0].facts, change=None))
    page = page_of(replace(told, days=[bare], worth=worth))
    assert "too few or too alike" in page
    assert "Nothing was decided" in page


def test_only_what_was_chosen_otherwise_is_listed(told: Told) -> None:
    assert list(departures(told.policy, POLICY)) == [
        ("succession.enough_outcomes", 400, POLICY.succession.enough_outcomes),
        ("succession.least_outcomes", 200, POLICY.succession.least_outcomes),
    ]


def test_columns_that_broke_one_rule_are_named_together() -> None:
    reasons = ("age: is empty (120 rows)", "sex: is empty (120 rows)", "(all): repeats (7 rows)", "no such file")
    assert told_together(reasons) == "age, sex: is empty (120 rows); repeats (7 rows); no such file"


def test_a_line_breaks_where_a_day_is_unknown_and_a_day_alone_is_a_dot() -> None:
    panel = Panel(axis=Axis(days=("2026-01-01",) * 5), height=100)
    drawn = list(panel.line([0.1, 0.2, None, 0.4, None], "policy"))
    assert [element.split()[0] for element in drawn] == ["<polyline", "<circle"]


def test_what_lies_beyond_a_panel_is_cut_off_and_marked() -> None:
    panel = Panel(axis=Axis(days=("2026-01-01",) * 2), height=100, high=10)
    assert (panel.y(0), panel.y(5), panel.y(99)) == (100, 50, 0)
    assert len(list(panel.over_the_top([5, 99]))) == 1


def test_long_histories_get_a_wider_axis(book: LoanBook) -> None:
    assert Axis(days=("2026-01-01",) * 400).width > Axis(days=("2026-01-01",) * 60).width
