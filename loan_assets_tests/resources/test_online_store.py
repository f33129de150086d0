"""The online table in files: what is answered after tables and pushed rows have come and gone."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bento.online import OnlineInFiles
from loan_assets.books import LoanBook
from loan_assets.online_table import pushed_file
from loan_assets.resources.online_store import OnlineTables

CLIENTS = (1, 2, 3)


def rows(book: LoanBook, *values: float) -> pd.DataFrame:
    """One row a client, every feature of it this value."""
    table = pd.DataFrame({name: np.array(values, dtype="float32") for name in book.feature_names})
    table[book.key.name] = CLIENTS[: len(values)]
    table["event_timestamp"] = pd.DatetimeIndex(["2005-09-30"] * len(values), tz="UTC").as_unit("us")
    return table


def answered(online: OnlineInFiles) -> list[float]:
    """The first feature of every client, as the endpoint has it after a look."""
    online.look()
    assert online._taken is not None
    _, features = asyncio.run(online._rows(CLIENTS, online._taken))
    return [float(value) for value in features[:, 0]]


def test_a_table_that_comes_into_force_again_answers_from_its_own_rows(book: LoanBook, tmp_path: Path) -> None:
    """A mistaken row was pushed over it, taken offline and corrected: the table is the one before, the row must go."""
    tables = OnlineTables(root=str(tmp_path))
    first = tables.publish(rows(book, 1, 2, 3), book)
    never_left = OnlineInFiles(tmp_path, book)
    tables.write_over(rows(book, 9), book)
    assert answered(never_left) == [9, 2, 3]
    assert tables.publish(rows(book, 9, 2, 3), book) != first
    follows = OnlineInFiles(tmp_path, book)
    tables.write_over(rows(book, 1), book)
    assert answered(follows) == [1, 2, 3]
    assert tables.publish(rows(book, 1, 2, 3), book) == first
    assert tables.table().features[:, 0].tolist() == [1, 2, 3]
    for endpoint in (never_left, follows, OnlineInFiles(tmp_path, book)):
        assert answered(endpoint) == [1, 2, 3]
    tables.write_over(rows(book, 7), book)
    for endpoint in (never_left, follows, OnlineInFiles(tmp_path, book)):
        assert answered(endpoint) == [7, 2, 3]


def test_what_was_pushed_stays_when_the_table_in_force_is_published_once_more(book: LoanBook, tmp_path: Path) -> None:
    tables = OnlineTables(root=str(tmp_path))
    first = tables.publish(rows(book, 1, 2, 3), book)
    tables.write_over(rows(book, 9), book)
    assert tables.publish(rows(book, 1, 2, 3), book) == first
    assert answered(OnlineInFiles(tmp_path, book)) == [9, 2, 3]


def test_pushed_rows_that_were_damaged_do_not_keep_a_table_from_coming_back(book: LoanBook, tmp_path: Path) -> None:
    tables = OnlineTables(root=str(tmp_path))
    first = tables.publish(rows(book, 1, 2, 3), book)
    tables.write_over(rows(book, 9), book)
    tables.publish(rows(book, 4, 5, 6), book)
    log = pushed_file(tmp_path, first)
    log.write_bytes(b"0" + log.read_bytes()[1:])
    assert tables.publish(rows(book, 1, 2, 3), book) == first
    assert tables.table().features[:, 0].tolist() == [1, 2, 3]


def test_killed_before_a_table_comes_into_force_again_the_one_between_answers_as_it_did(
    book: LoanBook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = OnlineTables(root=str(tmp_path))
    tables.publish(rows(book, 1, 2, 3), book)
    tables.write_over(rows(book, 9), book)
    tables.publish(rows(book, 4, 5, 6), book)
    tables.write_over(rows(book, 8), book)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("loan_assets.resources.versioned_store.point", killed)
        with pytest.raises(KeyboardInterrupt):
            tables.publish(rows(book, 1, 2, 3), book)
    assert answered(OnlineInFiles(tmp_path, book)) == [8, 5, 6]
    tables.publish(rows(book, 1, 2, 3), book)
    assert answered(OnlineInFiles(tmp_path, book)) == [1, 2, 3]
