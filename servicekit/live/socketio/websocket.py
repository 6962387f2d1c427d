"""The frames of one WebSocket, looked at before engine.io sees them, and written within bounded time."""

import asyncio
from typing import Protocol

from starlette.types import Message, Receive, Send

from servicekit.live.socketio.client import Client
from servicekit.live.socketio.packets import PROBE, UPGRADE, ParseError

CLOSE_NORMAL = 1000
CLOSE_PROTOCOL = 1002
CLOSE_BINARY = 1003
# engine.io leaves a session usable only where an upgrade fails by a wrong packet.
_NO_PACKET = "6"
_GONE: Message = {"type": "websocket.disconnect", "code": 1006}


class Doorkeeper(Protocol):
    """Hears what happens on connections."""

    async def take(self, client: Client, text: str) -> str | None:
        """What of a packet engine.io is to hear. Raises ParseError."""
        ...

    def note_opened(self, client: Client, packet: str) -> None:
        """The first packet to a client opens its session."""
        ...

    def note_upgraded(self, client: Client) -> None: ...


class Connection:
    """The ASGI face of a WebSocket for engine.io. `upgrades`: the client has polled so far."""

    def __init__(self, client: Client, doorkeeper: Doorkeeper, receive: Receive, send: Send, *, upgrades: bool) -> None:
        self.close_code = CLOSE_NORMAL
        self._client = client
        self._receive = receive
        self._send = send
        self._doorkeeper = doorkeeper
        self._awaited = [PROBE, UPGRADE] if upgrades else []
        self._sending: asyncio.Timeout | None = None
        self._lost = asyncio.Event()
        self._closed = False

    async def receive(self) -> Message:
        """What engine.io hears next. After an offence it hears that the client has gone."""
        while True:
            message = await self._next()
            if message["type"] == "websocket.connect":
                return message
            if self._awaited:
                return self._upgrade_step(message)
            if message["type"] != "websocket.receive":
                return message
            text = message.get("text")
            if text is None:
                return self._give_up(CLOSE_BINARY)
            try:
                passed = await self._doorkeeper.take(self._client, text)
            except ParseError:
                return self._give_up(CLOSE_PROTOCOL)
            if passed is not None:
                return {"type": "websocket.receive", "text": passed}

    async def send(self, message: Message) -> None:
        """Never raises: a client that is gone, or takes nothing, is heard to have left."""
        if self._lost.is_set():
            return
        if message["type"] == "websocket.close":
            if self._closed:
                return
            self._closed = True
            message = {"type": "websocket.close", "code": self.close_code}
        elif message["type"] == "websocket.send" and not self._client.sid:
            self._doorkeeper.note_opened(self._client, message["text"])
        try:
            async with asyncio.timeout(self._client.bounds.send_seconds) as self._sending:
                await self._send(message)
        except (TimeoutError, OSError, RuntimeError):  # RuntimeError: the server has closed it already
            self._lost.set()
        finally:
            self._sending = None

    def hurry(self, seconds: float) -> None:
        """Give what is being written no more than this."""
        if self._sending is not None:
            self._sending.reschedule(asyncio.get_running_loop().time() + seconds)

    async def close(self) -> None:
        """Close what engine.io has left open."""
        await self.send({"type": "websocket.close"})

    async def _next(self) -> Message:
        """The next message, or that the client is gone."""
        receiving = asyncio.ensure_future(self._receive())
        losing = asyncio.ensure_future(self._lost.wait())
        try:
            await asyncio.wait(
                (receiving, losing),
                timeout=self._client.bounds.frame_seconds if self._awaited else None,
                return_when=asyncio.FIRST_COMPLETED,
            )
            return receiving.result() if receiving.done() else _GONE
        finally:
            receiving.cancel()
            losing.cancel()

    def _upgrade_step(self, message: Message) -> Message:
        if message.get("text") == self._awaited[0]:
            del self._awaited[0]
            if not self._awaited:
                self._doorkeeper.note_upgraded(self._client)
            return message
        self.close_code = CLOSE_PROTOCOL
        return {"type": "websocket.receive", "text": _NO_PACKET}

    def _give_up(self, code: int) -> Message:
        if self.close_code == CLOSE_NORMAL:
            self.close_code = code
        return _GONE
