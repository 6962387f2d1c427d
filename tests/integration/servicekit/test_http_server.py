"""A server that stops leaves nobody in doubt whose request was on its way."""

import socket
import time
from collections.abc import AsyncIterator
from datetime import timedelta

import anyio.to_thread
import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from servicekit.http.protocol import LEAVING_SECONDS
from servicekit.http.server import HttpServer
from tests.support.waiting import wait_until

# What is in time counts here.
pytestmark = pytest.mark.alone

REQUEST = b"POST /tasks HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nmill"


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    body = await Request(scope, receive).body()
    await PlainTextResponse(body)(scope, receive, send)


class Client:
    """One connection, used from threads: the loop of the server may be busy meanwhile."""

    def __init__(self, port: int) -> None:
        self.connection = socket.create_connection(("127.0.0.1", port), timeout=10)

    def send(self) -> None:
        self.connection.sendall(REQUEST)

    def use(self) -> None:
        """Send a request and read its answer; the connection stays."""
        self.send()
        answer = b""
        while not answer.endswith(b"mill"):
            answer += self.connection.recv(65536)

    def answer(self) -> bytes:
        """What comes until the server closes the connection."""
        with self.connection:
            parts = []
            while part := self.connection.recv(65536):
                parts.append(part)
            return b"".join(parts)


@pytest.fixture
async def server() -> AsyncIterator[HttpServer]:
    server = HttpServer(echo, "127.0.0.1", 0, connections_max=100, grace=timedelta(seconds=5))
    yield server
    await server.stop()


def head_of_echo(answer: bytes) -> bytes:
    """The head of an answer that has to have come."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n"), answer
    assert body == b"mill"
    return head


async def test_a_request_that_comes_after_the_order_to_stop_is_answered(server: HttpServer) -> None:
    port = await server.start()
    fresh, used = Client(port), Client(port)
    await anyio.to_thread.run_sync(used.use)
    async with anyio.create_task_group() as group:
        group.start_soon(server.stop)
        await wait_until(lambda: is_refused(port))
        for client in (fresh, used):
            client.send()
            assert b"\r\nconnection: close" in head_of_echo(await anyio.to_thread.run_sync(client.answer))


async def test_who_waits_to_be_accepted_is_answered(server: HttpServer) -> None:
    port = await server.start()
    warm = Client(port)
    await anyio.to_thread.run_sync(warm.use)
    warm.connection.close()
    serving = server._server
    shutdown = serving.shutdown
    clients: list[Client] = []

    async def shutdown_with_a_queue(sockets: list[socket.socket] | None = None) -> None:
        # The loop accepts nobody in between.
        for _ in range(20):
            clients.append(Client(port))
            clients[-1].send()
        await shutdown(sockets)

    serving.shutdown = shutdown_with_a_queue  # type: ignore[method-assign]
    await server.stop()
    assert len(clients) == 20
    for client in clients:
        assert head_of_echo(client.answer())


async def test_idle_connections_do_not_hold_up_the_stop(server: HttpServer) -> None:
    port = await server.start()
    idle = Client(port)
    began = time.monotonic()
    await server.stop()
    assert time.monotonic() - began < LEAVING_SECONDS + 1
    assert idle.answer() == b""


def is_refused(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except ConnectionRefusedError:
        return True
    return False
