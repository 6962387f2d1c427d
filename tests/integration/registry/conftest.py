"""The registries that the contract suite runs against, and a service for them to check."""

import os
import shutil
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc.aio
import httpx
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from headrace.local.consul import RegistryServer
from tests.support.servers import RunningServer

STAND_IN = "stand-in"
REAL = "consul"


def _registries() -> list[str]:
    return [STAND_IN, *([REAL] if os.environ.get("CONSUL_HTTP_ADDR") or shutil.which(REAL) else [])]


@pytest.fixture(scope="session", params=_registries())
def registry_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The stand-in, and a real Consul where there is one."""
    if request.param == REAL and (address := os.environ.get("CONSUL_HTTP_ADDR")):
        yield address if "://" in address else f"http://{address}"
        return
    root: Path = tmp_path_factory.mktemp("registry")
    server = RegistryServer(root / "server", consul=shutil.which(REAL) if request.param == REAL else None)
    server.prepare()
    running = RunningServer(server, log=root / "registry.log")
    running.start()
    yield server.url
    running.close()


@pytest.fixture
async def consul(registry_url: str) -> AsyncIterator[httpx.AsyncClient]:
    token = os.environ.get("CONSUL_HTTP_TOKEN")
    headers = {"X-Consul-Token": token} if token else {}
    async with httpx.AsyncClient(base_url=registry_url, headers=headers, trust_env=False, timeout=20) as client:
        yield client


@pytest.fixture
async def service_name(consul: httpx.AsyncClient) -> AsyncIterator[str]:
    """A name that nothing else uses; what the test registers under it is removed."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    yield name
    for service in (await consul.get(f"/v1/health/service/{name}")).json():
        await consul.put(f"/v1/agent/service/deregister/{service['Service']['ID']}")


class CheckedService:
    """A gRPC server with nothing but the health service."""

    def __init__(self) -> None:
        self._health = health.aio.HealthServicer()
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        self.port = 0

    async def start(self) -> None:
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        await self._server.start()

    async def set_serving(self, name: str, *, serving: bool) -> None:
        response = health_pb2.HealthCheckResponse
        await self._health.set(name, response.SERVING if serving else response.NOT_SERVING)

    async def stop(self) -> None:
        await self._server.stop(0)


@pytest.fixture
async def checked_service() -> AsyncIterator[CheckedService]:
    service = CheckedService()
    await service.start()
    yield service
    await service.stop()
