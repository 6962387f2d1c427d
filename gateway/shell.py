"""The outermost layer around every request: its id, its headers, its place in the metrics. Pure ASGI, for speed."""

import time
from typing import Any

import structlog
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.interrupts import Interrupts
from gateway.metrics import Metrics
from servicekit.http.problems import problem
from servicekit.http.request_ids import begin_request

log = structlog.stdlib.get_logger(__name__)

_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))


class RequestShell:
    def __init__(self, app: ASGIApp, metrics: Metrics, interrupts: Interrupts) -> None:
        self._app = app
        self._metrics = metrics
        self._interrupts = interrupts

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
        begun = False
        answered: float | None = None

        async def send_with_headers(message: Message) -> None:
            nonlocal status, begun, answered
            if message["type"] == "http.response.start":
                begun = True
                status = message["status"]
                if _is_stream(message["headers"]):
                    answered = time.perf_counter()  # how long it goes on says nothing of us
                message["headers"] = [*message["headers"], *headers, *_caching(message["headers"])]
            await send(message)

        try:
            async with self._interrupts.interruptible() as limit:
                await self._app(scope, receive, send_with_headers)
        except TimeoutError as error:
            if not limit.expired():
                log.error("request_failed", path=scope["path"][:200], request_id=request_id, exc_info=error)
            elif not begun:
                await _restarting(Request(scope))(scope, receive, send_with_headers)
        except Exception as error:
            log.error("request_failed", path=scope["path"][:200], request_id=request_id, exc_info=error)
        finally:
            method = scope["method"] if scope["method"] in _METHODS else "other"
            self._metrics.count(method, _route(scope), status, (answered or time.perf_counter()) - started)


def _restarting(request: Request) -> Response:
    return problem(
        request,
        status=503,
        code="restarting",
        detail="The gateway stops and did not finish this request; repeat it. Whether it took effect is not known.",
        headers={"Retry-After": "1", "Connection": "close"},
    )


def _is_stream(headers: list[tuple[bytes, bytes]]) -> bool:
    return any(name == b"content-type" and value.startswith(b"text/event-stream") for name, value in headers)


def _caching(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Nothing here is for caches, unless the answer says otherwise."""
    return [] if any(name == b"cache-control" for name, _ in headers) else [(b"cache-control", b"no-store")]


def _route(scope: Scope) -> str:
    """The path of the route with its parameters' names, so that ids are no labels."""
    route: Any = scope.get("route")
    return getattr(route, "path", "unmatched")
