"""The box's application: from an HTTP request to its answer, by ASGI.

Here: routes, access, limits, and the order in which things happen to a request. Not here: BentoML (`service`), how
bodies are read (`reading`, `protocols`), answered and recorded (`answering`), or what happens beside (`upkeep`).
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
import traceback
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

from bento import metrics
from bento.access import ADMIN, PREDICT, Access
from bento.answering import Answers
from bento.exchange import Exchange
from bento.online import online_at
from bento.openapi import document
from bento.patience import AHEAD, SINCE, Turns
from bento.places import Places
from bento.prediction_log import PredictionLog, clock
from bento.protocols import inference, kserve, lending
from bento.reading import BadRequest, Reader, Received
from bento.releases import InForce, Releases
from bento.repeats import Repeats
from bento.requests import AGAIN, JSON, Problem, Question, Reply, Request, encode
from bento.scorer import Asked, Scorer
from bento.upkeep import Upkeep
from loan_assets.policy import POLICY, Endpoint
from loan_assets.prediction_record import BY_APPLICATION
from loan_assets.refusal import Refusal

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
VERSIONED = re.compile(r"(/v2/models/loan-default)/versions/([0-9]{1,9})(/infer|/ready)?")
BODIES = (b"application/json", b"application/octet-stream")
said = logging.getLogger("loan_default")


class Gone(Exception):
    """The caller has hung up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """What a path does: by which method, for whom, and whether it is a scoring request."""

    label: str
    method: str
    scope: str | None
    ask: Callable[[Request, InForce], Question] | None = None
    tell: Callable[[Request], Reply] | None = None


class Application:
    """The endpoint over one set of places. Build it inside a running event loop, and `close` it there."""

    def __init__(self, places: Places, limits: Endpoint = POLICY.endpoint, *, bounds_bodies: bool = False) -> None:
        self._limits, self._bounds_bodies = limits, bounds_bodies
        self.access = _accessed(places.tokens)
        exchange = Exchange(places, limits)
        try:
            exchange.follow()
        except Refusal as reason:  # the release brought before, or else the one in the box, answers
            said.error("%s", reason)
        self.releases = Releases(places.releases, places.box)
        book = self.releases.in_force.champion.book
        self._reader = Reader(book, limits.most_rows)
        self._online = online_at(places.online, book)
        self._log = PredictionLog(places.predictions, limits)
        self._repeats = Repeats(places.predictions, limits.repeat_days)
        self._answers = Answers(self._log, self._repeats, clock(places.rehearsed_day), places.rehearsal)
        self._waiting = 0
        self._openapi = encode(document(book, limits))
        self._routes = self._laid_out()
        self.upkeep = Upkeep(
            access=self.access,
            releases=self.releases,
            online=self._online,
            log=self._log,
            repeats=self._repeats,
            exchange=exchange,
            waiting=lambda: self._waiting,
        )
        self.upkeep.start(limits)

    async def close(self) -> None:
        """Stop looking around and force the log to disk."""
        await self.upkeep.stop()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request."""
        began = time.perf_counter()
        label = "other"
        self._waiting += 1
        is_read = False
        headers = dict(scope["headers"])
        try:
            route, version = self._route(scope)
            label = route.label
            caller = self._caller(route, headers)
            if route.tell is not None:
                reply = route.tell(Request(label, headers, version=version))
            else:
                body = await self._body(headers, receive)
                is_read = True
                self._in_time(scope)
                reply = await self._scored(route, Request(label, headers, body, version, caller))
        except Gone:
            return
        except Problem as problem:
            reply = problem.reply()
        except BadRequest as problem:
            reply = Problem(HTTPStatus.BAD_REQUEST, str(problem)).reply()
        except Exception as failure:  # our own mistake: the caller is told that it was ours, the log where it was made
            reply = self._failed(label, failure)
        finally:
            self._waiting -= 1
            Turns.taken(scope)
        await self._send(send, reply, headers, is_read=is_read)
        metrics.latency_of(label, reply.status).observe(time.perf_counter() - began)

    def _route(self, scope: Scope) -> tuple[Route, str | None]:
        path, version = scope["path"], None
        routes = self._routes.get(path)
        if routes is None and (found := VERSIONED.fullmatch(path)):
            routes, version = self._routes[found[1] + (found[3] or "")], found[2]
        if routes is None:
            raise Problem(HTTPStatus.NOT_FOUND, "there is no such route; see /openapi.json")
        # Whoever asks for the head of an answer gets it; the server leaves the body out.
        route = routes.get("GET" if scope["method"] == "HEAD" else scope["method"])
        if route is None:
            allow = ", ".join(sorted([*routes, *(["HEAD"] if "GET" in routes else [])])).encode()
            raise Problem(HTTPStatus.METHOD_NOT_ALLOWED, "not by this method", [(b"allow", allow)])
        return route, version

    def _caller(self, route: Route, headers: Mapping[bytes, bytes]) -> str:
        """Whose token is shown; empty where none is asked for."""
        if route.scope is None or self.access.is_open:
            return ""
        token = self.access.caller(headers.get(b"authorization"))
        if token is None:
            raise Problem(HTTPStatus.UNAUTHORIZED, "a bearer token is needed", [(b"www-authenticate", b"Bearer")])
        if route.scope not in token.scopes:
            raise Problem(HTTPStatus.FORBIDDEN, f"this token does not carry the scope {route.scope}")
        return token.caller

    async def _body(self, headers: Mapping[bytes, bytes], receive: Receive) -> bytes:
        """The body, counted as it arrives; nothing of one that is too large or of another kind is read."""
        kind = headers.get(b"content-type", JSON).partition(b";")[0].strip().lower()
        if kind not in BODIES:
            raise Problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "the content type is not application/json")
        if headers.get(b"content-encoding", b"identity") != b"identity":
            raise Problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "a body with a content encoding is not read")
        if self._waiting > self._limits.most_open:
            raise self._busy()
        largest = self._limits.largest_body
        if int(headers.get(b"content-length", b"0")) > largest:
            raise self._too_large()
        body = b""
        more = True
        until = asyncio.get_running_loop().time() + self._limits.patience if self._bounds_bodies else None
        while more:
            message = await (receive() if until is None else _by(until, receive))
            if message["type"] != "http.request":
                raise Gone
            body = body + message["body"] if body else message["body"]
            if len(body) > largest:
                raise self._too_large()
            more = message["more_body"]
        return body

    def _in_time(self, scope: Scope) -> None:
        """Refuse a request behind too many others, or one that has waited too long: those accepted stay quick."""
        Turns.taken(scope)
        if scope.get(AHEAD, 0) > self._limits.most_ahead:
            raise self._busy()
        since = scope.get(SINCE)
        if since is not None and asyncio.get_running_loop().time() - since > self._limits.longest_wait:
            raise self._busy()

    def _busy(self) -> Problem:
        return Problem(HTTPStatus.SERVICE_UNAVAILABLE, "too many requests at once; try again", AGAIN)

    def _too_large(self) -> Problem:
        return Problem(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a body of at most {self._limits.largest_body:,} bytes is read"
        )

    async def _scored(self, route: Route, request: Request) -> Reply:
        assert route.ask is not None  # only routes that ask have a body
        in_force = self.releases.in_force
        return await self._answers.answer(route.ask(request, in_force), request, in_force)

    def _from_applications(self, in_force: InForce) -> Callable[[Sequence[Received]], Asked]:
        key = in_force.champion.book.key.name

        def asked(rows: Sequence[Received]) -> Asked:
            clients = [int(row[key]) if key in row else None for row in rows]
            received = [{name: value for name, value in row.items() if name != key} for row in rows]
            features = in_force.champion.features_of(rows)
            return Asked(by=BY_APPLICATION, features=features, received=received, clients=clients)

        return asked

    def _laid_out(self) -> dict[str, dict[str, Route]]:
        """Every route by path and method."""

        def scoring(path: str, ask: Callable[[Request, InForce], Question]) -> tuple[str, Route]:
            return path, Route(label=path, method="POST", scope=PREDICT, ask=ask)

        def telling(path: str, scope: str | None, tell: Callable[[Request], Reply]) -> tuple[str, Route]:
            return path, Route(label=path, method="GET", scope=scope, tell=tell)

        def tensors(request: Request, in_force: InForce) -> Question:
            _served(request.version, in_force)
            return inference.read(request, self._reader, self._from_applications(in_force))

        def of_version(reply: Callable[[int], Reply]) -> Callable[[Request], Reply]:
            return lambda request: reply(_served(request.version, self.releases.in_force))

        nothing = Reply(b"", HTTPStatus.OK, b"text/plain")
        model = "/v2/models/loan-default"
        laid: dict[str, dict[str, Route]] = {}
        for path, route in (
            scoring("/score", lambda r, f: lending.read_score(r, self._reader, self._from_applications(f))),
            scoring(
                "/predict",
                lambda r, f: lending.read_predict(r, self._reader, lambda ids: self._online.asked(ids, f.champion)),
            ),
            scoring(
                "/v1/models/loan-default:predict",
                lambda r, f: kserve.read(r, self._reader, self._from_applications(f)),
            ),
            scoring(f"{model}/infer", tensors),
            telling("/v1/models", PREDICT, lambda _: kserve.models()),
            telling("/v1/models/loan-default", PREDICT, lambda _: kserve.status()),
            telling("/v2", PREDICT, lambda _: inference.server()),
            telling("/v2/health/live", None, lambda _: nothing),
            telling("/v2/health/ready", None, lambda _: self._ready()),
            telling(model, PREDICT, of_version(lambda version: inference.model(version, self._reader.order))),
            telling(f"{model}/ready", PREDICT, of_version(lambda _: nothing)),
            telling("/livez", None, lambda _: nothing),
            telling("/healthz", None, lambda _: nothing),
            telling("/readyz", None, lambda _: self._ready()),
            telling("/metrics", ADMIN, lambda _: Reply(metrics.page(), content_type=b"text/plain; version=0.0.4")),
            telling("/standing", ADMIN, lambda _: self._standing()),
            telling("/openapi.json", None, lambda _: Reply(self._openapi)),
            telling("/", None, lambda _: Reply(encode({"name": "loan-default", "openapi": "/openapi.json"}))),
        ):
            laid.setdefault(path, {})[route.method] = route
        return laid

    def _ready(self) -> Reply:
        """Ready when an answer could be given and put on record now."""
        if not self._log.is_writable():
            raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, "the prediction log cannot be written", AGAIN)
        return Reply(b"", HTTPStatus.OK, b"text/plain")

    def _standing(self) -> Reply:
        """Who answers, who stands beside, and how the log is doing, for people."""
        in_force = self.releases.in_force
        terms = in_force.terms
        said_of = {
            "source": in_force.source,
            "champion": _named(in_force.champion),
            "challenger": None
            if terms is None or in_force.challenger is None
            else {**_named(in_force.challenger), "mode": terms.mode.value, "share": terms.share},
            "swaps": self.releases.swaps,
            "refused_releases": self.releases.refusals,
            "log_bytes": self._log.bytes,
            "log_backlog_bytes": self._log.backlog,
        }
        return Reply(encode(said_of))

    async def _send(self, send: Send, reply: Reply, headers: Mapping[bytes, bytes], *, is_read: bool) -> None:
        head = [
            (b"content-type", reply.content_type),
            (b"content-length", b"%d" % len(reply.body)),
            *reply.headers,
        ]
        # A body that was not read is left where it is: the connection ends with the answer.
        if not is_read and (headers.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in headers):
            head.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": int(reply.status), "headers": head})
        await send({"type": "http.response.body", "body": reply.body})

    def _failed(self, label: str, failure: Exception) -> Reply:
        """Where it failed, without what it was about: an exception's words may repeat what was sent."""
        places = [
            f"{Path(frame.filename).name}:{frame.lineno}" for frame in traceback.extract_tb(failure.__traceback__)
        ]
        said.error("%s failed with %s at %s", label, type(failure).__name__, " > ".join(places[-4:]))
        return Problem(HTTPStatus.INTERNAL_SERVER_ERROR, "the endpoint failed; its log says where").reply()


def _accessed(file: Path | None) -> Access:
    """The tokens of a file; a box whose tokens make no sense starts and lets nobody in."""
    try:
        return Access(file)
    except Refusal as reason:
        said.error("%s", reason)
        return Access.closed(file)


async def _by(until: float, receive: Receive) -> dict[str, Any]:
    try:
        return await asyncio.wait_for(receive(), max(0.0, until - asyncio.get_running_loop().time()))
    except TimeoutError:
        raise Problem(HTTPStatus.REQUEST_TIMEOUT, "the request took too long to come") from None


def _served(version: str | None, in_force: InForce) -> int:
    """The version that answers: the one asked for where it does, else the champion's.

    Raises:
        Problem: 404, naming the version that does.
    """
    scorer = in_force.champion if version is None else in_force.of_version(version)
    if scorer is None:
        answers = in_force.champion.version
        raise Problem(HTTPStatus.NOT_FOUND, f"this version is not served; version {answers} is")
    return scorer.version


def _named(scorer: Scorer) -> dict[str, str | int]:
    return {"model_version": scorer.version, "release_digest": scorer.release.digest}
