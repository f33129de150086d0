"""The built Bento, served by BentoML: what it answers, what it puts on record, and what it never says."""

from __future__ import annotations

import http.client
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from loan_assets.books import LoanBook, Role
from loan_assets.endpoint import Endpoint, served
from loan_assets.policy import POLICY
from loan_assets.prediction_record import read_day
from loan_assets.refusal import Refusal
from loan_assets.rehearsal import as_applications, held_out
from loan_assets.resources.asset_store import AssetStore
from loan_assets.settings import Settings
from loan_assets_tests.conftest import ROOT, Home

DAY = "2026-02-02"
CANARY = 77_777


@pytest.fixture(scope="module")
def endpoint(ran: Home) -> Iterator[Endpoint]:
    with served(ran.settings, rehearsed_day=DAY) as ready:
        yield ready


@pytest.fixture
def good(received: pd.DataFrame, book: LoanBook) -> dict[str, Any]:
    return as_applications(received[[column.name for column in book.with_role(Role.FEATURE)]].head(1))[0]


def on_record(ran: Home) -> int:
    return len(read_day(ran.settings.predictions / DAY)[0])


def get(endpoint: Endpoint, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", endpoint.port, timeout=10)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def test_1500_answers_are_1500_records_with_the_scores_of_the_batch(ran: Home, endpoint: Endpoint) -> None:
    store = AssetStore(root=str(ran.settings.store), keep=POLICY.versions_kept)
    drawn = held_out(store, 1_500, seed=3)
    before = on_record(ran)
    answers = endpoint.score_each(as_applications(drawn))
    records, damages = read_day(ran.settings.predictions / DAY)
    assert (len(answers), len(records) - before, damages) == (1_500, 1_500, ())
    by_id = {record.prediction_id: record for record in records}
    scores: pd.DataFrame = ran.read("batch_scores").set_index("client_id")
    for client, answer in zip(drawn["client_id"], answers, strict=True):
        record = by_id[answer["prediction_id"]]
        assert record.client_id == client
        assert record.default_probability == answer["default_probability"]
        assert abs(answer["default_probability"] - scores.at[client, "default_probability"]) <= 1e-9
        assert (record.decision, answer["model_version"]) == (scores.at[client, "decision"], 1)
        assert set(record.received) == set(drawn.columns) - {"client_id"}


def test_clients_are_scored_from_the_online_table_as_in_the_batch(ran: Home, endpoint: Endpoint) -> None:
    scores: pd.DataFrame = ran.read("batch_scores").sample(500, random_state=1)
    before = on_record(ran)
    reply = endpoint.post("/score_clients", {"client_ids": scores["client_id"].tolist()})
    assert reply.status == 200
    assert [answer["default_probability"] for answer in reply.body] == scores["default_probability"].tolist()
    assert on_record(ran) - before == 500


BAD: tuple[tuple[dict[str, Any], str], ...] = (
    ({"credit_limit": None}, "credit_limit is not a number"),
    ({"education": CANARY}, "education is not one of"),
    ({"bill_amount_1": float("nan")}, "bill_amount_1 is not a finite number"),
    ({"bill_amount_1": float("inf")}, "bill_amount_1 is not a finite number"),
    ({"bill_amount_1": 10**400}, "bill_amount_1 is not a finite number"),
    ({"bill_amount_1": str(CANARY)}, "bill_amount_1 is not a number"),
    ({"pay_status_1": 0.5}, "pay_status_1 is not a whole number"),
    ({"payment_amount_1": -CANARY}, "payment_amount_1 is below 0"),
    ({"age": CANARY}, "age is above 110"),
    ({f"Jane Roe {CANARY}": 1}, "1 of its fields are not in the book"),
)


@pytest.mark.parametrize(("wrong", "said"), BAD, ids=[said for _, said in BAD])
def test_a_bad_application_is_told_which_field_and_nothing_is_recorded_or_echoed(
    wrong: dict[str, Any], said: str, ran: Home, endpoint: Endpoint, good: dict[str, Any]
) -> None:
    before = on_record(ran)
    reply = endpoint.post("/score", {"applications": [good, {**good, **wrong}]})
    assert reply.status == 400
    assert f"applications[1]: {said}" in json.dumps(reply.body)
    assert on_record(ran) == before
    for words in (json.dumps(reply.body), (ran.settings.home / "endpoint.log").read_text()):
        assert str(CANARY) not in words
        assert "Jane" not in words


@pytest.mark.parametrize("body", [{}, {"applications": CANARY}, {"applications": []}, {"applications": [[CANARY]]}])
def test_a_body_of_another_form_is_a_bad_request(body: object, ran: Home, endpoint: Endpoint) -> None:
    reply = endpoint.post("/score", body)
    assert reply.status == 400
    assert str(CANARY) not in json.dumps(reply.body)
    assert str(CANARY) not in (ran.settings.home / "endpoint.log").read_text()


def test_a_body_that_is_no_json_is_a_bad_request_and_not_logged(ran: Home, endpoint: Endpoint) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", endpoint.port, timeout=10)
    try:
        for body in (f"no json {CANARY}", f'{{"applications": [{CANARY}', "[]", f"[{CANARY}]"):
            connection.request("POST", "/score", body, {"content-type": "application/json"})
            answer = connection.getresponse()
            assert (answer.status, str(CANARY) in answer.read().decode()) == (400, False)
    finally:
        connection.close()
    printed = (ran.settings.home / "endpoint.log").read_text()
    assert "Exception on /score" in printed
    assert str(CANARY) not in printed


def test_a_missing_field_is_named(endpoint: Endpoint, good: dict[str, Any]) -> None:
    missing = {name: value for name, value in good.items() if name != "credit_limit"}
    reply = endpoint.post("/score", {"applications": [missing]})
    assert (reply.status, "credit_limit is missing" in json.dumps(reply.body)) == (400, True)


def test_an_unknown_client_is_not_found_and_not_echoed(ran: Home, endpoint: Endpoint) -> None:
    before = on_record(ran)
    reply = endpoint.post("/score_clients", {"client_ids": [1, 9_077_777]})
    assert reply.status == 404
    assert "client_ids[1] is not a client" in json.dumps(reply.body)
    assert "9077777" not in json.dumps(reply.body)
    assert on_record(ran) == before


def test_the_readme_s_curl_examples_are_answered(endpoint: Endpoint) -> None:
    examples = re.findall(r"^curl -s .*?'\n", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    assert len(examples) == 2
    for example in examples:
        route, body = re.fullmatch(r".*?:8080(/\w+) .* -d '(.*)'\n", example, re.DOTALL).groups()  # type: ignore[union-attr]
        reply = endpoint.post(route, json.loads(body))
        assert reply.status == 200, reply.body
        assert reply.body[0]["default_probability"] > 0


def test_the_probes_and_the_metrics_answer(endpoint: Endpoint) -> None:
    assert get(endpoint, "/livez")[0] == 200
    assert get(endpoint, "/readyz")[0] == 200
    status, metrics = get(endpoint, "/metrics")
    assert status == 200
    assert "bentoml_service_request_total" in metrics


def test_without_a_champion_serving_is_refused_with_the_next_step(tmp_path: Path) -> None:
    settings = Settings.from_environment({"LOAN_HOME": str(tmp_path)})
    with pytest.raises(Refusal, match=r"No release is in force yet\. Run `loan-assets run`"), served(settings):
        pass


def test_a_damaged_online_table_is_passed_over_and_the_last_good_one_answers(
    ran: Home, endpoint: Endpoint, tmp_path: Path
) -> None:
    first = endpoint.post("/score_clients", {"client_ids": [1, 2, 3]})
    shelf = ran.settings.online / "clients"
    pointer = shelf / "CURRENT"
    sound = pointer.read_text()
    try:
        pointer.write_text("0" * 64 + "\n")
        again = endpoint.post("/score_clients", {"client_ids": [1, 2, 3]})
        pointer.unlink()
        gone = endpoint.post("/score_clients", {"client_ids": [1, 2, 3]})
    finally:
        pointer.write_text(sound)
    assert [first.status, again.status, gone.status] == [200, 200, 200]
    for reply in (again, gone):
        assert [one["default_probability"] for one in reply.body] == [one["default_probability"] for one in first.body]


def test_an_answer_that_cannot_be_recorded_is_not_given(ran: Home, good: dict[str, Any], tmp_path: Path) -> None:
    blocked = "2026-02-03"
    place = ran.settings.predictions / blocked
    place.write_text("a file where the day's folder should be")
    try:
        with served(ran.settings, rehearsed_day=blocked) as stuck:
            reply = stuck.post("/score", {"applications": [good]})
    finally:
        os.unlink(place)
    assert reply.status == 503
    assert "prediction log cannot be written" in json.dumps(reply.body)
    assert "default_probability" not in json.dumps(reply.body)
