"""Errors over gRPC where the other side is not ours, or does not speak our details."""

import grpc
import pytest
from grpc.aio import AioRpcError, Metadata

from servicekit.errors import (
    Cancelled,
    DeadlineExceeded,
    FieldError,
    HeadraceError,
    InvalidArgument,
    NotFound,
    Overloaded,
    TooLarge,
    Unavailable,
    error_from_rpc,
    status_from_error,
)


def rpc_error(code: grpc.StatusCode, details: str = "", *trailing: tuple[str, bytes]) -> AioRpcError:
    return AioRpcError(code, Metadata(), Metadata(*trailing), details)


@pytest.mark.parametrize(
    ("code", "cls"),
    [
        (grpc.StatusCode.UNAVAILABLE, Unavailable),
        (grpc.StatusCode.DEADLINE_EXCEEDED, DeadlineExceeded),
        (grpc.StatusCode.CANCELLED, Cancelled),
        (grpc.StatusCode.NOT_FOUND, NotFound),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, Overloaded),
        (grpc.StatusCode.INTERNAL, HeadraceError),
        (grpc.StatusCode.DATA_LOSS, HeadraceError),
    ],
)
def test_a_bare_status_becomes_the_class_of_its_code(code: grpc.StatusCode, cls: type[HeadraceError]) -> None:
    error = error_from_rpc(rpc_error(code, "why"))
    assert (type(error), error.message, error.code) == (cls, "why", cls.default_code)


def test_the_size_limit_of_the_library_is_told_from_other_bounds() -> None:
    error = error_from_rpc(rpc_error(grpc.StatusCode.RESOURCE_EXHAUSTED, "Received message larger than max (9 vs. 4)"))
    assert isinstance(error, TooLarge)


@pytest.mark.parametrize("details", [b"\xff\xff", b"", b"\x08\x05"])
def test_details_that_make_no_sense_are_ignored(details: bytes) -> None:
    error = error_from_rpc(rpc_error(grpc.StatusCode.NOT_FOUND, "gone", ("grpc-status-details-bin", details)))
    assert (type(error), error.code) == (NotFound, "not_found")


def test_details_survive_the_way_there_and_back() -> None:
    sent = InvalidArgument(
        "wrong", code="validation", fields=[FieldError("/a", "type", "is no text")], retry_after=0.25
    )
    details = status_from_error(sent).SerializeToString()
    error = error_from_rpc(rpc_error(grpc.StatusCode.INVALID_ARGUMENT, "wrong", ("grpc-status-details-bin", details)))
    assert (type(error), error.code, error.fields, error.retry_after) == (
        InvalidArgument,
        "validation",
        sent.fields,
        0.25,
    )


def test_a_subclass_made_elsewhere_travels_as_the_class_it_came_from() -> None:
    class TaskGone(NotFound):
        default_code = "task_gone"

    details = status_from_error(TaskGone("no task")).SerializeToString()
    error = error_from_rpc(rpc_error(grpc.StatusCode.NOT_FOUND, "no task", ("grpc-status-details-bin", details)))
    assert (type(error), error.code) == (NotFound, "task_gone")
