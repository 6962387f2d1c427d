"""`python -m gateway`: the REST and WebSocket edge of Headrace."""

import asyncio
import time

import structlog

from gateway.app import create_app
from gateway.core import Gateway
from gateway.execution import Execution
from gateway.settings import GatewaySettings
from headrace.v1.execution_pb2_grpc import ExecutionServiceStub
from headrace.v1.management_pb2_grpc import ManagementServiceStub
from servicekit.consul_watch import ConsulWatch
from servicekit.http.server import EmbeddedServer, build_server, listen
from servicekit.logs import configure_logging
from servicekit.open_files import allow_open_files
from servicekit.registry import ConsulRegistry, ServiceRegistration
from servicekit.replica_pool import ReplicaPool
from servicekit.runtime import run_service
from servicekit.settings import describe, load_settings

log = structlog.stdlib.get_logger(__name__)

SERVICE = "headrace-gateway"
MANAGEMENT = "headrace-management"
EXECUTION = "headrace-execution"
# Connections to Redis, management and the registry, and what libraries open.
_OTHER_FILES = 200
# How long others may take to hear from the registry that this gateway goes, before it ends what lasts.
_LEAVE_SECONDS = 1.0
# So long a gateway that cannot take tasks yet refuses connections, by which a proxy turns to another one. Then it says
# what is missing.
_FIRST_READY_SECONDS = 3.0
_LOOK_SECONDS = 0.02
# What is in flight to stores may take so long, once no request waits for it any more.
_CLOSE_SECONDS = 2.5


async def main(stop: asyncio.Event) -> None:
    settings = load_settings(GatewaySettings)
    configure_logging(SERVICE, settings.replica, settings.log_level, settings.log_format)
    log.info("service_starting", settings=describe(settings))
    allow_open_files(settings.connections_max + _OTHER_FILES)
    listener = listen(settings.host, settings.http_port)
    port = listener.getsockname()[1]
    token = settings.consul_token
    registry = ConsulRegistry(settings.consul_url, token.get_secret_value() if token else None)
    watch = registry.watch(MANAGEMENT)
    pool = ReplicaPool(watch, ManagementServiceStub)
    # One that fails its check is to be named as unreachable, not left out.
    execution_watch = registry.watch(EXECUTION, passing=False)
    execution_pool = ReplicaPool(execution_watch, ExecutionServiceStub)
    gateway = Gateway(settings, pool, Execution(execution_watch, execution_pool))
    server = build_server(create_app(gateway), connections_max=settings.connections_max, grace=settings.grace)
    serving: asyncio.Task[None] | None = None
    try:
        await _unless_stopped(stop, asyncio.create_task(_connect(watch, execution_watch, gateway)))
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        await _unless_stopped(stop, asyncio.create_task(registry.register(_registration(settings, port))))
        if not stop.is_set():
            log.info("service_started", host=settings.host, port=port)
        await _unless_stopped(stop, serving, cancel=False)
        if not stop.is_set():
            raise RuntimeError("the HTTP server ended by itself")
    finally:
        await _stop_serving(gateway, registry, server, serving)
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                await gateway.close()
                await pool.close()
                await execution_pool.close()
                await watch.stop()
                await execution_watch.stop()
                await registry.close()
        except TimeoutError:
            log.warning("stopped_unclosed", seconds=_CLOSE_SECONDS)


async def _connect(watch: ConsulWatch, execution_watch: ConsulWatch, gateway: Gateway) -> None:
    """Connect to everything, and wait a moment until that is enough to take tasks."""
    await asyncio.gather(watch.start(), execution_watch.start())
    await gateway.start()
    deadline = time.monotonic() + _FIRST_READY_SECONDS
    while not gateway.readiness.ready:
        if time.monotonic() >= deadline:
            log.warning("not_ready_yet", problems=gateway.readiness.problems())
            break
        await asyncio.sleep(_LOOK_SECONDS)


def _registration(settings: GatewaySettings, port: int) -> ServiceRegistration:
    return ServiceRegistration(
        name=SERVICE,
        service_id=f"{SERVICE}-{settings.replica}",
        host=settings.current_host,
        port=port,
        http_check="/readyz",
        meta={"replica": settings.replica},
    )


async def _unless_stopped(stop: asyncio.Event, work: asyncio.Task[None], *, cancel: bool = True) -> None:
    """Wait for `work`, and raise what it raised, or for the order to stop, which ends work that may be cancelled."""
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait((stopped, work), return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if cancel and stop.is_set():
        work.cancel()
        await asyncio.wait([work])
    elif work.done():
        await work


async def _stop_serving(
    gateway: Gateway, registry: ConsulRegistry, server: EmbeddedServer, serving: asyncio.Task[None] | None
) -> None:
    """Say that it is not ready, leave the registry, end live streams, answer the requests that were begun."""
    gateway.draining = True
    leaving = asyncio.create_task(registry.deregister())
    await asyncio.wait([leaving], timeout=_LEAVE_SECONDS)
    await gateway.drain()
    server.should_exit = True
    if serving is not None:
        _, unfinished = await asyncio.wait([serving], timeout=gateway.settings.grace.total_seconds())
        if unfinished:
            log.warning("requests_interrupted", count=gateway.interrupts.fire())
            await asyncio.wait([serving])
    await asyncio.wait([leaving], timeout=_LEAVE_SECONDS)


if __name__ == "__main__":
    run_service(main)
