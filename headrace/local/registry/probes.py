"""Asks a service whether it is well: by the standard gRPC health service, or by an HTTP GET."""

import asyncio
import contextlib
from urllib.parse import urlsplit

import grpc.aio

from headrace.local.registry.definitions import CheckDefinition, CheckStatus

# HealthCheckRequest and HealthCheckResponse have one field each. Written out here, they spare the memory of protobuf.
_HEALTH_CHECK = "/grpc.health.v1.Health/Check"
_SERVICE_FIELD = b"\x0a"
_SERVING = b"\x08\x01"
_CHANNEL_OPTIONS = (
    # A service that comes back shall be seen at the next check, not after a back-off of minutes.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.use_local_subchannel_pool", 1),
)
STATUS_LINE_MAX = 4_096


class Probe:
    """Carries out one check again and again over one channel. Close it at the end."""

    def __init__(self, definition: CheckDefinition) -> None:
        self._definition = definition
        self._channel: grpc.aio.Channel | None = None
        if definition.grpc:
            address, _, self._service = definition.grpc.partition("/")
            self._channel = grpc.aio.insecure_channel(address, options=_CHANNEL_OPTIONS)

    async def run(self) -> tuple[CheckStatus, str]:
        """Return what the service answered, within the timeout of the check. A failure is an answer too."""
        if self._channel is not None:
            return await self._ask_grpc(self._channel)
        try:
            async with asyncio.timeout(self._definition.timeout):
                return await _ask_http(self._definition.http)
        except (OSError, ValueError, asyncio.LimitOverrunError, asyncio.IncompleteReadError) as error:
            return CheckStatus.CRITICAL, f"HTTP GET {self._definition.http}: {type(error).__name__}: {error}"

    async def close(self) -> None:
        if self._channel is not None:
            await self._channel.close()

    async def _ask_grpc(self, channel: grpc.aio.Channel) -> tuple[CheckStatus, str]:
        name = self._service.encode()
        request = _SERVICE_FIELD + bytes([len(name)]) + name if name else b""
        try:
            ask: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(_HEALTH_CHECK)
            answer = await ask(request, timeout=self._definition.timeout)
        except grpc.aio.AioRpcError as error:
            return CheckStatus.CRITICAL, f"gRPC check {self._definition.grpc}: {error.code().name}: {error.details()}"
        if answer == _SERVING:
            return CheckStatus.PASSING, f"gRPC check {self._definition.grpc}: success"
        return CheckStatus.CRITICAL, f"gRPC check {self._definition.grpc}: not serving"


async def _ask_http(url: str) -> tuple[CheckStatus, str]:
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port or 80, limit=STATUS_LINE_MAX)
    try:
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        writer.write(f"GET {target} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n\r\n".encode())
        line = (await reader.readuntil(b"\r\n")).decode("latin-1").strip()
        code = int(line.split()[1])
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    return _status_of_http_code(code), f"HTTP GET {url}: {line}"


def _status_of_http_code(code: int) -> CheckStatus:
    if 200 <= code < 300:
        return CheckStatus.PASSING
    return CheckStatus.WARNING if code == 429 else CheckStatus.CRITICAL
