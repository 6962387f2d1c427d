"""Live streams as server-sent events: `/api/events` and `/api/tasks/{id}/events`, for curl and EventSource."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Iterator

import msgspec
import structlog
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from servicekit.errors import HeadraceError, Unavailable
from servicekit.http.protocol import ABORT
from servicekit.live.cursors import Cursor
from servicekit.live.events import TASK_UPDATE
from servicekit.live.filters import Filter
from servicekit.live.protocol import error_view, reset_data
from servicekit.live.query import parse_query
from servicekit.live.session import Frame, LiveSession, SnapshotFrame, StreamClosed, tells_end
from servicekit.live.streams import LiveStreams
from servicekit.parameters import parse_task_id

log = structlog.stdlib.get_logger(__name__)

# A client that does not take one event within this time is cut off.
SEND_SECONDS = 15.0
# What a client that is cut off by a stop may take to hear of it.
FAREWELL_SECONDS = 1.0
# When EventSource connects again, in milliseconds.
RETRY = b"retry: 2000\n\n"
KEEPALIVE = b":\n\n"
# The place behind the final event of a task: EventSource comes back with it, and is told that nothing follows.
END = "end"
_END = f"id: {END}\n\n".encode()
_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
_LAST_EVENT_ID = "last-event-id"


async def follow_tasks(request: Request) -> Response:
    """The stream of tasks that fit the query. Raises HeadraceError while nothing was sent."""
    streams: LiveStreams = request.app.state.live
    wanted, cursor = parse_query(request.scope["query_string"])
    return await _begun(streams, streams.session(wanted, _resume_at(request) or cursor), is_one_task=False)


async def follow_task(request: Request, task_id: str) -> Response:
    """The stream of one task, to its end. Raises HeadraceError while nothing was sent."""
    streams: LiveStreams = request.app.state.live
    wanted = Filter(task_ids=frozenset((parse_task_id(task_id),)))
    _, cursor = parse_query(request.scope["query_string"], known=("cursor",))
    if request.headers.get(_LAST_EVENT_ID) == END:
        if await streams.has_ended(wanted):
            return Response(status_code=204)
        return await _begun(streams, streams.session(wanted), is_one_task=True)
    session = await streams.session_to_the_end(wanted, _resume_at(request) or cursor)
    return await _begun(streams, session, is_one_task=True)


def _resume_at(request: Request) -> Cursor | None:
    """What EventSource sends when it connects again; it wins over the cursor in the address, which stays the same."""
    text = request.headers.get(_LAST_EVENT_ID)
    return Cursor.parse(text, field="Last-Event-ID") if text else None


async def _begun(streams: LiveStreams, session: LiveSession, *, is_one_task: bool) -> Response:
    """A stream whose first frame is at hand: what goes wrong before that is an ordinary answer."""
    frames = session.frames()
    try:
        first = await anext(frames)
    except StreamClosed:
        await frames.aclose()
        raise Unavailable("The service restarts; connect again.", code="restarting", retry_after=1.0) from None
    except BaseException:
        await frames.aclose()
        raise
    return EventStream(streams, first, frames, is_one_task=is_one_task)


class EventStream(Response):
    media_type = "text/event-stream"

    def __init__(
        self,
        streams: LiveStreams,
        first: Frame | None,
        frames: AsyncGenerator[Frame | None, None],
        *,
        is_one_task: bool,
    ) -> None:
        self.status_code = 200
        self.background = None
        self.init_headers(_HEADERS)
        self._streams = streams
        self._first = first
        self._frames = frames
        self._is_one_task = is_one_task
        self._stopping = asyncio.Event()
        self._started = False

    def stop(self) -> None:
        self._stopping.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._streams.event_streams.add(self)
        teller = asyncio.create_task(self._tell(send))
        ends = [teller, asyncio.create_task(_until_gone(receive)), asyncio.create_task(self._stopping.wait())]
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._streams.event_streams.discard(self)
            for end in ends:
                end.cancel()
            await asyncio.gather(*ends, return_exceptions=True)
            await self._frames.aclose()
        if self._stopping.is_set() and self._started:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FAREWELL_SECONDS):
                    await _send(send, _error(Unavailable("The service restarts.", code="restarting")))
                    await _finish(send)
                    return
        if teller.cancelled() or teller.exception() is not None:
            await _cut_off(scope, receive)

    async def _tell(self, send: Send) -> None:
        """Tell all there is and finish the answer. Whatever else ends it has no end that the client could read."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        self._started = True
        await _send(send, RETRY)
        try:
            await self._tell_frames(send)
        except StreamClosed:
            self.stop()
            raise
        except HeadraceError as error:
            await _send(send, _error(error))
        except TimeoutError:
            log.info("event_stream_cut_off", reason="too_slow")
            raise
        except Exception as error:  # a task of its own: nobody else would log it
            log.error("event_stream_failed", exc_info=error)
            raise
        await _finish(send)

    async def _tell_frames(self, send: Send) -> None:
        frame = self._first
        while True:
            for part in _encoded(frame):
                await _send(send, part)
            if frame is not None and self._is_one_task and tells_end(frame):
                await _send(send, _END)
                return
            frame = await anext(self._frames)


def _encoded(frame: Frame | None) -> Iterator[bytes]:
    if frame is None:
        yield KEEPALIVE
    elif isinstance(frame, SnapshotFrame):
        if frame.reset:
            yield _event("reset", reset_data())
        yield _event("snapshot", frame.snapshot.data(), frame.cursor, voids_place=True)
    else:
        cursor = frame.event.cursor if frame.placed else None
        yield _event(TASK_UPDATE, frame.event.data(), cursor)


def _event(name: str, data: bytes, cursor: Cursor | None = None, *, voids_place: bool = False) -> bytes:
    """One event. Results are passed on as they came: a line break in one is white space, and would end the data.

    A reader keeps its place until it hears of another; `voids_place` makes it forget one that is good no more.
    """
    line = data.replace(b"\r", b" ").replace(b"\n", b" ")
    place = f"id: {cursor}\n" if cursor is not None else "id:\n" if voids_place else ""
    return f"{place}event: {name}\ndata: ".encode() + line + b"\n\n"


def _error(error: HeadraceError) -> bytes:
    return _event("error", msgspec.json.encode(error_view(error)))


async def _send(send: Send, part: bytes) -> None:
    async with asyncio.timeout(SEND_SECONDS):
        await send({"type": "http.response.body", "body": part, "more_body": True})


async def _finish(send: Send) -> None:
    async with asyncio.timeout(SEND_SECONDS):
        await send({"type": "http.response.body", "body": b""})


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _cut_off(scope: Scope, receive: Receive) -> None:
    """End the connection: nobody is to take half an answer for a whole one."""
    if ABORT in scope:
        scope[ABORT]()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FAREWELL_SECONDS):
                await _until_gone(receive)
