"""What HTTP clients are told when something is wrong: `application/problem+json` (RFC 9457), whatever it is."""

# ruff: noqa: N818 - the names say what is wrong, as those of servicekit.errors do

import math
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import grpc
import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route

from servicekit.errors import HeadraceError
from servicekit.http.lingering import LingeringResponse
from servicekit.http.refusal_log import RefusalLog
from servicekit.http.request_ids import request_id_of

PROBLEM_JSON = "application/problem+json"
RETRY_AFTER_SECONDS = 1.0
_refusals = RefusalLog()
_CODES = {404: "not_found", 405: "method_not_allowed"}


class InvalidJson(HeadraceError):
    """The body is not JSON in UTF-8."""

    grpc_code = grpc.StatusCode.INVALID_ARGUMENT
    http_status = 400
    default_code = "invalid_json"


class UnsupportedMediaType(HeadraceError):
    grpc_code = grpc.StatusCode.INVALID_ARGUMENT
    http_status = 415
    default_code = "unsupported_media_type"


class SlowBody(HeadraceError):
    """The body did not arrive in time; the connection is closed after the answer."""

    grpc_code = grpc.StatusCode.DEADLINE_EXCEEDED
    http_status = 408
    default_code = "request_timeout"


class UriTooLong(HeadraceError):
    grpc_code = grpc.StatusCode.INVALID_ARGUMENT
    http_status = 414
    default_code = "uri_too_long"


def problem(
    request: Request,
    *,
    status: int,
    code: str,
    detail: str,
    errors: list[dict[str, str]] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    body = problem_body(
        status=status, code=code, detail=detail, errors=errors or [], request_id=request_id_of(request.scope)
    )
    kind = LingeringResponse if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE else Response
    return kind(body, status, headers=headers, media_type=PROBLEM_JSON)


def problem_body(
    *, status: int, code: str, detail: str, errors: Sequence[Mapping[str, str]] = (), request_id: str | None = None
) -> bytes:
    return msgspec.json.encode(
        {
            "type": "about:blank",
            "title": HTTPStatus(status).phrase,
            "status": status,
            "code": code,
            "detail": detail,
            "errors": errors,
            "request_id": request_id,
        }
    )


def raw_problem(*, status: int, code: str, detail: str, headers: Sequence[str] = ()) -> bytes:
    """A whole HTTP/1.1 answer, for connections that come to no application; the connection is closed after it."""
    body = problem_body(status=status, code=code, detail=detail)
    head = (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
        f"content-type: {PROBLEM_JSON}",
        f"content-length: {len(body)}",
        "connection: close",
        *headers,
    )
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


async def on_headrace_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HeadraceError)
    _refusals.note(request, error)
    return problem(
        request,
        status=error.http_status,
        code=error.code,
        detail=error.message,
        errors=[{"field": field.field, "rule": field.rule, "message": field.message} for field in error.fields],
        headers=_headers(error),
    )


async def on_http_exception(request: Request, error: Exception) -> Response:
    """Answer for what the router refuses by itself: unknown paths and methods."""
    assert isinstance(error, HTTPException)
    code = _CODES.get(error.status_code, HTTPStatus(error.status_code).phrase.lower().replace(" ", "_"))
    headers = {"Allow": _allowed(request)} if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED else error.headers
    return problem(
        request, status=error.status_code, code=code, detail=_DETAILS.get(code, error.detail), headers=headers
    )


async def on_unknown_error(request: Request, error: Exception) -> Response:
    """Answer without a word of what went wrong inside; the outermost layer logs it."""
    return problem(request, status=500, code="internal", detail="The service failed to answer; the cause is logged.")


EXCEPTION_HANDLERS: dict[int | type[Exception], Any] = {
    HeadraceError: on_headrace_error,
    HTTPException: on_http_exception,
    Exception: on_unknown_error,
}
_DETAILS = {
    "not_found": "There is nothing at this path; /docs lists what there is.",
    "method_not_allowed": "This path does not take this method; the Allow header lists those it takes.",
}


def _allowed(request: Request) -> str:
    """The methods of all routes of the path; the router's own answer names only those of the first."""
    routes: list[Route] = request.app.state.routes
    matching = (route for route in routes if route.matches(request.scope)[0] is not Match.NONE)
    return ", ".join(sorted({method for route in matching for method in route.methods or ()}))


def _headers(error: HeadraceError) -> dict[str, str]:
    headers: dict[str, str] = {}
    if error.http_status >= HTTPStatus.SERVICE_UNAVAILABLE or error.retry_after is not None:
        seconds = RETRY_AFTER_SECONDS if error.retry_after is None else error.retry_after
        headers["Retry-After"] = str(max(1, math.ceil(seconds)))
    if error.http_status in (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.REQUEST_ENTITY_TOO_LARGE):
        headers["Connection"] = "close"  # the rest of the body is of no use
    if isinstance(error, UnsupportedMediaType):
        headers["Accept"] = "application/json"
    return headers
