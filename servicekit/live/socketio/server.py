"""Live streams for Socket.IO clients: a namespace for each task type, and `/` for all of them.

python-socketio keeps the sessions, their polls and upgrades. What clients say is read here before it, so that it sees
nothing but who connects to a namespace and who leaves one.
"""

import asyncio
import contextlib
import importlib
import logging
import time
from collections.abc import Coroutine
from typing import Any

import msgspec
import structlog
from engineio.exceptions import EngineIOError
from starlette.types import ASGIApp, Receive, Scope, Send

from servicekit.errors import HeadraceError, InvalidArgument, NotFound, Overloaded, Unavailable
from servicekit.live.cursors import Cursor
from servicekit.live.filters import Filter
from servicekit.live.message_rate import MESSAGES_MAX, Verdict
from servicekit.live.protocol import error_view
from servicekit.live.session import LiveSession, StreamClosed
from servicekit.live.socketio.bounds import Bounds
from servicekit.live.socketio.client import Audience, Client, Clients, Invitation, PacketQueue
from servicekit.live.socketio.gate import CLIENT_KEY, Gate
from servicekit.live.socketio.packets import (
    ALL_TYPES,
    PONG,
    Event,
    Kind,
    Packet,
    ParseError,
    ack_text,
    connect_packet,
    disconnect_packet,
    error_event_text,
    frame_texts,
    is_engine_packet,
    read_auth,
    read_event,
    read_packet,
    refusal_text,
)
from servicekit.live.socketio.wishes import read_wishes
from servicekit.live.streams import LiveStreams
from servicekit.live.websocket import (
    BAD_MESSAGES_MAX,
    CLOSE_BAD_MESSAGES,
    CLOSE_LATER,
    CLOSE_RESTART,
    CLOSE_TOO_MUCH,
)
from servicekit.loops import BackgroundLoop
from servicekit.parameters import is_type_name
from servicekit.pointers import shown

log = structlog.stdlib.get_logger(__name__)

SUBSCRIBE = "subscribe"
_LOOK_SECONDS = 1.0
# How long a client may take to fetch what it is told last.
_LAST_WORDS_SECONDS = 1.0


class SocketIOServer:
    """`wrap` an application; `drain` when the order to stop comes."""

    def __init__(self, streams: LiveStreams, *, bounds: Bounds = Bounds()) -> None:  # noqa: B008 - it is frozen
        self._streams = streams
        self._bounds = bounds
        self.clients = Clients(bounds)
        # The session of a namespace at python-socketio -> whose it is.
        self._audiences: dict[str, tuple[Client, Audience]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._looking = BackgroundLoop("socketio", self._look, interval=_LOOK_SECONDS)
        self._opening = asyncio.Lock()
        self._library: Any = None

    def __len__(self) -> int:
        """How many clients there are."""
        return len(self.clients)

    def wrap(self, app: ASGIApp) -> ASGIApp:
        """The application with Socket.IO before it."""
        return Gate(app, self, self.clients, self._bounds)

    async def drain(self) -> None:
        """End all sessions, so that clients connect elsewhere; new ones are refused while the service drains."""
        await self._looking.stop()
        await asyncio.gather(*(self._part(client, _restarting(), CLOSE_RESTART) for client in self.clients))
        while self._tasks:
            await asyncio.wait(self._tasks)

    # What the gate calls.

    @property
    def is_draining(self) -> bool:
        return self._streams.is_draining()

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        library = self._library or await self._open_library()
        await library.handle_request(scope, receive, send)

    def note_opened(self, client: Client, packet: str) -> None:
        sid = msgspec.json.decode(packet[1:])["sid"]
        self.clients.open(client, sid, self._library.eio.sockets[sid])

    def note_upgraded(self, client: Client) -> None:
        self.clients.note_upgraded(client)

    async def take(self, client: Client, text: str) -> str | None:
        if client.socket.closed:
            return None
        now = time.monotonic()
        verdict = client.rate.note(now)
        if verdict is Verdict.OVER:
            await self._cut(client, CLOSE_TOO_MUCH)
            return None
        if is_engine_packet(text):
            if text == PONG:
                client.ponged_at = now
            return text
        packet = read_packet(text)
        if client.is_parting:
            return None
        if verdict is not Verdict.TAKEN:
            await self._slow_down(client, packet)
            return None
        if packet.kind is Kind.CONNECT:
            return await self._take_connect(client, packet)
        known = packet.namespace in client.audiences
        if packet.kind is Kind.DISCONNECT:
            return disconnect_packet(packet.namespace) if known else None
        if packet.kind is Kind.EVENT:
            if not known:
                raise ParseError("an event for a namespace that the client is not connected to")
            await self._take_event(client, packet)
        return None

    async def end(self, client: Client) -> None:
        """End the session; python-socketio then tells of each namespace that was left."""
        if not client.socket.closed:
            await client.socket.close(wait=False)
            self._finish(client)

    def _finish(self, client: Client) -> None:
        """Let go of a client whose session has ended, once it has got what was written for it."""
        client.socket.queue.put_nowait(None)  # the end
        if client.connection is not None:
            client.connection.hurry(_LAST_WORDS_SECONDS)
        elif not client.is_polling:
            self.forget(client)

    def forget(self, client: Client) -> None:
        self.clients.remove(client)
        for audience in client.audiences.values():  # of which python-socketio has not told that they were left
            self._audiences.pop(audience.sid, None)
            _stop(audience.telling)
        if self._library is not None:
            self._library.eio.sockets.pop(client.sid, None)

    # What clients say.

    async def _take_connect(self, client: Client, packet: Packet) -> str | None:
        """Let in who asks for something that there is. After a refusal a client does not come back by itself: where
        coming back helps, its session ends instead.
        """
        if packet.namespace in client.audiences:
            return None
        try:
            client.invited[packet.namespace] = await self._invite(client, packet)
        except Unavailable:
            await self._cut(client, CLOSE_RESTART if self.is_draining else CLOSE_LATER)
            return None
        except HeadraceError as error:
            await client.say(refusal_text(packet.namespace, error))
            return None
        return connect_packet(packet.namespace)

    async def _invite(self, client: Client, packet: Packet) -> Invitation:
        if self.is_draining:
            raise Unavailable("The service restarts; connect again.", code="draining")
        if len(client.audiences) >= self._bounds.namespaces_max:
            message = f"A client connects to {self._bounds.namespaces_max} namespaces at most."
            raise Overloaded(message, code="too_many_namespaces")
        task_type = await self._task_type(client, packet.namespace)
        auth = read_auth(packet)
        wanted, cursor = read_wishes({} if auth is None else auth, task_type=task_type)
        return Invitation(task_type, wanted, cursor)

    async def _task_type(self, client: Client, namespace: str) -> str | None:
        if client.path_type is None:
            name = namespace.removeprefix("/") or None
        elif namespace == ALL_TYPES:
            name = client.path_type
        else:
            raise NotFound("The path names a task type already; connect to the namespace /.", code="invalid_namespace")
        if name is not None:
            if not is_type_name(name):
                raise NotFound(f"There is no task type {shown(name)!r}.", code="invalid_namespace")
            try:
                await self._streams.require_type(name)
            except NotFound as error:
                raise NotFound(error.message, code="invalid_namespace") from None
        return name

    async def _take_event(self, client: Client, packet: Packet) -> None:
        try:
            self._subscribe(client, client.audiences[packet.namespace], read_event(packet))
        except HeadraceError as error:
            client.refusals += 1
            await self._answer(client, packet, error)
            if client.refusals >= BAD_MESSAGES_MAX:
                await self._cut(client, CLOSE_BAD_MESSAGES)
        else:
            client.refusals = 0
            await self._answer(client, packet, None)

    def _subscribe(self, client: Client, audience: Audience, event: Event) -> None:
        if self.is_draining:
            raise Unavailable("The service restarts; connect again.", code="draining", retry_after=1.0)
        if event.name != SUBSCRIBE:
            raise InvalidArgument(f"The only event that is understood here is {SUBSCRIBE}.", code="unknown_event")
        if len(event.arguments) != 1:
            message = f"The event {SUBSCRIBE} comes with one object: what to hear of."
            raise InvalidArgument(message, code="validation_failed")
        wanted, cursor = read_wishes(event.arguments[0], task_type=audience.task_type)
        self._begin_telling(client, audience, wanted, cursor)

    async def _slow_down(self, client: Client, packet: Packet) -> None:
        if packet.kind is Kind.EVENT and packet.namespace in client.audiences:
            message = f"More than {MESSAGES_MAX} messages in a second are not read."
            await self._answer(client, packet, Overloaded(message, code="rate_limited", retry_after=1.0))

    async def _answer(self, client: Client, packet: Packet, error: HeadraceError | None) -> None:
        if packet.ack_id is not None:
            answer: dict[str, Any] = {"ok": True} if error is None else {"ok": False, "error": error_view(error)}
            await client.say(ack_text(packet.namespace, packet.ack_id, answer))
        elif error is not None:
            await client.say(error_event_text(packet.namespace, error))

    # What python-socketio calls.

    async def _on_connect(self, namespace: str, sid: str, environ: dict[str, Any], _: object = None) -> None:
        # The scope of the handshake is that of the whole session.
        client: Client = environ["asgi.scope"][CLIENT_KEY]
        invitation = client.invited.pop(namespace)
        audience = Audience(namespace, sid, invitation.task_type)
        client.audiences[namespace] = audience
        self._audiences[sid] = (client, audience)
        self.clients.note_audiences(client)
        self._begin_telling(client, audience, invitation.wanted, invitation.cursor)

    async def _on_disconnect(self, _namespace: str, sid: str, _reason: str) -> None:
        client, audience = self._audiences.pop(sid, (None, None))
        if client is None or audience is None:  # it was forgotten before
            return
        del client.audiences[audience.namespace]
        self.clients.note_audiences(client)
        _stop(audience.telling)

    # What clients are told.

    def _begin_telling(self, client: Client, audience: Audience, wanted: Filter, cursor: Cursor | None) -> None:
        """Tell from now on what is wanted, instead of what was."""
        _stop(audience.telling)
        session = self._streams.session(wanted, cursor)
        audience.telling = self._start(self._tell(client, audience, session))

    async def _tell(self, client: Client, audience: Audience, session: LiveSession) -> None:
        try:
            await self._tell_all(client, audience.namespace, session)
        except EngineIOError:
            pass  # the session has just ended
        except StreamClosed:
            await self._part(client, _restarting(), CLOSE_RESTART)
        except (NotFound, InvalidArgument) as error:
            await client.say(error_event_text(audience.namespace, error))
            await self._library.disconnect(audience.sid, audience.namespace)
        except HeadraceError as error:
            await self._part(client, error, CLOSE_TOO_MUCH if error.code == "too_slow" else CLOSE_LATER)
        except Exception as error:  # a task of its own: nobody else would log it
            log.error("socketio_failed", exc_info=error)
            await self._cut(client, CLOSE_LATER)

    async def _tell_all(self, client: Client, namespace: str, session: LiveSession) -> None:
        async with contextlib.aclosing(session.frames()) as frames:
            async for frame in frames:
                if frame is not None:
                    for text in frame_texts(namespace, frame):
                        await client.tell(text)

    async def _part(self, client: Client, error: HeadraceError, close_code: int) -> None:
        """Say why, then end the session. Clients of Socket.IO come back by themselves after that."""
        if client.is_parting or client.socket is None:
            return
        client.is_parting = True
        for audience in tuple(client.audiences.values()):
            _stop(audience.telling)
            await client.say(error_event_text(audience.namespace, error))
        if not client.socket.upgraded:
            # A client that gets the end together with other packets drops those.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LAST_WORDS_SECONDS):
                    await client.wait_until_heard()
        await self._cut(client, close_code)

    async def _cut(self, client: Client, close_code: int) -> None:
        if client.connection is not None:
            client.connection.close_code = close_code
        await self.end(client)

    # What has to be done now and then.

    async def _look(self) -> None:
        """End the sessions of clients that say nothing, and forget those that have ended."""
        for client in self.clients.overdue(time.monotonic()):
            if client.socket is not None:
                await self.end(client)
        for client in self.clients:
            if client.socket is not None and client.socket.closed:
                self._finish(client)

    async def _open_library(self) -> Any:
        """Import python-socketio when the first client comes: it is large, and a service may never need it."""
        async with self._opening:
            if self._library is None:
                socketio = await asyncio.to_thread(importlib.import_module, "socketio")
                self._library = self._build(socketio)
                self._looking.start()
        return self._library

    def _build(self, socketio: Any) -> Any:
        bounds = self._bounds
        logger = logging.getLogger("socketio")
        logger.setLevel(logging.ERROR)  # otherwise every packet is an event
        library = socketio.AsyncServer(
            async_mode="asgi",
            namespaces="*",
            async_handlers=False,
            ping_interval=bounds.ping_interval,
            ping_timeout=bounds.ping_timeout,
            max_http_buffer_size=bounds.bytes_max,
            http_compression=False,
            cookie=None,
            cors_allowed_origins=[],  # no headers: the gate lets in the same origin alone
            monitor_clients=False,  # we look ourselves, by a clock that cannot be set
            logger=logger,
            engineio_logger=logger,
        )
        library.eio.create_queue = lambda: PacketQueue(bounds)
        library.on("connect", self._on_connect, namespace="*")
        library.on("disconnect", self._on_disconnect, namespace="*")
        return library

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _restarting() -> HeadraceError:
    return Unavailable("The service restarts; connect again.", code="restarting", retry_after=1.0)


def _stop(telling: asyncio.Task[None] | None) -> None:
    """End what is told, unless it is itself that asks for it."""
    if telling is not None and telling is not asyncio.current_task():
        telling.cancel()
