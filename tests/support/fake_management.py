"""A ManagementService in memory: keeps rows as the real one does, and fails when it is told to."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc
import msgspec

from headrace.v1 import management_pb2 as pb
from headrace.v1.management_pb2_grpc import ManagementServiceServicer, add_ManagementServiceServicer_to_server
from headrace.v1.task_pb2 import AttemptLog, Submission, Task, TaskOptions, TaskStatus, TaskType
from servicekit.errors import AlreadyExists, Conflict, HeadraceError, NotFound
from servicekit.grpc_server import GrpcServer

_FINAL = (TaskStatus.TASK_STATUS_COMPLETED, TaskStatus.TASK_STATUS_FAILED, TaskStatus.TASK_STATUS_CANCELLED)

Context = grpc.aio.ServicerContext[Any, Any]


def task_type(name: str, *, schema: object = None, pool: str = "cpu", options: TaskOptions | None = None) -> TaskType:
    return TaskType(
        name=name,
        pool=pool,
        description=f"Does {name}.",
        data_schema=msgspec.json.encode(schema if schema is not None else {"type": "object"}).decode(),
        result_schema="{}",
        timeout_ms=30_000,
        max_attempts=3,
        version=f"{name}-{hash(str(schema))}",
        options=options,
    )


WORD_COUNT = task_type(
    "word_count",
    schema={
        "type": "object",
        "properties": {"text": {"type": "string"}, "top": {"type": "integer", "minimum": 1}},
        "required": ["text"],
        "additionalProperties": False,
        "examples": [{"text": "one two"}],
    },
)
NOOP = task_type("noop", pool="io")


class FakeManagement(ManagementServiceServicer):
    def __init__(self, types: Sequence[TaskType] = (NOOP, WORD_COUNT), *, block: int = 1_000_000) -> None:
        self.types = list(types)
        self.block = block
        self.next_id = 1
        self.rows: dict[int, Task] = {}
        self.submitted: list[list[Submission]] = []
        self.keys: dict[str, tuple[bytes, int]] = {}
        self.calls: Counter[str] = Counter()
        # What a method answers with instead of doing its work, by its name.
        self.failures: dict[str, HeadraceError] = {}
        # The requests to retry by a filter.
        self.retries: list[pb.RetryTasksRequest] = []
        self.logs: dict[int, list[AttemptLog]] = {}
        # The live replicas, which serve every type.
        self.replicas = ["execution-1"]
        # Methods that wait for their event before they answer, by name.
        self.gates: dict[str, asyncio.Event] = {}

    async def _begin(self, name: str) -> None:
        self.calls[name] += 1
        if name in self.gates:
            await self.gates[name].wait()
        if name in self.failures:
            raise self.failures[name]

    def store(self, submission: Submission) -> Task:
        """Store a task as intake does: once."""
        return self.rows.setdefault(
            submission.task_id,
            Task(
                task_id=submission.task_id,
                type=submission.type,
                status=TaskStatus.TASK_STATUS_QUEUED,
                data=submission.data,
                pool=submission.pool,
                priority=submission.priority,
                max_attempts=submission.max_attempts,
                timeout_ms=submission.timeout_ms,
                revision=1,
                options=submission.options if submission.HasField("options") else None,
            ),
        )

    def move(self, task_id: int, status: TaskStatus.ValueType, *, result: bytes = b"") -> Task:
        """Change the status of a row, as dispatch and reports do."""
        task = self.rows[task_id]
        task.status = status
        task.result = result
        task.revision += 1
        return task

    async def SubmitTasks(self, request: pb.SubmitTasksRequest, context: Context) -> pb.SubmitTasksResponse:
        await self._begin("SubmitTasks")
        submissions = list(request.batch.submissions)
        self.submitted.append(submissions)
        ids = [self._known_id(submission) for submission in submissions]
        for submission, task_id in zip(submissions, ids, strict=True):
            if task_id == submission.task_id:
                self.store(submission)
        return pb.SubmitTasksResponse(task_ids=ids)

    def _known_id(self, submission: Submission) -> int:
        if not submission.idempotency_key:
            return submission.task_id
        new = (submission.fingerprint, submission.task_id)
        fingerprint, task_id = self.keys.setdefault(submission.idempotency_key, new)
        if fingerprint != submission.fingerprint:
            raise AlreadyExists("key used before")
        return task_id

    async def GetTask(self, request: pb.GetTaskRequest, context: Context) -> pb.GetTaskResponse:
        await self._begin("GetTask")
        return pb.GetTaskResponse(task=self._row(request.task_id))

    async def GetTaskLogs(self, request: pb.GetTaskLogsRequest, context: Context) -> pb.GetTaskLogsResponse:
        await self._begin("GetTaskLogs")
        self._row(request.task_id)
        return pb.GetTaskLogsResponse(logs=self.logs.get(request.task_id, ()))

    async def ListTasks(self, request: pb.ListTasksRequest, context: Context) -> pb.ListTasksResponse:
        await self._begin("ListTasks")
        statuses = request.statuses or ([request.status] if request.status else [])
        types = request.types or ([request.type] if request.type else [])
        matching = [
            task
            for task_id, task in sorted(self.rows.items(), reverse=True)
            if (not request.after or task_id < request.after)
            and (not request.task_ids or task_id in request.task_ids)
            and (not statuses or task.status in statuses)
            and (not types or task.type in types)
        ]
        limit = len(matching) if request.task_ids else request.limit
        page = [Task.FromString(task.SerializeToString()) for task in matching[:limit]]
        for task in page:
            for name in ("attempts", "data", "result"):
                task.ClearField(name)
        more = len(matching) > len(page)
        return pb.ListTasksResponse(tasks=page, next_after=page[-1].task_id if more else 0)

    async def DeleteTask(self, request: pb.DeleteTaskRequest, context: Context) -> pb.DeleteTaskResponse:
        await self._begin("DeleteTask")
        task = self._row(request.task_id)
        if task.HasField("cancel_requested_at"):
            if task.status == TaskStatus.TASK_STATUS_CANCELLED:
                return pb.DeleteTaskResponse(result=pb.DeleteTaskResponse.RESULT_CANCELLED)
            if task.status in _FINAL:
                raise Conflict("the task ended before the cancel", code="already_final")
            return pb.DeleteTaskResponse(result=pb.DeleteTaskResponse.RESULT_CANCEL_REQUESTED)
        if task.status in _FINAL:
            del self.rows[request.task_id]
            return pb.DeleteTaskResponse(result=pb.DeleteTaskResponse.RESULT_REMOVED)
        task.cancel_requested_at.GetCurrentTime()
        if task.status == TaskStatus.TASK_STATUS_PROCESSING:
            return pb.DeleteTaskResponse(result=pb.DeleteTaskResponse.RESULT_CANCEL_REQUESTED)
        self.move(request.task_id, TaskStatus.TASK_STATUS_CANCELLED)
        return pb.DeleteTaskResponse(result=pb.DeleteTaskResponse.RESULT_CANCELLED)

    async def RetryTask(self, request: pb.RetryTaskRequest, context: Context) -> pb.RetryTaskResponse:
        await self._begin("RetryTask")
        if self._row(request.task_id).status not in _FINAL:
            raise Conflict("the task has not ended", code="not_final")
        return pb.RetryTaskResponse(task=self.move(request.task_id, TaskStatus.TASK_STATUS_QUEUED))

    async def RetryTasks(self, request: pb.RetryTasksRequest, context: Context) -> pb.RetryTasksResponse:
        await self._begin("RetryTasks")
        self.retries.append(request)
        matching = [
            task_id
            for task_id, task in sorted(self.rows.items(), reverse=True)
            if task.status == (request.status or TaskStatus.TASK_STATUS_FAILED)
            and (not request.type or task.type == request.type)
            and (not request.error_code or task.error.code == request.error_code)
        ]
        chosen = matching[: request.limit or 100]
        if not request.dry_run:
            for task_id in chosen:
                self.move(task_id, TaskStatus.TASK_STATUS_QUEUED)
        return pb.RetryTasksResponse(task_ids=chosen, more=len(matching) > len(chosen))

    async def ReserveTaskIds(self, request: pb.ReserveTaskIdsRequest, context: Context) -> pb.ReserveTaskIdsResponse:
        await self._begin("ReserveTaskIds")
        first, self.next_id = self.next_id, self.next_id + self.block
        return pb.ReserveTaskIdsResponse(first_id=first, last_id=self.next_id - 1)

    async def ListTaskTypes(self, request: pb.ListTaskTypesRequest, context: Context) -> pb.ListTaskTypesResponse:
        await self._begin("ListTaskTypes")
        entries = [pb.CatalogEntry(task_type=each, replicas=self.replicas) for each in self.types]
        return pb.ListTaskTypesResponse(entries=entries)

    async def CancelTask(self, request: pb.CancelTaskRequest, context: Context) -> pb.CancelTaskResponse:
        raise NotImplementedError("the gateway cancels by DeleteTask")

    def WatchTasks(self, request: pb.WatchTasksRequest, context: Context) -> AsyncIterator[pb.WatchTasksResponse]:
        raise NotImplementedError("the gateway hears updates from Redis")

    async def GetStats(self, request: pb.GetStatsRequest, context: Context) -> pb.GetStatsResponse:
        await self._begin("GetStats")
        counts = Counter(task.status for task in self.rows.values())
        statuses = [pb.GetStatsResponse.StatusCount(status=status, count=count) for status, count in counts.items()]
        failed = (task for task in self.rows.values() if task.status == TaskStatus.TASK_STATUS_FAILED)
        groups = Counter((task.type, task.error.code) for task in failed).most_common(100)
        failures = [
            pb.GetStatsResponse.FailureCount(type=name, error_code=code, count=count) for (name, code), count in groups
        ]
        return pb.GetStatsResponse(statuses=statuses, live_executors=1, live_managers=1, failures=failures)

    def _row(self, task_id: int) -> Task:
        if task_id not in self.rows:
            raise NotFound(f"no task {task_id}", code="task_not_found")
        return self.rows[task_id]


@asynccontextmanager
async def serve(management: FakeManagement) -> AsyncIterator[str]:
    """Serve it over gRPC and give its address."""
    server = GrpcServer("127.0.0.1", 0)
    server.add(add_ManagementServiceServicer_to_server, management, "headrace.v1.ManagementService")
    port = await server.start()
    server.set_serving(True)
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(0)


class DirectCalls:
    """Takes the place of a replica pool, without a network: calls the methods themselves."""

    def __init__(self, management: FakeManagement) -> None:
        self._management = management

    async def call(self, method: Any, request: Any, *, timeout: float = 2.0, once: bool = False) -> Any:
        return await method(self._management)(request, None)
