"""Alarms over HTTP: what is put to the rule, who may, and what a hundred of them cost."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from uvicorn.protocols.http import auto
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from bento.access import new_token
from loan_assets.credit.daily import Arrived
from loan_assets.credit.label_quality import LabelMemory
from loan_assets.credit.quality import OK
from loan_assets.policy import POLICY
from loan_assets.refusal import Refusal
from loan_assets.reign import RETRAIN, Reign
from loan_assets.resources.asset_store import _save
from loan_assets.resources.decisions import PERSON, Decisions
from loan_assets.settings import Settings
from loan_assets.stream import Stream
from loan_assets.webhook import webhook_server
from loan_assets_tests.conftest import Home, loan_assets
from loan_assets_tests.kill_drill import last_of, reign_of
from loan_assets_tests.push_drill import EVENT

JSON = {"content-type": "application/json"}


@pytest.fixture
def reign(ran: Home, tmp_path: Path) -> Reign:
    """A platform that lived through a day of which every outcome is known: enough for a retraining."""
    home = tmp_path / "home"
    for place in ("decisions", "releases", "store"):
        shutil.copytree(ran.settings.home / place, home / place)
    reign = reign_of(home)
    history = reign.history
    (day,) = history.days("prediction_log", "9999")
    log: pd.DataFrame = history.store.read(f"prediction_log/{day}", object)
    label = np.random.default_rng(1).random(len(log)) < log["default_probability"]
    told = tuple(
        (str(name), int(bad), f"{day}T12:00:00+00:00") for name, bad in zip(log["request_id"], label, strict=True)
    )
    arrived = Arrived(
        status=OK, rows=len(told), reasons=(), set_aside=(), taken=told, held=(), released=(), memory=LabelMemory()
    )
    history.store.store.write(f"outcome_quality/{day}", partial(_save, arrived))
    return reign


@dataclass(frozen=True)
class Answer:
    status: int
    body: Any


@dataclass(frozen=True)
class Door:
    """A webhook that is open, and the platform behind it."""

    reign: Reign
    port: int

    def send(self, body: bytes | Iterator[bytes], headers: dict[str, str] = JSON, to: str = "POST /alarm") -> Answer:
        method, path = to.split()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path, body, headers)
            reply = connection.getresponse()
            return Answer(status=reply.status, body=json.loads(reply.read()))
        finally:
            connection.close()

    def post(self, told: object, token: str = "") -> Answer:
        shown = {"authorization": f"Bearer {token}"} if token else {}
        return self.send(json.dumps(told).encode(), {**JSON, **shown})

    def asked(self) -> list[Any]:
        return [step for step in self.reign.decisions.steps() if step.kind == PERSON]


Opened = Callable[..., Door]


@pytest.fixture
def opened(reign: Reign, monkeypatch: pytest.MonkeyPatch) -> Iterator[Opened]:
    """Opens the webhook in a thread, on a free port of the loopback."""
    # Put back afterwards: the server bounds connections by a protocol of its own.
    monkeypatch.setattr(auto, "AutoHTTPProtocol", HttpToolsProtocol)
    running = []

    def begin(over: Reign = reign, tokens: str = "", stream: Stream | None = None) -> Door:
        port = free_port()
        server = webhook_server(over, "127.0.0.1", port, tokens, stream=stream)
        thread = threading.Thread(target=server.run)
        thread.start()
        running.append((server, thread))
        until = time.monotonic() + 20
        while not server.started:
            assert time.monotonic() < until
            time.sleep(0.01)
        return Door(reign=over, port=port)

    yield begin
    for server, thread in running:
        server.should_exit = True
        thread.join(timeout=20)
        assert not thread.is_alive()


@pytest.fixture
def door(opened: Opened) -> Door:
    return opened()


def test_the_platform_s_figures_are_given_to_whom_may_have_them(opened: Opened, tmp_path: Path) -> None:
    token, entry = new_token("prometheus", frozenset({"admin"}))
    (tmp_path / "tokens").write_text(entry.line() + "\n")
    door = opened(tokens=str(tmp_path / "tokens"))
    for headers, status in (({}, 401), ({"authorization": f"Bearer {token}"}, 200)):
        connection = http.client.HTTPConnection("127.0.0.1", door.port, timeout=20)
        connection.request("GET", "/metrics", headers=headers)
        reply = connection.getresponse()
        content = reply.read().decode()
        assert (reply.status, "loan_champion_version 1.0" in content) == (status, status == 200)
        connection.close()


def test_while_a_store_is_away_the_caller_is_asked_to_come_back(
    opened: Opened, reign: Reign, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = replace(reign, decisions=Decisions(folder=str(tmp_path / "copy"), bucket=bucket))
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    answer = opened(away).post({"why": "drift", "by": "monitoring"})
    assert answer.status == 503
    assert "cannot be reached" in str(answer.body)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def notified(*names: str, status: str = "firing", summary: str = "scores have moved") -> dict[str, Any]:
    """What Alertmanager posts, as its documentation has it."""
    alert = {
        "status": status,
        "annotations": {"summary": summary},
        "startsAt": "2026-11-24T10:00:00Z",
        "endsAt": "0001-01-01T00:00:00Z",
        "generatorURL": "http://prometheus:9090/graph",
        "fingerprint": "9f86d081884c7d65",
    }
    return {
        "version": "4",
        "groupKey": "{}:{}",
        "truncatedAlerts": 0,
        "status": status,
        "receiver": "loan-assets",
        "groupLabels": {},
        "commonLabels": {},
        "commonAnnotations": {},
        "externalURL": "http://alertmanager:9093",
        "alerts": [{**alert, "labels": {"alertname": name, "severity": "page"}} for name in names],
    }


def test_an_alarm_is_put_to_the_rule_and_the_answer_says_what_was_decided(door: Door) -> None:
    answer = door.post({"why": "a merger", "by": "core-banking"})
    (step,) = door.asked()
    assert answer.status == 200
    assert (answer.body["step"], answer.body["is_new"]) == (step.number, True)
    assert [one["kind"] for one in answer.body["decided"]] == ["alarm", "retrain"]
    assert answer.body["decided"][0]["cause"] == "a merger (asked by core-banking)"
    assert answer.body["said"] == "recorded; a retraining is ordered"
    assert step.by == "core-banking"
    assert door.reign.what_is_due() == RETRAIN


def test_an_alert_that_fires_is_an_alarm_once_and_one_that_is_resolved_is_none(door: Door) -> None:
    first = door.post(notified("ScoresMoved"))
    assert first.body["decided"][0]["cause"] == "ScoresMoved: scores have moved (asked by Alertmanager)"
    for summary in ("scores have moved by 0.3", "scores have moved by 0.4"):
        again = door.post(notified("ScoresMoved", summary=summary))
        assert (again.status, again.body["step"], again.body["is_new"]) == (200, first.body["step"], False)
        assert again.body["said"].startswith(f"known since step {first.body['step']}")
    resolved = door.post(notified("ScoresMoved", status="resolved"))
    assert (resolved.status, resolved.body["step"]) == (200, None)
    assert len(door.asked()) == 1


def test_alerts_that_come_together_are_one_alarm(door: Door) -> None:
    told = notified("E", "D", "C", "B", "A", "A")
    told["alerts"][0]["status"] = "resolved"
    answer = door.post(told)
    said = "; ".join(f"{name}: scores have moved" for name in "ABC")
    assert answer.body["decided"][0]["cause"] == f"{said}; 1 more (asked by Alertmanager)"
    assert door.asked()[0].evidence["alarms"] == ["alert A", "alert B", "alert C", "alert D"]


def test_a_hundred_alarms_in_a_row_cost_no_more_than_the_budget(door: Door) -> None:
    for number in range(100):
        assert door.post(notified(f"Alert{number}")).status == 200
    for _ in range(2):
        for number in range(100):
            assert not door.post(notified(f"Alert{number}")).body["is_new"]
    kinds = [action.kind for step in door.asked() for action in step.actions]
    assert len(door.asked()) == 100
    assert 1 <= kinds.count("retrain") <= POLICY.succession.budget


def test_alarms_at_the_same_moment_are_each_put_once(door: Door) -> None:
    with ThreadPoolExecutor(8) as senders:
        posts = [notified(f"Alert{number % 8}") for number in range(32)]
        answers = list(senders.map(door.post, posts))
    assert {answer.status for answer in answers} == {200}
    assert sum(answer.body["is_new"] for answer in answers) == 8
    assert len(door.asked()) == 8


UNFIT = {
    b"{": "not JSON",
    b"": "not JSON",
    b"\xff\xfe": "not JSON",
    b"[" * 100_000: "not JSON",
    b"[]": "not an object",
    b'"hush"': "not an object",
    b"{}": "by is missing",
    b'{"by": "hush"}': "why is missing, empty or no text",
    b'{"why": " \\u0007 ", "by": "hush"}': "why is missing, empty or no text",
    b'{"why": ["hush"], "by": "hush"}': "why is missing, empty or no text",
    b'{"why": "hush", "by": 3}': "by is missing, empty or no text",
    b'{"alerts": []}': 'version "4"',
    b'{"alerts": [], "version": "5", "status": "firing"}': 'version "4"',
    b'{"alerts": [], "version": "4", "status": "hush"}': "neither firing nor resolved",
    b'{"alerts": {}, "version": "4", "status": "firing"}': "alerts is not a list",
    b'{"alerts": [3], "version": "4", "status": "firing"}': "alerts is not a list of objects",
    b'{"alerts": [{}], "version": "4", "status": "firing"}': "alerts[0] has no labels",
    b'{"alerts": [{"labels": {}}], "version": "4", "status": "firing"}': "alerts[0].labels.alertname is missing",
}


@pytest.mark.parametrize("body", list(UNFIT), ids=[f"{body[:30]!r}" for body in UNFIT])
def test_a_body_that_does_not_fit_is_told_why_and_puts_nothing(door: Door, body: bytes) -> None:
    answer = door.send(body)
    assert answer.status == 400
    assert UNFIT[body] in answer.body["error"]
    assert list(answer.body) == ["error"]
    assert "hush" not in answer.body["error"]
    assert door.asked() == []


def test_what_goes_on_record_is_bounded_and_nothing_that_a_terminal_obeys(door: Door) -> None:
    answer = door.post({"why": "red \x1b[31m\nalert\x00" + "x" * 10_000, "by": "b" * 10_000})
    (step,) = door.asked()
    assert answer.status == 200
    assert step.actions[0].cause.startswith("red [31m alertxxx")
    assert (len(step.actions[0].cause) < 700, len(step.by)) == (True, 100)
    assert step.actions[0].cause.isprintable()


def test_more_than_is_read_another_kind_and_another_way_are_refused(door: Door) -> None:
    large = b" " * (POLICY.endpoint.largest_body + 1)
    assert door.send(large).status == 413
    assert door.send(iter([large[:700_000], large[:700_000]])).status == 413
    for kind in ({}, {"content-type": "text/plain"}, {"content-type": "application/x-www-form-urlencoded"}):
        assert door.send(b'{"why": "why", "by": "who"}', kind).status == 415
    assert door.send(b"", {}, "GET /alarm").status == 405
    assert door.send(b"", {}, "GET /livez") == Answer(status=200, body={"status": "alive"})
    assert door.send(b"", JSON, "POST /elsewhere").status == 404
    assert door.asked() == []


def test_where_tokens_are_asked_for_one_with_the_right_scope_is_needed(opened: Opened, tmp_path: Path) -> None:
    shown, lines = {}, []
    for caller, scope in (("monitoring", "admin"), ("core-banking", "predict")):
        shown[caller], token = new_token(caller, frozenset({scope}))
        lines.append(token.line())
    file = tmp_path / "tokens"
    file.write_text("\n".join(lines))
    door = opened(tokens=str(file))
    assert door.post({"why": "why"}).status == 401
    assert door.post({"why": "why"}, "guessed").status == 401
    assert door.send(b"not even JSON", {}).status == 401
    assert door.post({"why": "why"}, shown["core-banking"]).status == 403
    assert door.asked() == []
    assert door.post(notified("ScoresMoved"), shown["monitoring"]).status == 200
    assert door.post({"why": "why"}, shown["monitoring"]).status == 200
    assert door.post({"why": "why", "by": "the board"}, shown["monitoring"]).status == 200
    by = ["Alertmanager, by the token of monitoring", "monitoring", "the board, by the token of monitoring"]
    assert [step.by for step in door.asked()] == by
    file.write_text(lines[1])
    assert door.post({"why": "why"}, shown["monitoring"]).status == 401


def test_without_tokens_nobody_beyond_this_machine_is_let_in(reign: Reign, tmp_path: Path) -> None:
    with pytest.raises(Refusal, match=r"Everybody who reaches 0\.0\.0\.0"):
        webhook_server(reign, "0.0.0.0", 3100, "")
    done = loan_assets("webhook", "--host", "0.0.0.0", home=tmp_path)
    assert done.returncode == 1
    assert "Everybody who reaches 0.0.0.0 could ask for a retraining." in done.stderr
    assert "Traceback" not in done.stderr
    with pytest.raises(Refusal, match="nobody is let in"):
        webhook_server(reign, "0.0.0.0", 3100, str(tmp_path / "nowhere"))


def test_where_there_is_no_champion_the_refusal_is_told(opened: Opened, tmp_path: Path) -> None:
    answer = opened(over=reign_of(tmp_path / "new")).post({"why": "why", "by": "who"})
    assert (answer.status, answer.body) == (
        409,
        {"error": "There is no champion yet. Run `loan-assets run` first."},
    )


def test_a_journal_that_is_damaged_is_told_and_left_alone(door: Door) -> None:
    journal = Path(door.reign.decisions.folder) / "journal.log"
    journal.write_bytes(journal.read_bytes().replace(b"floors", b"flowers"))
    damaged = journal.read_bytes()
    answer = door.post({"why": "why", "by": "who"})
    assert answer.status == 409
    assert "is not what was written there" in answer.body["error"]
    assert journal.read_bytes() == damaged


def test_the_command_opens_the_door_and_shuts_it(reign: Reign, tmp_path: Path) -> None:
    port, home = free_port(), Path(reign.decisions.folder).parent
    command = [sys.executable, "-m", "loan_assets.cli", "webhook", "--port", str(port)]
    environment = {**os.environ, "LOAN_HOME": str(home), "LOAN_TOKENS": ""}
    with subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        assert (
            server.stdout.readline()
            == f"Alarms are taken at http://127.0.0.1:{port}/alarm, statements at /statements, figures at /metrics\n"
        )
        door, until = Door(reign=reign, port=port), time.monotonic() + 20
        while True:
            try:
                answer = door.post(notified("ScoresMoved"))
                break
            except ConnectionRefusedError:
                assert time.monotonic() < until
                time.sleep(0.05)
        server.send_signal(signal.SIGTERM)
        assert server.wait(timeout=20) in (0, -signal.SIGTERM)
    assert answer.body["step"] == last_of(reign).number


@pytest.fixture
def stream(ran: Home, reign: Reign) -> Stream:
    """The stream of the same platform, its record in the folder that the settings name."""
    home = Path(reign.decisions.folder).parent
    for place in ("feast", "online"):
        shutil.copytree(ran.settings.home / place, home / place)
    return Stream.over(Settings.from_environment({"LOAN_HOME": str(home)}))


def test_statements_are_taken_one_or_many_and_what_became_of_each_is_told(opened: Opened, stream: Stream) -> None:
    door = opened(stream=stream)

    def push(told: object) -> tuple[int, Any]:
        answer = door.send(json.dumps(told).encode(), JSON, "POST /statements")
        return answer.status, answer.body

    said = {"taken": 0, "known": 0, "refused": [], "served": True}
    assert push(EVENT) == (200, {**said, "taken": 1})
    assert push(EVENT) == (200, {**said, "known": 1})
    conflict = {"position": 0, "why": "event_id: is on record with another content"}
    assert push({**EVENT, "bill_amount": 77_777}) == (409, {**said, "refused": [conflict]})
    unfit = {**EVENT, "event_id": "x", "pay_status": 77_777}
    why = "breaks the contract: pay_status: has a code outside the book"
    assert push([unfit]) == (400, {**said, "refused": [{"position": 0, "why": why}]})
    status, body = push([EVENT, unfit, {**EVENT, "event_id": "y", "client_id": 8}])
    assert (status, body) == (207, {**said, "taken": 1, "known": 1, "refused": [{"position": 1, "why": why}]})
    for wrong in ([], 3, "77777", [3]):
        assert push(wrong) == (400, {"error": "the body is neither an event nor a list of events, which are objects"})
    assert push([EVENT] * 1_001) == (413, {"error": "at most 1,000 events are taken at once"})
    assert door.send(b"{", JSON, "POST /statements").status == 400
    assert door.send(b" " * (POLICY.endpoint.largest_body + 1), JSON, "POST /statements").status == 413
    assert door.send(b"{}", {}, "POST /statements").status == 415
    assert door.asked() == []


def test_what_is_on_record_and_cannot_be_served_yet_is_told(opened: Opened, stream: Stream) -> None:
    door = opened(stream=stream)
    online = Path(stream.online.root)
    online.rename(online.with_name("aside"))
    answer = door.send(json.dumps(EVENT).encode(), JSON, "POST /statements")
    assert (answer.status, answer.body["taken"], answer.body["served"]) == (202, 1, False)
    assert "The online table is not there yet" in answer.body["unserved"]
    shutil.rmtree(Path(stream.store.root) / "client_profiles")
    unread = door.send(json.dumps(EVENT).encode(), JSON, "POST /statements")
    assert (unread.status, "client_profiles has never been materialized" in unread.body["error"]) == (503, True)


def test_a_token_that_may_push_may_not_ask_for_a_retraining(opened: Opened, stream: Stream, tmp_path: Path) -> None:
    shown, lines = {}, []
    for scope in ("push", "predict", "admin"):
        shown[scope], token = new_token(f"the-{scope}", frozenset({scope}))
        lines.append(token.line())
    file = tmp_path / "tokens"
    file.write_text("\n".join(lines))
    door = opened(tokens=str(file), stream=stream)

    def push(token: str) -> int:
        headers = {**JSON, "authorization": f"Bearer {token}"}
        return door.send(json.dumps(EVENT).encode(), headers, "POST /statements").status

    assert [push(token) for token in ("", "guessed", shown["predict"], shown["push"], shown["admin"])] == [
        401,
        401,
        403,
        200,
        200,
    ]
    assert door.post({"why": "why"}, shown["push"]).status == 403
    assert door.asked() == []


def test_the_same_statement_from_many_at_once_is_taken_once(opened: Opened, stream: Stream) -> None:
    door = opened(stream=stream)
    body = json.dumps(EVENT).encode()
    with ThreadPoolExecutor(8) as senders:
        answers = list(senders.map(lambda _: door.send(body, JSON, "POST /statements"), range(8)))
    assert {answer.status for answer in answers} == {200}
    assert sum(answer.body["taken"] for answer in answers) == 1
