"""What the stand-in does beside its contract: it bounds what clients may do, and forgets them when they go."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest

from headrace.local.registry import http_server
from headrace.local.registry.agent import Agent
from headrace.local.registry.api import ConsulApi
from headrace.local.registry.http_server import HttpServer
from servicekit.registry import ConsulRegistry, ServiceRegistration
from tests.support.waiting import wait_until


class StandIn:
    """The registry inside the test's own process, where it can be restarted and looked into."""

    def __init__(self) -> None:
        self.port = 0

    async def start(self) -> None:
        self.agent = Agent()
        self.agent.start()
        self._server = HttpServer(ConsulApi(self.agent).answer)
        self.port = await self._server.start("127.0.0.1", self.port)

    async def stop(self) -> None:
        await self._server.stop()
        await self.agent.stop()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@pytest.fixture
async def stand_in() -> AsyncIterator[StandIn]:
    registry = StandIn()
    await registry.start()
    yield registry
    await registry.stop()


async def exchange(port: int, request: bytes) -> bytes:
    """Send raw bytes and return everything up to the end of the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    answer = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    await writer.wait_closed()
    return answer


async def test_our_client_finds_its_way_back_after_a_restart(stand_in: StandIn) -> None:
    registry = ConsulRegistry(stand_in.url)
    watch = registry.watch("kept")
    await watch.start()
    await registry.register(ServiceRegistration(name="kept", service_id="kept-1", host=lambda: "127.0.0.1", port=9))
    await wait_until(lambda: len(watch.endpoints) == 1)
    await stand_in.stop()
    await stand_in.start()
    await wait_until(lambda: len(stand_in.agent.catalog.services()) == 1, timeout=15)
    await wait_until(lambda: len(watch.endpoints) == 1)
    await watch.stop()
    await registry.close()


async def test_a_client_that_hangs_up_is_not_waited_for(stand_in: StandIn) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", stand_in.port)
    writer.write(b"GET /v1/health/service/x?index=1&wait=10m HTTP/1.1\r\n\r\n")
    await wait_until(lambda: stand_in.agent.waiting == 1)
    writer.close()
    await writer.wait_closed()
    await wait_until(lambda: stand_in.agent.waiting == 0)


async def test_requests_on_one_connection_are_answered_in_turn(stand_in: StandIn) -> None:
    request = b"GET /v1/status/leader HTTP/1.1\r\n\r\n"
    last = b"GET /v1/agent/services HTTP/1.1\r\nConnection: close\r\n\r\n"
    answer = await exchange(stand_in.port, request + request + last)
    assert answer.count(b"HTTP/1.1 200 OK") == 3
    assert answer.endswith(b"{}")


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"PUT /v1/agent/service/register HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        (b"PUT /v1/agent/service/register HTTP/1.1\r\nContent-Length: 9999999\r\n\r\n", 413),
        (b"PUT /v1/agent/service/register HTTP/1.1\r\nContent-Length: 9" + b"9" * 99 + b"\r\n\r\n", 413),
        (b"PUT /v1/agent/service/register HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 411),
        (b"GET / HTTP/1.1\r\nlong: " + b"x" * 17_000 + b"\r\n\r\n", 431),
    ],
)
async def test_a_request_that_cannot_be_served_ends_the_connection(
    stand_in: StandIn, request_bytes: bytes, status: int
) -> None:
    answer = await exchange(stand_in.port, request_bytes)
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())


async def test_a_connection_too_many_is_refused(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "CONNECTIONS_MAX", 0)
    assert (await exchange(stand_in.port, b"")).startswith(b"HTTP/1.1 429 ")


async def test_parameters_that_would_change_the_answer_are_refused(stand_in: StandIn) -> None:
    async with httpx.AsyncClient(base_url=stand_in.url, trust_env=False) as client:
        response = await client.get("/v1/health/service/x", params={"filter": "Service.Port == 1"})
    assert response.status_code == 400
    assert "filter" in response.text


async def test_an_agent_that_stops_leaves_no_check_behind(stand_in: StandIn) -> None:
    check = {"grpc": "127.0.0.1:1", "interval": "1s"}
    async with httpx.AsyncClient(base_url=stand_in.url, trust_env=False) as client:
        body = {"name": "x", "id": "x-1", "checks": [check]}
        for _ in range(3):  # the same again is not checked twice
            (await client.put("/v1/agent/service/register", json=body)).raise_for_status()
        assert stand_in.agent.probing == 1
        (await client.put("/v1/agent/service/deregister/x-1")).raise_for_status()
    assert stand_in.agent.probing == 0
