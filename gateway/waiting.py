"""Waits for the end of a task: `?wait=`, and the outcome of a cancel."""

import time

from gateway.reads import TaskReader
from headrace.v1.task_pb2 import Task, TaskUpdate
from servicekit.errors import DeadlineExceeded, Unavailable
from servicekit.task_views import is_final
from servicekit.updates import FeedSignal, Subscription, UpdateFeed

# However silent the feed is, the task is read again after so many seconds; less and less often while the feed has a
# connection, since whatever is lost then is published again or noticed by the feed itself.
_READ_AGAIN_SECONDS = 2.0
_READ_AGAIN_SECONDS_MAX = 16.0
# What a missing revision may take to arrive before the task is read again.
_GAP_SECONDS = 1.0
_PAUSE_SECONDS = 0.1


class TaskWaiter:
    def __init__(self, reader: TaskReader, feed: UpdateFeed) -> None:
        self._reader = reader
        self._feed = feed

    async def wait(self, task_id: int, *, seconds: float) -> Task:
        """Return the task when it has ended, or as it is after `seconds`, or when the gateway stops.

        Once the task was read, a read that fails is made up for by the next.
        """
        deadline = time.monotonic() + seconds
        with self._feed.subscribe(task_id) as subscription:
            task = await self._reader.read_to_follow(task_id)
            patience = _READ_AGAIN_SECONDS
            while not is_final(task.status) and time.monotonic() < deadline:
                heard = await _heard(subscription, task, min(deadline, time.monotonic() + patience))
                if isinstance(heard, FeedSignal):
                    break
                try:
                    task = await self._read_again(task.task_id, heard)
                except (Unavailable, DeadlineExceeded):
                    if time.monotonic() >= deadline:
                        raise
                    # What was heard is not forgotten: the task is read again soon.
                    patience = _PAUSE_SECONDS
                else:
                    patience = self._next_patience(patience)
            return task

    async def _read_again(self, task_id: int, heard: TaskUpdate | None) -> Task:
        return await (self._reader.read(task_id) if heard is None else self._reader.read_ended(heard))

    def _next_patience(self, patience: float) -> float:
        if not self._feed.connected:
            return _READ_AGAIN_SECONDS
        return min(max(patience, _READ_AGAIN_SECONDS / 2) * 2, _READ_AGAIN_SECONDS_MAX)


async def _heard(subscription: Subscription, task: Task, read_at: float) -> TaskUpdate | FeedSignal | None:
    """Return the final update, or nothing when the task should be read again anyway, at `read_at` the latest; CLOSED
    when the feed has ended.

    Updates on the way to the end are not worth a read: only a final one is, or a sign that one may have been missed.
    """
    revision = task.revision
    while (left := read_at - time.monotonic()) > 0:
        heard = await subscription.next(timeout=left)
        if isinstance(heard, TaskUpdate):
            if is_final(heard.status) and heard.revision > task.revision:
                return heard
            if heard.revision > revision + 1:
                read_at = min(read_at, time.monotonic() + _GAP_SECONDS)
            revision = max(revision, heard.revision)
        elif heard is FeedSignal.RESYNC:
            return None
        elif heard is not None:
            return FeedSignal.CLOSED
    return None
