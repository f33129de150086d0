"""The champion's Bento as a running server on this machine, and a client that sends it applications.

Here: starting, waiting for, asking and stopping. Not here: what it answers (`bento`) or which release is champion
(`resources.release_store`).
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bento.access import is_loopback, open_port
from loan_assets.bucket import bucket_at
from loan_assets.refusal import Refusal
from loan_assets.resources.bento_store import BentoStore
from loan_assets.resources.release_store import ReleaseStore
from loan_assets.settings import Settings

HOST = "127.0.0.1"
START_SECONDS = 90.0
SENDERS = 4
# How long a request is sent again while the endpoint asks for that.
PATIENCE_SECONDS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A status and the JSON that came with it; `again_after` is the wait in seconds that the endpoint asks for."""

    status: int
    body: Any
    again_after: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A server that is ready, at a port of the loopback; `process` watches over its workers."""

    port: int
    process: int

    def workers(self) -> list[int]:
        """The processes that answer."""
        import psutil

        found = []
        for child in psutil.Process(self.process).children(recursive=True):
            with suppress(psutil.NoSuchProcess):  # it may end while it is looked at
                if "_bentoml_impl.worker.service" in child.cmdline():
                    found.append(child.pid)
        return found

    def post(self, route: str, body: object) -> Reply:
        """Ask once, on a connection of its own."""
        connection = http.client.HTTPConnection(HOST, self.port, timeout=30)
        try:
            return _ask(connection, route, json.dumps(body))
        finally:
            connection.close()

    def tell(self, route: str) -> Any:
        """What a route says that asks for nothing, such as `/standing`."""
        connection = http.client.HTTPConnection(HOST, self.port, timeout=30)
        try:
            connection.request("GET", route)
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()

    def ask_each(self, route: str, bodies: Sequence[object]) -> list[Reply]:
        """Send requests one after the other over one connection, so that of two of one name the first is the first.

        One that the endpoint asks to be sent again, having no time for it or no place to put it on record, is.

        Raises:
            Refusal: when the endpoint does not answer, or cannot; a request that it refuses is answered.
        """
        replies = []
        connection = http.client.HTTPConnection(HOST, self.port, timeout=30)
        try:
            for body in bodies:
                replies.append(_ask_again(connection, route, json.dumps(body)))
                if replies[-1].status >= http.client.INTERNAL_SERVER_ERROR:
                    said = f"The endpoint cannot answer: {error_of(replies[-1])}."
                    raise Refusal(said, "See endpoint.log in LOAN_HOME, then run again.")
        except (OSError, http.client.HTTPException) as gone:
            raise Refusal(
                f"The endpoint no longer answers ({type(gone).__name__}).", "See endpoint.log in LOAN_HOME; run again."
            ) from None
        finally:
            connection.close()
        return replies

    def score_each(self, applications: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Send every application in a request of its own, over a few connections; the answers in the same order.

        Raises:
            Refusal: when one of them was not answered.
        """
        shares = [range(start, len(applications), SENDERS) for start in range(SENDERS)]
        answers: list[dict[str, Any]] = [{}] * len(applications)

        def send(share: range) -> None:
            replies = self.ask_each("/score", [{"applications": [applications[position]]} for position in share])
            for position, reply in zip(share, replies, strict=True):
                if reply.status != http.client.OK:
                    said = error_of(reply).removeprefix("applications[0]: ")
                    raise Refusal(f"Application {position} was not scored: {said}.", "Mend it, then send all again.")
                (answers[position],) = reply.body["predictions"]

        with ThreadPoolExecutor(SENDERS) as senders:
            list(senders.map(send, shares))
        return answers


def serve_command(settings: Settings, port: int, workers: int, host: str = HOST) -> tuple[list[str], dict[str, str]]:
    """The command that serves the champion, and its environment.

    Raises:
        Refusal: when no release is in force, its Bento is missing or damaged, or others could ask without a token.
    """
    if not settings.tokens and not is_loopback(host):
        raise open_port(host)
    champion = ReleaseStore.over(settings).champion()
    tag = BentoStore.over(settings).tag_of(champion.version, champion.digest)
    environment = {
        **os.environ,
        "BENTOML_HOME": str(settings.bentoml_home),
        "BENTOML_DO_NOT_TRACK": "True",
        "LOAN_WORKERS": str(workers),
        "LOAN_RELEASES": bucket_at(settings.releases_place) or str(settings.releases),
        "LOAN_ONLINE": settings.online,
        "LOAN_PREDICTIONS": bucket_at(settings.predictions_place) or str(settings.predictions),
        "LOAN_SPOOL": str(settings.home / "spool"),
        "LOAN_TOKENS": settings.tokens and str(Path(settings.tokens).absolute()),
    }
    serve = [sys.executable, "-m", "bentoml", "serve", tag, "--host", host, "--port", str(port)]
    return serve, environment


@contextmanager
def served(
    settings: Settings,
    *,
    rehearsed_day: str | Path | None = None,
    rehearsal: str | None = None,
    workers: int = 1,
    **variables: str,
) -> Iterator[Endpoint]:
    """The champion, served on a free port until the block ends; what it prints goes to `endpoint.log` in the home.

    Args:
        rehearsed_day: the day under which answers are logged instead of today, `2026-11-24` style, or a file that says
            it and may be written anew.
        rehearsal: its name, where what was answered under that name before is to count as well.
        variables: what else is set in its environment.

    Raises:
        Refusal: when it is not ready in time, with the last words of its log.
    """
    with socket.socket() as free:
        free.bind((HOST, 0))
        port = free.getsockname()[1]
    command, environment = serve_command(settings, port, workers)
    environment |= variables
    if rehearsed_day:
        environment |= {
            "LOAN_REHEARSED_DAY": str(rehearsed_day),
            "LOAN_REHEARSAL": rehearsal or uuid.uuid4().hex,
        }
    printed = settings.home / "endpoint.log"
    with printed.open("w") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=settings.home)
        try:
            if not _is_ready_in_time(server, port):
                last = printed.read_text().strip().splitlines()[-1:]
                said = f" Its last words: {last[0][-300:]}" if last else ""
                raise Refusal(f"The endpoint is not ready after {START_SECONDS:.0f} s.{said}", f"See {printed}.")
            yield Endpoint(port=port, process=server.pid)
        finally:
            server.terminate()
            try:
                server.wait(timeout=20)
            except subprocess.TimeoutExpired:
                server.kill()


def _is_ready_in_time(server: subprocess.Popen[bytes], port: int) -> bool:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and server.poll() is None:
        connection = http.client.HTTPConnection(HOST, port, timeout=2)
        try:
            connection.request("GET", "/readyz")
            if connection.getresponse().status == http.client.OK:
                return True
        except OSError:
            pass
        finally:
            connection.close()
        time.sleep(0.1)
    return False


def _ask(connection: http.client.HTTPConnection, route: str, body: str) -> Reply:
    connection.request("POST", route, body, {"content-type": "application/json"})
    answer = connection.getresponse()
    content = answer.read()
    again = answer.getheader("retry-after") if answer.status == http.client.SERVICE_UNAVAILABLE else None
    body_told = json.loads(content) if content else None
    return Reply(status=answer.status, body=body_told, again_after=float(again) if again else None)


def _ask_again(connection: http.client.HTTPConnection, route: str, body: str) -> Reply:
    """The answer to a request, sent again as often as the endpoint asks for within `PATIENCE_SECONDS`."""
    until = time.monotonic() + PATIENCE_SECONDS
    while (reply := _ask(connection, route, body)).again_after is not None and time.monotonic() < until:
        time.sleep(reply.again_after)
    return reply


def error_of(reply: Reply) -> str:
    """Why a request was refused, in the endpoint's words."""
    said = reply.body.get("error") if isinstance(reply.body, dict) else None
    return str(said or f"status {reply.status}")
