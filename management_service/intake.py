"""Submissions from Redis to PostgreSQL. The channel wakes, the stream keeps, a commit is what lets an entry go."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
import structlog
from google.protobuf.message import DecodeError
from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from redis.exceptions import ResponseError

from headrace.v1.task_pb2 import Submission, SubmissionBatch
from management_service.storing import TaskStore
from servicekit import failpoints
from servicekit.errors import HeadraceError
from servicekit.loops import BackgroundLoop
from servicekit.redis_errors import unavailable_without_redis
from servicekit.redis_keys import (
    BACKLOG,
    BACKLOG_BYTES,
    BACKLOG_TASKS,
    DEAD_SUBMISSIONS,
    SUBMISSIONS,
    SUBMISSIONS_FIELD,
    SUBMISSIONS_GROUP,
    UNSTORED,
    marker,
)

log = structlog.stdlib.get_logger(__name__)

# Without a wake-up the stream is looked at this often.
POLL_SECONDS = 0.5
HOLD_BACK_SECONDS = 0.02
# Entries of a replica that has not finished them within this time are taken over.
TAKEOVER_IDLE_MS = 5_000
_READ_ENTRIES_MAX = 64
_READ_BYTES_AIM = 4 * 2**20
_DEAD_KEPT = 10_000
_PAUSE_AFTER_FAILURE_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of the stream; `submissions` None where it could not be parsed."""

    entry_id: bytes
    payload: bytes
    submissions: Sequence[Submission] | None

    @property
    def task_count(self) -> int:
        return len(self.submissions or ())

    @property
    def marker(self) -> str | None:
        if not self.submissions:
            return None
        return marker(self.submissions[0].task_id, self.submissions[-1].task_id)


class Intake:
    """Reads through the consumer group as `consumer`; nothing new is read before what was read is stored."""

    def __init__(self, redis: Redis, store: TaskStore, *, consumer: str) -> None:
        self._redis = redis
        self._store = store
        self._consumer = consumer
        self._read_entries = _READ_ENTRIES_MAX
        # A wake-up reaches every replica and its entry goes to one. Who came too late the last time lets the others
        # go first: one replica keeps taking what comes while it keeps up, and the rest spare the effort.
        self._woken = False
        self._came_late = False
        self._held_back: asyncio.TimerHandle | None = None
        self._loop = BackgroundLoop("intake", self.run_once, interval=POLL_SECONDS)

    def start(self) -> None:
        self._loop.start()

    async def stop(self) -> None:
        if self._held_back is not None:
            self._held_back.cancel()
        await self._loop.stop()

    def wake(self) -> None:
        """Look at the stream at once, or a moment later if others are quicker."""
        if not self._came_late:
            self._read_now()
        elif self._held_back is None:
            self._held_back = asyncio.get_running_loop().call_later(HOLD_BACK_SECONDS, self._read_now)

    def _read_now(self) -> None:
        self._held_back = None
        self._woken = True
        self._loop.wake()

    @property
    def last_success(self) -> float | None:
        return self._loop.last_success

    async def run_once(self) -> None:
        """Store what the stream has, until a read was not filled: whatever came since has woken us again."""
        with unavailable_without_redis():
            await self._read_and_store()

    async def _read_and_store(self) -> None:
        woken, self._woken = self._woken, False
        while True:
            wanted = self._read_entries
            entries = await self._read(wanted)
            if entries:
                self._came_late = False
                await self.take_in(entries)
            elif woken:
                self._came_late = True
            if len(entries) < wanted:
                return
            woken = False

    async def take_in(self, entries: Sequence[Entry]) -> None:
        """Store the tasks of `entries`, then let the entries go."""
        for entry in entries:
            if entry.submissions is None:
                await self._park(entry, reason="not a SubmissionBatch")
        failpoints.hit("intake.before_store")
        submissions = [submission for entry in entries for submission in entry.submissions or ()]
        if submissions:
            await self._store_all(submissions)
        failpoints.hit("intake.after_store")
        await self._let_go(entries)

    async def _read(self, count: int) -> list[Entry]:
        try:
            reply: Any = await self._redis.xreadgroup(
                SUBMISSIONS_GROUP, self._consumer, {SUBMISSIONS: ">"}, count=count
            )
        except ResponseError as error:
            if not str(error).startswith("NOGROUP"):
                raise
            await make_group(self._redis)
            return []
        entries = [parse_entry(*item) for _, items in reply for item in items]
        if entries:
            average = sum(len(entry.payload) for entry in entries) // len(entries) + 1
            self._read_entries = max(1, min(_READ_ENTRIES_MAX, _READ_BYTES_AIM // average))
        return entries

    async def _store_all(self, submissions: Sequence[Submission]) -> None:
        """Store until it is done: while the database is away nothing new is read."""
        waited = False
        while True:
            try:
                await self._store.store(submissions)
            except (psycopg.DataError, psycopg.IntegrityError) as error:
                await self._store_split(submissions, error)
                return
            except HeadraceError as error:
                if not waited:
                    log.warning("intake_waits", code=error.code, reason=error.message, tasks=len(submissions))
                waited = True
                await asyncio.sleep(_PAUSE_AFTER_FAILURE_SECONDS)
            else:
                if waited:
                    log.info("intake_resumed", tasks=len(submissions))
                return

    async def _store_split(self, submissions: Sequence[Submission], error: psycopg.Error) -> None:
        """Halve a batch that PostgreSQL refuses for its data until the refused tasks stand alone."""
        if len(submissions) == 1:
            await self._give_up(submissions[0], reason=str(error).splitlines()[0])
            return
        middle = len(submissions) // 2
        await self._store_all(submissions[:middle])
        await self._store_all(submissions[middle:])

    async def _give_up(self, submission: Submission, *, reason: str) -> None:
        log.error("task_unstorable", task_id=submission.task_id, reason=reason)
        await self._bury(reason, b"", SubmissionBatch(submissions=[submission]).SerializeToString())
        await self._store.store_unstorable(submission, reason=reason)

    async def _park(self, entry: Entry, *, reason: str) -> None:
        log.error("entry_parked", entry=entry.entry_id.decode(), reason=reason, bytes=len(entry.payload))
        await self._bury(reason, entry.entry_id, entry.payload)

    async def _bury(self, reason: str, entry_id: bytes, payload: bytes) -> None:
        fields: dict[Any, Any] = {"reason": reason, "entry": entry_id, SUBMISSIONS_FIELD: payload}
        await self._redis.xadd(DEAD_SUBMISSIONS, fields, maxlen=_DEAD_KEPT, approximate=True)

    async def _let_go(self, entries: Sequence[Entry]) -> None:
        """Acknowledge, delete, unmark and count down in one transaction."""
        transaction = self._redis.pipeline(transaction=True)
        for entry in entries:
            transaction.xdel(SUBMISSIONS, entry.entry_id)
        transaction.xack(SUBMISSIONS, SUBMISSIONS_GROUP, *(entry.entry_id for entry in entries))
        if markers := [entry.marker for entry in entries if entry.marker]:
            transaction.zrem(UNSTORED, *markers)
        _count(transaction, entries, sign=-1)
        deleted = (await transaction.execute())[: len(entries)]
        if twice := [entry for entry, count in zip(entries, deleted, strict=True) if not count]:
            # Somebody else let these go before, and counted them down.
            correction = self._redis.pipeline(transaction=False)
            _count(correction, twice, sign=1)
            await correction.execute()
        failpoints.hit("intake.after_let_go")


class Takeover:
    """Finishes what other replicas left: entries of dead consumers, and entries that nobody holds any more."""

    def __init__(self, redis: Redis, intake: Intake, *, consumer: str) -> None:
        self._redis = redis
        self._intake = intake
        self._consumer = consumer
        self._loop = BackgroundLoop("takeover", self.run_once, interval=1.0)

    def start(self) -> None:
        self._loop.start()

    async def stop(self) -> None:
        await self._loop.stop()

    async def run_once(self) -> None:
        with unavailable_without_redis():
            await self._look_after()

    async def _look_after(self) -> None:
        try:
            await self._take_over_idle()
            await self._sweep_orphans()
            await self._reset_when_empty()
            await self._drop_old_consumers()
        except ResponseError as error:
            if not str(error).startswith("NOGROUP"):
                raise
            await make_group(self._redis)

    async def _take_over_idle(self) -> None:
        while True:
            reply = await self._redis.xautoclaim(
                SUBMISSIONS, SUBMISSIONS_GROUP, self._consumer, min_idle_time=TAKEOVER_IDLE_MS, start_id="0-0", count=16
            )
            entries = [parse_entry(*item) for item in reply[1] if item[1]]
            if not entries:
                return
            log.info("entries_taken_over", count=len(entries))
            await self._intake.take_in(entries)

    async def _sweep_orphans(self) -> None:
        """Store entries that were delivered long ago and are pending with nobody."""
        [group] = [
            info for info in await self._redis.xinfo_groups(SUBMISSIONS) if info["name"] == SUBMISSIONS_GROUP.encode()
        ]
        seconds, micros = await self._redis.time()
        newest = min(_sortable(group["last-delivered-id"]), ((seconds - 10) * 1000 + micros // 1000, 2**63))
        last = f"{newest[0]}-{newest[1]}"
        old: Any = await self._redis.xrange(SUBMISSIONS, "-", last, count=64)
        orphans = [item for item in old if not await self._is_pending(item[0])]
        if orphans:
            log.warning("orphaned_entries_stored", count=len(orphans))
            await self._intake.take_in([parse_entry(*item) for item in orphans])

    async def _is_pending(self, entry_id: bytes) -> bool:
        return bool(await self._redis.xpending_range(SUBMISSIONS, SUBMISSIONS_GROUP, entry_id, entry_id, 1))

    async def _reset_when_empty(self) -> None:
        """An empty stream has no backlog and no markers, whatever the counters drifted to."""
        if await self._redis.xlen(SUBMISSIONS) or not await self._redis.exists(BACKLOG, UNSTORED):
            return
        async with self._redis.pipeline(transaction=True) as transaction:
            await transaction.watch(SUBMISSIONS)
            if await transaction.xlen(SUBMISSIONS):
                return
            transaction.multi()  # type: ignore[no-untyped-call]
            transaction.delete(BACKLOG, UNSTORED)
            await transaction.execute(raise_on_error=False)

    async def _drop_old_consumers(self) -> None:
        """Forget consumers that hold nothing and have not read for an hour: replicas that are gone."""
        for info in await self._redis.xinfo_consumers(SUBMISSIONS, SUBMISSIONS_GROUP):
            if info["pending"] == 0 and info["idle"] > 3_600_000:
                await self._redis.xgroup_delconsumer(SUBMISSIONS, SUBMISSIONS_GROUP, info["name"])


async def make_group(redis: Redis) -> None:
    """Make the consumer group, from the first entry on; an existing one is left as it is."""
    try:
        await redis.xgroup_create(SUBMISSIONS, SUBMISSIONS_GROUP, id="0", mkstream=True)
    except ResponseError as error:
        if not str(error).startswith("BUSYGROUP"):
            raise


def _count(pipeline: Pipeline, entries: Sequence[Entry], *, sign: int) -> None:
    pipeline.hincrby(BACKLOG, BACKLOG_TASKS, sign * sum(entry.task_count for entry in entries))
    pipeline.hincrby(BACKLOG, BACKLOG_BYTES, sign * sum(len(entry.payload) for entry in entries))


def parse_entry(entry_id: bytes, fields: dict[bytes, bytes]) -> Entry:
    payload = fields.get(SUBMISSIONS_FIELD, b"")
    return Entry(entry_id, payload, _parse(payload))


def _parse(payload: bytes) -> Sequence[Submission] | None:
    """The tasks of an entry, None where it is no batch of tasks with ids."""
    try:
        submissions = list(SubmissionBatch.FromString(payload).submissions)
    except DecodeError:
        return None
    if not submissions or any(submission.task_id <= 0 for submission in submissions):
        return None
    return submissions


def _sortable(entry_id: bytes) -> tuple[int, int]:
    milliseconds, _, sequence = entry_id.partition(b"-")
    return int(milliseconds), int(sequence)
