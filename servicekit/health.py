"""The standard gRPC health service: live answers, computed when somebody asks."""

import asyncio
from collections.abc import AsyncIterator, Iterable

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from servicekit.errors import NotFound, Overloaded
from servicekit.readiness import Readiness

SERVICE_NAME = "grpc.health.v1.Health"
_Response = health_pb2.HealthCheckResponse
_Context = grpc.aio.ServicerContext[health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse]
# Readiness changes by itself, so a watcher looks again this often.
_LOOK_AGAIN_SECONDS = 1.0
_WATCHERS_MAX = 100


class HealthServicer(health_pb2_grpc.HealthServicer):  # type: ignore[misc]
    """The empty name means the process: SERVING until it stops. A service is SERVING while it may get work: `serving`
    was set and every check of its readiness passes.
    """

    def __init__(self, readiness: Readiness | None) -> None:
        self._readiness = readiness or Readiness()
        self._services: set[str] = set()
        self._serving = False
        self._stopped = False
        self._changed = asyncio.Event()
        self._watchers = 0

    def add_services(self, names: Iterable[str]) -> None:
        self._services.update(names)

    def set_serving(self, serving: bool) -> None:
        self._serving = serving
        self._announce()

    def stop(self) -> None:
        """Answer NOT_SERVING from now on and end the streams of all watchers."""
        self._serving, self._stopped = False, True
        self._announce()

    async def Check(  # noqa: N802 - named by the contract
        self, request: health_pb2.HealthCheckRequest, context: _Context
    ) -> health_pb2.HealthCheckResponse:
        status = self._status(request.service)
        if status == _Response.SERVICE_UNKNOWN:
            raise NotFound("no such service here", code="service_unknown")
        return _Response(status=status)

    async def Watch(  # noqa: N802 - named by the contract
        self, request: health_pb2.HealthCheckRequest, context: _Context
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        if self._watchers >= _WATCHERS_MAX:
            raise Overloaded("too many watchers")
        self._watchers += 1
        try:
            last = None
            while True:
                changed, status = self._changed, self._status(request.service)
                if status != last:
                    yield _Response(status=status)
                    last = status
                if self._stopped:
                    return
                await _wait(changed, _LOOK_AGAIN_SECONDS)
        finally:
            self._watchers -= 1

    def _status(self, service: str) -> int:
        if service == "":
            well = not self._stopped
        elif service in self._services:
            well = self._serving and self._readiness.ready
        else:
            return int(_Response.SERVICE_UNKNOWN)
        return int(_Response.SERVING if well else _Response.NOT_SERVING)

    def _announce(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass
