"""Reasons: what weighed most against an applicant, each idea once, at most four, never a protected basis."""

import pytest

from loan_assets.books import LoanBook, Role
from loan_assets.credit.reasons import Sentences, principal_reasons
from loan_assets.policy import POLICY, Explanation

SENTENCES = Sentences(features=("a", "b", "c", "d", "e", "f"), texts=("A", "B", "A", "D", "E", "F"))


@pytest.mark.parametrize(
    ("contributions", "expected"),
    [
        ([0.5, 0.4, 0.1, -1.0, 0.3, 0.2], ["a", "b", "e", "f"]),  # in order of weight, what speaks for them left out
        ([0.3, 0.4, 0.35, 0.0, 0.0, 0.0], ["c", "b"]),  # one sentence, its weights together, named by the weightiest
        ([5.0, 4.0, 0.0, 3.0, 2.0, 1.0], ["a", "b", "d", "e"]),  # four at most
        ([9.0, 0.1, 0.0, 0.1, 0.0, 0.0], ["a"]),  # what hardly weighs is no principal reason
        ([-3.0, -0.1, -2.0, -1.0, -1.0, -1.0], ["b"]),  # one at least
    ],
)
def test_the_weightiest_ideas_against_the_applicant(contributions: list[float], expected: list[str]) -> None:
    assert principal_reasons(contributions, SENTENCES, Explanation()) == expected


def test_no_sentence_names_a_protected_basis(book: LoanBook) -> None:
    words = {column.name.split("_")[0] for column in book.with_role(Role.PROTECTED)} | {"gender", "married", "old"}
    for feature in book.features:
        assert not words & set(feature.reason.lower().replace(".", "").split()), feature.name
        assert not {column.name for column in book.with_role(Role.PROTECTED)} & set(feature.inputs)


def test_the_policy_names_four_at_most() -> None:
    assert POLICY.explanation.most <= 4
