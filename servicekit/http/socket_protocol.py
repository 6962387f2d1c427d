"""uvicorn's WebSocket protocol with what it leaves unbounded: pings, fragments, and peers that do not read."""

from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import CloseCode, Frame

from servicekit.http.problems import raw_problem

# A connection that was closed, and whose peer does not take what is left, is cut off after so long.
CLOSE_SECONDS = 4.0
# More answers to pings are not given in a second.
PINGS_MAX = 50
# A message comes in so many pieces at most; the bound of its bytes does not count empty ones.
FRAGMENTS_MAX = 1_024


class BoundedSocketProtocol(WebSocketsSansIOProtocol):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._pings = 0
        self._pings_since = 0.0

    def handle_ping(self) -> None:
        """Answer the newest of the pings that came together, unless there are too many, or the peer does not read."""
        answers = [answer for answer in self.conn.data_to_send() if answer]
        now = self.loop.time()
        if now - self._pings_since >= 1.0:
            self._pings, self._pings_since = 0, now
        if answers and self._pings < PINGS_MAX and self.writable.is_set():
            self._pings += 1
            self.transport.write(answers[-1])

    def handle_cont(self, event: Frame) -> None:
        if len(self.frames) >= FRAGMENTS_MAX:
            self.conn.fail(CloseCode.MESSAGE_TOO_BIG)
            self.handle_parser_exception()
            return
        super().handle_cont(event)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.handshake_exc is not None and not self.handshake_initiated:
            # The library gives up what exceeds its bounds, and leaves the client waiting.
            detail = "The address or a header is longer than 8 KiB, or there are too many headers."
            self.transport.write(raw_problem(status=431, code="headers_too_large", detail=detail))
            self.handshake_initiated = self.handshake_complete = self.close_sent = True
            self.transport.close()

    def keepalive_timeout(self) -> None:
        """Give up a peer that answers no ping: what waits to be sent to it would keep the connection open."""
        super().keepalive_timeout()
        self.transport.abort()

    async def send(self, message: Any) -> None:
        if message["type"] == "websocket.close":
            # A peer that reads nothing is not waited for; it has CLOSE_SECONDS to read why.
            self.writable.set()
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and self.close_sent:
            self.handshake_complete = True  # or uvicorn complains that a handshake was left open, which was refused

    async def run_asgi(self) -> None:
        await super().run_asgi()
        if not self.disconnected:
            if self.close_timer is not None:
                self.close_timer.cancel()
            self.close_timer = self.loop.call_later(CLOSE_SECONDS, self._cut_off)

    def _cut_off(self) -> None:
        self.close_timer = None
        self.transport.abort()
