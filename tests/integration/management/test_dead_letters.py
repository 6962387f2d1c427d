"""Failed tasks are counted by reason and started again by filter: a dry run first, bounded, readers told before."""

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from redis.asyncio import Redis

from headrace.v1.task_pb2 import OUTCOME_FAILED_FOR_GOOD, TaskError
from management_service.dispatch import Dispatcher
from management_service.domain.statuses import TaskEvent, TaskStatus
from management_service.lifecycle import TaskLifecycle
from management_service.manager import open_redis
from management_service.publishing import Publisher
from management_service.reports import ReportDesk
from management_service.storage.records import Ending, FinishedFilter
from management_service.storage.tasks import TaskRepository
from servicekit.errors import Unavailable
from servicekit.redis_keys import TOMBSTONE, cached_task
from tests.support.task_rows import SESSION, Rows, report


async def failed(tasks: TaskRepository, rows: Rows, *task_ids: int, code: str) -> None:
    await rows.processing(*task_ids)
    error = TaskError(code=code, message="no luck")
    await tasks.end_attempts(
        [
            Ending(TaskEvent.ATTEMPT_FAILED, report(n, 1, OUTCOME_FAILED_FOR_GOOD, error=error), worth_retrying=False)
            for n in task_ids
        ]
    )


def lifecycle_with(tasks: TaskRepository, redis: Redis) -> TaskLifecycle:
    publisher = Publisher(redis)
    reports = ReportDesk(tasks, Dispatcher(tasks, {}, publisher), publisher)
    return TaskLifecycle(tasks, reports, publisher, pass_on_cancel=lambda task_id, attempt: None)


@pytest.fixture
async def lifecycle(tasks: TaskRepository, redis_url: str) -> AsyncIterator[TaskLifecycle]:
    async with open_redis(redis_url) as redis:
        yield lifecycle_with(tasks, redis)


async def test_failures_are_counted_by_type_and_code(tasks: TaskRepository, rows: Rows) -> None:
    await failed(tasks, rows, 1, 2, code="invalid_data")
    await failed(tasks, rows, 3, 4, 5, code="timeout")
    await rows.queued(6)
    groups = await tasks.count_failures()
    assert [(group.type, group.error_code, group.tasks) for group in groups] == [
        ("noop", "timeout", 3),
        ("noop", "invalid_data", 2),
    ]


async def test_a_filter_finds_what_fits_newest_first(tasks: TaskRepository, rows: Rows) -> None:
    await failed(tasks, rows, 1, 2, code="invalid_data")
    await failed(tasks, rows, 3, 4, code="timeout")
    await rows.queued(5)
    await tasks.request_cancel(5)
    await rows.set(4, "finished_at = now() - interval '1 hour'")
    row = await tasks.get(3)
    assert row is not None
    assert row.finished_at is not None
    hour_ago = row.finished_at - timedelta(minutes=30)
    for wanted, found in (
        (FinishedFilter(), [4, 3, 2, 1]),
        (FinishedFilter(error_code="timeout"), [4, 3]),
        (FinishedFilter(finished_after=hour_ago), [3, 2, 1]),
        (FinishedFilter(finished_before=hour_ago), [4]),
        (FinishedFilter(type_name="other"), []),
        (FinishedFilter(status=TaskStatus.CANCELLED), [5]),
    ):
        assert await tasks.find_finished(wanted, limit=10) == found, wanted


async def test_a_dry_run_changes_nothing_and_a_real_one_starts_as_many_as_asked_for(
    tasks: TaskRepository, lifecycle: TaskLifecycle, redis_url: str, rows: Rows
) -> None:
    await failed(tasks, rows, 1, 2, 3, code="timeout")
    assert await lifecycle.retry_many(FinishedFilter(), limit=2, dry_run=True) == ([3, 2], True)
    assert await rows.read(3, "status::text") == "failed"
    assert await lifecycle.retry_many(FinishedFilter(), limit=2, dry_run=False) == ([3, 2], True)
    assert [await rows.read(n, "status::text") for n in (1, 2, 3)] == ["failed", "queued", "queued"]
    async with open_redis(redis_url) as redis:
        assert await redis.get(cached_task(3)) == TOMBSTONE
        assert await redis.get(cached_task(1)) is None
    assert await lifecycle.retry_many(FinishedFilter(), limit=2, dry_run=False) == ([1], False)


async def test_nothing_is_retried_while_readers_cannot_be_told(
    tasks: TaskRepository, rows: Rows, unused_tcp_port: int
) -> None:
    await failed(tasks, rows, 1, code="timeout")
    async with open_redis(f"redis://127.0.0.1:{unused_tcp_port}") as redis:
        with pytest.raises(Unavailable) as caught:
            await lifecycle_with(tasks, redis).retry_many(FinishedFilter(), limit=10, dry_run=False)
    assert caught.value.code == "redis_down"
    assert await rows.read(1, "status::text") == "failed"


async def test_a_task_without_its_data_is_not_offered(tasks: TaskRepository, rows: Rows) -> None:
    await failed(tasks, rows, 1, code="unstorable")
    await rows.set(1, "data = NULL")
    assert await tasks.find_finished(FinishedFilter(), limit=10) == []
    assert await tasks.retry([1]) == []
    assert await rows.read(1, "session_id") == SESSION
