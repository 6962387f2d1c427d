"""Waits for the end of a task: `?wait=`, and the outcome of a cancel."""

import time

from gateway.reads import TaskReader
from gateway.views import is_final
from headrace.v1.task_pb2 import Task, TaskUpdate
from servicekit.updates import FeedSignal, Subscription, UpdateFeed

# However silent the feed is, the task is read again after so many seconds.
_READ_AGAIN_SECONDS = 2.0
# What a missing revision may take to arrive before the task is read again.
_GAP_SECONDS = 1.0


class TaskWaiter:
    def __init__(self, reader: TaskReader, feed: UpdateFeed) -> None:
        self._reader = reader
        self._feed = feed

    async def wait(self, task_id: int, *, seconds: float) -> Task:
        """Return the task when it has ended, or as it is after `seconds`, or when the gateway stops."""
        deadline = time.monotonic() + seconds
        with self._feed.subscribe(task_id) as subscription:
            while True:
                task = await self._reader.read(task_id)
                if is_final(task.status) or time.monotonic() >= deadline:
                    return task
                if not await _changed(subscription, task, deadline):
                    return task


async def _changed(subscription: Subscription, task: Task, deadline: float) -> bool:
    """Return True when the task should be read again, False when the feed has ended.

    Updates on the way to the end are not worth a read: only a final one is, or a sign that one may have been missed.
    """
    read_at = min(deadline, time.monotonic() + _READ_AGAIN_SECONDS)
    revision = task.revision
    while (left := read_at - time.monotonic()) > 0:
        heard = await subscription.next(timeout=left)
        if isinstance(heard, TaskUpdate):
            if is_final(heard.status) and heard.revision > task.revision:
                return True
            if heard.revision > revision + 1:
                read_at = min(read_at, time.monotonic() + _GAP_SECONDS)
            revision = max(revision, heard.revision)
        elif heard is FeedSignal.RESYNC:
            return True
        elif heard is not None:
            return False
    return True
