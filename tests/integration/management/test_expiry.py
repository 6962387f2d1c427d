"""Tasks that were not started in time are failed, by the clock of the database."""

from headrace.v1.task_pb2 import OUTCOME_FAILED
from management_service.domain.statuses import TaskEvent
from management_service.storage.records import Ending, NewTask
from management_service.storage.tasks import TaskRepository
from tests.support.task_rows import SESSION, Rows, report, submission


async def test_a_queued_task_expires_and_its_end_is_to_be_published(tasks: TaskRepository, rows: Rows) -> None:
    await rows.queued(1, expires_in_ms=60_000)
    await rows.queued(2)
    assert await tasks.expire() == []
    await rows.set(1, "expires_at = now()")
    [change] = await tasks.expire()
    assert (change.task_id, change.status, change.attempt) == (1, "failed", 0)
    assert await rows.read(1, "error ->> 'code'") == "expired"
    assert await rows.outbox() == [[1]]


async def test_the_time_to_live_begins_when_a_delayed_task_is_due(tasks: TaskRepository, rows: Rows) -> None:
    await rows.queued(1, expires_in_ms=1_000, delay_ms=60_000)
    assert await rows.read(1, "extract(epoch FROM expires_at - created_at)::float8") == 61.0


async def test_an_expired_task_is_never_claimed_though_nobody_has_failed_it_yet(
    tasks: TaskRepository, rows: Rows
) -> None:
    await rows.session()
    await rows.queued(1, expires_in_ms=1)
    await rows.set(1, "expires_at = now()")
    assert await tasks.claim(pool="cpu", types=["noop"], slots=[SESSION]) == []


async def test_a_task_in_progress_does_not_expire_but_one_that_waits_for_its_retry_does(
    tasks: TaskRepository, rows: Rows
) -> None:
    await rows.session()
    await tasks.insert([NewTask(submission(1, expires_in_ms=60_000), SESSION)])
    await rows.set(1, "expires_at = now()")
    assert await tasks.expire() == []
    await tasks.end_attempts([Ending(TaskEvent.ATTEMPT_FAILED, report(1, 1, OUTCOME_FAILED))])
    [change] = await tasks.expire()
    assert change.status == "failed"
    assert await rows.read(1, "error ->> 'message'") == "not started again before it expired"


async def test_a_retry_by_hand_has_no_time_to_live(tasks: TaskRepository, rows: Rows) -> None:
    await rows.queued(1, expires_in_ms=60_000)
    await rows.set(1, "expires_at = now()")
    await tasks.expire()
    await tasks.retry([1])
    assert await tasks.expire() == []
    assert await rows.read(1, "status", "expires_at") == ("queued", None)
