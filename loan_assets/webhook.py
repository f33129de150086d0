"""A door for other systems' alarms: what a monitoring system posts goes before the same rule as every other alarm.

Here: the two forms in which an alarm is posted, who may post one, and what is answered. Not here: what comes of an
alarm (`reign`, `credit.succession`), or the tokens' file (`bento.access`).

    POST /alarm  {"why": "complaints about refusals", "by": "the service desk"}
    POST /alarm  what Prometheus' Alertmanager posts, version 4; alerts that have been resolved raise nothing
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bento.access import ADMIN, Access, is_loopback
from loan_assets.refusal import Refusal
from loan_assets.settings import Settings

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse

    from loan_assets.resources.decisions import Step

# An alarm is a sentence; a group of Alertmanager's alerts is a few kilobytes.
LARGEST_BODY = 100_000
LONGEST_TEXT = 500
HINT = 'Post {"why": "...", "by": "..."}, or let Alertmanager post its alerts (version 4).'


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """Why a retraining is asked for, and by whom."""

    why: str
    by: str


class Unfit(Exception):
    """A request that cannot be answered: the status, and why."""

    def __init__(self, status: int, said: str, hint: str = "") -> None:
        super().__init__(said)
        self.status, self.said, self.hint = status, said, hint


def alarms_in(body: bytes, caller: str) -> tuple[Alarm, ...]:
    """The alarms that a body posts; none where it tells of resolved alerts only.

    Args:
        caller: whose token was shown, or who is said to post where nobody shows one.

    Raises:
        Unfit: when the body is neither of the two forms.
    """
    try:
        said = json.loads(body)
    except ValueError:
        raise Unfit(400, "The body is no JSON.", HINT) from None
    if not isinstance(said, dict):
        raise Unfit(400, "The body is no JSON object.", HINT)
    if "alerts" in said:
        return _alerts_in(said["alerts"], caller)
    why, by = _sentence(said.get("why")), _sentence(said.get("by", caller))
    if not why or not by:
        raise Unfit(400, f"`why` and `by` must be text of at most {LONGEST_TEXT} characters.", HINT)
    # Who shows a token is on record under its name, whatever the body says.
    return (Alarm(why=why, by=by if by == caller else f"{by}, through {caller}"),)


def _alerts_in(alerts: object, caller: str) -> tuple[Alarm, ...]:
    if not isinstance(alerts, list) or not all(isinstance(alert, dict) for alert in alerts):
        raise Unfit(400, "`alerts` must be a list of objects.", HINT)
    firing = [alert for alert in alerts if alert.get("status") == "firing"]
    said = sorted({_told_by(alert) for alert in firing})
    # One group of alerts is one alarm: they speak of one world.
    return (Alarm(why="; ".join(said)[:LONGEST_TEXT], by=caller),) if said else ()


def _told_by(alert: dict[str, Any]) -> str:
    labels, annotations = alert.get("labels"), alert.get("annotations")
    name = _sentence(labels.get("alertname")) if isinstance(labels, dict) else ""
    summary = _sentence(annotations.get("summary")) if isinstance(annotations, dict) else ""
    if not name:
        raise Unfit(400, "An alert has no `labels.alertname`.", HINT)
    return f"{name}: {summary}" if summary else name


def _sentence(text: object) -> str:
    """The text without blanks around it; nothing where it is no text, or too long to be a sentence."""
    return text.strip() if isinstance(text, str) and len(text) <= LONGEST_TEXT else ""


def door(ask: Callable[[str, str], Step], access: Access) -> Starlette:
    """The application: `ask` puts a cause and who asks before the rule, and gives the step that it was written down in.

    Args:
        access: who may post; where no tokens are asked for, everybody who reaches this machine's loopback.
    """
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    async def post(request: Request) -> JSONResponse:
        try:
            posted = alarms_in(await _body(request), _caller(request, access))
            steps = [await run_in_threadpool(ask, alarm.why, alarm.by) for alarm in posted]
        except Unfit as unfit:
            return JSONResponse({"error": unfit.said, "hint": unfit.hint}, status_code=unfit.status)
        except Refusal as refusal:
            return JSONResponse({"error": refusal.cause, "hint": refusal.next_step}, status_code=409)
        return JSONResponse({"steps": [_told(step) for step in steps]})

    async def ready(_: Request) -> JSONResponse:
        return JSONResponse({"status": "ready"})

    return Starlette(routes=[Route("/alarm", post, methods=["POST"]), Route("/livez", ready)])


def _caller(request: Request, access: Access) -> str:
    """Whose token was shown.

    Raises:
        Unfit: when tokens are asked for and none is shown that may raise an alarm.
    """
    if access.is_open:
        return "a webhook"
    try:
        access.look()
    except Refusal as refusal:
        raise Unfit(503, refusal.cause, refusal.next_step) from None
    shown = request.headers.get("authorization")
    token = access.caller(shown.encode("latin-1") if shown else None)
    if token is None:
        raise Unfit(401, "No token that is known was shown.", "Send `Authorization: Bearer ...`.")
    if ADMIN not in token.scopes:
        raise Unfit(403, f"The token of {token.caller} may not raise an alarm.", "It needs the scope admin.")
    return token.caller


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > LARGEST_BODY:
            raise Unfit(413, f"The body is longer than {LARGEST_BODY:,} bytes.", HINT)
    return bytes(body)


def _told(step: Step) -> dict[str, object]:
    said = [{"decision": str(action.kind), "version": action.version, "cause": action.cause} for action in step.actions]
    return {"step": step.number, "date": step.date, "decided": said}


def serve(settings: Settings, ask: Callable[[str, str], Step], host: str, port: int) -> None:
    """Listen until stopped.

    Raises:
        Refusal: when it would listen beyond this machine without asking for tokens, or the tokens make no sense.
    """
    import uvicorn

    if not settings.tokens and not is_loopback(host):
        raise Refusal(
            f"Without tokens {host} is not listened on: anybody could raise alarms.",
            "Name a file of tokens in LOAN_TOKENS (`loan-assets token NAME --scope admin`), or leave the host out.",
        )
    access = Access(Path(settings.tokens) if settings.tokens else None)
    uvicorn.run(door(ask, access), host=host, port=port, log_level="warning", timeout_keep_alive=5)
