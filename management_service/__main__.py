"""`python -m management_service`: one management replica."""

import asyncio
import random
from functools import partial

import structlog

from headrace.v1.execution_pb2_grpc import ExecutionServiceStub
from headrace.v1.management_pb2_grpc import add_ManagementServiceServicer_to_server
from management_service.manager import Manager, open_redis
from management_service.rpc.servicer import ManagementServicer
from management_service.settings import ManagementSettings
from servicekit.clock import SystemClock
from servicekit.grpc_server import GrpcServer
from servicekit.logs import configure_logging
from servicekit.migrations import migrate
from servicekit.postgres import Database
from servicekit.readiness import Readiness
from servicekit.registry import ConsulRegistry, ServiceRegistration
from servicekit.replica_pool import ReplicaPool
from servicekit.runtime import run_service
from servicekit.settings import describe, load_settings
from servicekit.updates import UpdateFeed

log = structlog.stdlib.get_logger(__name__)

SERVICE = "headrace.v1.ManagementService"
# A loop that has not finished a round for this long does not work.
_PROGRESS_SECONDS = 5.0
_DATABASE_CONNECTIONS = 12


async def main(stop: asyncio.Event) -> None:
    settings = load_settings(ManagementSettings)
    configure_logging("management", settings.replica, settings.log_level, settings.log_format)
    log.info("starting", settings=describe(settings))
    migration = asyncio.create_task(migrate(settings.postgres_dsn.get_secret_value(), "management_service.storage"))
    if not await _finished_first(migration, stop):
        return
    await _serve(settings, stop)


async def _serve(settings: ManagementSettings, stop: asyncio.Event) -> None:
    dsn, redis_url = settings.postgres_dsn.get_secret_value(), settings.redis_url.get_secret_value()
    database = Database(dsn, name="headrace-management", max_size=_DATABASE_CONNECTIONS)
    await database.open()
    redis = open_redis(redis_url)
    token = settings.consul_token.get_secret_value() if settings.consul_token else None
    registry = ConsulRegistry(settings.consul_url, token)
    watch = registry.watch("headrace-execution")
    await watch.start()
    manager = Manager(settings, database, redis, watch, clock=SystemClock(), rng=random.Random())
    execution = ReplicaPool(watch, ExecutionServiceStub)
    feed = UpdateFeed(redis_url)
    server = GrpcServer(settings.host, settings.grpc_port, readiness=_readiness(manager))
    servicer = ManagementServicer(
        store=manager.store,
        tasks=manager.tasks,
        executors=manager.executors,
        lifecycle=manager.lifecycle,
        ids=manager.ids,
        execution=execution,
        feed=feed,
    )
    server.add(add_ManagementServiceServicer_to_server, servicer, SERVICE)
    port = await server.start()
    manager.start()
    server.set_serving(True)
    await registry.register(_registration(settings, port))
    log.info("serving", port=port)
    await stop.wait()
    server.set_serving(False)
    await registry.deregister()
    await manager.stop()
    await servicer.end_streams()
    await feed.stop()
    await server.stop(settings.grace.total_seconds())
    await execution.close()
    await watch.stop()
    await registry.close()
    await redis.aclose()
    await database.close()


def _registration(settings: ManagementSettings, port: int) -> ServiceRegistration:
    return ServiceRegistration(
        name="headrace-management",
        service_id=f"headrace-management-{settings.replica}",
        host=settings.current_host,
        port=port,
        grpc_check=True,
        meta={"replica": settings.replica},
    )


async def _finished_first(task: "asyncio.Task[None]", stop: asyncio.Event) -> bool:
    """Wait for `task`; False when the order to stop came first."""
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait([task, stopping], return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not task.done():
        task.cancel()
        return False
    task.result()
    return True


def _readiness(manager: Manager) -> Readiness:
    """Ready means that the loops make progress, not that a port is open."""
    readiness = Readiness()
    for name, part in (
        ("leases", manager.leases),
        ("claims", manager.dispatcher),
        ("scheduler", manager.scheduler),
        ("reports", manager.reports),
    ):
        readiness.add(name, partial(part.problem, within=_PROGRESS_SECONDS))
    return readiness


if __name__ == "__main__":
    run_service(main)
