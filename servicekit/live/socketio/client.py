"""One client of Socket.IO: an engine.io session, which is a WebSocket or a row of polls, and its namespaces."""

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from engineio.packet import MESSAGE
from engineio.packet import Packet as EnginePacket

from servicekit.errors import Overloaded
from servicekit.live.cursors import Cursor
from servicekit.live.filters import Filter
from servicekit.live.message_rate import MessageRate
from servicekit.live.socketio.bounds import Bounds
from servicekit.live.socketio.handshake import BAD_REQUEST, UNKNOWN_SESSION, Ask, Refused


class PacketQueue(asyncio.Queue[Any]):
    """What engine.io has not sent yet. It takes everything; who has much to say waits for room first."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._bytes = 0
        self._changed = asyncio.Event()
        super().__init__()

    @property
    def has_room(self) -> bool:
        return self.qsize() < self._bounds.waiting_packets_max and self._bytes < self._bounds.waiting_bytes_max

    async def wait_for_room(self) -> None:
        while not self.has_room:
            self._changed.clear()
            await self._changed.wait()

    def _put(self, item: Any) -> None:
        self._bytes += _size(item)
        super()._put(item)

    def _get(self) -> Any:
        item = super()._get()
        self._bytes -= _size(item)
        self._changed.set()
        return item


def _size(packet: Any) -> int:
    return len(packet.data) if packet is not None and isinstance(packet.data, str) else 0


class Hurried(Protocol):
    """A connection whose writing can be given little time."""

    # What it is closed with.
    close_code: int

    def hurry(self, seconds: float) -> None: ...


@dataclass(frozen=True, slots=True)
class Invitation:
    """What is told to a client that connects to a namespace."""

    # None for all types.
    task_type: str | None
    wanted: Filter
    cursor: Cursor | None


@dataclass(slots=True, eq=False)
class Audience:
    """A namespace that a client is connected to."""

    namespace: str
    # The session of python-socketio.
    sid: str
    # None for all types.
    task_type: str | None
    telling: asyncio.Task[None] | None = None


@dataclass(slots=True, eq=False)
class Client:
    bounds: Bounds
    # The task type that the path names.
    path_type: str | None
    # engine.io's session, once it is open.
    sid: str = ""
    socket: Any = None
    audiences: dict[str, Audience] = field(default_factory=dict)
    # Namespaces that it may connect to, until python-socketio has connected it.
    invited: dict[str, Invitation] = field(default_factory=dict)
    ponged_at: float = field(default_factory=time.monotonic)
    is_polling: bool = False
    is_posting: bool = False
    is_upgrading: bool = False
    is_parting: bool = False
    # How many of its messages in a row were refused.
    refusals: int = 0
    # The WebSocket, where it has one.
    connection: "Hurried | None" = None
    rate: MessageRate = field(default_factory=MessageRate)
    # How many polls have begun.
    _polls: int = 0
    _polled: asyncio.Event = field(default_factory=asyncio.Event)

    async def tell(self, text: str) -> None:
        """Send when there is room. Raises Overloaded when there is none for too long."""
        if not self.socket.queue.has_room:
            try:
                async with asyncio.timeout(self.bounds.send_seconds):
                    await self.socket.queue.wait_for_room()
            except TimeoutError:
                message = "The connection takes nothing; connect again with the last cursor."
                raise Overloaded(message, code="too_slow") from None
        await self.say(text)

    async def say(self, text: str) -> None:
        """Send a short answer, whatever waits already: who asks too often is cut off elsewhere."""
        if not self.socket.closed:
            await self.socket.send(EnginePacket(MESSAGE, text))

    def begin_poll(self) -> None:
        self.is_polling = True
        self._polls += 1

    def note_poll_begun(self) -> None:
        """engine.io has it."""
        self._polled.set()

    async def wait_until_heard(self) -> None:
        """Wait until a client that polls has come back after it got what waits for it now."""
        wanted = self._polls + (1 if self.is_polling else 2)
        while self._polls < wanted:
            self._polled.clear()
            await self._polled.wait()


class Clients:
    """All clients that there are, within bounds."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._all: set[Client] = set()
        self._by_sid: dict[str, Client] = {}
        self._polling: set[Client] = set()
        # Those without a namespace, and since when.
        self._newcomers: dict[Client, float] = {}

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[Client]:
        return iter(tuple(self._all))

    def admit(self, ask: Ask, *, polls: bool) -> Client:
        """Make a client of a handshake. Raises Refused when there are too many."""
        bounds = self._bounds
        if len(self._all) >= bounds.clients_max or len(self._newcomers) >= bounds.newcomers_max:
            raise Refused(503, BAD_REQUEST, "Too many clients connect here; try again soon.")
        if polls and len(self._polling) >= bounds.polling_max:
            raise Refused(503, BAD_REQUEST, "Too many clients poll here; use the transport websocket.")
        client = Client(bounds, ask.path_type)
        self._all.add(client)
        if polls:
            self._polling.add(client)
        self.note_audiences(client)
        return client

    def open(self, client: Client, sid: str, socket: Any) -> None:
        """engine.io knows it now."""
        client.sid, client.socket = sid, socket
        self._by_sid[sid] = client

    def find(self, sid: str) -> Client:
        """Raises Refused where there is no such session any more."""
        client = self._by_sid.get(sid)
        if client is None or client.socket.closed:
            # Not 400, as engine.io has it: a proxy may ask the next gateway, since nothing was done here.
            raise Refused(404, UNKNOWN_SESSION, "There is no such session; connect anew.")
        return client

    def note_upgraded(self, client: Client) -> None:
        self._polling.discard(client)

    def note_audiences(self, client: Client) -> None:
        """Call it when a client has connected to a namespace or left one."""
        if client.audiences or client not in self._all:
            self._newcomers.pop(client, None)
        else:
            self._newcomers.setdefault(client, time.monotonic())

    def overdue(self, now: float) -> list[Client]:
        """Those that have not connected to a namespace in time, or have not answered a ping."""
        bounds = self._bounds
        late = [client for client, since in self._newcomers.items() if now - since > bounds.connect_seconds]
        silence = bounds.ping_interval + bounds.ping_timeout
        return [*late, *(client for client in self._all if now - client.ponged_at > silence)]

    def remove(self, client: Client) -> None:
        """Safe to repeat."""
        self._all.discard(client)
        self._polling.discard(client)
        self._newcomers.pop(client, None)
        self._by_sid.pop(client.sid, None)
