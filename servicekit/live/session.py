"""What one reader is told: where it stood or a snapshot, then every event that it wants, in order."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

import structlog

from headrace.v1.task_pb2 import TaskUpdate
from servicekit.errors import HeadraceError, NotFound, Overloaded
from servicekit.live.cursors import Cursor
from servicekit.live.events import LiveEvent
from servicekit.live.filters import Filter
from servicekit.live.hub import Hub, Listener
from servicekit.live.mailbox import Signal
from servicekit.live.sources import LiveSource, Snapshot
from servicekit.task_views import is_final

log = structlog.stdlib.get_logger(__name__)

# While the source hears nothing, and while a snapshot cannot be had, it is asked for again after so many seconds.
LOOK_SECONDS = 2.0
# A reader that hears nothing is told so after so many seconds, and tasks that it names are read again.
IDLE_SECONDS = 15.0
# Updates that a snapshot was ahead of are published within this time; until they were, events get no cursor.
SETTLE_SECONDS = 5.0
# What a snapshot says of a task has been published if it is so much older than the newest event, whatever the clocks.
SETTLED_MS = 60_000
# After so many old events others get their turn.
REPLAYED_AT_ONCE = 500
# So many tasks that snapshots told of are remembered; beyond, a change may be told twice while the source is deaf.
TOLD_MAX = 10_000


class StreamClosed(Exception):  # noqa: N818 - not an error: the service stops
    pass


@dataclass(frozen=True, slots=True)
class SnapshotFrame:
    """The present state. `reset`: what the reader knew is void, since events were missed.

    The place is good for coming back, if there is one.
    """

    snapshot: Snapshot
    reset: bool
    cursor: Cursor | None = None


@dataclass(frozen=True, slots=True)
class EventFrame:
    """One event. `placed`: a reader that comes back with its cursor misses nothing and hears nothing twice."""

    event: LiveEvent
    placed: bool


Frame = SnapshotFrame | EventFrame


def tells_end(frame: Frame) -> bool:
    """Whether a frame of a stream of one task says that the task has ended."""
    if isinstance(frame, SnapshotFrame):
        return any(is_final(update.status) for update in frame.snapshot.updates)
    return frame.event.is_final


class LiveSession:
    """One use only. A reader that wants something else is given another session."""

    def __init__(self, hub: Hub, source: LiveSource, wanted: Filter, cursor: Cursor | None = None) -> None:
        self._hub = hub
        self._source = source
        self._wanted = wanted
        self._cursor = cursor
        # What snapshots have told of tasks whose updates may still come.
        self._told: dict[int, TaskUpdate] = {}
        # The part of it that had not been published when the snapshot was taken.
        self._ahead: dict[int, int] = {}
        self._ahead_until = 0.0
        self._looked_at = 0.0
        self._snapshot_missed = False
        # Tasks and revisions that the last look found, and that were not published.
        self._suspects: dict[int, int] = {}

    async def frames(self) -> AsyncGenerator[Frame | None, None]:
        """Yield until the reader leaves; nothing at all (None) is yielded every IDLE_SECONDS without news.

        The first is a snapshot, or nothing where the stream goes on after the cursor.

        Raises HeadraceError where the first snapshot cannot be had, Overloaded (`too_slow`) when the reader has left
        too much unread, StreamClosed when the service stops.
        """
        await self._source.ready()
        with contextlib.closing(self._hub.add(self._wanted)) as listener:
            if self._hub.is_closed:
                raise StreamClosed
            self._looked_at = time.monotonic()
            replay = self._source.replay(self._cursor) if self._cursor else None
            if replay is None:
                yield await self._read_snapshot(reset=self._cursor is not None)
            else:
                yield None
            for number, event in enumerate(replay or ()):
                if self._wanted.wants(event.update):
                    yield EventFrame(event, placed=True)
                if number % REPLAYED_AT_ONCE == REPLAYED_AT_ONCE - 1:
                    await asyncio.sleep(0)
            while True:
                for frame in await self._next(listener):
                    yield frame
                if await listener.mailbox.is_idle(self._seconds_to_look()):
                    yield None

    async def _read_snapshot(self, *, reset: bool) -> SnapshotFrame:
        begun = self._source.position
        snapshot = await self._source.snapshot(self._wanted)
        self._told.clear()
        self._adopt(snapshot, told=snapshot.updates)
        return SnapshotFrame(snapshot, reset, begun if self._is_settled() else None)

    async def _next(self, listener: Listener) -> Sequence[Frame]:
        heard = listener.mailbox.take()
        if isinstance(heard, LiveEvent):
            # Between a hole and its snapshot a reader hears nothing: what follows the hole is in the snapshot.
            return () if self._snapshot_missed else self._tell(heard)
        if heard is Signal.CLOSED:
            raise StreamClosed
        if heard is Signal.TOO_SLOW:
            raise Overloaded("The connection takes events too slowly; resume with the last cursor.", code="too_slow")
        if heard is Signal.RESET:
            return await self._start_anew()
        if self._seconds_to_look() > 0:
            return ()
        return await (self._start_anew() if self._snapshot_missed else self._look())

    def _seconds_to_look(self) -> float:
        """How long until the tasks are read again, however silent the source is.

        Tasks that are named are few enough for that always; of others every change is heard, or the log is reset.
        """
        if self._snapshot_missed or self._source.is_deaf:
            pause = LOOK_SECONDS
        elif self._wanted.task_ids:
            pause = IDLE_SECONDS
        else:
            return IDLE_SECONDS
        return self._looked_at + pause - time.monotonic()

    def _tell(self, event: LiveEvent) -> Sequence[Frame]:
        update = event.update
        told = self._told.get(update.task_id)
        if told is not None:
            if event.is_progress:
                if is_final(told.status) or told.attempt > update.attempt:
                    return ()
            elif 0 < update.revision <= told.revision:
                self._note_published(update)
                return ()
            else:
                self._told.pop(update.task_id)
        self._note_published(update)
        return [EventFrame(event, placed=self._is_settled())]

    def _note_published(self, update: TaskUpdate) -> None:
        ahead = self._ahead.get(update.task_id)
        if ahead is not None and not update.HasField("progress") and update.revision >= ahead:
            del self._ahead[update.task_id]

    def _is_settled(self) -> bool:
        if self._ahead and time.monotonic() >= self._ahead_until:
            self._ahead.clear()
        return not self._ahead

    async def _start_anew(self) -> Sequence[Frame]:
        """Void what was told, once a snapshot can be had."""
        self._snapshot_missed = True
        try:
            frame = await self._read_snapshot(reset=True)
        except HeadraceError as error:
            self._postpone(error)
            return ()
        self._snapshot_missed = False
        return [frame]

    async def _look(self) -> Sequence[Frame]:
        """Tell by a snapshot what has changed unheard."""
        try:
            snapshot = await self._source.snapshot(self._wanted)
        except NotFound:
            raise
        except HeadraceError as error:
            self._postpone(error)
            return ()
        news = [update for update in snapshot.updates if self._is_news(update)]
        if not self._source.is_deaf:
            # Most likely it is just on its way. Only what has not come by the next look will not come.
            suspects = {update.task_id: update.revision for update in news}
            news = [update for update in news if self._suspects.get(update.task_id) == update.revision]
            self._suspects = suspects
        # What was published while the tasks were read waits to be told: taken for told, it would be lost.
        self._adopt(snapshot, told=news)
        return [EventFrame(LiveEvent(update), placed=False) for update in news]

    def _is_news(self, update: TaskUpdate) -> bool:
        told = self._told.get(update.task_id)
        published = self._source.revision_of(update.task_id)
        known = max(told.revision if told is not None else -1, -1 if published is None else published)
        return update.revision > known

    def _adopt(self, snapshot: Snapshot, *, told: Sequence[TaskUpdate]) -> None:
        now = time.monotonic()
        self._looked_at = now
        self._ahead_until = now + SETTLE_SECONDS
        if len(self._told) > TOLD_MAX:
            self._told.clear()
        self._told.update((update.task_id, update) for update in told)
        for update in snapshot.updates:
            if self._may_be_unpublished(update):
                self._ahead[update.task_id] = update.revision

    def _may_be_unpublished(self, update: TaskUpdate) -> bool:
        published, position = self._source.revision_of(update.task_id), self._source.position
        if published is not None or position is None:
            return published is None or published < update.revision
        # Of a task that has not changed for long nothing may be known any more.
        return update.at.ToMilliseconds() > position.ms - SETTLED_MS

    def _postpone(self, error: HeadraceError) -> None:
        self._looked_at = time.monotonic()
        log.info("snapshot_delayed", code=error.code)
