"""How long a connection may take to send its request, which uvicorn leaves open.

Here: one subclass of uvicorn's own protocol, put in its place. Not here: anything about scoring. Where uvicorn is of
another version than the one this was written against, nothing is replaced, and the application bounds bodies itself.

A connection that has not sent a whole request in time is told so and closed. How many whole requests were ahead of one,
and since when it has been whole, is left in its scope, so that the application can refuse what would wait too long.
"""

from __future__ import annotations

import logging
from typing import Any

import uvicorn

WRITTEN_AGAINST = "0.54."
AHEAD, SINCE = "loan.ahead", "loan.since"
TIMEOUT = (
    b"HTTP/1.1 408 Request Timeout\r\ncontent-type: application/json\r\ncontent-length: 45\r\nconnection: close\r\n\r\n"
    b'{"error":"the request took too long to come"}'
)
said = logging.getLogger("loan_default")


class Turn:
    """Whole requests that have come and are not answered yet, over all connections of this worker."""

    waiting = 0


def install(seconds: float) -> bool:
    """Bound how long a request may take to arrive; returns whether that was possible."""
    try:
        from uvicorn.protocols.http import auto
        from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
    except ImportError:
        return False
    if not uvicorn.__version__.startswith(WRITTEN_AGAINST) or auto.AutoHTTPProtocol is not HttpToolsProtocol:
        said.warning("uvicorn %s is another than %sx: bodies alone are bounded.", uvicorn.__version__, WRITTEN_AGAINST)
        return False
    auto.AutoHTTPProtocol = _patient(HttpToolsProtocol, seconds)
    return True


def _patient(protocol: Any, seconds: float) -> Any:
    """Uvicorn's protocol with a deadline for every request, kept by one look a second over all connections."""

    class Patient(protocol):  # type: ignore[misc]
        waiting_since: float | None
        is_looked_after = False

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self.waiting_since = self.loop.time()
            if not Patient.is_looked_after:
                Patient.is_looked_after = True
                self.loop.call_later(1.0, self.look)

        def on_message_begin(self) -> None:
            super().on_message_begin()
            self.waiting_since = self.loop.time()

        def on_message_complete(self) -> None:
            self.waiting_since = None
            if not self.cycle.response_complete:
                self.scope[AHEAD], self.scope[SINCE] = Turn.waiting, self.loop.time()
                Turn.waiting += 1
            super().on_message_complete()

        def connection_lost(self, exc: Exception | None) -> None:
            # Those that came behind one another on this connection will have no turn any more.
            Turn.waiting -= sum(AHEAD in cycle.scope for cycle, _ in self.pipeline)
            self.pipeline.clear()
            super().connection_lost(exc)

        def look(self) -> None:
            self.loop.call_later(1.0, self.look)
            late = self.loop.time() - seconds
            for connection in tuple(self.connections):
                if connection.waiting_since is not None and connection.waiting_since < late:
                    connection.give_up()

        def give_up(self) -> None:
            self.waiting_since = None
            if self.transport is None or self.transport.is_closing():
                return
            if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
                self.transport.write(TIMEOUT)
            self.transport.close()

    return Patient
