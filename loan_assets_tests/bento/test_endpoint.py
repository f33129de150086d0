"""The built Bento, served by BentoML: what it answers over HTTP, what it puts on record, and what it never says."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import socket
import subprocess
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from loan_assets.endpoint import Endpoint, Reply, serve_command, served
from loan_assets.policy import POLICY
from loan_assets.prediction_record import read_day
from loan_assets.refusal import Refusal
from loan_assets.rehearsal import as_applications, held_out
from loan_assets.resources.asset_store import AssetStore
from loan_assets.settings import Settings
from loan_assets_tests.bento.conftest import DAY
from loan_assets_tests.conftest import ROOT, Home

CANARY = 77_777


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
    scores: pd.DataFrame = ran.read("batch_scores").set_index("client_id")
    by_client = {record.client_id: record for record in records}
    for client, answer in zip(drawn["client_id"], answers, strict=True):
        record = by_client[client]
        assert answer["client_id"] == client
        assert record.default_probability == answer["default_probability"]
        assert abs(answer["default_probability"] - scores.at[client, "default_probability"]) <= 1e-9
        assert (record.decision, record.model_version) == (scores.at[client, "decision"], 1)
        assert set(record.received) == set(drawn.columns) - {"client_id"}


def test_of_many_applications_the_one_that_is_no_good_is_named(endpoint: Endpoint, good: dict[str, Any]) -> None:
    lacking = {name: value for name, value in good.items() if name != "credit_limit"}
    with pytest.raises(Refusal, match=r"Application 7 was not scored: credit_limit is missing\. Mend it"):
        endpoint.score_each([*[good] * 7, lacking, good])


def test_nothing_that_was_sent_is_in_what_the_endpoint_prints(
    ran: Home, endpoint: Endpoint, good: dict[str, Any]
) -> None:
    before = on_record(ran)
    bodies: tuple[Any, ...] = (
        {"applications": [{**good, "age": CANARY}]},
        {"applications": [{**good, f"Jane Roe {CANARY}": 1}]},
        {"client_ids": [9_000_000 + CANARY]},
        {"applications": CANARY},
    )
    for body in bodies:
        for route in ("/score", "/predict", "/v1/models/loan-default:predict", "/v2/models/loan-default/infer"):
            reply = endpoint.post(route, body)
            assert reply.status in (400, 404)
            assert str(CANARY) not in json.dumps(reply.body)
    printed = (ran.settings.home / "endpoint.log").read_text()
    assert "Service loan_default initialized" in printed
    assert str(CANARY) not in printed
    assert "Jane" not in printed
    assert on_record(ran) == before


def test_the_readme_s_curl_examples_are_answered(endpoint: Endpoint) -> None:
    examples = re.findall(r"^curl -s \S+:8080.*?'\n", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    assert len(examples) >= 2
    for example in examples:
        route, body = re.fullmatch(r".*?:8080(/\S+) .* -d '(.*)'\n", example, re.DOTALL).groups()  # type: ignore[union-attr]
        reply = endpoint.post(route, json.loads(body))
        assert reply.status == 200, reply.body


def test_the_probes_the_metrics_and_the_document_answer(endpoint: Endpoint) -> None:
    for path, said in (
        ("/livez", ""),
        ("/readyz", ""),
        ("/metrics", "loan_model_version"),
        ("/openapi.json", '"openapi":"3.1.0"'),
        ("/standing", '"source":"store"'),
    ):
        status, body = get(endpoint, path)
        assert (status, said in body) == (200, True), path


def test_no_page_loads_anything_from_elsewhere(endpoint: Endpoint) -> None:
    for path in ("/", "/docs", "/openapi.json", "/static_content/index.html", "/schema.json"):
        assert "<script" not in get(endpoint, path)[1]


def test_without_a_champion_serving_is_refused_with_the_next_step(tmp_path: Path) -> None:
    settings = Settings.from_environment({"LOAN_HOME": str(tmp_path)})
    with pytest.raises(Refusal, match=r"No release is in force yet\. Run `loan-assets run`"), served(settings):
        pass


def test_a_damaged_online_table_is_passed_over_and_the_last_good_one_answers(ran: Home, endpoint: Endpoint) -> None:
    first = endpoint.post("/predict", {"client_ids": [1, 2, 3]})
    pointer = Path(ran.settings.online) / "clients" / "CURRENT"
    sound = pointer.read_text()
    try:
        pointer.write_text("0" * 64 + "\n")
        time.sleep(3 * POLICY.endpoint.seconds_between_looks)
        again = endpoint.post("/predict", {"client_ids": [1, 2, 3]})
        pointer.unlink()
        time.sleep(3 * POLICY.endpoint.seconds_between_looks)
        gone = endpoint.post("/predict", {"client_ids": [1, 2, 3]})
    finally:
        pointer.write_text(sound)
    assert [first.status, again.status, gone.status] == [200, 200, 200]
    for reply in (again, gone):
        assert reply.body["predictions"] == first.body["predictions"]


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::"])
def test_nobody_else_is_served_without_tokens(ran: Home, host: str, tmp_path: Path) -> None:
    with pytest.raises(Refusal, match=re.escape(f"would answer everybody at {host}.") + ".*LOAN_TOKENS"):
        serve_command(ran.settings, 8080, 1, host)
    (tmp_path / "tokens").write_text("x")
    command, _ = serve_command(replace(ran.settings, tokens=str(tmp_path / "tokens")), 8080, 1, host)
    assert command[command.index("--host") + 1] == host


def test_bentoml_s_own_command_refuses_an_open_host_before_a_worker_starts(ran: Home) -> None:
    command, environment = serve_command(ran.settings, 0, 1)
    command[command.index("127.0.0.1")] = "0.0.0.0"
    started = time.monotonic()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0
    assert "would answer everybody at 0.0.0.0" in done.stderr
    assert "Service loan_default initialized" not in done.stdout + done.stderr
    assert time.monotonic() - started < 30


def test_a_worker_that_listens_to_others_without_tokens_does_not_start() -> None:
    from bento.access import refuse_open_port

    with socket.socket() as everywhere:
        everywhere.bind(("0.0.0.0", 0))
        everywhere.listen()
        refuse_open_port(has_tokens=True)
        with pytest.raises(Refusal, match=r"would answer everybody at 0\.0\.0\.0"):
            refuse_open_port(has_tokens=False)


def test_two_workers_share_the_port_the_record_and_the_metrics(ran: Home, good: dict[str, Any]) -> None:
    with served(ran.settings, rehearsed_day="2026-02-04", workers=2) as endpoint:
        replies: list[Reply] = []
        # Ready is who has one worker; on a busy machine the other one is met later.
        while len(by_worker := {reply.body["request_id"][:20] for reply in replies}) < 2 and len(replies) < 5_000:
            with ThreadPoolExecutor(8) as callers:
                replies += callers.map(lambda _: endpoint.post("/score", {"applications": [good] * 20}), range(100))
        named = {"applications": [good], "request_id": "once"}
        with ThreadPoolExecutor(8) as callers:
            again = list(callers.map(lambda _: endpoint.post("/score", named), range(40)))
        time.sleep(2 * POLICY.endpoint.seconds_between_looks)
        status, page = get(endpoint, "/metrics")
    assert len(by_worker) == 2  # each worker has its own prefix
    assert [reply.body for reply in again] == [again[0].body] * 40
    records = read_day(ran.settings.predictions / "2026-02-04")[0]
    assert Counter(record.request_id == "once" for record in records) == {False: 20 * len(replies), True: 1}
    counted = re.search(r'loan_request_seconds_count\{route="/score",status="200"\} ([\d.]+)', page)
    assert counted is not None
    assert (status, float(counted[1])) == (200, len(replies) + 40.0)


def test_who_is_asked_to_come_back_is_answered_then(ran: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    online, question = tmp_path / "online", {"client_ids": [1]}
    with served(replace(ran.settings, online=str(online)), rehearsed_day="2026-02-06") as endpoint:
        with monkeypatch.context() as impatient:
            impatient.setattr("loan_assets.endpoint.PATIENCE_SECONDS", 0.0)
            with pytest.raises(Refusal, match=r"The endpoint cannot answer: .*online"):
                endpoint.ask_each("/predict", [question])
        aside = Path(shutil.copytree(ran.settings.online, tmp_path / "aside"))
        comes = threading.Timer(3.0, aside.rename, (online,))
        comes.start()
        replies = endpoint.ask_each("/predict", [question, question])
        comes.join()
        _, page = get(endpoint, "/metrics")
    assert [reply.status for reply in replies] == [200, 200]
    refused = re.search(r'loan_request_seconds_count\{route="/predict",status="503"\} ([\d.]+)', page)
    assert refused is not None
    assert float(refused[1]) >= 2


def test_an_endpoint_is_stopped_without_losing_a_line(ran: Home, good: dict[str, Any]) -> None:
    with served(ran.settings, rehearsed_day="2026-02-05") as endpoint:
        for _ in range(5):
            assert endpoint.post("/score", {"applications": [good]}).status == 200
    records, damages = read_day(ran.settings.predictions / "2026-02-05")
    assert (len(records), damages) == (5, ())
