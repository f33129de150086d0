import importlib
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from loan_assets.books import Feature, LoanBook, Role, book_named, compute_features, tables
from loan_assets.refusal import Refusal
from loan_assets.resources.catalog import column_schema


def test_the_packaged_table_reproduces_the_published_totals(received: pd.DataFrame) -> None:
    assert len(received) == 30_000
    assert received["defaulted"].sum() == 6_636
    assert round(received["credit_limit"].mean(), 2) == 167_484.32


def test_no_outcome_is_known_on_the_day_of_the_decision(book: LoanBook) -> None:
    assert book.outcome_after > timedelta(0)


def test_no_feature_reads_a_protected_column_or_the_label(book: LoanBook) -> None:
    forbidden = {column.name for column in book.with_role(Role.PROTECTED, Role.LABEL, Role.KEY)}
    assert forbidden >= {"sex", "age", "marital_status", "defaulted"}
    assert [feature.name for feature in book.features if forbidden & set(feature.inputs)] == []


def test_every_feature_reads_received_columns_and_explains_itself(book: LoanBook) -> None:
    received = {column.name for column in book.received}
    for feature in book.features:
        assert set(feature.inputs) <= received
        assert feature.meaning.endswith(".")
        assert feature.reason.endswith(".")


def test_one_row_of_floats_and_a_column_of_numbers_give_the_same_bits(book: LoanBook, received: pd.DataFrame) -> None:
    columns = {column.name: received[column.name].to_numpy("float64") for column in book.received}
    together = compute_features(book, columns)
    rows = [*range(0, 30_000, 97)]
    for row in rows:
        alone = compute_features(book, {name: float(values[row]) for name, values in columns.items()})
        for name, value in alone.items():
            assert np.float64(value).tobytes() == together[name][row].astype("float64").tobytes(), (name, row)


def test_the_digest_ignores_comments_and_notices_rules(book: LoanBook) -> None:
    assert len(book.digest) == 12
    assert replace(book, title="another title").digest == book.digest
    assert replace(book, features=book.features[1:]).digest != book.digest
    turned = (replace(book.features[0], direction=1), *book.features[1:])
    assert replace(book, features=turned).digest != book.digest
    first, second, *rest = book.received
    assert replace(book, received=(replace(first, source="another"), second, *rest)).digest != book.digest
    assert replace(book, last_month=book.as_of).digest != book.digest


FORMULAS = '''"""Formulas in thousands."""

from loan_assets.books import Feature

SCALE = 1000
LEVELS = (1, 2)


def limit_in_thousands(credit_limit):
    """The credit limit in thousands."""
    return credit_limit / SCALE


FEATURES: tuple[Feature, ...] = (Feature(function=limit_in_thousands, reason="Your limit is low.", unit="NT$"),)
'''


@pytest.mark.parametrize(
    ("before", "after", "is_the_same"),
    [
        ("SCALE = 1000", "SCALE = 10", False),
        ("LEVELS = (1, 2)", "LEVELS = (1, 3)", False),
        ("LEVELS = (1, 2)", "if SCALE > 1:\n    SCALE = 1", False),
        ("LEVELS = (1, 2)", "class Unit:\n    SCALE = 1", False),
        ("/ SCALE", "* SCALE", False),
        ("Your limit is low.", "Your limit.", True),
        ("The credit limit in thousands.", "The limit.", True),
        ("Formulas in thousands.", "Formulas.", True),
        ("SCALE = 1000", "SCALE = 1_000  # a thousand", True),
        ("from loan_assets.books import Feature", "import math\nfrom loan_assets.books import Feature", True),
    ],
)
def test_the_digest_counts_what_a_formula_computes_with_and_no_words(
    book: LoanBook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str, after: str, is_the_same: bool
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    digests = set()
    name = f"formulas_{abs(hash((before, after)))}"
    for number, text in enumerate((FORMULAS, FORMULAS.replace(before, after, 1))):
        assert number == 0 or text != FORMULAS
        (tmp_path / f"{name}_{number}.py").write_text(text)
        importlib.invalidate_caches()
        features: tuple[Feature, ...] = importlib.import_module(f"{name}_{number}").FEATURES
        digests.add(replace(book, features=features).digest)
    assert (len(digests) == 1) == is_the_same


def test_every_projection_keeps_the_book_s_names_and_order(book: LoanBook) -> None:
    for table in (tables.received, tables.statements, tables.borrower_features, tables.training_set, tables.scores):
        names = [column.name for column in table(book)]
        assert [column.name for column in column_schema(table(book)).columns] == names
        assert len(set(names)) == len(names)
    assert [column.name for column in tables.feature_values(book)] == list(book.feature_names)


def test_an_unknown_book_is_refused_by_name() -> None:
    with pytest.raises(Refusal, match="no book 'nobody_knows'"):
        book_named("nobody_knows")


def test_a_module_that_is_no_book_is_refused() -> None:
    with pytest.raises(Refusal, match="holds no book"):
        book_named("tables")
