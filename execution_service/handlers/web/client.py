"""The client of handlers that ask an API: careful with where it connects, and bounded in everything; see the package.

It is made of httpcore, the part of httpx that speaks HTTP, and not of httpx: this way nothing has to be switched off.
No proxy and no password comes from the environment, no redirect is followed and no answer unpacked but here.
"""

import asyncio
import functools
import time
from collections.abc import AsyncGenerator
from ssl import SSLContext
from typing import NamedTuple

import httpcore

from execution_service.handlers.settings import handler_settings
from execution_service.handlers.web.bodies import Model, read_body, read_model, reason_in
from execution_service.handlers.web.connecting import JudgingBackend, Resolve, resolve
from execution_service.handlers.web.failures import failure, failure_of_exception, failure_of_status
from execution_service.handlers.web.urls import Target, parse_url, redirected
from headrace import __version__

# A call with all its redirects, and each wait for the API to say something.
CALL_SECONDS_MAX = 12.0
SILENCE_SECONDS_MAX = 6.0
# What a call leaves of the attempt's time, so that its own error is told and not the attempt's timeout.
SPARE_SECONDS = 0.5
REDIRECTS_MAX = 5
CONNECTIONS_MAX = 16
IDLE_SECONDS_MAX = 15.0
_REDIRECTS = (301, 302, 303, 307, 308)


class _Answer(NamedTuple):
    location: str | None
    body: bytes


class WebClient:
    """Gets JSON from APIs. To be used on one event loop."""

    def __init__(
        self,
        *,
        private_addresses: bool = False,
        resolve: Resolve = resolve,
        network: httpcore.AsyncNetworkBackend | None = None,
        ssl_context: SSLContext | None = None,
    ) -> None:
        """`private_addresses` allows this machine, private networks, and any port. The others are for tests."""
        self._private = private_addresses
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=ssl_context or _default_ssl_context(),
            max_connections=CONNECTIONS_MAX,
            max_keepalive_connections=CONNECTIONS_MAX,
            keepalive_expiry=IDLE_SECONDS_MAX,
            network_backend=JudgingBackend(resolve, private=private_addresses, network=network),
        )
        self._headers = [
            ("Accept", "application/json"),
            ("Accept-Encoding", "gzip"),
            ("User-Agent", f"headrace/{__version__}"),
        ]

    async def get(self, url: str, model: type[Model], *, deadline: float | None = None) -> Model:
        """Return what the API answers. Raises the coded errors of WEB_ERRORS, before `deadline` (monotonic seconds)."""
        left = CALL_SECONDS_MAX if deadline is None else deadline - time.monotonic() - SPARE_SECONDS
        try:
            async with asyncio.timeout(min(left, CALL_SECONDS_MAX)):
                body = await self._follow(url)
        except (httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError, OSError) as error:
            raise failure_of_exception(error) from error
        return read_model(model, body)

    async def close(self) -> None:
        """Close all connections."""
        await self._pool.aclose()

    async def _follow(self, url: str) -> bytes:
        target = parse_url(url, private=self._private)
        # Whoever configured the port of the URL meant it; what an answer leads to has to be more ordinary.
        ports = None if self._private else (target.port,)
        for _ in range(REDIRECTS_MAX + 1):
            location, body = await self._ask(target)
            if location is None:
                return body
            target = redirected(target, location, private=self._private, ports=ports)
        raise failure("too_many_redirects", f"At most {REDIRECTS_MAX} are followed.")

    async def _ask(self, target: Target) -> _Answer:
        # Made of the checked parts: there is no text left that could be read in another way.
        url = httpcore.URL(scheme=target.scheme, host=target.host, port=target.port, target=target.path)
        headers = [("Host", target.authority), *self._headers]
        # `connect` is for setting up TLS: how long connecting may take is for the backend to say.
        extensions = {"timeout": dict.fromkeys(("connect", "read", "write"), SILENCE_SECONDS_MAX)}
        async with self._pool.stream("GET", url, headers=headers, extensions=extensions) as response:
            status = response.status
            if status in _REDIRECTS:
                for name, value in response.headers:
                    if name.lower() == b"location":
                        return _Answer(value.decode("latin-1"), b"")
            elif status == 200:
                return _Answer(None, await read_body(response.headers, response.aiter_stream()))
            elif 400 <= status < 500:
                body = await read_body(response.headers, response.aiter_stream())
                raise failure_of_status(status, reason_in(body))
        raise failure_of_status(status)


async def web_client() -> WebClient:
    """Return the client of the running event loop. It is closed when the loop ends."""
    loop = asyncio.get_running_loop()
    held = _held.get(loop)
    if held is None:
        client = WebClient(private_addresses=handler_settings().private_addresses)
        held = _held[loop] = _Held(client, _until_the_loop_ends(loop, client))
        await anext(held.lifetime)
    return held.client


class _Held(NamedTuple):
    client: WebClient
    lifetime: AsyncGenerator[None, None]


_held: dict[asyncio.AbstractEventLoop, _Held] = {}


async def _until_the_loop_ends(loop: asyncio.AbstractEventLoop, client: WebClient) -> AsyncGenerator[None, None]:
    # Asynchronous generators are what a loop finishes before it closes (`shutdown_asyncgens`).
    try:
        yield
    finally:
        del _held[loop]
        await client.close()


@functools.cache
def _default_ssl_context() -> SSLContext:
    # Reading all certificates takes a tenth of a second.
    return httpcore.default_ssl_context()
