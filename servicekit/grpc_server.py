"""The gRPC server of a service: health, reflection, one way to turn errors into statuses, bounded messages."""

from collections.abc import Callable
from typing import Any, TypeVar

import grpc
import structlog
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from servicekit import health
from servicekit.discovery import address_of
from servicekit.grpc_channel import DEFAULT_MESSAGE_BYTES, message_size_options
from servicekit.readiness import Readiness
from servicekit.rpc_errors import ErrorInterceptor

log = structlog.stdlib.get_logger(__name__)

Servicer = TypeVar("Servicer")

_CONCURRENT_RPCS_MAX = 10_000
_OPTIONS = [
    # With it on, a second server on the same port would start without an error and take half of the calls.
    ("grpc.so_reuseport", 0),
    # Our clients ping every 5 s. Strikes are for strangers; one of them must not cost us a dispatch stream.
    ("grpc.http2.min_ping_interval_without_data_ms", 3_000),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 3_000),
    ("grpc.http2.max_ping_strikes", 0),
    # Finds clients that vanished in the middle of a stream.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
]


class GrpcServer:
    """Collects servicers, then serves them until it is stopped. Must be made inside the running event loop."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        max_message_bytes: int = DEFAULT_MESSAGE_BYTES,
        readiness: Readiness | None = None,
    ) -> None:
        self._address = address_of(host, port)
        self._server = grpc.aio.server(
            interceptors=[ErrorInterceptor()],
            options=[*_OPTIONS, *message_size_options(max_message_bytes)],
            maximum_concurrent_rpcs=_CONCURRENT_RPCS_MAX,
        )
        self._health = health.HealthServicer(readiness)
        self._names: list[str] = []
        self.port = 0

    def add(self, servicer_adder: Callable[[Servicer, Any], None], servicer: Servicer, full_service_name: str) -> None:
        """Serve `servicer`, for example `add(add_XServicer_to_server, X(), "headrace.v1.X")`."""
        servicer_adder(servicer, self._server)
        self._names.append(full_service_name)

    async def start(self) -> int:
        """Listen and return the port. OSError when the address cannot be bound. Health says NOT_SERVING until
        `set_serving(True)`.
        """
        self._health.add_services(self._names)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection([*self._names, health.SERVICE_NAME, reflection.SERVICE_NAME], self._server)
        try:
            self.port = self._server.add_insecure_port(self._address)
        except RuntimeError as error:
            raise OSError(f"cannot listen on {self._address}") from error
        await self._server.start()
        log.info("grpc_server_started", address=self._address, port=self.port, services=self._names)
        return self.port

    def set_serving(self, serving: bool) -> None:
        """Say in the health service whether this replica wants work. Its readiness is asked besides."""
        self._health.set_serving(serving)

    async def stop(self, grace: float) -> None:
        """Take no new calls, give those in progress `grace` seconds, then cancel them."""
        self._health.stop()
        await self._server.stop(grace)
