"""A small HTTP/1.1 server for small JSON requests on loopback, light enough to start at once.

Bodies need a Content-Length. A client that hangs up while its request is being answered ends the answer: this matters
for queries that wait for minutes.
"""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from urllib.parse import parse_qsl, unquote

CONNECTIONS_MAX = 1_000
HEAD_BYTES_MAX = 16 * 1024
BODY_BYTES_MAX = 256 * 1024
# How long a connection may stay open without a complete request.
IDLE_SECONDS = 60.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> object:
        """Raises ValueError if the body is not JSON."""
        return json.loads(self.body)


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    body: bytes
    content_type: str
    status: HTTPStatus = HTTPStatus.OK
    headers: Mapping[str, str] = field(default_factory=dict)

    def encode(self, *, keep_alive: bool) -> bytes:
        headers = {
            **self.headers,
            "Content-Type": self.content_type,
            "Content-Length": str(len(self.body)),
            "Connection": "keep-alive" if keep_alive else "close",
        }
        lines = [f"HTTP/1.1 {self.status.value} {self.status.phrase}", *(f"{k}: {v}" for k, v in headers.items())]
        return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + self.body


def text_response(text: str, status: HTTPStatus = HTTPStatus.OK) -> Response:
    return Response(body=text.encode(), content_type="text/plain; charset=utf-8", status=status)


def json_response(content: object, headers: Mapping[str, str] | None = None) -> Response:
    return Response(body=json.dumps(content).encode(), content_type="application/json", headers=headers or {})


Answer = Callable[[Request], Awaitable[Response]]


class HttpServer:
    """Serves `answer` on one port. An exception in `answer` is logged and becomes a 500."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._server: asyncio.Server | None = None
        self._connections: set[_Connection] = set()

    async def start(self, host: str, port: int) -> int:
        """Begin to serve and return the port, which is a free one for port 0."""
        self._server = await asyncio.get_running_loop().create_server(self._connection, host, port)
        bound: int = self._server.sockets[0].getsockname()[1]
        return bound

    async def stop(self) -> None:
        """Close everything at once: who waits for a change sees the connection end, as with Consul."""
        if self._server is not None:
            self._server.close()
        for connection in tuple(self._connections):
            connection.close()
        if self._server is not None:
            await self._server.wait_closed()

    def _connection(self) -> asyncio.Protocol:
        return _Connection(self._answer, self._connections)


class _BadRequestError(Exception):
    def __init__(self, status: HTTPStatus) -> None:
        super().__init__(status.phrase)
        self.status = status


class _Connection(asyncio.Protocol):
    """One client. Requests are answered one after another; at most one is in the buffer meanwhile."""

    _transport: asyncio.Transport

    def __init__(self, answer: Answer, connections: "set[_Connection]") -> None:
        self._answer = answer
        self._connections = connections
        self._buffer = bytearray()
        self._answering: asyncio.Task[None] | None = None
        self._idle_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._connections.add(self)
        if len(self._connections) > CONNECTIONS_MAX:
            self._refuse(HTTPStatus.TOO_MANY_REQUESTS)
            return
        self._watch_idleness()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if len(self._buffer) > HEAD_BYTES_MAX + BODY_BYTES_MAX:
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        elif self._answering is None:
            self._take_request()

    def eof_received(self) -> bool:
        return False  # closes the connection, and so ends the answer that nobody reads

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        if self._answering is not None:
            self._answering.cancel()

    def close(self) -> None:
        self._transport.close()

    def _take_request(self) -> None:
        try:
            parsed = _parse(self._buffer)
        except _BadRequestError as error:
            self._refuse(error.status)
            return
        if parsed is not None:
            request, keep_alive = parsed
            self._watch_idleness(stop=True)
            self._answering = asyncio.create_task(self._respond(request, keep_alive=keep_alive))

    async def _respond(self, request: Request, *, keep_alive: bool) -> None:
        try:
            response = await self._answer(request)
        except Exception:  # the top of a handler: the server outlives any request
            log.exception("request_failed", extra={"method": request.method, "path": request.path})
            response = text_response("internal error", HTTPStatus.INTERNAL_SERVER_ERROR)
        self._transport.write(response.encode(keep_alive=keep_alive))
        self._answering = None
        if keep_alive:
            self._watch_idleness()
            self._take_request()
        else:
            self._transport.close()

    def _refuse(self, status: HTTPStatus) -> None:
        self._transport.write(text_response(status.phrase, status).encode(keep_alive=False))
        self._transport.close()

    def _watch_idleness(self, *, stop: bool = False) -> None:
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        loop = asyncio.get_running_loop()
        self._idle_timer = None if stop else loop.call_later(IDLE_SECONDS, self._transport.close)


def _parse(buffer: bytearray) -> tuple[Request, bool] | None:
    """Take one complete request out of `buffer`, with whether to keep the connection; None if it is not complete."""
    head, separator, _ = buffer.partition(b"\r\n\r\n")
    if len(head) > HEAD_BYTES_MAX:
        raise _BadRequestError(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
    if not separator:
        return None
    request_line, *header_lines = head.decode("latin-1").split("\r\n")
    headers = dict(_parse_header(line) for line in header_lines)
    length = _content_length(headers)
    end = len(head) + len(separator)
    if len(buffer) < end + length:
        return None
    method, target = _parse_request_line(request_line)
    path, _, query = target.partition("?")
    body = bytes(buffer[end : end + length])
    del buffer[: end + length]
    # Parameters without a value count: `?passing` asks for the same as `?passing=1`.
    parameters = dict(parse_qsl(query, keep_blank_values=True))
    request = Request(method=method, path=unquote(path), query=parameters, headers=headers, body=body)
    return request, headers.get("connection", "").lower() != "close"


def _parse_request_line(line: str) -> tuple[str, str]:
    parts = line.split(" ")
    if len(parts) != 3 or parts[2] != "HTTP/1.1":
        raise _BadRequestError(HTTPStatus.BAD_REQUEST)
    return parts[0], parts[1]


def _parse_header(line: str) -> tuple[str, str]:
    name, separator, value = line.partition(":")
    if not separator:
        raise _BadRequestError(HTTPStatus.BAD_REQUEST)
    return name.strip().lower(), value.strip()


def _content_length(headers: Mapping[str, str]) -> int:
    if "transfer-encoding" in headers:
        raise _BadRequestError(HTTPStatus.LENGTH_REQUIRED)
    text = headers.get("content-length", "0")
    if not text.isascii() or not text.isdigit():
        raise _BadRequestError(HTTPStatus.BAD_REQUEST)
    if len(text) > 9 or int(text) > BODY_BYTES_MAX:
        raise _BadRequestError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
    return int(text)
