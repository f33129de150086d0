"""The door for other systems: figures out, alarms and statements in, dealt with as by the button and the commands.

Here: who may ask and post, what a body means (our own form, and that of Prometheus's Alertmanager), and the answer. Not
here: what comes of an alarm (`reign`) or a statement (`stream`), the figures (`platform_metrics`), or what a token is
(`bento.access`).

    POST /alarm  {"why": "a merger", "by": "core-banking"}
    GET  /metrics  the platform's figures, for Prometheus
    POST /statements  {"event_id": "…", "client_id": 7, "month": "2005-10", "known_at": "…", …}, or a list of such
    POST /alarm  {"version": "4", "status": "firing", "alerts": [{"labels": {"alertname": "…"}, …}], …}
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from bento.access import ADMIN, PUSH, Access, is_loopback
from loan_assets.platform_metrics import NO_RATES, PlatformMetrics
from loan_assets.policy import POLICY, Endpoint
from loan_assets.refusal import Away, Overtaken, Refusal
from loan_assets.reign import Reign
from loan_assets.resources.decisions import Step
from loan_assets.run_figures import Rates
from loan_assets.stream import Answer, Stream

if TYPE_CHECKING:
    import dagster as dg
    import uvicorn

UNDERSTOOD = "4"
FIRING, RESOLVED = "firing", "resolved"
# How much of what was said goes on record, and how many alerts are quoted.
MOST_SAID, MOST_NAMED, MOST_QUOTED = 500, 100, 3
# An alarm takes tenths of a second; posts beyond these would only wait for each other.
MOST_AT_ONCE = 64
MOST_TRIES = 3
said = logging.getLogger("loan_assets.webhook")


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """What was said, by whom, and the names by which it is known when it is posted again."""

    why: str
    by: str
    names: tuple[str, ...] = ()


def alarm_in(body: bytes, caller: str = "") -> Alarm | None:
    """The alarm that a body raises; None where it says that one is over.

    Args:
        caller: whose token was shown, empty where none was asked for.

    Raises:
        HTTPException: 400, saying what does not fit; no value of the body is repeated.
    """
    try:
        told = json.loads(body)
    except (ValueError, RecursionError):
        raise _unfit("the body is not JSON") from None
    if not isinstance(told, dict):
        raise _unfit('the body is not an object: send {"why": "…", "by": "…"} or what Alertmanager sends')
    if "alerts" in told:
        return _of_alertmanager(told, caller)
    by = _words(told, "by", MOST_NAMED) if "by" in told or not caller else caller
    return Alarm(why=_words(told, "why", MOST_SAID), by=_signed(by, caller))


def statements_in(body: bytes, most: int) -> list[object]:
    """The events that a body holds, one or a list of them, as they were written.

    Raises:
        HTTPException: 400 when it is neither, 413 when they are more than `most`.
    """
    try:
        told = json.loads(body)
    except (ValueError, RecursionError):
        raise _unfit("the body is not JSON") from None
    events = told if isinstance(told, list) else [told]
    if not events or not all(isinstance(event, dict) for event in events):
        raise _unfit("the body is neither an event nor a list of events, which are objects")
    if len(events) > most:
        raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"at most {most:,} events are taken at once")
    return events


def status_of(answer: Answer, events: int) -> int:
    """200 when every event is on record and served, 202 when not served yet, 207 when some were refused.

    Where all were: 409 when each of them has an id that is on record with another content, else 400.
    """
    if len(answer.refused) == events:
        return HTTPStatus.CONFLICT if len(answer.conflicts) == events else HTTPStatus.BAD_REQUEST
    if answer.refused:
        return HTTPStatus.MULTI_STATUS
    return HTTPStatus.ACCEPTED if answer.unserved else HTTPStatus.OK


def _of_alertmanager(told: dict[str, Any], caller: str) -> Alarm | None:
    """What the alerts of one notification that fire have to say together: one alarm, however many they are."""
    if told.get("version") != UNDERSTOOD:
        raise _unfit(f'Alertmanager\'s webhook is understood in version "{UNDERSTOOD}"')
    if told.get("status") not in (FIRING, RESOLVED):
        raise _unfit(f"status is neither {FIRING} nor {RESOLVED}")
    alerts = told["alerts"]
    if not isinstance(alerts, list) or not all(isinstance(alert, dict) for alert in alerts):
        raise _unfit("alerts is not a list of objects")
    summaries: dict[str, str] = {}
    for place, alert in enumerate(alerts):
        labels, notes = alert.get("labels"), alert.get("annotations") or {}
        if not isinstance(labels, dict) or not isinstance(notes, dict):
            raise _unfit(f"alerts[{place}] has no labels, or annotations of another form")
        name = _words(labels, "alertname", MOST_NAMED, f"alerts[{place}].labels.alertname")
        if alert.get("status", told["status"]) == FIRING:
            summaries.setdefault(name, _plain(notes.get("summary") or "", MOST_SAID))
    if told["status"] == RESOLVED or not summaries:
        return None
    names = sorted(summaries)
    quoted = [f"{name}: {summaries[name]}" if summaries[name] else name for name in names[:MOST_QUOTED]]
    more = [f"{len(names) - MOST_QUOTED} more"] if len(names) > MOST_QUOTED else []
    return Alarm(
        why=_plain("; ".join([*quoted, *more]), MOST_SAID),
        by=_signed("Alertmanager", caller),
        names=tuple(f"alert {name}" for name in names),
    )


def _words(told: dict[str, Any], field: str, most: int, called: str = "") -> str:
    words = _plain(told.get(field), most)
    if not words:
        raise _unfit(f"{called or field} is missing, empty or no text")
    return words


def _plain(words: object, most: int) -> str:
    """Text that goes on record: on one line, of bounded length, nothing in it that a terminal would obey."""
    text = " ".join(words.split()) if isinstance(words, str) else ""
    text = "".join(character for character in text if character.isprintable())
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _signed(by: str, caller: str) -> str:
    """Who asks; where tokens are shown, whose it was counts more than what the body says."""
    return by if caller in ("", by) else f"{by}, by the token of {caller}"


def _unfit(why: str) -> HTTPException:
    return HTTPException(HTTPStatus.BAD_REQUEST, why)


class Webhook:
    """The routes over one reign. Alarms are put one after another: each is weighed from where the last one left it."""

    def __init__(
        self,
        reign: Reign,
        access: Access,
        limits: Endpoint = POLICY.endpoint,
        instance: dg.DagsterInstance | None = None,
        rates: Rates = NO_RATES,
        stream: Stream | None = None,
        backups: str = "",
    ) -> None:
        self._stream = stream
        self._reign, self._access, self._limits = reign, access, limits
        history = reign.history
        self._metrics = PlatformMetrics(reign.decisions, instance, history.book, history.policy, rates, backups)
        self._turn, self._pushing = asyncio.Lock(), asyncio.Lock()
        self.application = Starlette(
            routes=[
                Route("/alarm", self._posted, methods=["POST"]),
                *([Route("/statements", self._pushed, methods=["POST"])] if stream else []),
                Route("/metrics", self._measured, methods=["GET"]),
                Route("/livez", _alive, methods=["GET"]),
            ],
            exception_handlers={HTTPException: _told, Exception: _failed},
        )

    async def _measured(self, request: Request) -> Response:
        self._caller(request)
        try:
            figures = await run_in_threadpool(self._metrics.page, datetime.now(UTC))
        except Refusal as refusal:
            raise HTTPException(HTTPStatus.SERVICE_UNAVAILABLE, str(refusal)) from None
        return Response(figures, media_type="text/plain; version=0.0.4")

    async def _pushed(self, request: Request) -> JSONResponse:
        """One statement, or a list of them: recorded, then served, then answered."""
        assert self._stream is not None  # the route is there only with it
        self._caller(request, PUSH)
        self._require_json(request)
        told = statements_in(await self._body(request), self._limits.most_rows)
        async with self._pushing:
            try:
                answer = await run_in_threadpool(self._stream.take, told, datetime.now(UTC))
            except Refusal as refusal:
                headers = {"retry-after": str(self._limits.retry_after)}
                raise HTTPException(HTTPStatus.SERVICE_UNAVAILABLE, str(refusal), headers) from None
        if answer.unserved:
            said.error("Statements are on record and not served yet: %s", answer.unserved)
        return JSONResponse(answer.facts(), status_of(answer, len(told)))

    def _require_json(self, request: Request) -> None:
        # A page in a browser on this machine can send other kinds without asking first.
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise HTTPException(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "send application/json")

    async def _posted(self, request: Request) -> JSONResponse:
        caller = self._caller(request)
        self._require_json(request)
        alarm = alarm_in(await self._body(request), caller)
        if alarm is None:
            return JSONResponse({"step": None, "said": "an alert that is resolved asks for nothing"})
        async with self._turn:
            try:
                return await run_in_threadpool(self._put, alarm)
            except (Overtaken, Away) as busy:
                headers = {"retry-after": str(self._limits.retry_after)}
                raise HTTPException(HTTPStatus.SERVICE_UNAVAILABLE, busy.cause, headers) from None
            except Refusal as refusal:
                raise HTTPException(HTTPStatus.CONFLICT, str(refusal)) from None

    def _put(self, alarm: Alarm) -> JSONResponse:
        """Put the alarm to the rule; where something else is decided at that very moment, once more after it."""
        for _ in range(MOST_TRIES - 1):
            try:
                return self._put_once(alarm)
            except Overtaken:
                continue
        return self._put_once(alarm)

    def _put_once(self, alarm: Alarm) -> JSONResponse:
        before = self._reign.decisions.last()
        step = self._reign.ask(alarm.why, alarm.by, alarm.names)
        return JSONResponse(_answer(step, is_known=before is not None and step.number <= before.number))

    def _caller(self, request: Request, scope: str = ADMIN) -> str:
        """Whose token is shown; empty where none is asked for. A token of the scope `admin` may do everything here."""
        try:
            self._access.look()
        except Refusal as reason:
            said.error("%s", reason)
        if self._access.is_open:
            return ""
        shown = request.headers.get("authorization", "")
        token = self._access.caller(shown.encode("latin-1"))
        if token is None:
            raise HTTPException(HTTPStatus.UNAUTHORIZED, "a bearer token is needed", {"www-authenticate": "Bearer"})
        if not token.scopes & {ADMIN, scope}:
            raise HTTPException(HTTPStatus.FORBIDDEN, f"this token does not carry the scope {scope}")
        return token.caller

    async def _body(self, request: Request) -> bytes:
        """The body, counted as it arrives, and in time."""
        body = bytearray()
        try:
            async with asyncio.timeout(self._limits.patience):
                async for chunk in request.stream():
                    body += chunk
                    if len(body) > self._limits.largest_body:
                        most = f"{self._limits.largest_body:,} bytes"
                        raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body is larger than {most}")
        except TimeoutError:
            raise HTTPException(HTTPStatus.REQUEST_TIMEOUT, "the request took too long to come") from None
        except ClientDisconnect:
            raise _unfit("the body ended early") from None
        return bytes(body)


def _answer(step: Step, *, is_known: bool) -> dict[str, Any]:
    decided = [{"kind": str(one.kind), "version": one.version, "cause": one.cause} for one in step.actions]
    orders = any(one["kind"] == "retrain" for one in decided)
    waits = "a retraining waits for enough outcomes, its cooldown or its budget"
    known = f"known since step {step.number}" if is_known else "recorded"
    return {
        "step": step.number,
        "is_new": not is_known,
        "decided": decided,
        "said": f"{known}; {'a retraining is ordered' if orders else waits}",
    }


async def _alive(_: Request) -> JSONResponse:
    return JSONResponse({"status": "alive"})


async def _told(_: Request, problem: Exception) -> JSONResponse:
    assert isinstance(problem, HTTPException)
    return JSONResponse({"error": problem.detail}, problem.status_code, problem.headers)


async def _failed(_: Request, _failure: Exception) -> JSONResponse:
    """Our own mistake: the caller is told that it was ours, the log of the server where it was made."""
    return JSONResponse({"error": "what was posted could not be dealt with; see the log of the webhook"}, 500)


def webhook_server(
    reign: Reign,
    host: str,
    port: int,
    tokens: str,
    instance: dg.DagsterInstance | None = None,
    rates: Rates = NO_RATES,
    stream: Stream | None = None,
    backups: str = "",
) -> uvicorn.Server:
    """The server, ready to run; with Dagster's history it counts runs too, and with rates what they cost.

    With a stream it takes statements, with a place of backups it tells how old the newest is.

    Raises:
        Refusal: when others could post without a token, or the tokens cannot be read.
    """
    import uvicorn

    from bento.patience import install

    if not tokens and not is_loopback(host):
        raise Refusal(
            f"Everybody who reaches {host} could ask for a retraining.",
            "Name a file of tokens in LOAN_TOKENS (`loan-assets token` makes one), or bind to 127.0.0.1.",
        )
    access = Access(Path(tokens) if tokens else None)
    install(POLICY.endpoint.patience)
    webhook = Webhook(reign, access, instance=instance, rates=rates, stream=stream, backups=backups)
    application: Callable[..., Any] = webhook.application
    return uvicorn.Server(
        uvicorn.Config(
            application,
            host=host,
            port=port,
            lifespan="off",
            log_level="warning",
            access_log=False,
            server_header=False,
            limit_concurrency=MOST_AT_ONCE,
        )
    )
