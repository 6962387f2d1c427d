"""WebSocket clients that do what they should not: each is answered or closed, and costs the gateway little."""

import asyncio
import contextlib
import json
import os
import socket
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import pytest
from websockets.exceptions import ConnectionClosed

from headrace.v1.task_pb2 import TaskStatus
from servicekit.http.socket_protocol import PINGS_MAX, BoundedSocketProtocol
from servicekit.live.message_rate import MESSAGES_MAX
from servicekit.live.websocket import BAD_MESSAGES_MAX
from tests.support.fake_management import FakeManagement
from tests.support.live import Publisher, open_socket
from tests.support.running_gateway import RunningGateway, run_gateway
from tests.support.waiting import wait_until

PROCESSING = TaskStatus.TASK_STATUS_PROCESSING
TEXT, BINARY, CONTINUED, CLOSE, PING, PONG = 1, 2, 0, 8, 9, 10
FIN = 0x80
HANDSHAKE = {
    "Host": "127.0.0.1",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
    "Sec-WebSocket-Version": "13",
}


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, flags: int = 0, masked: bool = True) -> bytes:
    """One frame as it is on the wire, however wrong; masked with zeros, which change nothing."""
    first = (FIN if fin else 0) | flags | opcode
    mask = 0x80 if masked else 0
    if len(payload) < 126:
        size = bytes([mask | len(payload)])
    elif len(payload) < 2**16:
        size = bytes([mask | 126]) + len(payload).to_bytes(2, "big")
    else:
        size = bytes([mask | 127]) + len(payload).to_bytes(8, "big")
    return bytes([first]) + size + (b"\0\0\0\0" if masked else b"") + payload


class Wire:
    """A TCP connection on which a WebSocket was opened by hand."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def hear(self) -> tuple[int, bytes]:
        """Opcode and payload of the next frame."""
        async with asyncio.timeout(10):
            first, second = await self.reader.readexactly(2)
            size = second & 0x7F
            if size == 126:
                size = int.from_bytes(await self.reader.readexactly(2), "big")
            elif size == 127:
                size = int.from_bytes(await self.reader.readexactly(8), "big")
            return first & 0x0F, await self.reader.readexactly(size)

    async def close_code(self) -> int:
        """The code with which the gateway closes."""
        while True:
            opcode, payload = await self.hear()
            if opcode == CLOSE:
                return int.from_bytes(payload[:2], "big")

    async def is_ended(self, within: float) -> bool:
        async with asyncio.timeout(within):
            with contextlib.suppress(ConnectionResetError):  # what we sent was not read any more
                while await self.reader.read(65_536):
                    pass
        return True


async def request(port: int, path: str, headers: Mapping[str, str], *, method: str = "GET") -> Wire:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    writer.write("\r\n".join(head).encode() + b"\r\n\r\n")
    return Wire(reader, writer)


@asynccontextmanager
async def opened(port: int, path: str = "/ws/tasks") -> AsyncIterator[Wire]:
    """An open WebSocket whose snapshot was heard."""
    wire = await request(port, path, HANDSHAKE)
    try:
        head = await asyncio.wait_for(wire.reader.readuntil(b"\r\n\r\n"), 5)
        assert b" 101 " in head, head
        assert b"permessage-deflate" not in head
        opcode, payload = await wire.hear()
        assert (opcode, json.loads(payload)["event"]) == (TEXT, "snapshot")
        yield wire
    finally:
        wire.writer.close()


async def status_of(wire: Wire) -> int:
    line = await asyncio.wait_for(wire.reader.readline(), 5)
    wire.writer.close()
    return int(line.split()[1])


@pytest.fixture(autouse=True)
def _one_task(publisher: Publisher) -> None:
    """Task 7 is there, and the gateway hears of it."""


@pytest.mark.parametrize(
    ("changed", "statuses"),
    [
        ({"Sec-WebSocket-Version": "12"}, {400, 426}),
        ({"Sec-WebSocket-Key": ""}, {400}),
        ({"Sec-WebSocket-Key": "AAAA"}, {400}),
        ({"Upgrade": "h2c"}, {404, 405, 426}),
    ],
)
async def test_a_handshake_that_is_none_is_refused(
    running: RunningGateway, changed: dict[str, str], statuses: set[int]
) -> None:
    wire = await request(running.port, "/ws/tasks", {**HANDSHAKE, **changed})
    assert await status_of(wire) in statuses


async def test_other_requests_for_a_socket_are_refused(running: RunningGateway) -> None:
    assert await status_of(await request(running.port, "/ws/tasks", {"Host": "x"})) == 404
    assert await status_of(await request(running.port, "/ws/tasks", HANDSHAKE, method="POST")) in (400, 405)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame(BINARY, b"{}"), 1003),
        (frame(TEXT, b"\xff\xfe"), 1007),
        (frame(TEXT, b'"\xed\xa0\x80"'), 1007),
        (frame(TEXT, b"x" * (64 * 1024 + 1)), 1009),
        (frame(TEXT, b"x" * 70, fin=False) + frame(CONTINUED, b"x" * 70, fin=False) * 999, 1009),
        (frame(TEXT, b"x", fin=False) + frame(CONTINUED, b"x", fin=False) * 70_000, 1009),
        (frame(TEXT, b"", fin=False) + frame(CONTINUED, b"", fin=False) * 5_000, 1009),
        (frame(TEXT, b"{}", flags=0x40), 1002),
        (frame(3, b"{}"), 1002),
        (frame(11), 1002),
        (frame(TEXT, b"{}", masked=False), 1002),
        (frame(PING, b"x", fin=False), 1002),
        (frame(PING, b"x" * 126), 1002),
        (frame(CLOSE, (1005).to_bytes(2, "big")), 1002),
        (frame(CLOSE, (1006).to_bytes(2, "big")), 1002),
        (frame(CLOSE, (999).to_bytes(2, "big")), 1002),
        (frame(CLOSE, (5000).to_bytes(2, "big")), 1002),
        (frame(CLOSE, (1000).to_bytes(2, "big") + b"x" * 200), 1002),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 1002),
    ],
    ids=lambda value: value[:12].hex() + str(len(value)) if isinstance(value, bytes) else str(value),
)
async def test_what_breaks_the_protocol_ends_the_connection(
    running: RunningGateway, monkeypatch: pytest.MonkeyPatch, data: bytes, code: int
) -> None:
    monkeypatch.setattr("servicekit.http.socket_protocol.CLOSE_SECONDS", 0.2)
    async with opened(running.port) as wire:
        await wire.send(data)
        assert await wire.close_code() == code
        assert await wire.is_ended(within=5)
    await wait_until(lambda: not running.gateway.live.sockets)


async def test_a_close_reason_that_is_no_text_breaks_the_protocol(running: RunningGateway) -> None:
    async with opened(running.port) as wire:
        await wire.send(frame(CLOSE, (1000).to_bytes(2, "big") + b"\xff"))
        assert await wire.close_code() in (1002, 1007)


async def test_what_follows_a_close_is_not_read(running: RunningGateway) -> None:
    async with opened(running.port) as wire:
        await wire.send(frame(CLOSE, (1000).to_bytes(2, "big")) + frame(TEXT, b"{") * 3)
        assert await wire.close_code() == 1000
        assert await wire.is_ended(within=5)


async def test_a_client_that_does_not_answer_a_close_is_cut_off(
    running: RunningGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("servicekit.http.socket_protocol.CLOSE_SECONDS", 0.2)
    async with opened(running.port) as wire:
        await wire.send(frame(BINARY, b"x"))
        assert await wire.close_code() == 1003
        assert await wire.is_ended(within=5)


async def test_ten_bad_messages_in_a_row_end_the_connection_and_a_good_one_forgives(running: RunningGateway) -> None:
    async with open_socket(running.port, "/ws/tasks") as client:
        await client.snapshot()
        for _ in range(BAD_MESSAGES_MAX - 1):
            await client.connection.send("{")
            assert (await client.event("error"))["code"] == "invalid_json"
        await client.subscribe()
        await client.snapshot()
        for _ in range(BAD_MESSAGES_MAX):
            await client.say({"type": "sub"})
            assert (await client.event("error"))["code"] == "unknown_message_type"
        assert await client.closed() == 4400


async def test_a_flood_of_messages_is_cut_and_ends_the_connection(running: RunningGateway) -> None:
    async with open_socket(running.port, "/ws/tasks") as client:
        await client.snapshot()
        await client.say({"type": "unsubscribe"})
        await client.event("subscribed")
        for number in range(500):
            await client.connection.send(json.dumps({"type": "unsubscribe", "ref": str(number)}))
        codes: list[str] = []
        with contextlib.suppress(ConnectionClosed):
            while True:
                codes.append((await client.hear())["data"].get("code", "taken"))
        assert client.connection.close_code == 4429
        assert 0 < codes.count("taken") <= 3 * MESSAGES_MAX
        assert "rate_limited" in codes


async def test_a_flood_of_pings_is_answered_in_part_and_harms_nobody(running: RunningGateway) -> None:
    async with opened(running.port) as wire:
        await wire.send(frame(PONG, b"unasked") + frame(PING, b"x") * 1_000)
        await wire.send(frame(TEXT, b'{"type":"unsubscribe"}'))
        pongs = 0
        while (heard := await wire.hear())[0] != TEXT:
            pongs += heard[0] == PONG
        assert 0 < pongs <= PINGS_MAX
        assert json.loads(heard[1])["event"] == "subscribed"


async def test_pings_of_a_client_that_reads_nothing_pile_up_no_answers(running: RunningGateway) -> None:
    async with opened(running.port) as wire:
        connections = running.server.server_state.connections
        [connection] = [each for each in connections if isinstance(each, BoundedSocketProtocol)]
        connection.pause_writing()
        for _ in range(20):
            await wire.send(frame(PING, b"x" * 125) * 100)
        # The answer waits until the client reads again, and is the only one.
        await wire.send(frame(TEXT, b'{"type":"unsubscribe"}'))
        await wait_until(lambda: not len(running.gateway.hub))
        connection.resume_writing()
        heard = [await wire.hear()]
        while heard[-1][0] != TEXT:
            heard.append(await wire.hear())
        assert len(heard) == 1


@pytest.mark.parametrize("path", ["/ws/tasks", "/ws/tasks/7"])
async def test_a_client_that_reads_nothing_is_cut_off(
    running: RunningGateway, publisher: Publisher, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setattr("servicekit.live.websocket.SEND_SECONDS", 0.2)
    monkeypatch.setattr("servicekit.http.socket_protocol.CLOSE_SECONDS", 0.2)
    with socket.socket() as receiver:
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        receiver.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(receiver, ("127.0.0.1", running.port))
        head = "".join(f"{name}: {value}\r\n" for name, value in HANDSHAKE.items())
        await loop.sock_sendall(receiver, f"GET {path} HTTP/1.1\r\n{head}\r\n".encode())
        await wait_until(lambda: running.gateway.live.sockets)
        for number in range(1, 3_000):
            await publisher.progress(7, number, 0.5, "x" * 3_000)
            if not running.gateway.live.sockets:
                break
        await wait_until(lambda: not running.gateway.live.sockets and not len(running.gateway.hub))
        await wait_until(lambda: not running.server.server_state.connections)


async def test_a_client_that_answers_no_ping_is_found(
    redis_url: str, management: FakeManagement, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("servicekit.http.server.PING_SECONDS", 0.2)
    monkeypatch.setattr("servicekit.http.server.PONG_SECONDS", 0.2)
    async with run_gateway(redis_url, management) as running, opened(running.port) as wire:
        began = time.monotonic()
        opcode, payload = await wire.hear()
        assert (opcode, len(payload)) == (PING, 4)
        assert await wire.close_code() == 1011
        assert await wire.is_ended(within=5)
        assert time.monotonic() - began < 5
        await wait_until(lambda: not running.gateway.live.sockets)


async def test_a_client_that_answers_pings_stays(
    redis_url: str, management: FakeManagement, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("servicekit.http.server.PING_SECONDS", 0.05)
    monkeypatch.setattr("servicekit.http.server.PONG_SECONDS", 5.0)
    async with run_gateway(redis_url, management) as running, opened(running.port) as wire:
        for _ in range(5):
            opcode, payload = await wire.hear()
            assert opcode == PING
            await wire.send(frame(PONG, payload))
        assert running.gateway.live.sockets


async def test_one_connection_too_many_is_refused_at_the_handshake(redis_url: str, management: FakeManagement) -> None:
    async with run_gateway(redis_url, management, connections_max=5) as running:
        await running.client.aclose()
        wires: list[Wire] = []
        try:
            for _ in range(5):
                wires.append(await request(running.port, "/ws/tasks", HANDSHAKE))
                head = await wires[-1].reader.readuntil(b"\r\n\r\n")
                assert b" 101 " in head
            crowded = await request(running.port, "/ws/tasks", HANDSHAKE)
            answer = await asyncio.wait_for(crowded.reader.read(), 5)
            head, _, body = answer.partition(b"\r\n\r\n")
            assert b" 503 " in head
            assert b"retry-after: 1" in head
            assert json.loads(body)["code"] == "overloaded"
            crowded.writer.close()
        finally:
            for wire in wires:
                wire.writer.close()
        await wait_until(lambda: not running.gateway.live.sockets)


async def test_clients_that_come_and_go_leave_no_files_open(running: RunningGateway) -> None:
    def open_files() -> int:
        return len(os.listdir("/proc/self/fd"))

    async def come_and_go() -> None:
        async with opened(running.port):
            pass

    await come_and_go()
    before = open_files()
    for _ in range(10):
        await asyncio.gather(*(come_and_go() for _ in range(20)))
    await wait_until(lambda: not running.gateway.live.sockets)
    await wait_until(lambda: open_files() <= before + 5)
