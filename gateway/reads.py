"""Reads one task: from the cache, from management, or as `queued` when it was accepted and is not stored yet."""

import time

from gateway.cache import Peek, TaskCache
from gateway.management import Management
from gateway.views import waiting_task
from headrace.v1.task_pb2 import Task, TaskUpdate
from servicekit.errors import HeadraceError, NotFound, Unavailable


class TaskReader:
    def __init__(self, cache: TaskCache, management: Management) -> None:
        self._cache = cache
        self._management = management

    async def read(self, task_id: int) -> Task:
        """Return the task; one not stored yet has revision 0.

        Raises NotFound only when that is sure: the marker was looked for before management was asked, so a task that
        was stored in between is found by one or the other.
        """
        return await self._read(task_id, await self._cache.peek(task_id))

    async def read_to_follow(self, task_id: int) -> Task:
        """As `read`, for those who hear of what follows: a task with a marker is queued, and nobody else is asked."""
        peek = await self._cache.peek(task_id)
        return waiting_task(task_id) if peek.unstored else await self._read(task_id, peek)

    async def read_ended(self, update: TaskUpdate) -> Task:
        """Read a task whose final update was heard, with the result that came along if one did."""
        if not update.HasField("result"):
            return await self.read(update.task_id)
        asked_at = time.monotonic()
        task = await self._management.get_task(update.task_id, without_result=True)
        if task.result_attempt != update.attempt:  # it was started again meanwhile
            return await self.read(update.task_id)
        task.result = update.result
        self._cache.offer(task, asked_at=asked_at)
        return task

    async def _read(self, task_id: int, peek: Peek) -> Task:
        if peek.cached is not None:
            return peek.cached
        asked_at = time.monotonic()
        try:
            task = await self._management.get_task(task_id)
        except NotFound:
            if peek.unstored:
                return waiting_task(task_id)
            raise absent(task_id, peek) from None
        if not peek.occupied:
            self._cache.offer(task, asked_at=asked_at)
        return task


def absent(task_id: int, peek: Peek) -> HeadraceError:
    """What to say of a task that has no row and, as far as Redis could be asked, no marker."""
    if peek.readable:
        return NotFound(f"There is no task {task_id}.", code="task_not_found")
    return Unavailable("It cannot be told now whether this task was accepted.", code="redis_unavailable")
