"""What stands before python-socketio: it gets requests and packets that are right alone, and few at a time."""

import asyncio
from typing import Protocol

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from servicekit.http.lingering import LingeringResponse
from servicekit.live.socketio.bounds import Bounds
from servicekit.live.socketio.client import Client, Clients
from servicekit.live.socketio.handshake import (
    BAD_REQUEST,
    PATH,
    UNKNOWN_TRANSPORT,
    Ask,
    Refused,
    is_engine_request,
    read_request,
)
from servicekit.live.socketio.packets import ParseError, split_payload
from servicekit.live.socketio.websocket import Connection, Doorkeeper

# Where the application's own layers find what a request was routed to, and python-socketio the client.
CLIENT_KEY = "headrace.socketio"
_RETRY_AFTER_SECONDS = 5


class _Route:
    """What the layers around see of where a request went."""

    path = PATH


_ROUTE = _Route()


class Engine(Doorkeeper, Protocol):
    """What the gate needs of the server behind it."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let python-socketio answer."""
        ...

    async def end(self, client: Client) -> None:
        """End a client's session. Safe to repeat."""
        ...

    def forget(self, client: Client) -> None:
        """Forget a client whose session has ended."""
        ...

    @property
    def is_draining(self) -> bool: ...


class Gate:
    def __init__(self, app: ASGIApp, engine: Engine, clients: Clients, bounds: Bounds) -> None:
        self._app = app
        self._engine = engine
        self._clients = clients
        self._bounds = bounds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket") or not is_engine_request(scope):
            await self._app(scope, receive, send)
            return
        scope["route"] = _ROUTE
        try:
            ask = read_request(scope)
            if scope["type"] == "websocket":
                await self._websocket(ask, scope, receive, send)
            elif ask.sid is None:
                await self._polling_handshake(ask, scope, receive, send)
            elif scope["method"] == "GET":
                await self._poll(self._clients.find(ask.sid), scope, receive, send)
            else:
                await self._post(self._clients.find(ask.sid), scope, receive, send)
        except Refused as refusal:
            await _refuse(refusal, scope, receive, send)

    async def _websocket(self, ask: Ask, scope: Scope, receive: Receive, send: Send) -> None:
        client = self._admit(ask, polls=False) if ask.sid is None else self._upgrading(ask.sid)
        connection = Connection(client, self._engine, receive, send, upgrades=ask.sid is not None)
        client.connection = connection
        try:
            await self._engine.handle({**scope, CLIENT_KEY: client}, connection.receive, connection.send)
        finally:
            client.is_upgrading = False
            client.connection = None
            if client.socket is None or client.socket.closed:
                self._engine.forget(client)
        await connection.close()

    def _upgrading(self, sid: str) -> Client:
        client = self._clients.find(sid)
        if client.is_upgrading or client.socket.upgraded:
            raise Refused(400, BAD_REQUEST, "The session has a WebSocket already.")
        client.is_upgrading = True
        return client

    async def _polling_handshake(self, ask: Ask, scope: Scope, receive: Receive, send: Send) -> None:
        client = self._admit(ask, polls=True)

        async def send_opening(message: Message) -> None:
            if message["type"] == "http.response.body" and client.socket is None:
                self._engine.note_opened(client, message["body"].decode())
            await send(message)

        try:
            await self._engine.handle({**scope, CLIENT_KEY: client}, receive, send_opening)
        finally:
            if client.socket is None:
                self._engine.forget(client)

    def _admit(self, ask: Ask, *, polls: bool) -> Client:
        if self._engine.is_draining:
            raise Refused(503, BAD_REQUEST, "The service restarts; connect again.")
        return self._clients.admit(ask, polls=polls)

    async def _poll(self, client: Client, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer when there is news. What a poll had taken is lost with its connection, and so the session ends."""
        self._require_polling(client)
        await self._alone(client, client.is_polling)
        client.begin_poll()
        try:
            first = await receive()

            async def receive_poll() -> Message:
                client.note_poll_begun()
                return first

            serving = asyncio.ensure_future(self._engine.handle(scope, receive_poll, send))
            leaving = asyncio.ensure_future(_left(receive))
            try:
                await asyncio.wait((serving, leaving), return_when=asyncio.FIRST_COMPLETED)
                if not serving.done():
                    await self._engine.end(client)
                await serving
            finally:
                serving.cancel()
                leaving.cancel()
        finally:
            client.is_polling = False
            if client.socket.closed:
                self._engine.forget(client)

    async def _post(self, client: Client, scope: Scope, receive: Receive, send: Send) -> None:
        self._require_polling(client)
        await self._alone(client, client.is_posting)
        client.is_posting = True
        try:
            body = await self._read_text(Request(scope, receive))
            # One after the other: what a packet means depends on what those before it have done.
            for packet in split_payload(body, packets_max=self._bounds.packets_max):
                heard = await self._engine.take(client, packet)
                if heard is not None:
                    await self._engine.handle(*_post_of(scope, heard.encode()), _no_answer)
            await Response(b"ok", media_type="text/plain")(scope, receive, send)
        except (Refused, ParseError) as refusal:
            await self._engine.end(client)
            if isinstance(refusal, Refused):
                raise
            raise Refused(400, BAD_REQUEST, f"The session ends: {refusal}.") from None
        finally:
            client.is_posting = False
            if client.socket.closed and not client.is_polling:
                self._engine.forget(client)

    async def _read_text(self, request: Request) -> str:
        try:
            async with asyncio.timeout(self._bounds.frame_seconds):
                body = await self._read(request)
            return body.decode()
        except TimeoutError:
            raise Refused(408, BAD_REQUEST, "The body did not arrive in time.") from None
        except (ClientDisconnect, UnicodeDecodeError):
            raise Refused(400, BAD_REQUEST, "The body is not text in UTF-8.") from None

    async def _read(self, request: Request) -> bytes:
        size_max = self._bounds.bytes_max
        announced = request.headers.get("content-length", "")
        if announced.isdigit() and int(announced[:20]) > size_max:
            raise Refused(413, BAD_REQUEST, f"A body has at most {size_max} bytes.")
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > size_max:
                raise Refused(413, BAD_REQUEST, f"A body has at most {size_max} bytes.")
        return body

    def _require_polling(self, client: Client) -> None:
        if client.socket.upgraded:
            raise Refused(400, UNKNOWN_TRANSPORT, "The session goes over a WebSocket now.")

    async def _alone(self, client: Client, is_busy: bool) -> None:
        """Two requests of a kind at the same time, as no client sends them, end a session."""
        if is_busy:
            await self._engine.end(client)
            raise Refused(400, BAD_REQUEST, "The session ends: another request of it was open.")


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _post_of(scope: Scope, body: bytes) -> tuple[Scope, Receive]:
    """The request that brings this body. engine.io reads so much of it as is announced."""

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    headers = [(name, value) for name, value in scope["headers"] if name != b"content-length"]
    return {**scope, "headers": [*headers, (b"content-length", str(len(body)).encode())]}, receive


async def _no_answer(message: Message) -> None:
    pass


async def _refuse(refusal: Refused, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer in the shape of engine.io's errors."""
    headers = {"Connection": "close"}
    if refusal.status == 503:
        headers["Retry-After"] = str(_RETRY_AFTER_SECONDS)
    content = msgspec.json.encode({"code": refusal.code, "message": refusal.message})
    kind = LingeringResponse if refusal.status == 413 else Response
    response = kind(content, refusal.status, headers, "application/json")
    if scope["type"] == "websocket":
        await receive()
    await response(scope, receive, send)
