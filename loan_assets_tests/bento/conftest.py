"""The box in this process, asked by ASGI, and the built Bento, served."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from bento.application import Application
from bento.places import Places
from loan_assets.books import LoanBook, Role
from loan_assets.endpoint import Endpoint, served
from loan_assets.policy import POLICY
from loan_assets.policy import Endpoint as Limits
from loan_assets.prediction_record import PredictionRecord, read_day
from loan_assets.rehearsal import as_applications
from loan_assets_tests.conftest import Home

DAY = "2026-02-02"


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    content: bytes

    @property
    def body(self) -> Any:
        return json.loads(self.content)


class Box:
    """An application over some places, asked without a server in between."""

    def __init__(self, places: Places, limits: Limits = POLICY.endpoint) -> None:
        self.places = places
        self._loop = asyncio.new_event_loop()
        self.application = self._loop.run_until_complete(self._opened(limits))

    async def _opened(self, limits: Limits) -> Application:
        return Application(self.places, limits)

    def ask(self, method: str, path: str, content: bytes = b"", headers: Mapping[str, str] | None = None) -> Answer:
        """One request, its body in one piece."""
        given = {"content-type": "application/json", "content-length": str(len(content)), **(headers or {})}
        return self.send(method, path, [content], given)

    def post(self, path: str, body: object, **headers: str) -> Answer:
        """A body as JSON."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.ask("POST", path, json.dumps(body).encode(), named)

    def send(self, method: str, path: str, pieces: list[bytes], headers: Mapping[str, str]) -> Answer:
        """One request whose body comes in pieces; what is not asked for stays in `self.unread`."""
        self.unread = list(pieces)
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            body = self.unread.pop(0)
            return {"type": "http.request", "body": body, "more_body": bool(self.unread)}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()],
        }
        self._loop.run_until_complete(self.application(scope, receive, send))
        start, content = sent
        said = {name.decode(): value.decode() for name, value in start["headers"]}
        return Answer(status=int(start["status"]), headers=said, content=content["body"])

    def records(self) -> list[PredictionRecord]:
        """What is on record under the rehearsed day."""
        return read_day(self.places.predictions / DAY)[0]

    def close(self) -> None:
        self._loop.run_until_complete(self.application.close())
        self._loop.close()


@pytest.fixture
def places(ran: Home, tmp_path: Path) -> Places:
    """The places of the home in which the graph was run, with a log of one's own."""
    settings = ran.settings
    bento = next((settings.bentoml_home / "bentos" / "loan_default").glob("v1-*"))
    return Places(
        box=bento / "src" / "release",
        releases=settings.releases,
        online=settings.online,
        predictions=tmp_path / "predictions",
        tokens=None,
        rehearsed_day=DAY,
    )


@pytest.fixture
def box(places: Places) -> Iterator[Box]:
    opened = Box(places)
    yield opened
    opened.close()


@pytest.fixture
def strict_box(places: Places) -> Iterator[Box]:
    """A box that reads small bodies only."""
    opened = Box(places, replace(POLICY.endpoint, largest_body=10_000, most_rows=5))
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def endpoint(ran: Home) -> Iterator[Endpoint]:
    with served(ran.settings, rehearsed_day=DAY) as ready:
        yield ready


@pytest.fixture
def good(received: pd.DataFrame, book: LoanBook) -> dict[str, Any]:
    """An application with the fields that it must have, which is refused."""
    return as_applications(received[[column.name for column in book.with_role(Role.FEATURE)]].head(1))[0]


@pytest.fixture
def healthy(received: pd.DataFrame, book: LoanBook, ran: Home) -> dict[str, Any]:
    """An application that is approved."""
    scores: pd.DataFrame = ran.read("batch_scores")
    safest = int(scores["default_probability"].to_numpy().argmin())
    columns = [column.name for column in book.with_role(Role.FEATURE)]
    return as_applications(received[columns].iloc[[safest]])[0]
