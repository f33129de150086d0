"""Alarms of other systems reach the rule through a real socket; what is no alarm, or nobody's, raises none."""

from __future__ import annotations

import json
import shutil
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from bento.access import ADMIN, PREDICT, Access, new_token
from loan_assets.books import the_book
from loan_assets.refusal import Refusal
from loan_assets.reign import Reign
from loan_assets.resources.decisions import PERSON, Decisions
from loan_assets.resources.live_history import Memory
from loan_assets.resources.registry import Registry
from loan_assets.settings import Settings
from loan_assets.webhook import LARGEST_BODY, door, serve
from loan_assets_tests.conftest import Home

ALERTMANAGER = {
    "version": "4",
    "status": "firing",
    "alerts": [
        {"status": "firing", "labels": {"alertname": "RefusalsDoubled"}, "annotations": {"summary": "twice as many"}},
        {"status": "firing", "labels": {"alertname": "RefusalsDoubled"}, "annotations": {"summary": "twice as many"}},
        {"status": "resolved", "labels": {"alertname": "Another"}},
    ],
}


@dataclass
class Door:
    """A server on a port of the loopback, and the reign behind it."""

    port: int
    reign: Reign

    def post(self, body: object, token: str = "") -> tuple[int, Any]:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/alarm", data=content)
        if token:
            request.add_header("Authorization", f"Bearer {token}")
        try:
            with urllib.request.urlopen(request, timeout=60) as reply:
                return reply.status, json.loads(reply.read())
        except urllib.error.HTTPError as refused:
            return refused.code, json.loads(refused.read())

    def persons(self) -> list[str]:
        return [action.cause for s in self.reign.decisions.steps() if s.kind == PERSON for action in s.actions]


def opened(reign: Reign, access: Access) -> Iterator[Door]:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        server = uvicorn.Server(uvicorn.Config(door(reign.ask, access), log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        yield Door(port=listening.getsockname()[1], reign=reign)
        server.should_exit = True
        thread.join(timeout=20)


def reign_over(home: Path) -> Reign:
    settings = Settings.from_environment({"LOAN_HOME": str(home)})
    return Reign(
        decisions=Decisions(folder=str(settings.decisions)),
        registry=Registry(tracking_uri=settings.mlflow_uri, artifacts=settings.mlflow_artifacts),
        history=Memory(store=str(settings.store), releases=str(settings.releases)).of(the_book()),
    )


@pytest.fixture
def reign(ran: Home, tmp_path: Path) -> Reign:
    shutil.copytree(ran.settings.home, tmp_path / "home")
    return reign_over(tmp_path / "home")


@pytest.fixture
def webhook(reign: Reign) -> Iterator[Door]:
    yield from opened(reign, Access(None))


def test_an_alarm_is_put_before_the_rule_and_told_with_its_step(webhook: Door) -> None:
    status, said = webhook.post({"why": "complaints about refusals", "by": "the service desk"})
    (step,) = said["steps"]
    cause = "complaints about refusals (asked by the service desk, through a webhook)"
    assert status == 200
    assert step["decided"] == [{"decision": "alarm", "version": 1, "cause": cause}]
    last = webhook.reign.decisions.last()
    assert last is not None
    assert (last.number, last.kind, last.situation.episode is not None) == (step["step"], PERSON, True)


def test_a_group_of_alerts_is_one_alarm_and_its_repetition_none(webhook: Door) -> None:
    steps = {webhook.post(ALERTMANAGER)[1]["steps"][0]["step"] for _ in range(5)}
    assert len(steps) == 1
    assert webhook.persons() == ["RefusalsDoubled: twice as many (asked by a webhook)"]


def test_alerts_that_were_resolved_raise_nothing(webhook: Door) -> None:
    resolved = {**ALERTMANAGER, "status": "resolved", "alerts": ALERTMANAGER["alerts"][2:]}
    assert webhook.post(resolved) == (200, {"steps": []})
    assert webhook.persons() == []


UNFIT: list[tuple[object, str]] = [
    (b"{", "The body is no JSON."),
    (b"\xff\xfe", "The body is no JSON."),
    ([], "The body is no JSON object."),
    ({}, "`why` and `by` must be text"),
    ({"why": " "}, "`why` and `by` must be text"),
    ({"why": "x" * 501}, "`why` and `by` must be text"),
    ({"why": "because", "by": 7}, "`why` and `by` must be text"),
    ({"alerts": {}}, "`alerts` must be a list"),
    ({"alerts": [{"status": "firing", "labels": {}}]}, "no `labels.alertname`"),
]


def test_what_is_no_alarm_is_refused_and_raises_none(webhook: Door) -> None:
    for body, said in UNFIT:
        status, reply = webhook.post(body)
        assert status == 400
        assert said in reply["error"]
        assert "Alertmanager" in reply["hint"]
    assert webhook.persons() == []


def test_a_body_beyond_the_limit_is_not_read(webhook: Door) -> None:
    assert webhook.post(b"x" * (LARGEST_BODY + 1))[0] == 413


def test_without_a_champion_the_reason_is_told(tmp_path: Path) -> None:
    for one in opened(reign_over(tmp_path / "empty"), Access(None)):
        status, said = one.post({"why": "because"})
        assert status == 409
        assert "no champion yet" in said["error"]


def test_where_tokens_are_asked_for_only_the_scope_admin_raises_an_alarm(reign: Reign, tmp_path: Path) -> None:
    (admin, of_admin), (other, of_other) = (
        new_token("pager", frozenset({ADMIN})),
        new_token("app", frozenset({PREDICT})),
    )
    (tmp_path / "tokens").write_text(f"{of_admin.line()}\n{of_other.line()}\n")
    for one in opened(reign, Access(tmp_path / "tokens")):
        assert [one.post({"why": "because"}, token)[0] for token in ("", "invented", other)] == [401, 401, 403]
        assert one.persons() == []
        assert one.post({"why": "because"}, admin)[0] == 200
        assert one.persons() == ["because (asked by pager)"]


def test_beyond_this_machine_it_listens_with_tokens_only(tmp_path: Path, reign: Reign) -> None:
    settings = Settings.from_environment({"LOAN_HOME": str(tmp_path)})
    with pytest.raises(Refusal, match=r"Without tokens 0\.0\.0\.0 is not listened on"):
        serve(settings, reign.ask, "0.0.0.0", 0)
