"""The read cache of finished tasks in Redis, its tombstones, and the markers of tasks that are not stored yet."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

import structlog
from google.protobuf.message import DecodeError

from gateway.redis_gate import RedisGate
from headrace.v1.task_pb2 import Task
from servicekit import redis_keys
from servicekit.redis_errors import REDIS_ERRORS
from servicekit.task_views import is_final

log = structlog.stdlib.get_logger(__name__)

CACHED_BYTES_MAX = 64 * 1024
# What was read longer ago may have been removed or retried since, and the tombstone may have gone again.
QUERY_AGE_SECONDS_MAX = 5.0
_WAITING_MAX = 256


@dataclass(frozen=True, slots=True)
class Peek:
    """What Redis knows of a task, read before management is asked."""

    # Redis answered; what it did not tell is not there.
    readable: bool
    # The task was accepted, and was not stored when Redis was asked.
    unstored: bool = False
    cached: Task | None = None
    # There is a cache entry or a tombstone, so that this read must not write one.
    occupied: bool = False


_UNREADABLE = Peek(readable=False)


class TaskCache:
    def __init__(self, gate: RedisGate) -> None:
        self._gate = gate
        self._waiting: dict[int, tuple[bytes, float]] = {}
        self._filler: asyncio.Task[None] | None = None

    async def peek(self, task_id: int) -> Peek:
        """Read cache entry and marker in one round trip."""
        return await self._ask(task_id, bury=False)

    async def unstored(self, task_ids: Sequence[int]) -> frozenset[int] | None:
        """Those of the tasks that were accepted and are not stored; nothing while Redis cannot tell."""
        if not self._gate.available:
            return None
        try:
            async with self._gate.client.pipeline(transaction=False) as pipe:
                for task_id in task_ids:
                    pipe.zrange(redis_keys.UNSTORED, task_id, "+inf", byscore=True, offset=0, num=1)
                markers = await pipe.execute()
        except REDIS_ERRORS as error:
            self._gate.trip(error)
            return None
        return frozenset(
            task_id for task_id, found in zip(task_ids, markers, strict=True) if found and _covers(found[0], task_id)
        )

    async def bury(self, task_id: int) -> Peek:
        """Write a tombstone, so that nobody reads the task's state of before from the cache, and read the marker."""
        self._waiting.pop(task_id, None)
        return await self._ask(task_id, bury=True)

    async def _ask(self, task_id: int, *, bury: bool) -> Peek:
        if not self._gate.available:
            return _UNREADABLE
        key = redis_keys.cached_task(task_id)
        try:
            async with self._gate.client.pipeline(transaction=False) as pipe:
                if bury:
                    pipe.set(key, redis_keys.TOMBSTONE, ex=redis_keys.CACHE_SECONDS)
                else:
                    pipe.get(key)
                pipe.zrange(redis_keys.UNSTORED, task_id, "+inf", byscore=True, offset=0, num=1)
                entry, markers = await pipe.execute()
        except REDIS_ERRORS as error:
            self._gate.trip(error)
            return _UNREADABLE
        unstored = bool(markers) and _covers(markers[0], task_id)
        if bury:
            return Peek(readable=True, unstored=unstored, occupied=True)
        return Peek(readable=True, unstored=unstored, cached=_decoded(entry), occupied=entry is not None)

    def offer(self, task: Task, *, asked_at: float) -> None:
        """Keep a finished task that was read by a query sent at `asked_at` (monotonic), if it is fit for that.

        Written in the background, in batches. Never over an entry or a tombstone.
        """
        if (
            not is_final(task.status)
            or task.result_unavailable
            or not (self._gate.available and self._gate.facts.roomy)
        ):
            return
        if task.ByteSize() > CACHED_BYTES_MAX or len(self._waiting) >= _WAITING_MAX:
            return
        self._waiting[task.task_id] = (redis_keys.CACHED_TASK + task.SerializeToString(), asked_at)
        if self._filler is None:
            self._filler = asyncio.create_task(self._fill(), name="cache_filler")

    async def close(self) -> None:
        if self._filler is not None:
            await asyncio.wait([self._filler])

    async def _fill(self) -> None:
        try:
            while self._waiting:
                entries, self._waiting = self._waiting, {}
                await self._write(entries)
        except REDIS_ERRORS as error:
            self._waiting = {}
            self._gate.trip(error)
        finally:
            self._filler = None

    async def _write(self, entries: dict[int, tuple[bytes, float]]) -> None:
        oldest = time.monotonic() - QUERY_AGE_SECONDS_MAX
        async with self._gate.client.pipeline(transaction=False) as pipe:
            for task_id, (entry, asked_at) in entries.items():
                if asked_at > oldest:
                    pipe.set(redis_keys.cached_task(task_id), entry, ex=redis_keys.CACHE_SECONDS, nx=True)
            await pipe.execute()


def _covers(member: bytes, task_id: int) -> bool:
    """Whether a marker, the first whose last id is not below `task_id`, begins at or below it."""
    first, _, last = member.partition(b"-")
    return int(first) <= task_id <= int(last)


def _decoded(entry: bytes | None) -> Task | None:
    if entry is None or entry[:1] != redis_keys.CACHED_TASK:
        return None
    try:
        return Task.FromString(entry[1:])
    except DecodeError:
        log.error("cache_entry_unreadable", bytes=len(entry))
        return None
