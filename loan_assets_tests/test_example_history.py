"""The example history: nobody asks twice, only its middle days are of another world, and it is written to be read."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from loan_assets.books import LoanBook, Role
from loan_assets.example_history import Course, ExampleHistory, changed_world, history_at, known_loans

FIRST = date(2026, 2, 1)
COURSE = Course(days=6, rows=150, changes=2, returns=4)


@pytest.fixture(scope="module")
def drawn(received: pd.DataFrame, book: LoanBook) -> ExampleHistory:
    return changed_world(received.tail(3_000), book, FIRST, COURSE)


def test_nobody_asks_twice_and_everybody_is_of_the_pool(
    drawn: ExampleHistory, received: pd.DataFrame, book: LoanBook
) -> None:
    asked = pd.concat(drawn.requests.values())
    assert len(asked) == COURSE.days * COURSE.rows
    assert asked[book.key.name].is_unique
    assert asked["request_id"].is_unique
    assert set(asked[book.key.name]) <= set(received.tail(3_000)[book.key.name])
    assert book.label.name not in asked


def test_every_request_has_one_outcome_some_days_later(drawn: ExampleHistory) -> None:
    assert drawn.days == [f"2026-02-0{day}" for day in range(1, 7)]
    assert sorted(drawn.outcomes) == [f"2026-02-0{day}" for day in range(3, 9)]
    for day, later in zip(drawn.days, sorted(drawn.outcomes), strict=True):
        assert set(drawn.requests[day]["request_id"]) == set(drawn.outcomes[later]["request_id"])


def test_only_the_days_of_the_other_world_differ_from_what_was_received(
    drawn: ExampleHistory, received: pd.DataFrame, book: LoanBook
) -> None:
    before = received.set_index(book.key.name)
    columns = [column.name for column in book.with_role(Role.FEATURE)]
    for number, day in enumerate(drawn.days):
        rows = drawn.requests[day].set_index(book.key.name)
        is_as_received = bool((rows[columns] == before.loc[rows.index, columns]).all(axis=None))
        assert is_as_received != (COURSE.changes <= number < COURSE.returns), day


def test_in_the_other_world_it_is_the_large_limits_that_default(drawn: ExampleHistory) -> None:
    worlds: dict[bool, list[float]] = {True: [], False: []}
    for number, day in enumerate(drawn.days):
        outcome = drawn.outcomes[f"2026-02-0{number + 1 + COURSE.later}"].set_index("request_id")["label"]
        rows = drawn.requests[day].set_index("request_id")
        default = outcome.loc[rows.index].to_numpy()
        is_large = (rows["credit_limit"] > 140_000).to_numpy()
        difference = float(default[is_large].mean() - default[~is_large].mean())
        worlds[COURSE.changes <= number < COURSE.returns].append(difference)
    assert min(worlds[True]) > 0.15
    assert np.mean(worlds[False]) < 0


def test_a_small_pool_gives_smaller_days(received: pd.DataFrame, book: LoanBook) -> None:
    small = changed_world(received.head(60), book, FIRST, COURSE)
    assert {len(table) for table in small.requests.values()} == {10}


def test_it_is_written_as_a_history_that_is_read_back_with_its_reference(
    drawn: ExampleHistory, received: pd.DataFrame, book: LoanBook, tmp_path: Path
) -> None:
    drawn.write(tmp_path)
    history = history_at(tmp_path)
    known_loans(received.head(500), book).to_parquet(history.reference, index=False)
    days = list(history.over(history.days(), book))
    assert [day.date for day in days] == [f"2026-02-0{day}" for day in range(1, 9)]
    assert days[0].outcomes is None
    assert days[-1].requests is None
    first = days[0].requests
    assert first is not None
    assert first["request_id"].tolist() == drawn.requests["2026-02-01"]["request_id"].tolist()
    frame, label = history.known(book)
    assert len(frame) == len(label) == 500
    assert history_at(tmp_path, until="2026-02-02").days() == ("2026-02-01", "2026-02-02")
