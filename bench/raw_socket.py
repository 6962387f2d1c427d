"""A WebSocket client that costs the machine next to nothing, so that thousands of them measure the server."""

import asyncio
import base64
import json
import os
import struct
from collections.abc import Callable
from typing import Any, cast

_TEXT, _CLOSE, _PING, _PONG = 0x1, 0x8, 0x9, 0xA
_LENGTHS = {126: ">H", 127: ">Q"}


class RawSocket(asyncio.Protocol):
    """Tells `on_event` what comes, and answers pings. Not for general use: it expects every message in one frame."""

    def __init__(self, host: str, path: str, on_event: Callable[[dict[str, Any]], None] | None) -> None:
        key = base64.b64encode(os.urandom(16)).decode()
        self._handshake = (
            f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
        ).encode()
        self._on_event = on_event
        self._buffer = b""
        self._transport: asyncio.Transport
        loop = asyncio.get_running_loop()
        self.accepted: asyncio.Future[None] = loop.create_future()
        self.first: asyncio.Future[str] = loop.create_future()  # the name of the first event
        self.closed: asyncio.Future[int] = loop.create_future()  # the close code, or 1006

    def say(self, message: dict[str, Any]) -> None:
        self._write(_TEXT, json.dumps(message).encode())

    def abort(self) -> None:
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # that of uvloop does not derive from it
        self._transport.write(self._handshake)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self.accepted.done():
            head, end, rest = self._buffer.partition(b"\r\n\r\n")
            if not end:
                return
            if not head.startswith(b"HTTP/1.1 101 "):
                self.accepted.set_exception(RuntimeError(f"refused: {head[:100]!r}"))
                self.abort()
                return
            self.accepted.set_result(None)
            self._buffer = rest
        while (frame := self._next_frame()) is not None:
            self._take(*frame)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.closed.done():
            self.closed.set_result(1006)
        for waited in (self.accepted, self.first):
            if not waited.done():
                waited.set_exception(ConnectionError(f"the stream ended with {self.closed.result()}"))
                waited.exception()  # it may be that nobody waits

    def _next_frame(self) -> tuple[int, bytes] | None:
        buffer, start = self._buffer, 2
        if len(buffer) < start:
            return None
        size = buffer[1]
        if (form := _LENGTHS.get(size)) is not None:
            start += struct.calcsize(form)
            if len(buffer) < start:
                return None
            (size,) = struct.unpack(form, buffer[2:start])
        if len(buffer) < start + size:
            return None
        self._buffer = buffer[start + size :]
        return buffer[0] & 0xF, buffer[start : start + size]

    def _take(self, opcode: int, payload: bytes) -> None:
        if opcode == _PING:
            self._write(_PONG, payload)
        elif opcode == _CLOSE:
            if not self.closed.done():
                self.closed.set_result(int.from_bytes(payload[:2], "big"))
            self._transport.close()
        elif opcode == _TEXT and (self._on_event is not None or not self.first.done()):
            event = json.loads(payload)
            if not self.first.done():
                self.first.set_result(event["event"])
            if self._on_event is not None:
                self._on_event(event)

    def _write(self, opcode: int, payload: bytes) -> None:
        # A mask of zeros leaves the payload as it is.
        size = (
            struct.pack("BB", 0x80 | opcode, 0x80 | len(payload))
            if len(payload) < 126
            else struct.pack(">BBH", 0x80 | opcode, 0xFE, len(payload))
        )
        self._transport.write(size + bytes(4) + payload)


async def connect(address: str, path: str, on_event: Callable[[dict[str, Any]], None] | None = None) -> RawSocket:
    """Return when the server has accepted the WebSocket. Raises RuntimeError when it refuses."""
    host, _, port = address.rpartition(":")
    loop = asyncio.get_running_loop()
    _, socket = await loop.create_connection(lambda: RawSocket(address, path, on_event), host, int(port))
    await socket.accepted
    return socket
