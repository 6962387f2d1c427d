"""What the gateway asks the management service for, over whichever replica answers."""

from collections.abc import Sequence
from typing import Any, Protocol

from headrace.v1 import management_pb2 as pb
from headrace.v1.task_pb2 import AttemptLog, SubmissionBatch, Task

READ_SECONDS = 2.0
WRITE_SECONDS = 5.0
# Up to 1,000 tasks in one statement.
BULK_SECONDS = 10.0


class Calls(Protocol):
    """The part of servicekit's ReplicaPool that is used here."""

    async def call(self, method: Any, request: Any, *, timeout: float = ..., once: bool = ...) -> Any: ...


class Management:
    """Every call is safe to repeat, and raises HeadraceError."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def submit(self, batch: SubmissionBatch) -> list[int]:
        """Store tasks; returns the ids that hold, which differ where an idempotency key was seen before."""
        request = pb.SubmitTasksRequest(batch=batch)
        response = await self._calls.call(lambda stub: stub.SubmitTasks, request, timeout=WRITE_SECONDS)
        return list(response.task_ids)

    async def get_task(self, task_id: int, *, without_result: bool = False) -> Task:
        request = pb.GetTaskRequest(task_id=task_id, without_result=without_result)
        response = await self._calls.call(lambda stub: stub.GetTask, request, timeout=READ_SECONDS)
        task: Task = response.task
        return task

    async def get_task_logs(self, task_id: int) -> Sequence[AttemptLog]:
        """Raises NotFound for a task without a row."""
        request = pb.GetTaskLogsRequest(task_id=task_id)
        response = await self._calls.call(lambda stub: stub.GetTaskLogs, request, timeout=READ_SECONDS)
        logs: Sequence[AttemptLog] = response.logs
        return logs

    async def list_tasks(self, request: pb.ListTasksRequest) -> pb.ListTasksResponse:
        response: pb.ListTasksResponse = await self._calls.call(
            lambda stub: stub.ListTasks, request, timeout=READ_SECONDS
        )
        return response

    async def delete_task(self, task_id: int) -> int:
        """Returns a DeleteTaskResponse.Result."""
        request = pb.DeleteTaskRequest(task_id=task_id)
        response = await self._calls.call(lambda stub: stub.DeleteTask, request, timeout=WRITE_SECONDS)
        result: int = response.result
        return result

    async def retry_task(self, task_id: int) -> Task:
        request = pb.RetryTaskRequest(task_id=task_id)
        response = await self._calls.call(lambda stub: stub.RetryTask, request, timeout=WRITE_SECONDS)
        task: Task = response.task
        return task

    async def retry_tasks(self, request: pb.RetryTasksRequest) -> pb.RetryTasksResponse:
        """Once, since a repeat after a lost answer would start as many again, and name those alone."""
        response: pb.RetryTasksResponse = await self._calls.call(
            lambda stub: stub.RetryTasks, request, timeout=BULK_SECONDS, once=True
        )
        return response

    async def reserve_task_ids(self) -> range:
        response = await self._calls.call(
            lambda stub: stub.ReserveTaskIds, pb.ReserveTaskIdsRequest(), timeout=READ_SECONDS
        )
        return range(response.first_id, response.last_id + 1)

    async def list_task_types(self) -> Sequence[pb.CatalogEntry]:
        response = await self._calls.call(
            lambda stub: stub.ListTaskTypes, pb.ListTaskTypesRequest(), timeout=READ_SECONDS
        )
        entries: Sequence[pb.CatalogEntry] = response.entries
        return entries

    async def get_stats(self) -> pb.GetStatsResponse:
        response: pb.GetStatsResponse = await self._calls.call(
            lambda stub: stub.GetStats, pb.GetStatsRequest(), timeout=READ_SECONDS
        )
        return response
