"""How much a connection may send and how long it may take, which uvicorn leaves open.

Here: one subclass of uvicorn's own protocol, put in its place. Not here: anything about scoring. Where uvicorn is of
another version than the one this was written against, nothing is replaced, and the application bounds bodies itself.

A connection is told so and closed when its request has not come whole in time or its headers are too large, and cut off
when it does not read its answers. How many whole scoring requests were ahead of one, and since when it has been whole,
is left in its scope, so that the application can refuse what would wait too long.
"""

from __future__ import annotations

import logging
from typing import Any, ClassVar

import uvicorn

WRITTEN_AGAINST = "0.54."
AHEAD, SINCE, TURN = "loan.ahead", "loan.since", "loan.turn"
LARGEST_HEAD = 32_768
MOST_PIPELINED = 8
said = logging.getLogger("loan_default")


def _refusal(status: bytes, why: bytes) -> bytes:
    body = b'{"error":"%b"}' % why
    head = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close" % len(body)
    return b"HTTP/1.1 %b\r\n%b\r\n\r\n%b" % (status, head, body)


TOO_SLOW = _refusal(b"408 Request Timeout", b"the request took too long to come")
TOO_LARGE = _refusal(b"431 Request Header Fields Too Large", b"the headers are too large")


class Turns:
    """Whole scoring requests that no one has begun to answer yet, over all connections of this worker."""

    waiting: ClassVar[set[object]] = set()

    @classmethod
    def taken(cls, scope: dict[str, Any]) -> None:
        """A request has its turn now, or will never have one."""
        cls.waiting.discard(scope.get(TURN))


def install(seconds: float) -> bool:
    """Bound how long a connection may take; returns whether that was possible."""
    try:
        from uvicorn.protocols.http import auto
        from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
    except ImportError:
        return False
    if getattr(auto.AutoHTTPProtocol, "is_patient", False):
        return True  # done before: whoever builds a second Bento in one process reads the box anew
    if not uvicorn.__version__.startswith(WRITTEN_AGAINST) or auto.AutoHTTPProtocol is not HttpToolsProtocol:
        said.warning("uvicorn %s is another than %sx: bodies alone are bounded.", uvicorn.__version__, WRITTEN_AGAINST)
        return False
    auto.AutoHTTPProtocol = patient(HttpToolsProtocol, seconds)
    return True


def patient(protocol: Any, seconds: float) -> Any:
    """The protocol of uvicorn with bounds, kept by one look a second over all connections."""

    class Patient(protocol):  # type: ignore[misc]
        is_patient = True
        is_looked_after = False
        waiting_since: float | None
        unread_since: float | None = None
        head_size = 0
        is_in_head = True

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self.waiting_since = self.loop.time()
            self.turns: list[object] = []
            if not Patient.is_looked_after:
                Patient.is_looked_after = True
                self.loop.call_later(1.0, self.look)

        def connection_lost(self, exc: Exception | None) -> None:
            Turns.waiting.difference_update(self.turns)
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            self.head_size += len(data)
            super().data_received(data)
            if self.is_in_head and self.head_size > LARGEST_HEAD:
                self.give_up(TOO_LARGE)
            elif len(self.pipeline) > MOST_PIPELINED:
                self.transport.abort()

        def on_message_begin(self) -> None:
            super().on_message_begin()
            self.waiting_since = self.loop.time()

        def on_header(self, name: bytes, value: bytes) -> None:
            if self.is_in_head:  # what comes behind a chunked body is no header
                super().on_header(name, value)

        def on_headers_complete(self) -> None:
            self.is_in_head = False
            super().on_headers_complete()

        def on_message_complete(self) -> None:
            self.waiting_since, self.is_in_head, self.head_size = None, True, 0
            if self.parser.should_upgrade():
                super().on_message_complete()
                return
            if self.scope["method"] == "POST" and not self.cycle.response_started:
                turn = object()
                self.scope[AHEAD], self.scope[SINCE], self.scope[TURN] = len(Turns.waiting), self.loop.time(), turn
                Turns.waiting.add(turn)
                self.turns = [turn, *(other for other in self.turns if other in Turns.waiting)]
            super().on_message_complete()

        def pause_writing(self) -> None:
            self.unread_since = self.loop.time()
            super().pause_writing()

        def resume_writing(self) -> None:
            self.unread_since = None
            super().resume_writing()

        def look(self) -> None:
            self.loop.call_later(1.0, self.look)
            late = self.loop.time() - seconds
            for connection in tuple(self.connections):
                if connection.unread_since is not None and connection.unread_since < late:
                    connection.transport.abort()
                elif connection.waiting_since is not None and connection.waiting_since < late:
                    connection.give_up(TOO_SLOW)

        def give_up(self, why: bytes) -> None:
            self.waiting_since = None
            if self.transport is None or self.transport.is_closing():
                return
            if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
                self.transport.write(why)
            self.transport.close()

    return Patient
