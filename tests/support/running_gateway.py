"""A whole gateway inside the test's event loop: real HTTP, real Redis, a management service in memory."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx

from gateway.app import create_app
from gateway.core import Gateway
from gateway.execution import Execution
from gateway.settings import GatewaySettings
from headrace.v1.execution_pb2_grpc import ExecutionServiceStub
from headrace.v1.management_pb2_grpc import ManagementServiceStub
from servicekit.discovery import ServiceWatch, StaticWatch
from servicekit.http.server import EmbeddedServer, build_server, listen
from servicekit.replica_pool import ReplicaPool
from tests.support.fake_management import FakeManagement, serve
from tests.support.waiting import wait_until


@dataclass(slots=True)
class RunningGateway:
    gateway: Gateway
    management: FakeManagement
    client: httpx.AsyncClient
    server: EmbeddedServer
    serving: asyncio.Task[None]
    port: int

    async def drain(self) -> None:
        """What SIGTERM does."""
        self.gateway.draining = True
        await self.gateway.drain()
        self.server.should_exit = True
        _, unfinished = await asyncio.wait([self.serving], timeout=self.gateway.settings.grace.total_seconds())
        if unfinished:
            self.gateway.interrupts.fire()
        await self.serving


@asynccontextmanager
async def run_gateway(
    redis_url: str, management: FakeManagement, executors: ServiceWatch | None = None, **settings: object
) -> AsyncIterator[RunningGateway]:
    """Run it until it is ready to take tasks. Without `executors` it knows no execution replicas."""
    chosen = GatewaySettings.model_validate({"replica": "gateway-test", "redis_url": redis_url, **settings})
    async with serve(management) as address:
        pool = ReplicaPool(StaticWatch([address]), ManagementServiceStub)
        watch = executors or StaticWatch()
        execution_pool = ReplicaPool(watch, ExecutionServiceStub)
        gateway = Gateway(chosen, pool, Execution(watch, execution_pool))
        await gateway.start()
        listener = listen("127.0.0.1", 0)
        port = listener.getsockname()[1]
        server = build_server(create_app(gateway), connections_max=chosen.connections_max, grace=chosen.grace)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
            running = RunningGateway(gateway, management, client, server, serving, port)
            await wait_until(lambda: gateway.readiness.ready and server.started)
            try:
                yield running
            finally:
                await running.drain()
                await gateway.close()
                await pool.close()
                await execution_pool.close()
