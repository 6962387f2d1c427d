"""What users ask of single tasks: cancel, remove, start again."""

from collections.abc import Callable

import structlog

from headrace.v1.management_pb2 import DeleteTaskResponse
from management_service.domain.statuses import TaskStatus
from management_service.reports import ReportDesk
from management_service.storage.records import Change, TaskRow
from management_service.storage.tasks import TaskRepository
from servicekit.errors import Conflict, NotFound, Unavailable

log = structlog.stdlib.get_logger(__name__)

# A task may move between our reads and writes; it does not do so for ever.
_TRIES_MAX = 5


class TaskLifecycle:
    """`pass_on_cancel(task_id, attempt)` tells the session's replica at once if a stream of ours reaches it."""

    def __init__(
        self, tasks: TaskRepository, reports: ReportDesk, *, pass_on_cancel: Callable[[int, int], None]
    ) -> None:
        self._tasks = tasks
        self._reports = reports
        self._pass_on_cancel = pass_on_cancel

    async def cancel(self, task_id: int) -> TaskRow:
        """Cancel the task or record the wish; return it as it is then. Raises NotFound, Conflict `already_final`."""
        for _ in range(_TRIES_MAX):
            if change := await self._tasks.request_cancel(task_id):
                self._cancelled(change)
            row = await self.get(task_id)
            if row.status == TaskStatus.CANCELLED or (row.status == TaskStatus.PROCESSING and row.cancel_requested_at):
                return row
            if row.finished_at is not None:
                raise Conflict(f"task {task_id} is {row.status} already", code="already_final")
        raise _restless(task_id)

    async def delete(self, task_id: int) -> DeleteTaskResponse.Result.ValueType:
        """Cancel an unfinished task, remove a finished one. Raises NotFound, Conflict `already_final` where this
        repeats a cancel that lost against the task's end.
        """
        for _ in range(_TRIES_MAX):
            row = await self.get(task_id)
            if row.finished_at is None:
                if change := await self._tasks.request_cancel(task_id):
                    self._cancelled(change)
                    if change.status == TaskStatus.CANCELLED:
                        return DeleteTaskResponse.RESULT_CANCELLED
                    return DeleteTaskResponse.RESULT_CANCEL_REQUESTED
                if row.status == TaskStatus.PROCESSING and row.cancel_requested_at is not None:
                    return DeleteTaskResponse.RESULT_CANCEL_REQUESTED
            elif await self._tasks.remove(task_id):
                return DeleteTaskResponse.RESULT_REMOVED
            elif row.cancel_requested_at is not None:
                if row.status == TaskStatus.CANCELLED:
                    return DeleteTaskResponse.RESULT_CANCELLED
                raise Conflict(f"task {task_id} had {row.status} before the cancel", code="already_final")
        raise _restless(task_id)

    async def retry(self, task_id: int) -> TaskRow:
        """Start a final task again as a new round. Raises NotFound, Conflict `not_final`."""
        change = await self._tasks.retry(task_id)
        row = await self.get(task_id)
        if change is None:
            raise Conflict(f"task {task_id} is {row.status}: only a final task can be retried", code="not_final")
        self._reports.publish([change])
        return row

    async def get(self, task_id: int) -> TaskRow:
        row = await self._tasks.get(task_id)
        if row is None:
            raise NotFound(f"there is no task {task_id}", code="task_not_found")
        return row

    def _cancelled(self, change: Change) -> None:
        log.info("cancel_requested", task_id=change.task_id, attempt=change.attempt, status=change.status)
        self._reports.publish([change])
        if change.status == TaskStatus.PROCESSING:
            self._pass_on_cancel(change.task_id, change.attempt)


def _restless(task_id: int) -> Unavailable:
    return Unavailable(f"task {task_id} kept changing, try again", code="task_changing", retry_after=0.5)
