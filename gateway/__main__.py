"""`python -m gateway`: the REST and WebSocket edge of Headrace."""

import asyncio

import structlog

from gateway.app import create_app
from gateway.core import Gateway
from gateway.server import EmbeddedServer, allow_open_files, build_server, listen
from gateway.settings import GatewaySettings
from headrace.v1.management_pb2_grpc import ManagementServiceStub
from servicekit.logs import configure_logging
from servicekit.registry import ConsulRegistry, ServiceRegistration
from servicekit.replica_pool import ReplicaPool
from servicekit.runtime import run_service
from servicekit.settings import describe, load_settings

log = structlog.stdlib.get_logger(__name__)

SERVICE = "headrace-gateway"
MANAGEMENT = "headrace-management"
# Connections to Redis, management and the registry, and what libraries open.
_OTHER_FILES = 200


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
    await watch.start()
    pool = ReplicaPool(watch, ManagementServiceStub)
    gateway = Gateway(settings, pool)
    await gateway.start()
    server = build_server(create_app(gateway), settings)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        await registry.register(_registration(settings, port))
        log.info("service_started", host=settings.host, port=port)
        await _until_stopped(stop, serving)
    finally:
        await _stop_serving(gateway, registry, server, serving)
        await gateway.close()
        await pool.close()
        await watch.stop()
        await registry.close()


def _registration(settings: GatewaySettings, port: int) -> ServiceRegistration:
    return ServiceRegistration(
        name=SERVICE,
        service_id=f"{SERVICE}-{settings.replica}",
        host=settings.advertise_host,
        port=port,
        http_check="/readyz",
        meta={"replica": settings.replica},
    )


async def _until_stopped(stop: asyncio.Event, serving: asyncio.Task[None]) -> None:
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait((stopped, serving), return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if serving.done() and not stop.is_set():
        await serving  # raises what ended the server
        raise RuntimeError("the HTTP server ended by itself")


async def _stop_serving(
    gateway: Gateway, registry: ConsulRegistry, server: EmbeddedServer, serving: asyncio.Task[None]
) -> None:
    """Leave the registry, end live streams, answer the requests that were begun."""
    await registry.deregister()
    await gateway.drain()
    server.should_exit = True
    await asyncio.wait([serving])


if __name__ == "__main__":
    run_service(main)
