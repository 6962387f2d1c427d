"""What a client that follows one task is told: its state, then every change in order, until the task has ended."""

import time
from collections.abc import AsyncIterator

import structlog

from gateway.reads import TaskReader
from gateway.views import is_final, snapshot_event, update_event
from headrace.v1.task_pb2 import Task, TaskStatus, TaskUpdate
from servicekit.errors import HeadraceError, NotFound, Overloaded
from servicekit.updates import FeedSignal, UpdateFeed

log = structlog.stdlib.get_logger(__name__)

# What a missing revision may take to arrive before a snapshot stands for it.
_GAP_SECONDS = 1.0
_HELD_MAX = 64
# However silent the feed is, the task is read again after so many seconds; sooner while the feed has no connection.
_LOOK_SECONDS = 15.0
_LOOK_SECONDS_DEAF = 2.0


class FeedEnded(Exception):  # noqa: N818 - not an error: the gateway stops
    pass


class TaskStory:
    """Tells the story of one task once. Revisions never go backwards; progress goes by (attempt, n)."""

    def __init__(self, task_id: int, reader: TaskReader, feed: UpdateFeed) -> None:
        self._task_id = task_id
        self._reader = reader
        self._feed = feed
        self._revision = -1
        self._progress = (0, 0)
        self._ended = False
        # Updates that came before one that is missing.
        self._held: dict[int, TaskUpdate] = {}
        self._look_at = 0.0

    async def events(self) -> AsyncIterator[bytes]:
        """Yield encoded events; the last one is final.

        Raises NotFound for a task that does not exist, Overloaded when the reader is too slow, FeedEnded when the
        gateway stops.
        """
        with self._feed.subscribe(self._task_id) as subscription:
            for event in self._adopt(await self._reader.read(self._task_id)):
                yield event
            while not self._ended:
                heard = await subscription.next(timeout=self._look_at - time.monotonic())
                for event in await self._react(heard):
                    yield event

    async def _react(self, heard: TaskUpdate | FeedSignal | None) -> list[bytes]:
        if isinstance(heard, TaskUpdate):
            return await self._take(heard)
        if heard is FeedSignal.CLOSED:
            raise FeedEnded
        if heard is FeedSignal.OVERFLOW:
            raise Overloaded("The connection takes updates too slowly.", code="too_slow")
        return await self._look()

    async def _take(self, update: TaskUpdate) -> list[bytes]:
        if update.HasField("progress"):
            return self._take_progress(update)
        if update.revision <= self._revision:
            return []
        if is_final(update.status):
            return await self._take_final(update)
        if update.revision > self._revision + 1:
            self._hold(update)
            return []
        return [self._tell(update), *self._tell_held()]

    def _take_progress(self, update: TaskUpdate) -> list[bytes]:
        position = (update.attempt, update.progress.n)
        if position <= self._progress:
            return []
        self._progress = position
        return [update_event(update)]

    async def _take_final(self, update: TaskUpdate) -> list[bytes]:
        """A final update ends the story at once, gap or not; what it cannot carry is read."""
        completed = update.status == TaskStatus.TASK_STATUS_COMPLETED
        if update.HasField("result") if completed else update.HasField("error"):
            return [self._tell(update)]
        return await self._look()

    def _hold(self, update: TaskUpdate) -> None:
        if len(self._held) < _HELD_MAX:
            self._held[update.revision] = update
        self._look_at = min(self._look_at, time.monotonic() + _GAP_SECONDS)

    async def _look(self) -> list[bytes]:
        """Take a snapshot. While it cannot be had, the story goes on with what the feed brings."""
        try:
            return self._adopt(await self._reader.read(self._task_id))
        except NotFound:
            raise
        except HeadraceError as error:
            log.info("snapshot_delayed", task_id=self._task_id, code=error.code)
            self._look_at = time.monotonic() + _LOOK_SECONDS_DEAF
            return []

    def _adopt(self, task: Task) -> list[bytes]:
        self._look_at = time.monotonic() + (_LOOK_SECONDS if self._feed.connected else _LOOK_SECONDS_DEAF)
        if task.revision <= self._revision:
            return self._tell_held()
        self._revision = task.revision
        self._ended = is_final(task.status)
        return [snapshot_event(task), *self._tell_held()]

    def _tell(self, update: TaskUpdate) -> bytes:
        self._revision = update.revision
        self._ended = is_final(update.status)
        return update_event(update)

    def _tell_held(self) -> list[bytes]:
        """Tell what follows without a gap, and drop what is told already."""
        events: list[bytes] = []
        for revision in sorted(self._held):
            if revision <= self._revision + 1:
                update = self._held.pop(revision)
                if revision == self._revision + 1:
                    events.append(self._tell(update))
        return events
