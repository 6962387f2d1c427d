"""What DELETE and retry do to a task, with the tombstones that keep old answers out of the cache."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal, TypeVar

from gateway.cache import TaskCache
from gateway.management import Management
from gateway.reads import absent
from gateway.waiting import TaskWaiter
from headrace.v1.management_pb2 import DeleteTaskResponse
from headrace.v1.task_pb2 import CancelReceipt, Task, TaskStatus
from servicekit.errors import NotFound, Unavailable

_ROW_SECONDS = 5.0
_ROW_PAUSE_SECONDS = 0.05
_OUTCOME_SECONDS = 5.0

Deletion = Literal["removed", "cancelled", "cancel_requested"]
Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Deleted:
    """What a DELETE did."""

    how: Deletion
    # What ended the attempt, where a running task was cancelled and its end was seen.
    receipt: CancelReceipt | None = None


_DELETIONS: dict[int, Deletion] = {
    DeleteTaskResponse.RESULT_REMOVED: "removed",
    DeleteTaskResponse.RESULT_CANCELLED: "cancelled",
    DeleteTaskResponse.RESULT_CANCEL_REQUESTED: "cancel_requested",
}


class TaskChanges:
    def __init__(self, cache: TaskCache, management: Management, waiter: TaskWaiter) -> None:
        self._cache = cache
        self._management = management
        self._waiter = waiter

    async def delete(self, task_id: int) -> Deleted:
        """Cancel an unfinished task or remove a finished one. A running task is given some seconds to stop.

        Raises Conflict when the task ended otherwise before the cancel reached it.
        """
        deletion = await self._delete_once(task_id)
        if deletion != "cancel_requested":
            return Deleted(deletion)
        task = await self._waiter.wait(task_id, seconds=_OUTCOME_SECONDS)
        # While a cancel is fresh a repeat removes nothing and tells how it went.
        deletion = await self._delete_once(task_id)
        known = task.status == TaskStatus.TASK_STATUS_CANCELLED and task.error.HasField("receipt")
        return Deleted(deletion, task.error.receipt if known and deletion == "cancelled" else None)

    async def retry(self, task_id: int) -> Task:
        """Start a finished task again. Raises Conflict when it is not finished."""
        return await self._with_row(task_id, self._management.retry_task)

    async def _delete_once(self, task_id: int) -> Deletion:
        return _DELETIONS[await self._with_row(task_id, self._management.delete_task)]

    async def _with_row(self, task_id: int, change: Callable[[int], Awaitable[Answer]]) -> Answer:
        """Do `change`; if the task was accepted and has no row yet, wait for the row."""
        deadline = time.monotonic() + _ROW_SECONDS
        while True:
            peek = await self._cache.bury(task_id)
            try:
                return await change(task_id)
            except NotFound:
                if not peek.unstored:
                    raise absent(task_id, peek) from None
            if time.monotonic() >= deadline:
                message = "The task was accepted and is not stored yet; try again soon."
                raise Unavailable(message, code="not_stored_yet", retry_after=1.0)
            await asyncio.sleep(_ROW_PAUSE_SECONDS)
