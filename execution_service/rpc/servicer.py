"""ExecutionService over gRPC: takes messages apart, calls one function for each part, puts answers together."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, Protocol

import grpc

from execution_service.replica import Replica
from execution_service.rpc import mapping
from execution_service.rpc.streams import SILENT_SECONDS, ManagerStream
from execution_service.workers.outcomes import WorkerInfo
from headrace.v1 import execution_pb2, execution_pb2_grpc
from result_store.model import ResultKey
from result_store.store import ResultStore
from servicekit import failpoints
from servicekit.clock import Clock
from servicekit.errors import Conflict, InvalidArgument
from servicekit.live.filters import Filter
from servicekit.live.hub import Hub
from servicekit.live.mailbox import next_updates

SERVICE_NAME = "headrace.v1.ExecutionService"
WATCHED_IDS_MAX = 1_000
UPDATES_PER_MESSAGE = 500
KEYS_MAX = 10_000
DEFAULT_POOL = "cpu"

Context = grpc.aio.ServicerContext[Any, Any]


class WorkerList(Protocol):
    """What this module needs of the worker pool."""

    def workers(self) -> list[WorkerInfo]: ...
    def add_worker(self, pool: str) -> WorkerInfo: ...
    def remove_worker(self, worker_id: str, *, force: bool = False) -> WorkerInfo: ...


class ExecutionServicer(execution_pb2_grpc.ExecutionServiceServicer):
    def __init__(
        self, replica: Replica, workers: WorkerList, store: ResultStore, *, name: str, hub: Hub, clock: Clock
    ) -> None:
        self._replica = replica
        self._workers = workers
        self._store = store
        self._name = name
        self._hub = hub
        self._clock = clock

    async def Dispatch(  # type: ignore[override]  # writes by itself, so that it can give up a write
        self, request_iterator: AsyncIterator[execution_pb2.DispatchRequest], context: Context
    ) -> None:
        """Run one stream until either side ends it; the replica forgets it before this returns."""
        manager_id = await _attach_message(request_iterator)
        stream = self._replica.attach(manager_id)
        ends = [
            asyncio.create_task(self._read(stream, request_iterator), name="dispatch_reader"),
            asyncio.create_task(self._write(stream, context), name="dispatch_writer"),
            asyncio.create_task(stream.wait_closed(), name="dispatch_closed"),
        ]
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._replica.detach(stream, reason="ended")
            for end in ends:
                end.cancel()
            outcomes = await asyncio.gather(*ends, return_exceptions=True)
        for outcome in outcomes:
            # The library raises errors of its own where the peer has gone in the middle of a read or write.
            if isinstance(outcome, Exception) and not isinstance(outcome, grpc.aio.BaseError):
                raise outcome

    async def _read(self, stream: ManagerStream, requests: AsyncIterator[execution_pb2.DispatchRequest]) -> None:
        async for request in requests:
            await failpoints.reach("replica.before_read")
            if stream.closed:
                return
            self._take(stream, request)

    async def _write(self, stream: ManagerStream, context: Context) -> None:
        while (message := await stream.next(self._clock.monotonic)) is not None:
            await context.write(message)

    def _take(self, stream: ManagerStream, request: execution_pb2.DispatchRequest) -> None:
        """Handle the parts of one message in the order of their numbers, then plan once."""
        replica, session_id = self._replica, request.session_id
        now = self._clock.monotonic()
        stream.heard_at = now
        if request.echo:
            replica.take_echo(stream, session_id, request.echo)
        if request.claim_rounds:
            stream.note_rounds(request.claim_rounds, now=now)
        if request.ended_session_id:
            replica.take_end(request.ended_session_id)
        if request.verdicts:
            replica.take_verdicts(stream, request.verdicts)
        if request.assignments:
            replica.take_assignments(stream, session_id, request.heard, request.assignments)
        if request.demand:
            replica.take_demand_use(stream, request.demand)
        if request.questions:
            replica.take_questions(stream, session_id, mapping.keys(request.questions))
        if request.cancels:
            replica.take_cancels(session_id, mapping.keys(request.cancels))
        for item in request.waiting:
            stream.waiting[item.pool] = item.count
        replica.settle()

    async def ListWorkers(
        self, request: execution_pb2.ListWorkersRequest, context: Context
    ) -> execution_pb2.ListWorkersResponse:
        workers = [mapping.worker(info, self._name) for info in self._workers.workers()]
        return execution_pb2.ListWorkersResponse(workers=workers)

    async def CreateWorker(
        self, request: execution_pb2.CreateWorkerRequest, context: Context
    ) -> execution_pb2.CreateWorkerResponse:
        info = self._workers.add_worker(request.pool or DEFAULT_POOL)
        self._replica.settle()
        return execution_pb2.CreateWorkerResponse(worker=mapping.worker(info, self._name))

    async def DeleteWorker(
        self, request: execution_pb2.DeleteWorkerRequest, context: Context
    ) -> execution_pb2.DeleteWorkerResponse:
        info = self._workers.remove_worker(request.worker_id, force=request.force)
        self._replica.settle()
        return execution_pb2.DeleteWorkerResponse(worker=mapping.worker(info, self._name))

    async def GetResults(
        self, request: execution_pb2.GetResultsRequest, context: Context
    ) -> execution_pb2.GetResultsResponse:
        _bound(len(request.keys), KEYS_MAX, "keys")
        found = await self._store.get([ResultKey(key.task_id, key.attempt) for key in request.keys])
        return execution_pb2.GetResultsResponse(results=[mapping.stored_result(item) for item in found])

    async def GetLogs(self, request: execution_pb2.GetLogsRequest, context: Context) -> execution_pb2.GetLogsResponse:
        logs = await self._store.get_logs(request.task_id)
        return execution_pb2.GetLogsResponse(logs=[mapping.stored_log(item) for item in logs])

    async def RemoveResults(
        self, request: execution_pb2.RemoveResultsRequest, context: Context
    ) -> execution_pb2.RemoveResultsResponse:
        _bound(len(request.task_ids), KEYS_MAX, "task_ids")
        await self._store.remove(list(request.task_ids))
        return execution_pb2.RemoveResultsResponse()

    async def WatchTasks(
        self, request: execution_pb2.ExecutionServiceWatchTasksRequest, context: Context
    ) -> AsyncIterator[execution_pb2.ExecutionServiceWatchTasksResponse]:
        _bound(len(request.task_ids), WATCHED_IDS_MAX, "task_ids")
        with contextlib.closing(self._hub.add(Filter(task_ids=frozenset(request.task_ids)))) as listener:
            # Tells the client that it misses nothing from now on.
            await context.send_initial_metadata(())
            while True:
                updates = await next_updates(listener.mailbox, at_most=UPDATES_PER_MESSAGE)
                if updates:
                    yield execution_pb2.ExecutionServiceWatchTasksResponse(updates=updates)


async def _attach_message(requests: AsyncIterator[execution_pb2.DispatchRequest]) -> str:
    """The manager id from the first message of a stream."""
    try:
        async with asyncio.timeout(SILENT_SECONDS):
            first = await anext(requests, None)
    except TimeoutError:
        first = None
    if first is None or not first.attach.manager_id:
        raise Conflict("the first message must be Attach with a manager id", code="attach_expected")
    return first.attach.manager_id


def _bound(count: int, maximum: int, name: str) -> None:
    if count > maximum:
        raise InvalidArgument(f"{name}: {count} items, at most {maximum} are allowed", code="too_many_items")
