"""Every attempt stays on record: how it ended and why, whatever became of its task."""

from datetime import UTC, datetime, timedelta

from headrace.v1.task_pb2 import (
    OUTCOME_CANCELLED,
    OUTCOME_COMPLETED,
    OUTCOME_FAILED,
    OUTCOME_HANDED_BACK,
    OUTCOME_REFUSED,
    OUTCOME_REPLICA_LOST,
    OUTCOME_UNSPECIFIED,
    OUTCOME_WORKER_DIED,
    Attempt,
    Backoff,
    CancelReceipt,
    Task,
    TaskError,
    TaskOptions,
)
from management_service.domain.statuses import TaskEvent
from management_service.rpc.mapping import task_to_proto
from management_service.storage.executors import ExecutorRepository
from management_service.storage.records import Ending
from management_service.storage.tasks import TaskRepository
from tests.support.task_rows import SESSION, Rows, report


async def read(tasks: TaskRepository, task_id: int) -> Task:
    row = await tasks.get(task_id)
    assert row is not None
    return task_to_proto(row)


def outcomes(task: Task) -> list[tuple[int, int]]:
    return [(attempt.attempt, attempt.outcome) for attempt in task.attempts]


async def claim_again(tasks: TaskRepository, rows: Rows, task_id: int, session_id: int = SESSION) -> int:
    await rows.set(task_id, "run_at = now(), status = 'queued'")
    [claimed] = await tasks.claim(pool="cpu", types=["noop"], slots=[session_id])
    return claimed.attempt


async def test_the_attempts_of_a_task_tell_its_whole_story(
    tasks: TaskRepository, executors: ExecutorRepository, rows: Rows
) -> None:
    await rows.processing(1, max_attempts=20)
    error = TaskError(code="timeout", message="too slow", exception="TimeoutError", log_tail="row 3\n")
    await tasks.end_attempts([Ending(TaskEvent.ATTEMPT_FAILED, report(1, 1, OUTCOME_FAILED, error=error))])
    await claim_again(tasks, rows, 1)
    died = TaskError(code="worker_died", message="killed", signal=9, peak_memory_bytes=5 << 20)
    await tasks.end_attempts([Ending(TaskEvent.WORKER_DIED, report(1, 2, OUTCOME_WORKER_DIED, error=died))])
    await claim_again(tasks, rows, 1)
    await tasks.end_attempts([Ending(TaskEvent.REFUSED, report(1, 3, OUTCOME_HANDED_BACK, error=None))])
    await claim_again(tasks, rows, 1)
    await tasks.end_attempts([Ending(TaskEvent.HANDED_BACK, report(1, 4, OUTCOME_HANDED_BACK, error=None))])
    await claim_again(tasks, rows, 1)
    await executors.end_session(SESSION, beat=0)
    await tasks.rescue()
    await rows.session(SESSION + 1)
    assert await claim_again(tasks, rows, 1, SESSION + 1) == 6
    task = await read(tasks, 1)
    story = [
        (1, OUTCOME_FAILED),
        (2, OUTCOME_WORKER_DIED),
        (3, OUTCOME_REFUSED),
        (4, OUTCOME_HANDED_BACK),
        (5, OUTCOME_REPLICA_LOST),
    ]
    assert outcomes(task) == [*story, (6, OUTCOME_UNSPECIFIED)]
    await tasks.complete([report(1, 6)])
    task = await read(tasks, 1)
    assert outcomes(task) == [*story, (6, OUTCOME_COMPLETED)]
    assert task.attempts[0].error == error
    assert task.attempts[1].error == died
    assert [attempt.replica for attempt in task.attempts] == [f"r{SESSION}"] * 5 + [f"r{SESSION + 1}"]
    assert all(attempt.HasField("claimed_at") and attempt.HasField("ended_at") for attempt in task.attempts)


async def test_a_task_that_completes_at_once_costs_no_record(tasks: TaskRepository, rows: Rows) -> None:
    await rows.processing(1)
    started = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    done = report(1, 1)
    done.started_at.FromDatetime(started)
    done.executed_at.FromDatetime(started + timedelta(seconds=2))
    await tasks.complete([done])
    cursor = await rows.connection.execute("SELECT count(*) FROM ended_attempts")
    assert await cursor.fetchone() == (0,)
    [attempt] = (await read(tasks, 1)).attempts
    assert attempt.started_at.ToDatetime(UTC) == started
    assert attempt.ended_at.ToDatetime(UTC) == started + timedelta(seconds=2)
    assert attempt.worker == "w1"


async def test_a_retry_by_hand_keeps_the_attempts_of_earlier_rounds(tasks: TaskRepository, rows: Rows) -> None:
    await rows.processing(1)
    await tasks.complete([report(1, 1)])
    await tasks.retry([1])
    assert outcomes(await read(tasks, 1)) == [(1, OUTCOME_COMPLETED)]
    await tasks.claim(pool="cpu", types=["noop"], slots=[SESSION])
    assert outcomes(await read(tasks, 1)) == [(1, OUTCOME_COMPLETED), (2, OUTCOME_UNSPECIFIED)]


async def test_the_newest_hundred_attempts_are_kept(tasks: TaskRepository, rows: Rows) -> None:
    await rows.processing(1)
    for attempt in range(1, 104):
        await tasks.end_attempts([Ending(TaskEvent.HANDED_BACK, report(1, attempt, OUTCOME_HANDED_BACK, error=None))])
        await tasks.claim(pool="cpu", types=["noop"], slots=[SESSION])
    attempts: list[Attempt] = list((await read(tasks, 1)).attempts)
    assert [attempt.attempt for attempt in attempts] == list(range(4, 105))


async def test_a_removed_task_leaves_no_record(tasks: TaskRepository, rows: Rows) -> None:
    await rows.processing(1, max_attempts=1)
    await tasks.end_attempts([Ending(TaskEvent.ATTEMPT_FAILED, report(1, 1, OUTCOME_FAILED))])
    assert await tasks.remove(1)
    cursor = await rows.connection.execute("SELECT count(*) FROM ended_attempts")
    assert await cursor.fetchone() == (0,)


async def test_a_cancel_that_comes_true_by_a_failure_says_so_and_keeps_the_failure(
    tasks: TaskRepository, rows: Rows
) -> None:
    await rows.processing(1)
    await tasks.request_cancel(1)
    [change] = await tasks.end_attempts([Ending(TaskEvent.ATTEMPT_FAILED, report(1, 1, OUTCOME_FAILED))])
    assert change.status == "cancelled"
    task = await read(tasks, 1)
    assert (task.error.code, task.error.receipt.ended_by) == ("cancelled", CancelReceipt.ENDED_BY_ITS_END)
    assert task.attempts[0].error.code == "handler_error"


async def test_the_receipt_of_the_replica_is_kept(tasks: TaskRepository, rows: Rows) -> None:
    await rows.processing(1)
    await tasks.request_cancel(1)
    receipt = CancelReceipt(ended_by=CancelReceipt.ENDED_BY_SIGKILL, stopped_after_ms=1510, processes_gone=True)
    error = TaskError(code="cancelled", message="killed", receipt=receipt)
    ending = Ending(TaskEvent.ATTEMPT_CANCELLED, report(1, 1, OUTCOME_CANCELLED, error=error))
    await tasks.end_attempts([ending])
    task = await read(tasks, 1)
    assert task.error.receipt == task.attempts[0].error.receipt == receipt


async def test_a_task_that_never_ran_and_one_of_a_lost_replica_have_their_receipts(
    tasks: TaskRepository, executors: ExecutorRepository, rows: Rows
) -> None:
    await rows.processing(1)
    await rows.queued(2)
    for task_id in (1, 2):
        await tasks.request_cancel(task_id)
    await executors.end_session(SESSION, beat=0)
    await tasks.rescue()
    lost, waiting = await read(tasks, 1), await read(tasks, 2)
    assert lost.error.receipt == CancelReceipt(ended_by=CancelReceipt.ENDED_BY_SESSION_END)
    assert waiting.error.receipt == CancelReceipt(ended_by=CancelReceipt.ENDED_BY_NOT_STARTED, processes_gone=True)


async def test_the_backoff_of_a_submission_and_the_wish_of_a_handler_decide_when_a_task_is_due_again(
    tasks: TaskRepository, rows: Rows
) -> None:
    hours = Backoff(initial_ms=36_000_000, factor=1.0, max_ms=36_000_000)
    await rows.processing(*range(1, 21), options=TaskOptions(backoff=hours))
    await tasks.end_attempts([Ending(TaskEvent.ATTEMPT_FAILED, report(n, 1, OUTCOME_FAILED)) for n in range(1, 20)])
    waits = [await rows.read(n, "extract(epoch FROM run_at - now())::float8") for n in range(1, 20)]
    assert max(waits) <= 36_000
    assert max(waits) > 18_000  # of 19 uniform ones up to 36,000
    wish = report(20, 1, OUTCOME_FAILED, retry_after_ms=7_200_000)
    await tasks.end_attempts([Ending(TaskEvent.ATTEMPT_FAILED, wish)])
    assert 7_190 < await rows.read(20, "extract(epoch FROM run_at - now())::float8") <= 7_200
