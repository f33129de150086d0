"""Bodies: read fast when they fit, read again when they do not, and refused by row and field without a value."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd
import pytest

from bento.reading import BadRequest, Reader
from loan_assets.books import LoanBook, Role
from loan_assets.rehearsal import as_applications
from loan_assets_tests.bento.conftest import Box

CANARY = 77_777
FIELDS: tuple[tuple[dict[str, Any], str], ...] = (
    ({"credit_limit": None}, "credit_limit is not a number"),
    ({"credit_limit": True}, "credit_limit is not a number"),
    ({"education": CANARY}, "education is not one of"),
    ({"education": 1.5}, "education is not a whole number"),
    ({"bill_amount_1": float("nan")}, "bill_amount_1 is not a finite number"),
    ({"bill_amount_1": float("inf")}, "bill_amount_1 is not a finite number"),
    ({"bill_amount_1": 10**400}, "bill_amount_1 is not a finite number"),
    ({"bill_amount_1": str(CANARY)}, "bill_amount_1 is not a number"),
    ({"bill_amount_1": [CANARY]}, "bill_amount_1 is not a number"),
    ({"pay_status_1": 0.5}, "pay_status_1 is not a whole number"),
    ({"payment_amount_1": -CANARY}, "payment_amount_1 is below 0"),
    ({"age": CANARY}, "age is above 110"),
    ({"age": 44.5}, "age is not a whole number"),
    ({"sex": None}, "sex is not a number"),
    ({"client_id": 0}, "client_id is below 1"),
    ({"client_id": 2**63}, "client_id is not a finite number of a size that can be computed with"),
    ({f"Jane Roe {CANARY}": 1}, "1 of its fields are not in the book"),
    ({"defaulted": 1}, "1 of its fields are not in the book"),
)
BODIES: tuple[tuple[bytes, str], ...] = (
    (b"", "the body is not JSON: see character 1"),
    (b"77777", "the body is not an object with applications"),
    (b'{"applications": [', "the body is not JSON: see character 19"),
    (b"\xff\xfe77777", "the body is not UTF-8"),
    ("{}".encode("utf-16"), "the body is not UTF-8"),
    (b'{"applications": [{"age": 30, "age": 77777}], "request_id": "a\\u003ab"}', "age is given twice"),
    (b"[" * 200_000, "the body is nested too deeply"),
    (b"[1" * 200_000, "the body is not JSON"),
    (b"{}", "applications is missing"),
    (b"[]", "the body is not an object with applications"),
    (b'{"applications": 77777}', "applications is not a list with at least one entry"),
    (b'{"applications": []}', "applications is not a list with at least one entry"),
    (b'{"applications": [[77777]]}', "applications[0]: a row of 20 numbers is expected"),
    (b'{"applications": ["77777"]}', "applications[0] is not an object with the book's fields"),
    (b'{"applications": [{}], "Jane": 77777}', "the body: 1 of its fields are not known here"),
    (b'{"applications": [{"age": 30, "age": 77777}]}', "age is given twice"),
    (b'{"applications": [{"Jane": 30, "Jane": 77777}]}', "a field is given twice"),
    (b'{"applications": [], "applications": []}', "a field is given twice"),
    (b'{"applications": [{"age": ' + b"7" * 5_000 + b"}]}", "the body holds a number that is too long"),
)


@pytest.fixture
def reader(book: LoanBook) -> Reader:
    return Reader(book)


@pytest.mark.parametrize(("wrong", "said"), FIELDS, ids=[said for _, said in FIELDS])
def test_a_field_that_does_not_fit_is_named_with_its_row_and_never_echoed(
    wrong: dict[str, Any], said: str, box: Box, good: dict[str, Any]
) -> None:
    answer = box.post("/score", {"applications": [good, {**good, **wrong}]})
    assert answer.status == 400
    assert answer.body["error"].startswith(f"applications[1]: {said}")
    assert str(CANARY) not in answer.content.decode()
    assert "Jane" not in answer.content.decode()
    assert box.records() == []


@pytest.mark.parametrize(("body", "said"), BODIES, ids=[said for _, said in BODIES])
def test_a_body_that_does_not_fit_is_told_why_and_never_echoed(body: bytes, said: str, box: Box) -> None:
    answer = box.ask("POST", "/score", body)
    assert (answer.status, answer.body["error"].startswith(said)) == (400, True), answer.body
    assert str(CANARY) not in answer.content.decode()
    assert "Jane" not in answer.content.decode()
    assert box.records() == []


def test_every_needed_field_is_missed_by_name(box: Box, good: dict[str, Any]) -> None:
    for name in good:
        less = {other: value for other, value in good.items() if other != name}
        answer = box.post("/score", {"applications": [good, less]})
        assert (answer.status, answer.body) == (400, {"error": f"applications[1]: {name} is missing"})


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ([], "client_ids is not a list with at least one entry"),
        ("7", "client_ids is not a list with at least one entry"),
        ([1, "77777"], "client_ids[1] is not a number"),
        ([1, True], "client_ids[1] is not a number"),
        ([1, 1.5], "client_ids[1] is not a whole number"),
        ([1, 0], "client_ids[1] is below 1"),
        ([1, 2**70], "client_ids[1] is not a finite number of a size that can be computed with"),
        ([1, None], "client_ids[1] is not a number"),
    ],
)
def test_an_entry_that_is_no_client_number_is_named(entries: object, said: str, box: Box) -> None:
    answer = box.post("/predict", {"client_ids": entries})
    assert (answer.status, answer.body) == (400, {"error": said})


@pytest.mark.parametrize("name", ["", "a b", "x" * 129, 7, "Jane Roe;77777"])
def test_a_name_that_is_no_word_is_refused(name: object, box: Box, good: dict[str, Any]) -> None:
    answer = box.post("/score", {"applications": [good], "request_id": name})
    assert (answer.status, answer.body["error"].startswith("request_id is not a word")) == (400, True)
    assert "Jane" not in answer.content.decode()


def test_the_fast_and_the_slow_reading_are_the_same(reader: Reader, received: pd.DataFrame, book: LoanBook) -> None:
    columns = [column.name for column in book.received if column.role is not Role.LABEL]
    for row in as_applications(received[columns].sample(300, random_state=5)):
        body = json.dumps({"applications": [row]}).encode()
        assert reader.applications(body) == reader._applications_slowly(body)


def test_a_whole_number_with_a_point_and_escaped_names_are_read_as_they_mean(
    reader: Reader, good: dict[str, Any]
) -> None:
    pointed = {name: float(value) for name, value in good.items()}
    plain = reader.applications(json.dumps({"applications": [good]}).encode())
    assert reader.applications(json.dumps({"applications": [pointed], "request_id": None}).encode()) == plain
    escaped = json.dumps({"applications": [good]}).replace("credit_limit", "\\u0063redit_limit").encode()
    assert reader.applications(escaped) == plain
    named = json.dumps({"applications": [good], "request_id": "a:b:c"}).encode()
    assert reader.applications(named) == (plain[0], "a:b:c")


def test_a_field_given_twice_is_noticed_wherever_it_hides(reader: Reader, good: dict[str, Any]) -> None:
    body = json.dumps({"applications": [good], "request_id": "a"}).encode()
    for twice in (
        body.replace(b'"credit_limit"', b'"credit_limit": 5, "credit_limit"'),
        body[:-1] + b', "request_id": "b"}',
    ):
        with pytest.raises(BadRequest, match="is given twice"):
            reader.applications(twice)
