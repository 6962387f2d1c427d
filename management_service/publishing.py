"""What changed, told to whoever watches: the way of committed changes to the stream of updates in Redis.

Publishing is off the path of the tasks: a change waits for nobody. What Redis has not confirmed is added again, so an
update may stand in the stream twice; readers go by revisions. What dies with its manager is added by another, from the
outbox.
"""

import asyncio
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

import structlog
from google.protobuf.timestamp_pb2 import Timestamp
from redis.asyncio import Redis

from headrace.v1.task_pb2 import TaskError, TaskUpdate, UpdateBatch
from management_service.rpc.mapping import STATUS_TO_PROTO, error_from_json
from management_service.storage.records import Change, PresentState
from management_service.update_window import UpdateWindow
from servicekit import redis_keys
from servicekit.redis_keys import CACHE_SECONDS, READY_CHANNEL, TOMBSTONE, cached_task

log = structlog.stdlib.get_logger(__name__)

_QUEUE_MAX = 50_000
# So many go out at once, or one batch.
_FLUSH_MAX = 10_000
_ENTRY_UPDATES_MAX = 1_000
_ENTRY_BYTES_MAX = 1024 * 1024
_QUIET_SECONDS = 30.0
# After a failure what waits is tried again this much later.
_PAUSE_SECONDS = 0.25


class Publisher:
    """Sends what has gathered while the previous message was on its way."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._window = UpdateWindow()
        # The id below which entries of the stream may go, to be said with the next addition.
        self._cut: str | None = None
        # Updates and the outbox rows that tell of them, as they were put.
        self._batches: deque[tuple[list[TaskUpdate], list[int]]] = deque()
        self._waiting = 0
        self._cleared: list[int] = []
        self._ready: set[str] = set()
        self._wake = asyncio.Event()
        self._complained_at = 0.0

    def put(self, updates: Iterable[TaskUpdate], *, outbox_ids: Iterable[int] = ()) -> None:
        """Publish soon. `outbox_ids` come out of `take_cleared` once that has happened."""
        if self._waiting > _QUEUE_MAX:
            # Their outbox rows stay, and are published from there.
            self._complain("updates_dropped", dropped=self._waiting)
            self._batches.clear()
            self._waiting = 0
        batch = list(updates)
        self._batches.append((batch, list(outbox_ids)))
        self._waiting += len(batch)
        self._wake.set()

    def put_ready(self, pools: Iterable[str]) -> None:
        """Tell all managers that these pools have ready tasks which nobody was sent."""
        self._ready.update(pools)
        self._wake.set()

    def take_cleared(self) -> list[int]:
        """Return the outbox rows whose updates have been published, to be deleted along with the next batch."""
        cleared, self._cleared = self._cleared, []
        return cleared

    def give_back_cleared(self, outbox_ids: Iterable[int]) -> None:
        """Take rows back whose deletion did not happen."""
        self._cleared.extend(outbox_ids)

    async def put_tombstones(self, task_ids: Iterable[int]) -> None:
        """Make readers ask management about these tasks. Raises RedisError."""
        pipeline = self._redis.pipeline(transaction=False)
        for task_id in task_ids:
            pipeline.set(cached_task(task_id), TOMBSTONE, ex=CACHE_SECONDS)
        await pipeline.execute()

    async def publish_now(self, updates: Sequence[TaskUpdate]) -> None:
        """Publish, or raise RedisError."""
        if updates:
            await self._add(updates, ready=())

    async def run(self) -> None:
        """Publish until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            if not await self._flush():
                await asyncio.sleep(_PAUSE_SECONDS)

    async def settle(self) -> None:
        """Publish what waits, before leaving."""
        while (self._batches or self._ready) and await self._flush():
            pass

    async def _flush(self) -> bool:
        """Publish the oldest of what waits; where that fails, it waits on."""
        taken = list(self._take_batches())
        ready: set[str] = set()
        if not self._batches:
            ready, self._ready = self._ready, ready
        try:
            await self._add([update for updates, _ in taken for update in updates], ready)
        except Exception as error:  # noqa: BLE001 - later updates must go out whatever became of these
            self._batches.extendleft(reversed(taken))
            self._waiting += sum(len(updates) for updates, _ in taken)
            self._complain("updates_not_published", reason=str(error), waiting=self._waiting)
            self._ready |= ready
            self._wake.set()
            return False
        self._cleared.extend(outbox_id for _, outbox_ids in taken for outbox_id in outbox_ids)
        if self._batches:
            self._wake.set()
        return True

    def _take_batches(self) -> Iterator[tuple[list[TaskUpdate], list[int]]]:
        count = 0
        while self._batches and (not count or count + len(self._batches[0][0]) <= _FLUSH_MAX):
            batch = self._batches.popleft()
            count += len(batch[0])
            self._waiting -= len(batch[0])
            yield batch

    async def _add(self, updates: Sequence[TaskUpdate], ready: Iterable[str]) -> None:
        """Add to the stream, count that, and only then wake other managers: their claims are published after it."""
        pipeline = self._redis.pipeline(transaction=False)
        entries = 0
        for entries, (count, entry) in enumerate(entries_of(updates), 1):  # noqa: B007 - how many there were
            pipeline.xadd(redis_keys.UPDATES, {redis_keys.UPDATES_FIELD: entry})
            pipeline.hincrby(redis_keys.UPDATES_ADDED, redis_keys.UPDATES_ADDED_UPDATES, count)
            pipeline.hincrby(redis_keys.UPDATES_ADDED, redis_keys.UPDATES_ADDED_BYTES, len(entry))
        if ready:
            pipeline.publish(READY_CHANNEL, ",".join(sorted(ready)))
        if self._cut is not None:
            pipeline.xtrim(redis_keys.UPDATES, minid=self._cut, approximate=True)
        answers = await pipeline.execute()
        self._cut = None
        if entries:
            entry_id, added, added_bytes = answers[3 * entries - 3 : 3 * entries]
            self._cut = self._window.note(entry_id.decode(), updates=added, bytes_=added_bytes)

    def _complain(self, event: str, **fields: object) -> None:
        if time.monotonic() - self._complained_at > _QUIET_SECONDS:
            self._complained_at = time.monotonic()
            log.warning(event, **fields)


def entries_of(updates: Sequence[TaskUpdate]) -> Iterator[tuple[int, bytes]]:
    """Split into entries of the stream: (number of updates, serialized UpdateBatch)."""
    encoded = [update.SerializeToString() for update in updates]
    start = 0
    while start < len(updates):
        end = min(start + _ENTRY_UPDATES_MAX, len(updates))
        while end > start + 1 and sum(map(len, encoded[start:end])) > _ENTRY_BYTES_MAX:
            end = (start + end + 1) // 2
        chunk = updates[start:end]
        batch = UpdateBatch(
            task_ids=[update.task_id for update in chunk],
            updates=encoded[start:end],
            revisions=[update.revision for update in chunk],
        )
        yield len(chunk), batch.SerializeToString()
        start = end


def wall_time() -> Timestamp:
    """The time of an update, for display."""
    seconds, nanos = divmod(time.time_ns(), 1_000_000_000)
    return Timestamp(seconds=seconds, nanos=nanos)


def _brief_error(text: str | None) -> TaskError | None:
    """The error as updates carry it: what the attempt printed is read with the task."""
    error = error_from_json(text)
    if error is not None:
        error.ClearField("log_tail")
    return error


def update_of(change: Change, *, at: Timestamp) -> TaskUpdate:
    """The update that tells of `change`."""
    return TaskUpdate(
        task_id=change.task_id,
        type=change.type,
        status=STATUS_TO_PROTO[change.status],
        attempt=change.attempt,
        revision=change.revision,
        at=at,
        error=_brief_error(change.error),
    )


def update_of_state(state: PresentState) -> TaskUpdate:
    """The update that tells of a task's present state."""
    return TaskUpdate(
        task_id=state.task_id,
        type=state.type,
        status=STATUS_TO_PROTO[state.status],
        attempt=state.attempt,
        revision=state.revision,
        at=wall_time(),
        error=_brief_error(state.error),
    )


def update_of_past(state: PresentState, *, status: str, attempt: int, revision: int, at: datetime) -> TaskUpdate:
    """The update that tells of a change of `state`'s task, made then or earlier."""
    update = TaskUpdate(
        task_id=state.task_id, type=state.type, status=STATUS_TO_PROTO[status], attempt=attempt, revision=revision
    )
    update.at.FromDatetime(at)
    if state.revision == revision and (error := _brief_error(state.error)) is not None:
        update.error.CopyFrom(error)
    return update
