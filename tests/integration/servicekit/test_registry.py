"""Registration and discovery together, with the registry of the local cluster in place of Consul."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from headrace.local.consul import RegistryServer
from servicekit import registry as registry_module
from servicekit.errors import Unavailable
from servicekit.grpc_server import GrpcServer
from servicekit.registry import ConsulRegistry, ServiceRegistration
from servicekit.settings import SettingsError
from tests.support.servers import RunningServer
from tests.support.waiting import wait_until


class LocalRegistry:
    """An agent in a process of its own; after a restart it has forgotten everything."""

    def __init__(self, root: Path) -> None:
        self._server = RegistryServer(root / "server", consul=None)
        self._server.prepare()
        self._running = RunningServer(self._server, log=root / "registry.log")
        self.url = self._server.url

    async def start(self) -> None:
        await asyncio.to_thread(self._running.start)

    async def kill(self) -> None:
        await asyncio.to_thread(self._running.kill)

    def close(self) -> None:
        self._running.close()


@pytest.fixture
async def local(tmp_path: Path) -> AsyncIterator[LocalRegistry]:
    local = LocalRegistry(tmp_path)
    await local.start()
    yield local
    local.close()


@pytest.fixture
async def registry(local: LocalRegistry) -> AsyncIterator[ConsulRegistry]:
    registry = ConsulRegistry(local.url)
    yield registry
    await registry.close()


@pytest.fixture
async def server() -> AsyncIterator[GrpcServer]:
    server = GrpcServer("127.0.0.1", 0)
    await server.start()
    server.set_serving(True)
    yield server
    await server.stop(0)


def registration(server: GrpcServer, service_id: str = "x-1") -> ServiceRegistration:
    return ServiceRegistration(
        name="x",
        service_id=service_id,
        host=lambda: "127.0.0.1",
        port=server.port,
        grpc_check=True,
        meta={"replica": "1"},
    )


async def test_a_replica_that_registers_is_found_and_one_that_leaves_is_not(
    local: LocalRegistry, registry: ConsulRegistry, server: GrpcServer
) -> None:
    watch = registry.watch("x")
    await watch.start()
    assert not watch.endpoints

    other = GrpcServer("127.0.0.1", 0)
    await other.start()
    leaving = ConsulRegistry(local.url)
    await registry.register(registration(server))
    await leaving.register(registration(other, "x-2"))
    await wait_until(lambda: len(watch.endpoints) == 2)
    assert {endpoint.address: dict(endpoint.meta) for endpoint in watch.endpoints} == {
        f"127.0.0.1:{server.port}": {"replica": "1"},
        f"127.0.0.1:{other.port}": {"replica": "1"},
    }

    await leaving.close()
    await other.stop(0)
    await wait_until(lambda: [end.service_id for end in watch.endpoints] == ["x-1"])
    await watch.stop()


async def test_a_replica_whose_check_fails_is_dropped(registry: ConsulRegistry) -> None:
    server = GrpcServer("127.0.0.1", 0)
    await server.start()
    watch = registry.watch("x")
    await registry.register(registration(server))
    await watch.start()
    await wait_until(lambda: watch.endpoints)
    await server.stop(0)
    await wait_until(lambda: not watch.endpoints)
    await watch.stop()


async def test_an_agent_that_forgot_everything_learns_it_again(
    local: LocalRegistry, registry: ConsulRegistry, server: GrpcServer
) -> None:
    watch = registry.watch("x")
    seen: list[int] = []
    watch.subscribe(lambda: seen.append(len(watch.endpoints)))
    await registry.register(registration(server))
    await watch.start()
    await local.kill()
    await local.start()

    await registry.keep_registered()

    fresh = registry.watch("x")
    await fresh.start()
    assert [end.service_id for end in fresh.endpoints] == ["x-1"]
    assert seen == [1]
    await watch.stop()
    await fresh.stop()


async def test_a_replica_whose_address_changes_is_found_at_the_new_one(
    registry: ConsulRegistry, server: GrpcServer
) -> None:
    """As in a container that was taken from its network and put back; meanwhile it has no address at all."""
    address: str | None = "127.0.0.2"

    def host() -> str:
        if address is None:
            raise ValueError("no address")
        return address

    await registry.register(replace(registration(server), host=host))
    address = None
    with pytest.raises(Unavailable, match="no address"):
        await registry.keep_registered()
    address = "127.0.0.1"
    await registry.keep_registered()

    watch = registry.watch("x")
    await watch.start()
    assert [end.address for end in watch.endpoints] == [f"127.0.0.1:{server.port}"]
    await watch.stop()


async def test_registering_returns_without_an_agent_and_is_made_up_for(
    local: LocalRegistry, server: GrpcServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry_module, "_LOOK_SECONDS", 0.05)
    await local.kill()
    registry = ConsulRegistry(local.url)
    await registry.register(registration(server))
    await local.start()
    watch = registry.watch("x")
    await watch.start()
    await wait_until(lambda: watch.endpoints)
    await watch.stop()
    await registry.close()


async def test_a_second_replica_of_the_same_name_is_refused_while_the_first_serves(
    local: LocalRegistry, registry: ConsulRegistry, server: GrpcServer
) -> None:
    await registry.register(registration(server))
    other = GrpcServer("127.0.0.1", 0)
    await other.start()
    second = ConsulRegistry(local.url)
    with pytest.raises(SettingsError, match=f"HEADRACE_REPLICA: .*x-1 serves at 127.0.0.1:{server.port}"):
        await second.register(registration(other))
    await second.close()
    watch = registry.watch("x")
    await watch.start()
    assert [end.address for end in watch.endpoints] == [f"127.0.0.1:{server.port}"]
    await watch.stop()
    await other.stop(0)


async def test_a_replica_that_died_leaves_its_name_to_the_next_also_where_its_address_was_given_away(
    local: LocalRegistry, registry: ConsulRegistry, server: GrpcServer
) -> None:
    dead = GrpcServer("127.0.0.1", 0)
    await dead.start()
    crashed = ConsulRegistry(local.url)
    await crashed.register(registration(dead))
    await dead.stop(0)
    await registry.register(registration(server))

    heir = ConsulRegistry(local.url)
    other = GrpcServer("127.0.0.1", 0)
    await other.start()
    await heir.register(registration(server, "x-2"))
    await heir.register(registration(other))
    for one in (crashed, heir):
        await one.close()
    await other.stop(0)


async def test_leaving_returns_without_an_agent(server: GrpcServer) -> None:
    registry = ConsulRegistry("http://127.0.0.1:1")
    await registry.register(registration(server))
    await registry.close()


async def test_an_http_service_is_checked_by_its_path(registry: ConsulRegistry) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    http = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = http.sockets[0].getsockname()[1]
    await registry.register(
        ServiceRegistration(name="web", service_id="web-1", host=lambda: "127.0.0.1", port=port, http_check="/readyz")
    )

    async def not_listed() -> bool:
        watch = registry.watch("web")
        await watch.follow()
        return not watch.endpoints

    await wait_until(not_listed)
    http.close()
    await http.wait_closed()
