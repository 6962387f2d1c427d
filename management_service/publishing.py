"""What changed, told to whoever watches: the way of committed changes to the channels of Redis.

Publishing is off the path of the tasks: a change waits for nobody. What is lost on the way, final updates excepted,
a reader notices by the gap in revisions; final updates are published again from the outbox.
"""

import asyncio
import time
from collections.abc import Iterable

import structlog
from google.protobuf.timestamp_pb2 import Timestamp
from redis.asyncio import Redis

from headrace.v1.task_pb2 import TaskError, TaskUpdate, UpdateBatch
from management_service.rpc.mapping import STATUS_TO_PROTO, error_from_json
from management_service.storage.records import Change, PresentState
from servicekit.redis_keys import CACHE_SECONDS, READY_CHANNEL, TOMBSTONE, UPDATES_CHANNEL, cached_task

log = structlog.stdlib.get_logger(__name__)

_QUEUE_MAX = 50_000
_MESSAGE_UPDATES_MAX = 5_000
_QUIET_SECONDS = 30.0


class Publisher:
    """Sends what has gathered while the previous message was on its way."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._updates: list[TaskUpdate] = []
        self._outbox_ids: list[int] = []
        self._cleared: list[int] = []
        self._ready: set[str] = set()
        self._wake = asyncio.Event()
        self._complained_at = 0.0

    def put(self, updates: Iterable[TaskUpdate], *, outbox_ids: Iterable[int] = ()) -> None:
        """Publish soon. `outbox_ids` come out of `take_cleared` once that has happened."""
        if len(self._updates) > _QUEUE_MAX:
            self._complain("updates_dropped", dropped=len(self._updates))
            self._updates, self._outbox_ids = [], []
        self._updates.extend(updates)
        self._outbox_ids.extend(outbox_ids)
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

    async def publish_now(self, updates: list[TaskUpdate]) -> None:
        """Publish, or raise RedisError."""
        if updates:
            await self._redis.publish(UPDATES_CHANNEL, encode_updates(updates))

    async def run(self) -> None:
        """Publish until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            await self._flush()

    async def settle(self) -> None:
        """Publish what waits, before leaving."""
        await self._flush()

    async def _flush(self) -> None:
        updates, self._updates = self._updates, []
        outbox_ids, self._outbox_ids = self._outbox_ids, []
        ready, self._ready = self._ready, set()
        try:
            pipeline = self._redis.pipeline(transaction=False)
            for start in range(0, len(updates), _MESSAGE_UPDATES_MAX):
                pipeline.publish(UPDATES_CHANNEL, encode_updates(updates[start : start + _MESSAGE_UPDATES_MAX]))
            if ready:
                pipeline.publish(READY_CHANNEL, ",".join(sorted(ready)))
            await pipeline.execute()
        except Exception as error:  # noqa: BLE001 - later updates must go out whatever became of these
            self._complain("updates_not_published", reason=str(error), dropped=len(updates))
        else:
            self._cleared.extend(outbox_ids)

    def _complain(self, event: str, **fields: object) -> None:
        if time.monotonic() - self._complained_at > _QUIET_SECONDS:
            self._complained_at = time.monotonic()
            log.warning(event, **fields)


def encode_updates(updates: list[TaskUpdate]) -> bytes:
    """One message of the channel."""
    return UpdateBatch(
        task_ids=[update.task_id for update in updates], updates=[update.SerializeToString() for update in updates]
    ).SerializeToString()


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
