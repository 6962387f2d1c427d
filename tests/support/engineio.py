"""Socket.IO spoken by hand, so that a test can say what no client would."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

HEAR_SECONDS = 5.0
PING, PONG = "2", "3"
PATH = "/socket.io/"


class EngineSocket:
    """A client on a WebSocket."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.opening: dict[str, Any] = {}

    async def say(self, packet: str | bytes) -> None:
        await self.connection.send(packet)

    async def hear(self) -> str:
        """The next packet, whatever it is."""
        packet = await asyncio.wait_for(self.connection.recv(), HEAR_SECONDS)
        assert isinstance(packet, str)
        return packet

    async def ping(self) -> None:
        """Take the ping that is to be next, and answer it."""
        assert await self.hear() == PING
        await self.say(PONG)

    async def join(self, namespace: str = "/noop", auth: object = None) -> None:
        """Connect to a namespace, and take its snapshot."""
        prefix = "" if namespace == "/" else f"{namespace},"
        await self.say(f"40{prefix}{'' if auth is None else json.dumps(auth)}")
        assert (await self.hear()).startswith(f'40{prefix}{{"sid":')
        name, *_ = await self.event()
        assert name == "snapshot"

    async def event(self) -> list[Any]:
        """The next packet, which is to be an event: its name, its data, its cursor."""
        packet = await self.hear()
        assert packet.startswith("42"), packet
        event: list[Any] = json.loads(packet[packet.index("[") :])
        return event

    async def refusal(self) -> dict[str, Any]:
        """What a connect_error says, which is to be next."""
        packet = await self.hear()
        assert packet.startswith("44"), packet
        refusal: dict[str, Any] = json.loads(packet[packet.index("{") :])
        return refusal

    async def ask(self, body: str, *, namespace: str = "/noop", ack_id: str = "1") -> dict[str, Any]:
        """Emit an event that is acknowledged, and return the answer."""
        await self.say(f"42{namespace},{ack_id}{body}")
        packet = await self.hear()
        assert packet.startswith(f"43{namespace},{ack_id}["), packet
        [answer] = json.loads(packet[packet.index("[") :])
        assert isinstance(answer, dict)
        return answer

    async def closed(self) -> int:
        """Wait for the end, and return its code."""
        with contextlib.suppress(ConnectionClosed):
            while True:
                await asyncio.wait_for(self.connection.recv(), HEAR_SECONDS)
        code = self.connection.close_code
        assert code is not None
        return code


@asynccontextmanager
async def engine_socket(port: int, *, path: str = PATH, query: str = "", **options: Any) -> AsyncIterator[EngineSocket]:
    address = f"ws://127.0.0.1:{port}{path}?EIO=4&transport=websocket{query}"
    async with connect(address, **options) as connection:
        socket = EngineSocket(connection)
        if "sid=" not in query:
            socket.opening = json.loads((await socket.hear())[1:])
        yield socket


class Poller:
    """A client that polls."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self.http = http
        self.sid = ""

    async def request(self, method: str = "GET", **options: Any) -> httpx.Response:
        params = {"EIO": "4", "transport": "polling", **({"sid": self.sid} if self.sid else {})}
        return await self.http.request(method, PATH, params=params, **options)

    async def open(self) -> None:
        answer = await self.request()
        assert answer.status_code == 200, answer.text
        self.sid = json.loads(answer.text[1:])["sid"]

    async def poll(self) -> list[str]:
        answer = await self.request()
        assert answer.status_code == 200, answer.text
        return answer.text.split("\x1e")

    async def post(self, *packets: str) -> httpx.Response:
        return await self.request("POST", content="\x1e".join(packets))

    async def join(self, namespace: str = "/noop") -> None:
        """Connect to a namespace, and take its snapshot."""
        assert (await self.post(f"40{namespace},")).status_code == 200
        packets: list[str] = []
        while not any('"snapshot"' in packet for packet in packets):
            packets += await self.poll()


@asynccontextmanager
async def poller(port: int) -> AsyncIterator[Poller]:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=HEAR_SECONDS) as http:
        client = Poller(http)
        await client.open()
        yield client
