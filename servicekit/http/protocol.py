"""uvicorn's HTTP protocol with bounds: on connections, on the time of headers, on the silence of peers."""

import asyncio
import socket
from typing import Any, cast

from starlette.requests import Request
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from servicekit.http.problems import problem, raw_problem
from servicekit.http.request_ids import begin_request

HEADER_SECONDS = 10.0
# A peer that acknowledges nothing, or has no room for anything, for so long has gone.
SILENT_SECONDS = 30
# When the server stops, a request that is on its way already gets so long to arrive.
LEAVING_SECONDS = 0.5
# In the scope of a request: ends its connection at once, whatever waits to be sent.
ABORT = "headrace.abort"
_CROWD = "Too many connections are open."


async def refuse_crowd(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a request on one connection too many."""
    begin_request(scope)
    response = problem(
        Request(scope),
        status=503,
        code="overloaded",
        detail=_CROWD,
        headers={"Retry-After": "1", "Connection": "close"},
    )
    await response(scope, receive, send)


class BoundedHeadersProtocol(HttpToolsProtocol):
    """Closes connections that say nothing, or dribble headers, for longer than HEADER_SECONDS.

    When the server stops, an open connection may still bring a request that was sent before its client could know. That
    is answered, as the last one. uvicorn alone would close what has none in progress, and leave the client in doubt.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._header_timer: asyncio.TimerHandle | None = None
        self._leaving_timer: asyncio.TimerHandle | None = None
        # uvicorn's own refusal has neither a time to come back nor the shape of our errors.
        self._connections_max, self.limit_concurrency = self.limit_concurrency, None
        self._served_app = self.app

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        transport.get_extra_info("socket").setsockopt(
            socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SILENT_SECONDS * 1000
        )
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        self._stay()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        self._leaving_timer = self.loop.call_later(LEAVING_SECONDS, super().shutdown)
        if self.cycle is not None:
            self.cycle.keep_alive = False

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._header_timer is None:
            self._start_timer()

    def on_headers_complete(self) -> None:
        self._stop_timer()
        cast("dict[str, Any]", self.scope)[ABORT] = self.transport.abort
        self.app = refuse_crowd if self._is_crowded() else self._served_app
        super().on_headers_complete()
        if self._leaving_timer is not None:
            self.cycle.keep_alive = False

    def handle_websocket_upgrade(self) -> None:
        if self._is_crowded():
            self.transport.write(raw_problem(status=503, code="overloaded", detail=_CROWD, headers=["retry-after: 1"]))
            self.transport.close()
            return
        # The application ends it.
        self._stay()
        super().handle_websocket_upgrade()

    def _stay(self) -> None:
        if self._leaving_timer is not None:
            self._leaving_timer.cancel()

    def _is_crowded(self) -> bool:
        """Whether this connection is one too many; WebSockets count too."""
        return self._connections_max is not None and len(self.connections) > self._connections_max

    def _start_timer(self) -> None:
        self._header_timer = self.loop.call_later(HEADER_SECONDS, self._give_up)

    def _stop_timer(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _give_up(self) -> None:
        self._header_timer = None
        if not self.transport.is_closing():
            self.transport.close()
