"""What users ask of tasks: cancel, remove, start again."""

from collections.abc import Callable

import structlog

from headrace.v1.management_pb2 import DeleteTaskResponse
from management_service.domain.statuses import TaskStatus
from management_service.publishing import Publisher
from management_service.reports import ReportDesk
from management_service.storage.records import Change, FinishedFilter, TaskRow
from management_service.storage.tasks import TaskRepository
from servicekit import failpoints
from servicekit.errors import Conflict, NotFound, Unavailable
from servicekit.redis_errors import REDIS_ERRORS

log = structlog.stdlib.get_logger(__name__)

# A task may move between our reads and writes; it does not do so for ever.
_TRIES_MAX = 5


class TaskLifecycle:
    """`pass_on_cancel(task_id, attempt)` tells the session's replica at once if a stream of ours reaches it."""

    def __init__(
        self,
        tasks: TaskRepository,
        reports: ReportDesk,
        publisher: Publisher,
        *,
        pass_on_cancel: Callable[[int, int], None],
    ) -> None:
        self._tasks = tasks
        self._reports = reports
        self._publisher = publisher
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
        changes = await self._tasks.retry([task_id])
        row = await self.get(task_id)
        if not changes:
            raise Conflict(f"task {task_id} is {row.status}: only a final task can be retried", code="not_final")
        self._reports.publish(changes)
        return row

    async def retry_many(self, wanted: FinishedFilter, *, limit: int, dry_run: bool) -> tuple[list[int], bool]:
        """Start up to `limit` tasks that fit again, or with `dry_run` find them alone.

        Returns their ids, and whether more fit. Raises Unavailable when readers cannot be told to forget what they
        know of the tasks; then nothing was changed.
        """
        found = await self._tasks.find_finished(wanted, limit=limit + 1)
        task_ids, more = found[:limit], len(found) > limit
        if dry_run or not task_ids:
            return task_ids, more
        try:
            await self._publisher.put_tombstones(task_ids)
        except REDIS_ERRORS as error:
            raise Unavailable(
                "Redis does not answer: nothing was retried", code="redis_down", retry_after=1.0
            ) from error
        changes = await self._tasks.retry(task_ids)
        log.info("tasks_retried", count=len(changes), of=len(task_ids))
        self._reports.publish(changes)
        started = {change.task_id for change in changes}
        return [task_id for task_id in task_ids if task_id in started], more

    async def get(self, task_id: int) -> TaskRow:
        row = await self._tasks.get(task_id)
        if row is None:
            raise NotFound(f"there is no task {task_id}", code="task_not_found")
        return row

    def _cancelled(self, change: Change) -> None:
        failpoints.hit("lifecycle.after_cancel")
        log.info("cancel_requested", task_id=change.task_id, attempt=change.attempt, status=change.status)
        self._reports.publish([change])
        if change.status == TaskStatus.PROCESSING:
            self._pass_on_cancel(change.task_id, change.attempt)


def _restless(task_id: int) -> Unavailable:
    return Unavailable(f"task {task_id} kept changing, try again", code="task_changing", retry_after=0.5)
