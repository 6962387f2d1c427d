"""ManagementService: translate, call, translate back."""

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import grpc
import psycopg
import structlog

from headrace.v1 import management_pb2 as pb
from headrace.v1.execution_pb2 import AttemptKey, GetLogsRequest, GetResultsRequest, RemoveResultsRequest
from headrace.v1.management_pb2_grpc import ManagementServiceServicer
from headrace.v1.task_pb2 import Task
from management_service.domain.statuses import TaskStatus
from management_service.ids import IdBlocks
from management_service.lifecycle import TaskLifecycle
from management_service.listing import list_tasks
from management_service.rpc.mapping import STATUS_TO_PROTO, catalog_entry, task_to_proto
from management_service.rpc.validation import RETRIES_DEFAULT, check_submissions, finished_filter, listing
from management_service.rpc.watching import watch_tasks
from management_service.storage.executors import ExecutorRepository
from management_service.storage.records import TaskRow
from management_service.storage.tasks import TaskRepository
from management_service.storing import TaskStore
from servicekit.errors import HeadraceError, InvalidArgument
from servicekit.replica_pool import ReplicaPool
from servicekit.updates import UpdateFeed

if TYPE_CHECKING:  # exists for type checkers alone
    from headrace.v1.execution_pb2_grpc import ExecutionServiceAsyncStub

log = structlog.stdlib.get_logger(__name__)

Context = grpc.aio.ServicerContext[Any, Any]
_RESULT_SECONDS = 2.0
_WATCHED_MAX = 1_000


class ManagementServicer(ManagementServiceServicer):
    def __init__(
        self,
        *,
        store: TaskStore,
        tasks: TaskRepository,
        executors: ExecutorRepository,
        lifecycle: TaskLifecycle,
        ids: IdBlocks,
        execution: "ReplicaPool[ExecutionServiceAsyncStub]",
        feed: UpdateFeed,
    ) -> None:
        self._store = store
        self._tasks = tasks
        self._executors = executors
        self._lifecycle = lifecycle
        self._ids = ids
        self._execution = execution
        self._feed = feed

    async def SubmitTasks(self, request: pb.SubmitTasksRequest, context: Context) -> pb.SubmitTasksResponse:
        submissions = list(request.batch.submissions)
        check_submissions(submissions)
        try:
            return pb.SubmitTasksResponse(task_ids=await self._store.store_with_keys(submissions))
        except (psycopg.DataError, psycopg.IntegrityError) as error:
            raise InvalidArgument(str(error).splitlines()[0], code="unstorable") from error

    async def GetTask(self, request: pb.GetTaskRequest, context: Context) -> pb.GetTaskResponse:
        row = await self._lifecycle.get(request.task_id)
        task = task_to_proto(row) if request.without_result else await self._with_result(row)
        return pb.GetTaskResponse(task=task)

    async def GetTaskLogs(self, request: pb.GetTaskLogsRequest, context: Context) -> pb.GetTaskLogsResponse:
        row = await self._lifecycle.get(request.task_id)
        response = await self._execution.call(
            lambda stub: stub.GetLogs, GetLogsRequest(task_id=row.task_id), timeout=_RESULT_SECONDS
        )
        return pb.GetTaskLogsResponse(logs=response.logs)

    async def ListTasks(self, request: pb.ListTasksRequest, context: Context) -> pb.ListTasksResponse:
        wanted = listing(request)
        rows, next_after = await list_tasks(self._tasks, wanted)
        return pb.ListTasksResponse(tasks=[task_to_proto(row) for row in rows], next_after=next_after)

    async def CancelTask(self, request: pb.CancelTaskRequest, context: Context) -> pb.CancelTaskResponse:
        return pb.CancelTaskResponse(task=task_to_proto(await self._lifecycle.cancel(request.task_id)))

    async def DeleteTask(self, request: pb.DeleteTaskRequest, context: Context) -> pb.DeleteTaskResponse:
        result = await self._lifecycle.delete(request.task_id)
        if result == pb.DeleteTaskResponse.RESULT_REMOVED:
            await self._remove_results(request.task_id)
        return pb.DeleteTaskResponse(result=result)

    async def RetryTask(self, request: pb.RetryTaskRequest, context: Context) -> pb.RetryTaskResponse:
        return pb.RetryTaskResponse(task=task_to_proto(await self._lifecycle.retry(request.task_id)))

    async def RetryTasks(self, request: pb.RetryTasksRequest, context: Context) -> pb.RetryTasksResponse:
        wanted = finished_filter(request)
        task_ids, more = await self._lifecycle.retry_many(
            wanted, limit=request.limit or RETRIES_DEFAULT, dry_run=request.dry_run
        )
        return pb.RetryTasksResponse(task_ids=task_ids, more=more)

    async def WatchTasks(self, request: pb.WatchTasksRequest, context: Context) -> AsyncIterator[pb.WatchTasksResponse]:
        if len(request.task_ids) > _WATCHED_MAX:
            raise InvalidArgument(f"at most {_WATCHED_MAX} task ids can be watched at once", code="too_many_items")
        # Nobody pays for hearing every update before somebody wants to.
        self._feed.start()
        async for updates in watch_tasks(self._feed, self._tasks, request.task_ids):
            yield pb.WatchTasksResponse(updates=updates)

    async def ReserveTaskIds(self, request: pb.ReserveTaskIdsRequest, context: Context) -> pb.ReserveTaskIdsResponse:
        first_id, last_id = await self._ids.reserve()
        return pb.ReserveTaskIdsResponse(first_id=first_id, last_id=last_id)

    async def ListTaskTypes(self, request: pb.ListTaskTypesRequest, context: Context) -> pb.ListTaskTypesResponse:
        rows = await self._executors.list_task_types()
        return pb.ListTaskTypesResponse(entries=[catalog_entry(row) for row in rows])

    async def GetStats(self, request: pb.GetStatsRequest, context: Context) -> pb.GetStatsResponse:
        counts, oldest = await self._tasks.count_statuses()
        executors, managers = await self._executors.count_live()
        failures = await self._tasks.count_failures()
        return pb.GetStatsResponse(
            statuses=[
                pb.GetStatsResponse.StatusCount(status=STATUS_TO_PROTO[status], count=counts.get(status, 0))
                for status in TaskStatus
            ],
            live_executors=executors,
            live_managers=managers,
            oldest_queued_ms=round(oldest.total_seconds() * 1000),
            failures=[
                pb.GetStatsResponse.FailureCount(type=group.type, error_code=group.error_code, count=group.tasks)
                for group in failures
            ],
        )

    async def _with_result(self, row: TaskRow) -> Task:
        """The task with its result, which only execution replicas can read."""
        if row.result_attempt is None:
            return task_to_proto(row)
        key = AttemptKey(task_id=row.task_id, attempt=row.result_attempt)
        try:
            response = await self._execution.call(
                lambda stub: stub.GetResults, GetResultsRequest(keys=[key]), timeout=_RESULT_SECONDS
            )
        except HeadraceError as error:
            log.info("result_unavailable", task_id=row.task_id, code=error.code, reason=error.message)
            return task_to_proto(row, result_unavailable=True)
        if not response.results:
            return task_to_proto(row, result_unavailable=True)
        return task_to_proto(row, result=response.results[0].result)

    async def _remove_results(self, task_id: int) -> None:
        """Remove the results now if a replica answers; otherwise they go by age."""
        try:
            await self._execution.call(
                lambda stub: stub.RemoveResults, RemoveResultsRequest(task_ids=[task_id]), timeout=_RESULT_SECONDS
            )
        except HeadraceError as error:
            log.info("results_left_to_age", task_id=task_id, code=error.code, reason=error.message)
