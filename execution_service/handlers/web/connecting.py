"""Connections that are made only to an address that was looked up once and judged here.

Judging a name and connecting to that name are two look-ups, and between them the answer can change (DNS rebinding).
So the connection goes to the very address that was judged; the name stays what TLS and the `Host` header speak of.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from ipaddress import ip_address
from ssl import SSLContext
from typing import Any

import httpcore

from execution_service.handlers.web.addresses import Address, may_be_called
from execution_service.handlers.web.failures import failure

# Of the addresses of a name, this many are tried, and each gets as many seconds at most.
ADDRESSES_MAX = 3
ADDRESS_SECONDS_MAX = 3.0

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
# What httpcore takes as an option of a socket.
_Option = tuple[int, int, int] | tuple[int, int, bytes | bytearray] | tuple[int, int, None, int]


async def resolve(host: str, port: int) -> Sequence[str]:
    """Return the addresses of a name, the best first. Raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]


class JudgingBackend(httpcore.AsyncNetworkBackend):
    """Makes the connections of a pool; see the module's text."""

    def __init__(self, resolve: Resolve, *, private: bool, network: httpcore.AsyncNetworkBackend | None = None) -> None:
        self._resolve = resolve
        self._private = private
        self._network = network or httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[_Option] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to the first address of the name that answers. Raises PermanentError `unsafe_url`."""
        addresses = await self._addresses(host, port)
        for address in addresses[: ADDRESSES_MAX - 1]:
            try:
                return await self._connect(address, port)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
        return await self._connect(addresses[-1], port)

    async def _addresses(self, host: str, port: int) -> Sequence[Address]:
        try:
            addresses: list[Address] = [ip_address(host)]
        except ValueError:
            addresses = [ip_address(text) for text in await self._resolve(host, port)]
        for address in addresses:
            # One bad address is enough: a name that has both kinds is made to get past such a check.
            if not may_be_called(address, private=self._private):
                cause = ValueError(f"{host} has the address {address}")  # for the log; users are not told
                raise failure("unsafe_url", "Its address is not on the public Internet.") from cause
        return addresses[:ADDRESSES_MAX]

    async def _connect(self, address: Address, port: int) -> httpcore.AsyncNetworkStream:
        return _Connection(await self._network.connect_tcp(str(address), port, timeout=ADDRESS_SECONDS_MAX))


class _Connection(httpcore.AsyncNetworkStream):
    """A connection that is closed when it is cancelled while TLS is set up: httpcore would leave it open."""

    def __init__(self, stream: httpcore.AsyncNetworkStream) -> None:
        self._stream = stream

    async def start_tls(
        self, ssl_context: SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.AsyncNetworkStream:
        try:
            return await self._stream.start_tls(ssl_context, server_hostname, timeout)
        except asyncio.CancelledError:
            await self._stream.aclose()
            raise

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return await self._stream.read(max_bytes, timeout)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._stream.aclose()

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
