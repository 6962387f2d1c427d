"""Submissions from a real Redis stream into a real database."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis

from headrace.v1.task_pb2 import Submission, SubmissionBatch
from management_service.dispatch import Dispatcher
from management_service.ids import IdBlocks
from management_service.intake import Intake, Takeover, make_group
from management_service.manager import open_redis
from management_service.publishing import Publisher
from management_service.storage.id_blocks import BLOCK_SIZE, IdBlockRepository
from management_service.storage.tasks import TaskRepository
from management_service.storing import TaskStore
from servicekit.postgres import Database
from servicekit.redis_keys import (
    BACKLOG,
    BACKLOG_BYTES,
    BACKLOG_TASKS,
    DEAD_SUBMISSIONS,
    IDS_HIGH,
    IDS_HIGH_MEMBER,
    SUBMISSIONS,
    SUBMISSIONS_FIELD,
    SUBMISSIONS_GROUP,
    UNSTORED,
    marker,
)
from tests.support.task_rows import Rows, submission


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    async with open_redis(redis_url) as client:
        yield client


@pytest.fixture
def store(tasks: TaskRepository, redis: Redis) -> TaskStore:
    return TaskStore(tasks, Dispatcher(tasks, {}, Publisher(redis)))


@pytest.fixture
def intake(redis: Redis, store: TaskStore) -> Intake:
    return Intake(redis, store, consumer="m1")


async def publish(redis: Redis, *submissions: Submission) -> bytes:
    """Put one entry into the stream as a gateway does; return its id."""
    payload = SubmissionBatch(submissions=submissions).SerializeToString()
    first, last = submissions[0].task_id, submissions[-1].task_id
    async with redis.pipeline(transaction=True) as transaction:
        transaction.xadd(SUBMISSIONS, {SUBMISSIONS_FIELD: payload})
        transaction.zadd(UNSTORED, {marker(first, last): last})
        transaction.hincrby(BACKLOG, BACKLOG_TASKS, len(submissions))
        transaction.hincrby(BACKLOG, BACKLOG_BYTES, len(payload))
        entry_id: bytes = (await transaction.execute())[0]
    return entry_id


async def left_behind(redis: Redis) -> tuple[int, int, list[int]]:
    """Entries, markers and counters that are still there."""
    counters = await redis.hmget(BACKLOG, [BACKLOG_TASKS, BACKLOG_BYTES])
    return await redis.xlen(SUBMISSIONS), await redis.zcard(UNSTORED), [int(value or 0) for value in counters]


async def dead_entries(redis: Redis) -> list[dict[bytes, bytes]]:
    """What was parked."""
    entries: Any = await redis.xrange(DEAD_SUBMISSIONS)
    return [fields for _, fields in entries]


async def test_tasks_are_stored_and_nothing_is_left_behind(redis: Redis, intake: Intake, rows: Rows) -> None:
    await publish(redis, submission(1), submission(2))
    await publish(redis, submission(3))
    await intake.run_once()  # makes the group
    await intake.run_once()
    assert [await rows.read(task_id, "status") for task_id in (1, 2, 3)] == ["queued"] * 3
    assert await left_behind(redis) == (0, 0, [0, 0])


async def test_entries_from_before_the_group_was_made_are_read(redis: Redis, intake: Intake, rows: Rows) -> None:
    await publish(redis, submission(1))
    await make_group(redis)
    await make_group(redis)
    await intake.run_once()
    assert await rows.read(1, "status") == "queued"


@pytest.mark.parametrize(
    "payload", [b"\xff\xff\xff", b"", SubmissionBatch(submissions=[submission(0)]).SerializeToString()]
)
async def test_an_entry_that_is_no_batch_is_parked_and_its_neighbours_are_stored(
    redis: Redis, intake: Intake, rows: Rows, payload: bytes
) -> None:
    await make_group(redis)
    await publish(redis, submission(1))
    bad = await redis.xadd(SUBMISSIONS, {SUBMISSIONS_FIELD: payload})
    await publish(redis, submission(2))
    await intake.run_once()
    assert [await rows.read(task_id, "status") for task_id in (1, 2)] == ["queued"] * 2
    [fields] = await dead_entries(redis)
    assert (fields[b"entry"], fields[SUBMISSIONS_FIELD]) == (bad, payload)
    assert await redis.xlen(SUBMISSIONS) == 0


async def test_a_task_that_cannot_be_stored_fails_alone(redis: Redis, intake: Intake, rows: Rows) -> None:
    await make_group(redis)
    batch = [submission(task_id) for task_id in range(1, 8)]
    batch[4].type = "a\0b"
    await publish(redis, *batch)
    await intake.run_once()
    statuses = [await rows.read(task_id, "status") for task_id in range(1, 8)]
    assert statuses == ["queued"] * 4 + ["failed"] + ["queued"] * 2
    [fields] = await dead_entries(redis)
    assert SubmissionBatch.FromString(fields[SUBMISSIONS_FIELD]).submissions[0].task_id == 5


async def test_entries_of_a_dead_consumer_are_taken_over(
    redis: Redis, intake: Intake, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("management_service.intake.TAKEOVER_IDLE_MS", 0)
    await make_group(redis)
    await publish(redis, submission(1))
    await redis.xreadgroup(SUBMISSIONS_GROUP, "dead", {SUBMISSIONS: ">"})
    await intake.run_once()
    assert await redis.xlen(SUBMISSIONS) == 1
    await Takeover(redis, intake, consumer="m1").run_once()
    assert await rows.read(1, "status") == "queued"
    assert await left_behind(redis) == (0, 0, [0, 0])


async def test_an_entry_acknowledged_but_not_deleted_is_stored_and_swept(
    redis: Redis, intake: Intake, rows: Rows, tasks: TaskRepository
) -> None:
    await make_group(redis)
    payload = SubmissionBatch(submissions=[submission(1)]).SerializeToString()
    await redis.xadd(SUBMISSIONS, {SUBMISSIONS_FIELD: payload}, id="1000-1")  # of 1970: old enough
    await redis.xreadgroup(SUBMISSIONS_GROUP, "dead", {SUBMISSIONS: ">"})
    await redis.xack(SUBMISSIONS, SUBMISSIONS_GROUP, "1000-1")
    await Takeover(redis, intake, consumer="m1").run_once()
    assert await rows.read(1, "status") == "queued"
    assert await redis.xlen(SUBMISSIONS) == 0


async def test_drifted_counters_are_reset_when_the_stream_is_empty(redis: Redis, intake: Intake) -> None:
    await make_group(redis)
    await redis.hset(BACKLOG, mapping={BACKLOG_TASKS: 17, BACKLOG_BYTES: 5})
    await redis.zadd(UNSTORED, {"1-3": 3})
    await Takeover(redis, intake, consumer="m1").run_once()
    assert await left_behind(redis) == (0, 0, [0, 0])


async def test_blocks_of_ids_never_repeat_after_a_restored_database_or_an_emptied_redis(
    redis: Redis, database: Database, rows: Rows
) -> None:
    ids = IdBlocks(IdBlockRepository(database), redis)
    assert await ids.reserve() == (1, BLOCK_SIZE)
    assert await ids.reserve() == (BLOCK_SIZE + 1, 2 * BLOCK_SIZE)
    await rows.connection.execute("UPDATE id_blocks SET high = 0")
    assert (await ids.reserve())[0] == 2 * BLOCK_SIZE + 1
    await redis.flushall()
    assert (await ids.reserve())[0] == 3 * BLOCK_SIZE + 1
    assert await redis.zscore(IDS_HIGH, IDS_HIGH_MEMBER) == 4
