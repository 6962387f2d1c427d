"""Takes admitted tasks and answers once a store has them for good.

Whatever arrived while the last flush was in flight is flushed together: through the Redis stream, or over gRPC to
management when Redis is down or its answer is lost. The ids are fixed before the first write and are the same on both
ways, so storing twice is storing once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import structlog

from gateway.backlog import Backlog
from gateway.ids import TaskIds
from gateway.management import Management
from gateway.redis_gate import RedisGate
from gateway.stream import SubmissionStream
from headrace.v1.task_pb2 import Submission, SubmissionBatch
from servicekit import failpoints
from servicekit.batcher import Batcher
from servicekit.errors import AlreadyExists, DeadlineExceeded, HeadraceError, Overloaded, Unavailable
from servicekit.redis_errors import REDIS_ERRORS

log = structlog.stdlib.get_logger(__name__)

FLUSH_BYTES_MAX = 4 * 1024 * 1024
FLUSH_TASKS_MAX = 5_000
# A flush is bounded by weight: what a task weighs at least makes the bound by bytes one by count, too.
_WEIGHT_MIN = FLUSH_BYTES_MAX // FLUSH_TASKS_MAX
_KEYED_REQUESTS_MAX = 256

Durability = Literal["redis-aof", "redis-memory", "postgres"]


@dataclass(slots=True)
class Group:
    """The tasks of one request: stored together or not at all."""

    submissions: Sequence[Submission]
    weight: int


@dataclass(frozen=True, slots=True)
class Accepted:
    task_ids: list[int]
    durability: Durability
    # The tasks were stored by an earlier request with the same idempotency key.
    replayed: bool = False


class Submissions:
    def __init__(
        self, *, ids: TaskIds, gate: RedisGate, stream: SubmissionStream, backlog: Backlog, management: Management
    ) -> None:
        self._ids = ids
        self._gate = gate
        self._stream = stream
        self._backlog = backlog
        self._management = management
        self._keyed = 0
        self._batcher = Batcher[Group, Accepted | HeadraceError](
            self._flush, max_items=FLUSH_TASKS_MAX, max_bytes=FLUSH_BYTES_MAX, size_of=lambda group: group.weight
        )
        # Tasks accepted so far, by where they were stored.
        self.counts: dict[Durability, int] = {"redis-aof": 0, "redis-memory": 0, "postgres": 0}
        self.flushes = 0

    async def submit(self, submissions: Sequence[Submission]) -> Accepted:
        """Store the tasks of one request. Raises Unavailable when no store confirmed them; they may exist even so."""
        if self._gate.available:
            await self._backlog.admit()
        outcome = (await self._batcher.submit([Group(submissions, weigh(submissions))]))[0]
        if isinstance(outcome, HeadraceError):
            raise outcome
        return outcome

    async def submit_keyed(self, submissions: Sequence[Submission]) -> Accepted:
        """Store tasks that carry an idempotency key, over gRPC, where a conflict can be answered."""
        if self._keyed >= _KEYED_REQUESTS_MAX:
            raise Overloaded("Too many requests with an Idempotency-Key are in progress.", retry_after=1.0)
        self._keyed += 1
        try:
            task_ids = number(submissions, await self._ids.take(len(submissions)))
            stored = await self._management.submit(SubmissionBatch(submissions=submissions))
        except AlreadyExists as error:
            message = "The Idempotency-Key was used before with another body."
            raise AlreadyExists(message, code="idempotency_conflict", fields=error.fields) from error
        except (Unavailable, DeadlineExceeded) as error:
            raise _not_accepted(len(submissions), error) from error
        finally:
            self._keyed -= 1
        self._count("postgres", len(stored))
        return Accepted(stored, "postgres", replayed=stored != task_ids)

    async def close(self) -> None:
        """Take nothing more; returns when what was taken has its answer."""
        await self._batcher.close()

    async def _flush(self, groups: list[Group]) -> list[Accepted | HeadraceError]:
        submissions = [submission for group in groups for submission in group.submissions]
        try:
            number(submissions, await self._ids.take(len(submissions)))
        except HeadraceError as error:
            return [error for _ in groups]
        self.flushes += 1
        if await self._append(submissions):
            durability: Durability = "redis-aof" if self._gate.facts.durable else "redis-memory"
            self._count(durability, len(submissions))
            return [_accepted(group, durability) for group in groups]
        return await self._store_over_grpc(groups)

    async def _append(self, submissions: Sequence[Submission]) -> bool:
        if not self._gate.available:
            return False
        try:
            failpoints.hit("gateway.before_append")
            await self._stream.append(submissions)
            failpoints.hit("gateway.after_append")
        except REDIS_ERRORS as error:
            self._gate.trip(error)
            return False
        return True

    async def _store_over_grpc(self, groups: list[Group]) -> list[Accepted | HeadraceError]:
        """One call for a flush, which is bounded; larger than a flush is only a single large request."""
        submissions = [submission for group in groups for submission in group.submissions]
        try:
            await self._management.submit(SubmissionBatch(submissions=submissions))
            failpoints.hit("gateway.after_store")
        except HeadraceError as error:
            failure = _not_accepted(len(submissions), error)
            return [failure for _ in groups]
        self._count("postgres", len(submissions))
        return [_accepted(group, "postgres") for group in groups]

    def _count(self, durability: Durability, tasks: int) -> None:
        self.counts[durability] += tasks


def weigh(submissions: Sequence[Submission]) -> int:
    return sum(max(submission.ByteSize(), _WEIGHT_MIN) for submission in submissions)


def number(submissions: Sequence[Submission], first_id: int) -> list[int]:
    """Give the submissions ids in a row, and return them."""
    task_ids = list(range(first_id, first_id + len(submissions)))
    for task_id, submission in zip(task_ids, submissions, strict=True):
        submission.task_id = task_id
    return task_ids


def _not_accepted(tasks: int, error: HeadraceError) -> Unavailable:
    log.warning("submissions_not_stored", tasks=tasks, code=error.code, reason=error.message[:200])
    return Unavailable("No store confirmed the tasks; try again soon.", code="not_accepted", retry_after=1.0)


def _accepted(group: Group, durability: Durability) -> Accepted:
    return Accepted([submission.task_id for submission in group.submissions], durability)
