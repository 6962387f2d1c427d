"""The gRPC server over loopback: errors become statuses, health tells the truth, streams are left alone."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import pytest
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from headrace.v1 import execution_pb2, execution_pb2_grpc, management_pb2, management_pb2_grpc
from servicekit import rpc_errors
from servicekit.errors import (
    AlreadyExists,
    Conflict,
    DeadlineExceeded,
    FieldError,
    HeadraceError,
    InvalidArgument,
    NotFound,
    Overloaded,
    TooLarge,
    Unavailable,
    error_from_rpc,
)
from servicekit.grpc_channel import open_channel
from servicekit.grpc_server import GrpcServer
from servicekit.readiness import Readiness

MANAGEMENT = "headrace.v1.ManagementService"
EXECUTION = "headrace.v1.ExecutionService"

Get = Callable[[], Awaitable[management_pb2.GetTaskResponse]]
Serving = health_pb2.HealthCheckResponse


class Management(management_pb2_grpc.ManagementServiceServicer):
    """Answers every GetTask by calling `get`."""

    def __init__(self) -> None:
        self.get: Get = self._found

    async def _found(self) -> management_pb2.GetTaskResponse:
        return management_pb2.GetTaskResponse()

    async def GetTask(self, request: Any, context: Any) -> management_pb2.GetTaskResponse:
        return await self.get()

    async def WatchTasks(self, request: Any, context: Any) -> AsyncIterator[management_pb2.WatchTasksResponse]:
        for _ in request.task_ids:
            yield management_pb2.WatchTasksResponse()
        raise Overloaded("the reader is too slow", code="slow_reader")


class Execution(execution_pb2_grpc.ExecutionServiceServicer):
    """Dispatch echoes heartbeats and refuses a stream that does not begin with Attach."""

    async def Dispatch(self, request_iterator: Any, context: Any) -> AsyncIterator[execution_pb2.DispatchResponse]:
        first = await anext(request_iterator)
        if not first.HasField("attach"):
            raise Conflict("the first message is not Attach", code="attach_missing")
        async for request in request_iterator:
            yield execution_pb2.DispatchResponse(bye=request.echo == 0)


class Stage:
    """A server with both services and a channel to it."""

    def __init__(self, server: GrpcServer, management: Management, readiness: Readiness) -> None:
        self.server = server
        self.management = management
        self.readiness = readiness
        self.channel = open_channel(f"127.0.0.1:{server.port}", max_message_bytes=1024 * 1024)
        self.client = management_pb2_grpc.ManagementServiceStub(self.channel)

    async def get_error(self, timeout: float | None = 5.0) -> HeadraceError:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await self.client.GetTask(management_pb2.GetTaskRequest(), timeout=timeout)
        return error_from_rpc(caught.value)

    async def health(self, service: str) -> int:
        stub = health_pb2_grpc.HealthStub(self.channel)
        return int((await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=5)).status)


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    readiness = Readiness()
    server = GrpcServer("127.0.0.1", 0, max_message_bytes=64 * 1024, readiness=readiness)
    management = Management()  # type: ignore[abstract]
    server.add(management_pb2_grpc.add_ManagementServiceServicer_to_server, management, MANAGEMENT)
    execution = Execution()  # type: ignore[abstract]
    server.add(execution_pb2_grpc.add_ExecutionServiceServicer_to_server, execution, EXECUTION)
    await server.start()
    stage = Stage(server, management, readiness)
    yield stage
    await stage.channel.close()
    await server.stop(0)


@pytest.mark.parametrize(
    "error",
    [
        InvalidArgument(
            "2 fields are wrong",
            code="validation",
            fields=[FieldError("/data/text", "required", "is missing"), FieldError("/type", "unknown", "no such type")],
        ),
        NotFound("no task 7", code="task_not_found"),
        Conflict("task 7 is final", code="already_final"),
        AlreadyExists("the key was used before", code="key_reused"),
        TooLarge("more than 8 MiB"),
        Overloaded("the backlog is full", code="backlog_full", retry_after=2.5),
        Unavailable("the database is away", code="database_unavailable", retry_after=1.0),
        DeadlineExceeded("not in time"),
        Unavailable("naïve ☃ text"),
    ],
    ids=lambda error: error.code,
)
async def test_an_error_arrives_as_it_was_raised(stage: Stage, error: HeadraceError) -> None:
    async def fail() -> management_pb2.GetTaskResponse:
        raise error

    stage.management.get = fail
    arrived = await stage.get_error()

    assert type(arrived) is type(error)
    assert (arrived.message, arrived.code, arrived.fields, arrived.retry_after) == (
        error.message,
        error.code,
        error.fields,
        error.retry_after,
    )


async def test_more_field_errors_than_a_header_holds_are_cut(stage: Stage) -> None:
    async def fail() -> management_pb2.GetTaskResponse:
        raise InvalidArgument("x" * 100_000, fields=[FieldError(f"/{n}", "type", "y" * 500) for n in range(1000)])

    stage.management.get = fail
    arrived = await stage.get_error()

    assert isinstance(arrived, InvalidArgument)
    assert 1 <= len(arrived.fields) < 20


async def test_an_unknown_exception_leaks_nothing_but_is_logged(stage: Stage) -> None:
    async def fail() -> management_pb2.GetTaskResponse:
        raise KeyError("password=hunter2")

    stage.management.get = fail
    with structlog.testing.capture_logs() as logs:
        arrived = await stage.get_error()

    assert (type(arrived), arrived.code, arrived.message) == (HeadraceError, "internal", "internal error")
    assert [(log["event"], log["method"]) for log in logs] == [("rpc_failed", f"/{MANAGEMENT}/GetTask")]
    assert isinstance(logs[0]["exc_info"], KeyError)


async def test_a_call_without_a_deadline_gets_one(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    async def hang() -> management_pb2.GetTaskResponse:
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(rpc_errors, "UNARY_SECONDS_MAX", 0.05)
    stage.management.get = hang

    assert isinstance(await stage.get_error(timeout=None), DeadlineExceeded)


async def test_a_message_above_the_limit_is_too_large(stage: Stage) -> None:
    request = management_pb2.ListTasksRequest(type="x" * 100_000)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stage.client.ListTasks(request, timeout=5)
    assert isinstance(error_from_rpc(caught.value), TooLarge)


async def test_an_unknown_method_is_unimplemented(stage: Stage) -> None:
    for method in ("/headrace.v1.ManagementService/Nothing", "/nobody/Nothing"):
        call: Any = stage.channel.unary_unary(method)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(b"", timeout=5)
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_stream_ends_with_the_error_of_its_handler(stage: Stage) -> None:
    stream = stage.client.WatchTasks(management_pb2.WatchTasksRequest(task_ids=[1, 2, 3]), timeout=5)
    for _ in range(3):
        assert await stream.read() == management_pb2.WatchTasksResponse()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stream.read()
    error = error_from_rpc(caught.value)
    assert (type(error), error.code) == (Overloaded, "slow_reader")


async def test_messages_flow_both_ways_on_a_long_stream(stage: Stage) -> None:
    stream = execution_pb2_grpc.ExecutionServiceStub(stage.channel).Dispatch()
    await stream.write(execution_pb2.DispatchRequest(attach=execution_pb2.Attach(manager_id="m")))
    for echo in (1, 0):
        await stream.write(execution_pb2.DispatchRequest(echo=echo))
        answer = await stream.read()
        assert isinstance(answer, execution_pb2.DispatchResponse)
        assert answer.bye is (echo == 0)
    await stream.done_writing()
    assert await stream.code() is grpc.StatusCode.OK


async def test_a_long_stream_ends_with_the_error_of_its_handler(stage: Stage) -> None:
    stream = execution_pb2_grpc.ExecutionServiceStub(stage.channel).Dispatch()
    await stream.write(execution_pb2.DispatchRequest(echo=1))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stream.read()
    assert error_from_rpc(caught.value).code == "attach_missing"


async def test_health_follows_serving_and_readiness(stage: Stage) -> None:
    problem: str | None = None
    stage.readiness.add("database", lambda: problem)
    assert await stage.health("") == Serving.SERVING
    assert await stage.health(MANAGEMENT) == Serving.NOT_SERVING

    stage.server.set_serving(True)
    assert await stage.health(MANAGEMENT) == Serving.SERVING

    problem = "away"
    assert await stage.health(EXECUTION) == Serving.NOT_SERVING
    assert await stage.health("") == Serving.SERVING

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stage.health("nobody")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_a_health_watcher_hears_of_changes_and_of_the_end(stage: Stage) -> None:
    stub = health_pb2_grpc.HealthStub(stage.channel)
    stream = stub.Watch(health_pb2.HealthCheckRequest(service=MANAGEMENT))
    heard = [(await stream.read()).status]
    stage.server.set_serving(True)
    heard.append((await stream.read()).status)
    stopping = asyncio.create_task(stage.server.stop(5))
    heard.append((await stream.read()).status)

    assert heard == [Serving.NOT_SERVING, Serving.SERVING, Serving.NOT_SERVING]
    assert await stream.read() is grpc.aio.EOF
    async with asyncio.timeout(2):
        await stopping


async def test_reflection_lists_the_services(stage: Stage) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(stage.channel)
    stream = stub.ServerReflectionInfo()
    await stream.write(reflection_pb2.ServerReflectionRequest(list_services=""))
    names = {service.name for service in (await stream.read()).list_services_response.service}
    assert names >= {MANAGEMENT, EXECUTION, "grpc.health.v1.Health"}
    stream.cancel()


async def test_a_port_in_use_is_refused(stage: Stage) -> None:
    second = GrpcServer("127.0.0.1", stage.server.port)
    with pytest.raises(OSError, match="cannot listen"):
        await second.start()


async def test_stopping_lets_calls_in_progress_end(stage: Stage) -> None:
    entered, gate = asyncio.Event(), asyncio.Event()

    async def slow() -> management_pb2.GetTaskResponse:
        entered.set()
        await gate.wait()
        return management_pb2.GetTaskResponse()

    stage.management.get = slow
    call = asyncio.ensure_future(stage.client.GetTask(management_pb2.GetTaskRequest(), timeout=5))
    await entered.wait()
    stopping = asyncio.create_task(stage.server.stop(5))
    await asyncio.sleep(0)
    gate.set()
    assert await call == management_pb2.GetTaskResponse()
    await stopping
