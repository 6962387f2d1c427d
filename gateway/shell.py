"""The outermost layer around every request: its id, its headers, its place in the metrics. Pure ASGI, for speed."""

import time
from typing import Any

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.metrics import Metrics
from gateway.request_ids import begin_request

log = structlog.stdlib.get_logger(__name__)

_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))


class RequestShell:
    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        request_id = begin_request(scope)
        if scope["type"] == "websocket":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        headers = [(b"x-request-id", request_id.encode()), (b"x-content-type-options", b"nosniff")]
        status = 500

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *headers, *_caching(message["headers"])]
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        except Exception as error:
            log.error("request_failed", path=scope["path"][:200], request_id=request_id, exc_info=error)
        finally:
            method = scope["method"] if scope["method"] in _METHODS else "other"
            self._metrics.count(method, _route(scope), status, time.perf_counter() - started)


def _caching(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Nothing here is for caches, unless the answer says otherwise."""
    return [] if any(name == b"cache-control" for name, _ in headers) else [(b"cache-control", b"no-store")]


def _route(scope: Scope) -> str:
    """The path of the route with its parameters' names, so that ids are no labels."""
    route: Any = scope.get("route")
    return getattr(route, "path", "unmatched")
