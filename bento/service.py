"""The BentoML service: one class that opens the application when a worker starts, and hands it every request.

Here: BentoML's terms. Not here: what is answered (`application`). BentoML packs, starts, watches and restarts; its own
pages, access log, metrics and limits stay off, for the application has its own. LOAN_WORKERS is how many workers
start, two unless it is set: while one is started again, the other answers.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import bentoml
import click

from bento.access import is_loopback, open_port, refuse_open_port
from bento.application import Application
from bento.patience import install
from bento.places import Places
from loan_assets.policy import POLICY

RELEASE = Path(__file__).resolve().parents[1] / "release"
IS_PATIENT = install(POLICY.endpoint.patience)


class FirstInLine:
    """Hands every HTTP request to the application; BentoML's own layers see only the start and the stop."""

    application: Application

    def __init__(self, bentoml_app: Callable[..., Awaitable[None]]) -> None:
        self._bentoml = bentoml_app

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Answer, or let BentoML start and stop."""
        if scope["type"] == "http":
            await FirstInLine.application(scope, receive, send)
        else:
            await self._bentoml(scope, receive, send)


class LoanService(bentoml.Service[Any]):  # type: ignore[misc]
    """A BentoML service whose requests do not pass through tracing, time-outs and routing before they are answered.

    They cost three times what scoring does, and the application has its own.
    """

    def to_asgi(self, is_main: bool = True) -> Any:
        """BentoML's application, behind ours."""
        return FirstInLine(super().to_asgi(is_main=is_main))


@bentoml.service(
    name="loan_default",
    service_class=LoanService,
    workers=int(os.environ.get("LOAN_WORKERS", "2")),
    traffic={"timeout": 60},
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},
)
class LoanDefault:
    """Scores applications and clients with the champion's release; every answer is on record."""

    @bentoml.on_deployment  # type: ignore[untyped-decorator]
    @staticmethod
    def refuse_open_host() -> None:
        """Say no once, before any worker is started, where the command names a host that others can reach."""
        command = click.get_current_context(silent=True)
        host = command.params.get("host") if command else None
        if host and not os.environ.get("LOAN_TOKENS") and not is_loopback(host):
            raise SystemExit(str(open_port(host)))

    def __init__(self) -> None:
        places = Places.from_environment(RELEASE)
        refuse_open_port(has_tokens=places.tokens is not None)
        FirstInLine.application = self.application = Application(places, bounds_bodies=not IS_PATIENT)
        # What is loaded by now stays; collections need not walk through it again.
        gc.collect()
        gc.freeze()

    @bentoml.on_shutdown  # type: ignore[untyped-decorator]
    async def close(self) -> None:
        """Force the log to disk."""
        await self.application.close()
