"""Live streams over raw WebSockets: `/ws/tasks`, `/ws/tasks/{id}` and `/socket.io/{task_type}`."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

import structlog
from starlette.responses import Response
from starlette.routing import BaseRoute, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from servicekit.errors import Conflict, HeadraceError, Overloaded, Unavailable
from servicekit.http.problems import PROBLEM_JSON, problem_body
from servicekit.live.filters import Filter
from servicekit.live.message_rate import MESSAGES_MAX, MessageRate, Verdict
from servicekit.live.protocol import (
    BadMessage,
    ClientMessage,
    Subscribe,
    decode_message,
    error_text,
    frame_texts,
    subscribed_text,
)
from servicekit.live.query import parse_query
from servicekit.live.session import LiveSession, StreamClosed, tells_end
from servicekit.live.streams import LiveStreams
from servicekit.parameters import parse_task_id

log = structlog.stdlib.get_logger(__name__)

CLOSE_DONE = 1000
CLOSE_TEXT_ONLY = 1003
CLOSE_FAILED = 1011
CLOSE_RESTART = 1012
CLOSE_LATER = 1013
CLOSE_BAD_MESSAGES = 4400
CLOSE_NOT_FOUND = 4404
CLOSE_INVALID = 4422
CLOSE_TOO_MUCH = 4429
_CLOSE_BY_STATUS = {
    404: CLOSE_NOT_FOUND,
    414: CLOSE_INVALID,
    422: CLOSE_INVALID,
    503: CLOSE_LATER,
    504: CLOSE_LATER,
}
# A client that does not take one message within this time is cut off.
SEND_SECONDS = 15.0
BAD_MESSAGES_MAX = 10
RESTART = "the service restarts; connect again"


@dataclass(frozen=True, slots=True)
class Scope:
    """What a socket is about by its path, whatever its client asks for later."""

    session: LiveSession
    # The one task that is followed, to its end.
    is_one_task: bool = False
    type_name: str | None = None

    def narrow(self, wanted: Filter) -> Filter:
        """What a client hears that subscribes to `wanted`. Raises HeadraceError."""
        if self.is_one_task:
            raise Conflict("This stream follows one task; subscribe at /ws/tasks.", code="filter_is_fixed")
        if self.type_name is None:
            return wanted
        types = frozenset((self.type_name,))
        if wanted.types not in (frozenset(), types):
            raise Conflict(f"This stream is about {self.type_name}; subscribe at /ws/tasks.", code="filter_is_fixed")
        return replace(wanted, types=types)


async def follow_tasks(websocket: WebSocket) -> None:
    """Tasks by a filter, which the client may replace at any time."""

    async def scope(streams: LiveStreams) -> Scope:
        wanted, cursor = parse_query(websocket.scope["query_string"])
        return Scope(streams.session(wanted, cursor))

    await _serve(websocket, scope)


async def follow_task(websocket: WebSocket) -> None:
    """One task; closes with 1000 after its final event."""

    async def scope(streams: LiveStreams) -> Scope:
        task_id = parse_task_id(websocket.path_params["task_id"])
        _, cursor = parse_query(websocket.scope["query_string"], known=("cursor",))
        wanted = Filter(task_ids=frozenset((task_id,)))
        return Scope(await streams.session_to_the_end(wanted, cursor), is_one_task=True)

    await _serve(websocket, scope)


async def follow_type(websocket: WebSocket) -> None:
    """The tasks of one type."""

    async def scope(streams: LiveStreams) -> Scope:
        name = websocket.path_params["task_type"]
        wanted, cursor = parse_query(websocket.scope["query_string"], known=("status", "id", "cursor"))
        await streams.require_type(name)
        session = streams.session(replace(wanted, types=frozenset((name,))), cursor)
        return Scope(session, type_name=name)

    await _serve(websocket, scope)


def socket_routes() -> list[BaseRoute]:
    return [
        WebSocketRoute("/ws/tasks", follow_tasks),
        WebSocketRoute("/ws/tasks/{task_id}", follow_task),
        WebSocketRoute("/socket.io/{task_type}", follow_type),
    ]


def is_same_origin(websocket: WebSocket) -> bool:
    """Browsers name the page that connects; pages of other sites must not listen in. Other clients send no Origin."""
    origin = websocket.headers.get("origin")
    return origin is None or urlsplit(origin).netloc == websocket.headers.get("host")


async def _serve(websocket: WebSocket, scope: Callable[[LiveStreams], Awaitable[Scope]]) -> None:
    if not is_same_origin(websocket):
        await websocket.close()  # before it is accepted: answered with 403
        return
    if websocket.scope["subprotocols"]:
        # A client that asks for some takes no connection without one.
        body = problem_body(status=400, code="unknown_subprotocol", detail="There are no subprotocols here.")
        await websocket.send_denial_response(Response(body, 400, media_type=PROBLEM_JSON))
        return
    await websocket.accept()
    await LiveSocket(websocket, websocket.app.state.live).run(scope)


class LiveSocket:
    """One accepted WebSocket: a reader of what its client sends, and a teller of what it is to hear."""

    def __init__(self, websocket: WebSocket, streams: LiveStreams) -> None:
        self._websocket = websocket
        self._streams = streams
        self._scope: Scope | None = None
        # Code and reason to close with; nothing where the client has gone.
        self._end: asyncio.Future[tuple[int, str] | None] = asyncio.get_running_loop().create_future()
        self._reader: asyncio.Task[None] | None = None
        self._teller: asyncio.Task[None] | None = None

    async def run(self, scope: Callable[[LiveStreams], Awaitable[Scope]]) -> None:
        """Serve until either side ends it."""
        self._streams.sockets.add(self)
        self._reader = asyncio.create_task(self._guard(self._begin(scope)))
        try:
            end = await self._end
        finally:
            self._streams.sockets.discard(self)
            await _cancel(self._reader, self._teller)
        if end is not None:
            with contextlib.suppress(WebSocketDisconnect, OSError, RuntimeError):
                await self._websocket.close(*end)

    def stop(self) -> None:
        self._close(CLOSE_RESTART, RESTART)

    def _close(self, code: int, reason: str) -> None:
        if not self._end.done():
            self._end.set_result((code, reason))

    def _leave(self) -> None:
        if not self._end.done():
            self._end.set_result(None)

    async def _guard(self, work: Coroutine[Any, Any, None]) -> None:
        """Do what a reader or teller does; whatever ends it badly ends the socket."""
        try:
            await work
        except StreamClosed:
            self.stop()
        except TimeoutError:
            self._close(CLOSE_TOO_MUCH, "too_slow")
        except (WebSocketDisconnect, OSError, RuntimeError):
            self._leave()  # RuntimeError: the server has closed the connection already
        except Exception as error:  # a task of its own: nobody else would log it
            log.error("socket_failed", exc_info=error)
            self._close(CLOSE_FAILED, "internal")

    async def _begin(self, scope: Callable[[LiveStreams], Awaitable[Scope]]) -> None:
        try:
            self._scope = await scope(self._streams)
        except HeadraceError as error:
            await self._refuse(error)
            return
        self._tell(self._scope.session)
        await self._read(self._scope)

    # The reader.

    async def _read(self, scope: Scope) -> None:
        rate = MessageRate()
        bad = 0
        while bad < BAD_MESSAGES_MAX:
            message = await self._websocket.receive()
            if message["type"] == "websocket.disconnect":
                self._leave()
                return
            if message.get("text") is None:
                self._close(CLOSE_TEXT_ONLY, "text messages alone are understood")
                return
            verdict = rate.note(asyncio.get_running_loop().time())
            if verdict is Verdict.OVER:
                self._close(CLOSE_TOO_MUCH, "rate_limited")
                return
            if verdict is Verdict.REFUSED:
                await self._send(error_text(_rate_limited()))
            if verdict is Verdict.TAKEN:
                bad = 0 if await self._take(message["text"], scope) else bad + 1
        self._close(CLOSE_BAD_MESSAGES, "too many bad messages")

    async def _take(self, text: str, scope: Scope) -> bool:
        """Do what a message asks for; whether it was good."""
        ref = None
        try:
            message = decode_message(text)
            ref = message.ref
            await self._follow(message, scope)
        except BadMessage as error:
            await self._send(error_text(error, error.ref))
            return False
        except HeadraceError as error:
            await self._send(error_text(error, ref))
            return False
        return True

    async def _follow(self, message: ClientMessage, scope: Scope) -> None:
        if self._streams.is_draining():
            raise Unavailable("The service restarts; connect again.", code="draining", retry_after=1.0)
        wanted = scope.narrow(message.wanted if isinstance(message, Subscribe) else Filter())
        await _cancel(self._teller)
        if isinstance(message, Subscribe):
            await self._send(subscribed_text(wanted, message.ref))
            self._tell(self._streams.session(wanted, message.cursor), message)
        else:
            await self._send(subscribed_text(None, message.ref))

    # The teller.

    def _tell(self, session: LiveSession, asked: Subscribe | None = None) -> None:
        self._teller = asyncio.create_task(self._guard(self._tell_frames(session, asked)))

    async def _tell_frames(self, session: LiveSession, asked: Subscribe | None) -> None:
        try:
            async with contextlib.aclosing(session.frames()) as frames:
                async for frame in frames:
                    if frame is None:
                        continue
                    for text in frame_texts(frame):
                        await self._send(text)
                    if self._scope is not None and self._scope.is_one_task and tells_end(frame):
                        self._close(CLOSE_DONE, "the task has ended")
                        return
        except HeadraceError as error:
            if asked is None or error.code == "too_slow":
                await self._refuse(error)
            else:  # what the client had asked for cannot be told; it may ask for something else
                await self._send(error_text(error, asked.ref))

    async def _refuse(self, error: HeadraceError) -> None:
        """Say what is wrong, and close."""
        await self._send(error_text(error))
        code = _CLOSE_BY_STATUS.get(error.http_status, CLOSE_FAILED)
        self._close(CLOSE_TOO_MUCH if error.code == "too_slow" else code, error.code)

    async def _send(self, text: str) -> None:
        async with asyncio.timeout(SEND_SECONDS):
            await self._websocket.send_text(text)


def _rate_limited() -> HeadraceError:
    message = f"More than {MESSAGES_MAX} messages in a second are not read."
    return Overloaded(message, code="rate_limited", retry_after=1.0)


async def _cancel(*tasks: asyncio.Task[None] | None) -> None:
    running = [task for task in tasks if task is not None]
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
