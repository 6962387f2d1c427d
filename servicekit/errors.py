"""The errors that callers tell apart, and their way over gRPC and back.

There is one class for each thing that a caller does differently; `code` is the stable word for programs that REST and
gRPC show. Nothing else knows gRPC codes or HTTP status numbers.
"""
# ruff: noqa: N818 - the names say what happened, as gRPC and HTTP do

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import grpc
from google.protobuf import duration_pb2
from google.protobuf.message import DecodeError
from google.rpc import code_pb2, error_details_pb2, status_pb2  # type: ignore[import-untyped]
from grpc_status import rpc_status

ERROR_DOMAIN = "headrace"
# gRPC refuses header blocks above 8 KiB, and binary values grow by a third in base64.
_FIELDS_BYTES_MAX = 4096
_MESSAGE_CHARS_MAX = 1024


@dataclass(frozen=True, slots=True)
class FieldError:
    """What is wrong with one field of a request."""

    # JSON pointer to it.
    field: str
    # A stable word for programs: `required`, `maximum`, …
    rule: str
    message: str


class HeadraceError(Exception):
    """Something went wrong in a way that the caller is told about."""

    grpc_code: ClassVar[grpc.StatusCode] = grpc.StatusCode.INTERNAL
    http_status: ClassVar[int] = 500
    default_code: ClassVar[str] = "internal"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        fields: Sequence[FieldError] = (),
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.fields = tuple(fields)
        self.retry_after = retry_after


class InvalidArgument(HeadraceError):
    """The request can never succeed as it is."""

    grpc_code = grpc.StatusCode.INVALID_ARGUMENT
    http_status = 422
    default_code = "invalid_argument"


class NotFound(HeadraceError):
    grpc_code = grpc.StatusCode.NOT_FOUND
    http_status = 404
    default_code = "not_found"


class Conflict(HeadraceError):
    """What the request speaks of is not in a state that allows it."""

    grpc_code = grpc.StatusCode.FAILED_PRECONDITION
    http_status = 409
    default_code = "conflict"


class AlreadyExists(HeadraceError):
    """An idempotency key was used before with another body."""

    grpc_code = grpc.StatusCode.ALREADY_EXISTS
    http_status = 422
    default_code = "already_exists"


class TooLarge(HeadraceError):
    grpc_code = grpc.StatusCode.RESOURCE_EXHAUSTED
    http_status = 413
    default_code = "too_large"


class Overloaded(HeadraceError):
    """A bound was reached; the same request may succeed later."""

    grpc_code = grpc.StatusCode.RESOURCE_EXHAUSTED
    http_status = 503
    default_code = "overloaded"


class Unavailable(HeadraceError):
    """Something that the request needs does not answer; the same request may succeed later."""

    grpc_code = grpc.StatusCode.UNAVAILABLE
    http_status = 503
    default_code = "unavailable"


class DeadlineExceeded(HeadraceError):
    grpc_code = grpc.StatusCode.DEADLINE_EXCEEDED
    http_status = 504
    default_code = "deadline_exceeded"


class Cancelled(HeadraceError):
    """The other side gave the call up."""

    grpc_code = grpc.StatusCode.CANCELLED
    http_status = 503
    default_code = "call_cancelled"


_CLASSES: tuple[type[HeadraceError], ...] = (
    InvalidArgument,
    NotFound,
    Conflict,
    AlreadyExists,
    TooLarge,
    Overloaded,
    Unavailable,
    DeadlineExceeded,
    Cancelled,
    HeadraceError,
)
_CLASS_BY_NAME = {cls.__name__: cls for cls in _CLASSES}
# Overloaded comes after TooLarge and so stands for RESOURCE_EXHAUSTED of unknown origin.
_CLASS_BY_GRPC_CODE = {cls.grpc_code: cls for cls in _CLASSES}


def status_from_error(error: HeadraceError) -> status_pb2.Status:
    """Return the rich status that carries `error`: its code, its fields and when to try again."""
    info = error_details_pb2.ErrorInfo(reason=error.code, domain=ERROR_DOMAIN, metadata={"class": _class_name(error)})
    status = status_pb2.Status(code=getattr(code_pb2, error.grpc_code.name), message=error.message[:_MESSAGE_CHARS_MAX])
    status.details.add().Pack(info)
    if error.fields:
        status.details.add().Pack(_bad_request(error.fields))
    if error.retry_after is not None:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(round(error.retry_after * 1000))
        status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=delay))
    return status


def error_from_rpc(rpc_error: grpc.aio.AioRpcError) -> HeadraceError:
    """Return the error that the other side raised, or the one that describes how the call failed."""
    status = _rich_status(rpc_error)
    if status is None:
        return _plain_error(rpc_error)
    details = _Details(status)
    if details.info is None:
        return _plain_error(rpc_error)
    cls = _CLASS_BY_NAME.get(details.info.metadata["class"]) or _class_for(rpc_error)
    return cls(status.message, code=details.info.reason, fields=details.fields, retry_after=details.retry_after)


class _Details:
    """The parts of a rich status that we read."""

    def __init__(self, status: status_pb2.Status) -> None:
        self.info: error_details_pb2.ErrorInfo | None = None
        self.fields: list[FieldError] = []
        self.retry_after: float | None = None
        info, bad_request, retry = (
            error_details_pb2.ErrorInfo(),
            error_details_pb2.BadRequest(),
            error_details_pb2.RetryInfo(),
        )
        for detail in status.details:
            if detail.Unpack(info):
                self.info = info if info.domain == ERROR_DOMAIN else None
            elif detail.Unpack(bad_request):
                self.fields = [
                    FieldError(item.field, item.reason, item.description) for item in bad_request.field_violations
                ]
            elif detail.Unpack(retry):
                self.retry_after = retry.retry_delay.ToMilliseconds() / 1000


def _class_name(error: HeadraceError) -> str:
    return next(cls.__name__ for cls in type(error).__mro__ if cls.__name__ in _CLASS_BY_NAME)


def _bad_request(fields: Sequence[FieldError]) -> error_details_pb2.BadRequest:
    """The field errors, as many as a header block has room for."""
    bad_request = error_details_pb2.BadRequest()
    for field in fields:
        bad_request.field_violations.add(
            field=field.field, reason=field.rule, description=field.message[:_MESSAGE_CHARS_MAX]
        )
        if bad_request.ByteSize() > _FIELDS_BYTES_MAX:
            del bad_request.field_violations[-1]
            break
    return bad_request


def _rich_status(rpc_error: grpc.aio.AioRpcError) -> status_pb2.Status | None:
    try:
        status: status_pb2.Status | None = rpc_status.from_call(_Call(rpc_error))
    except (ValueError, DecodeError):  # details that are broken, or say something else than the status line
        return None
    return status


class _Call:
    """The face of a finished call that `rpc_status.from_call` wants."""

    def __init__(self, rpc_error: grpc.aio.AioRpcError) -> None:
        self._error = rpc_error

    def code(self) -> grpc.StatusCode:
        return self._error.code()

    def details(self) -> str | None:
        return self._error.details()

    def trailing_metadata(self) -> tuple[Any, ...]:
        return tuple(self._error.trailing_metadata() or ())


def _class_for(rpc_error: grpc.aio.AioRpcError) -> type[HeadraceError]:
    if rpc_error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in (rpc_error.details() or ""):
        return TooLarge
    return _CLASS_BY_GRPC_CODE.get(rpc_error.code(), HeadraceError)


def _plain_error(rpc_error: grpc.aio.AioRpcError) -> HeadraceError:
    return _class_for(rpc_error)(rpc_error.details() or rpc_error.code().name.lower())
