"""An asynchronous transport for the Consul client library, whose own one is made for another HTTP library."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import httpx
from consul import ACLPermissionDenied, base

REQUEST_SECONDS = 3.0
# Consul answers a blocking query up to a sixteenth later than asked; the rest is for the way.
_LATE_FACTOR = 1 + 1 / 16

Params = Sequence[tuple[str, Any]]
Callback = Callable[[base.Response], Any]


def open_consul(url: str, token: str | None, *, transport: httpx.AsyncBaseTransport | None = None) -> "AsyncConsul":
    """A client whose methods return awaitables, for the agent at `url`."""
    parts = urlsplit(url)
    client = httpx.AsyncClient(transport=transport, trust_env=False, follow_redirects=False)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return AsyncConsul(client, parts.hostname or "127.0.0.1", port, token, parts.scheme)


class AsyncConsul(base.Consul):  # type: ignore[misc]
    def __init__(self, client: httpx.AsyncClient, host: str, port: int, token: str | None, scheme: str) -> None:
        self._client = client
        super().__init__(host=host, port=port, token=token, scheme=scheme)
        # The library prefers CONSUL_HTTP_TOKEN; our settings alone decide.
        self.token = token

    def http_connect(self, host: str, port: int, scheme: str, verify: Any = True, cert: Any = None) -> "HttpxTransport":
        return HttpxTransport(self._client, host, port, scheme)

    async def close(self) -> None:
        await self._client.aclose()


class HttpxTransport(base.HTTPClient):  # type: ignore[misc]
    """What the library calls with a path and parameters; `callback` makes the answer of the response.

    Raises httpx.HTTPError, and consul.ACLPermissionDenied also for a list from which something was left out.
    """

    def __init__(self, client: httpx.AsyncClient, host: str, port: int, scheme: str) -> None:
        super().__init__(host, port, scheme)
        self._client = client

    async def get(
        self,
        callback: Callback,
        path: str,
        params: Params | None = None,
        headers: Mapping[str, str] | None = None,
        raw: bool = False,
    ) -> Any:
        return await self._request("GET", callback, path, params, headers, b"")

    async def put(
        self,
        callback: Callback,
        path: str,
        params: Params | None = None,
        data: str | bytes = "",
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        return await self._request("PUT", callback, path, params, headers, data)

    async def delete(
        self,
        callback: Callback,
        path: str,
        params: Params | None = None,
        data: str | bytes = "",
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        return await self._request("DELETE", callback, path, params, headers, data)

    async def post(
        self,
        callback: Callback,
        path: str,
        params: Params | None = None,
        data: str | bytes = "",
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        return await self._request("POST", callback, path, params, headers, data)

    async def close(self) -> None:
        await self._client.aclose()

    async def _request(
        self,
        method: str,
        callback: Callback,
        path: str,
        params: Params | None,
        headers: Mapping[str, str] | None,
        data: str | bytes,
    ) -> Any:
        response = await self._client.request(
            method,
            self.uri(path, params),
            headers=dict(headers or {}),
            content=data,
            timeout=httpx.Timeout(REQUEST_SECONDS, read=REQUEST_SECONDS + _wait_seconds(params)),
        )
        # Without a token, or with one that may see a part, Consul answers 200 and leaves out the rest.
        if response.headers.get("X-Consul-Results-Filtered-By-ACLs") == "true":
            raise ACLPermissionDenied(f"the token may not see all that {path} lists")
        return callback(base.Response(response.status_code, response.headers, response.text))


def _wait_seconds(params: Params | None) -> float:
    """How long the agent was asked to hold the answer back: `wait=30s` of a blocking query."""
    wait = dict(params or ()).get("wait")
    return float(str(wait).removesuffix("s")) * _LATE_FACTOR if wait else 0.0
