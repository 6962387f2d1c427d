"""Publishes accepted tasks into the Redis stream, with all that belongs to it in one transaction."""

from collections.abc import Iterator, Sequence

from gateway.backlog import Backlog
from gateway.redis_gate import RedisGate
from headrace.v1.task_pb2 import Submission, SubmissionBatch
from servicekit import redis_keys

ENTRY_BYTES_MAX = 4 * 1024 * 1024


class SubmissionStream:
    def __init__(self, gate: RedisGate, backlog: Backlog) -> None:
        self._gate = gate
        self._backlog = backlog

    async def append(self, submissions: Sequence[Submission]) -> None:
        """Store submissions with ids in a row, all or nothing, and wake management.

        Any error may mean that they are stored all the same: only a store of the same ids settles it.
        """
        entries = list(entries_of(submissions))
        total = 0
        async with self._gate.client.pipeline(transaction=True) as pipe:
            for first_id, last_id, entry in entries:
                pipe.xadd(redis_keys.SUBMISSIONS, {redis_keys.SUBMISSIONS_FIELD: entry})
                pipe.zadd(redis_keys.UNSTORED, {redis_keys.marker(first_id, last_id): last_id})
                total += len(entry)
            pipe.hincrby(redis_keys.BACKLOG, redis_keys.BACKLOG_TASKS, len(submissions))
            pipe.hincrby(redis_keys.BACKLOG, redis_keys.BACKLOG_BYTES, total)
            pipe.publish(redis_keys.SUBMISSIONS_CHANNEL, b"")
            answers = await pipe.execute()
        self._backlog.note(int(answers[-3]), int(answers[-2]))


def entries_of(submissions: Sequence[Submission]) -> Iterator[tuple[int, int, bytes]]:
    """Split into stream entries of a bounded size, one submission at least: (first id, last id, serialized batch)."""
    start = size = 0
    for index, submission in enumerate(submissions):
        grown = submission.ByteSize()
        if index > start and size + grown > ENTRY_BYTES_MAX:
            yield _entry(submissions[start:index])
            start, size = index, 0
        size += grown
    yield _entry(submissions[start:])


def _entry(submissions: Sequence[Submission]) -> tuple[int, int, bytes]:
    batch = SubmissionBatch(submissions=submissions)
    return submissions[0].task_id, submissions[-1].task_id, batch.SerializeToString()
