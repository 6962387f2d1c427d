"""The statements over task rows, on a real server, with others racing."""

import asyncio
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from headrace.v1.task_pb2 import (
    OUTCOME_CANCELLED,
    OUTCOME_FAILED,
    OUTCOME_HANDED_BACK,
    OUTCOME_WORKER_DIED,
)
from management_service.domain.statuses import TaskEvent, TaskStatus
from management_service.listing import list_tasks
from management_service.storage.executors import ExecutorRepository
from management_service.storage.records import Ending, Listing, NewTask
from management_service.storage.tasks import TaskRepository
from tests.support.task_rows import SESSION, Rows, report, submission


async def test_a_task_stored_for_a_live_session_is_processing_at_once(tasks: TaskRepository, rows: Rows) -> None:
    await rows.session()
    inserted = await tasks.insert([NewTask(submission(1), SESSION), NewTask(submission(2))])
    assert inserted.statuses == {1: "processing", 2: "queued"}
    assert await rows.read(1, "attempt", "session_id", "revision") == (1, SESSION, 1)


async def test_a_task_stored_for_an_ended_session_is_queued_by_the_same_statement(
    tasks: TaskRepository, executors: ExecutorRepository, rows: Rows
) -> None:
    await rows.session()
    assert await executors.end_session(SESSION, beat=0)
    assert (await tasks.insert([NewTask(submission(1), SESSION)])).statuses == {1: "queued"}
    assert await rows.read(1, "attempt", "session_id") == (0, None)


async def test_storing_a_task_twice_is_storing_it_once(tasks: TaskRepository, rows: Rows) -> None:
    await rows.queued(1)
    inserted = await tasks.insert([NewTask(submission(1, data=b'{"other":1}')), NewTask(submission(2))])
    assert inserted.statuses == {2: "queued"}
    assert await rows.read(1, "data") == b"{}"


async def test_a_delayed_task_is_scheduled_and_becomes_due(tasks: TaskRepository, rows: Rows) -> None:
    await rows.session()
    assert (await tasks.insert([NewTask(submission(1, delay_ms=60_000), SESSION)])).statuses == {1: "scheduled"}
    assert await tasks.promote_due() == []
    await rows.set(1, "run_at = now()")
    assert [(change.task_id, change.status) for change in await tasks.promote_due()] == [(1, "queued")]


async def test_an_idempotency_key_belongs_to_the_first_task(tasks: TaskRepository) -> None:
    await tasks.insert([NewTask(submission(1, idempotency_key="k", fingerprint=b"f"))])
    assert (await tasks.insert([NewTask(submission(2, idempotency_key="k", fingerprint=b"g"))])).statuses == {}
    assert await tasks.find_by_keys(["k", "unknown"]) == {"k": (1, b"f")}


async def test_only_one_of_two_sessions_gets_a_task(tasks: TaskRepository, rows: Rows) -> None:
    await rows.session(1)
    await rows.session(2)
    await rows.queued(*range(1, 101))
    claims = await asyncio.gather(
        *(tasks.claim(pool="cpu", types=["noop"], slots=[session] * 60) for session in (1, 2))
    )
    ids = [task.task_id for claim in claims for task in claim]
    assert sorted(ids) == list(range(1, 101))


async def test_claims_go_by_priority_then_by_due_time_then_by_id(tasks: TaskRepository, rows: Rows) -> None:
    await rows.session()
    await rows.queued(1, 2, 3)
    await rows.queued(4, priority=9)
    await rows.set(3, "run_at = run_at - interval '1 second'")
    claimed = await tasks.claim(pool="cpu", types=["noop"], slots=[SESSION] * 2)
    assert [task.task_id for task in claimed] == [4, 3]


async def test_a_claim_takes_nothing_for_other_types_pools_later_times_or_ended_sessions(
    tasks: TaskRepository, executors: ExecutorRepository, rows: Rows
) -> None:
    await rows.session()
    await rows.queued(1, type="other")
    await rows.queued(2, pool="gpu")
    await rows.queued(3)
    await rows.set(3, "run_at = now() + interval '1 hour'")
    assert await tasks.claim(pool="cpu", types=["noop"], slots=[SESSION]) == []
    await rows.set(3, "run_at = now()")
    await executors.end_session(SESSION, beat=0)
    assert await tasks.claim(pool="cpu", types=["noop"], slots=[SESSION]) == []


async def test_a_claim_is_bounded_by_bytes_but_takes_at_least_one_task(tasks: TaskRepository, rows: Rows) -> None:
    await rows.session()
    await rows.queued(1, 2, 3, data=b'{"text":"' + b"x" * (3 * 2**20) + b'"}')
    claimed = await tasks.claim(pool="cpu", types=["noop"], slots=[SESSION] * 3)
    assert [task.task_id for task in claimed] == [1]
    assert claimed[0].ready_found == 3


async def test_a_completion_names_its_attempt_as_the_result(tasks: TaskRepository, rows: Rows) -> None:
    await rows.processing(1)
    [done] = await tasks.complete([report(1, 1)])
    assert (done.task_id, done.revision) == (1, 3)
    assert await rows.read(1, "status", "result_attempt", "starts", "worker") == ("completed", 1, 1, "w1")
    assert await rows.outbox() == [[1]]


async def test_a_stale_report_changes_nothing(tasks: TaskRepository, rows: Rows) -> None:
    await rows.processing(1)
    assert await tasks.complete([report(1, 2)]) == []
    assert await tasks.end_attempts([Ending(TaskEvent.ATTEMPT_FAILED, report(1, 2, OUTCOME_FAILED))]) == []
    assert await rows.read(1, "status", "revision") == ("processing", 2)
    assert await rows.outbox() == []


async def test_of_two_racing_reports_one_moves_the_task(tasks: TaskRepository, rows: Rows) -> None:
    await rows.processing(*range(1, 201))
    completions = tasks.complete([report(task_id, 1) for task_id in range(1, 201)])
    failures = tasks.end_attempts(
        [Ending(TaskEvent.ATTEMPT_FAILED, report(task_id, 1, OUTCOME_FAILED)) for task_id in range(200, 0, -1)]
    )
    completed, failed = await asyncio.gather(completions, failures)
    moved = [done.task_id for done in completed] + [change.task_id for change in failed]
    assert sorted(moved) == list(range(1, 201))


async def test_published_outbox_rows_go_with_the_next_batch(tasks: TaskRepository, rows: Rows) -> None:
    await rows.processing(1, 2)
    [first] = await tasks.complete([report(1, 1)])
    await tasks.complete([report(2, 1)], published=[first.outbox_id])
    assert await rows.outbox() == [[2]]


async def test_failures_are_retried_until_the_last_attempt(tasks: TaskRepository, rows: Rows) -> None:
    await rows.processing(1, max_attempts=2)
    [change] = await tasks.end_attempts([Ending(TaskEvent.ATTEMPT_FAILED, report(1, 1, OUTCOME_FAILED))])
    assert change.status == "retrying"
    assert await rows.outbox() == [[1]]
    await rows.clear_outbox()
    await rows.set(1, "run_at = now()")
    await tasks.promote_due()
    await tasks.claim(pool="cpu", types=["noop"], slots=[SESSION])
    assert await rows.outbox() == [[1], [1]]
    await rows.clear_outbox()
    [change] = await tasks.end_attempts([Ending(TaskEvent.ATTEMPT_FAILED, report(1, 2, OUTCOME_FAILED))])
    assert (change.status, change.error) == ("failed", '{"code": "handler_error", "message": "no luck"}')
    assert await rows.outbox() == [[1]]


@pytest.mark.parametrize(
    ("event", "outcome", "status"),
    [
        (TaskEvent.ATTEMPT_FAILED, OUTCOME_FAILED, "cancelled"),
        (TaskEvent.WORKER_DIED, OUTCOME_WORKER_DIED, "cancelled"),
        (TaskEvent.HANDED_BACK, OUTCOME_HANDED_BACK, "cancelled"),
        (TaskEvent.ATTEMPT_CANCELLED, OUTCOME_CANCELLED, "cancelled"),
    ],
)
async def test_an_attempt_that_ends_after_a_cancel_leaves_the_task_cancelled(
    tasks: TaskRepository, rows: Rows, event: TaskEvent, outcome: int, status: str
) -> None:
    await rows.processing(1)
    change = await tasks.request_cancel(1)
    assert change is not None
    assert (change.status, change.revision) == ("processing", 3)
    assert await tasks.request_cancel(1) is None
    [change] = await tasks.end_attempts([Ending(event, report(1, 1, outcome))])  # type: ignore[arg-type]
    assert change.status == status


async def test_a_completion_that_comes_before_the_cancelled_report_wins(tasks: TaskRepository, rows: Rows) -> None:
    await rows.processing(1)
    await tasks.request_cancel(1)
    assert [done.task_id for done in await tasks.complete([report(1, 1)])] == [1]
    assert await tasks.end_attempts([Ending(TaskEvent.ATTEMPT_CANCELLED, report(1, 1, OUTCOME_CANCELLED))]) == []


async def test_a_waiting_task_is_cancelled_at_once(tasks: TaskRepository, rows: Rows) -> None:
    await rows.queued(1)
    change = await tasks.request_cancel(1)
    assert change is not None
    assert change.status == "cancelled"
    assert await rows.outbox() == [[1]]


async def test_tasks_of_an_ended_session_are_rescued_and_the_third_loss_is_final(
    tasks: TaskRepository, executors: ExecutorRepository, rows: Rows
) -> None:
    await rows.processing(1, 2, 3)
    await rows.set(2, "replica_losses = 2")
    await tasks.request_cancel(3)
    assert await tasks.rescue() == []
    await executors.end_session(SESSION, beat=0)
    changes = {change.task_id: change.status for change in await tasks.rescue()}
    assert changes == {1: "queued", 2: "failed", 3: "cancelled"}
    assert await rows.read(1, "failures", "replica_losses", "attempt") == (0, 1, 1)
    assert (await rows.outbox())[-1] == [1, 2, 3]


async def test_tasks_of_a_session_without_a_row_are_rescued(tasks: TaskRepository, rows: Rows) -> None:
    await rows.processing(1)
    await rows.connection.execute("DELETE FROM executors")
    assert [change.status for change in await tasks.rescue()] == ["queued"]


async def test_a_late_completion_of_a_rescued_attempt_is_stale(
    tasks: TaskRepository, executors: ExecutorRepository, rows: Rows
) -> None:
    await rows.processing(1)
    await executors.end_session(SESSION, beat=0)
    await tasks.rescue()
    assert await tasks.complete([report(1, 1)]) == []
    assert await rows.read(1, "status", "result_attempt") == ("queued", None)


async def test_refusals_delay_the_next_claim(tasks: TaskRepository, rows: Rows) -> None:
    await rows.processing(1)
    ending = Ending(TaskEvent.REFUSED, report(1, 1, OUTCOME_HANDED_BACK, error=None))
    [change] = await tasks.end_attempts([ending])
    assert change.status == "queued"
    assert await rows.read(1, "refusals", "run_at > now()") == (1, True)


async def test_a_retry_by_hand_starts_a_new_round(tasks: TaskRepository, rows: Rows) -> None:
    await rows.processing(1)
    assert await tasks.retry([1]) == []
    await tasks.complete([report(1, 1)])
    [change] = await tasks.retry([1])
    assert (change.status, change.attempt) == ("queued", 1)
    assert await rows.read(1, "round_base", "result_attempt", "finished_at") == (1, None, None)
    [claimed] = await tasks.claim(pool="cpu", types=["noop"], slots=[SESSION])
    assert (claimed.attempt, claimed.round_base) == (2, 1)


async def test_only_a_finished_task_is_removed_and_not_right_after_its_cancel(
    tasks: TaskRepository, rows: Rows
) -> None:
    await rows.queued(1, 2)
    assert not await tasks.remove(1)
    await tasks.request_cancel(1)
    assert not await tasks.remove(1)
    await rows.set(1, "cancel_requested_at = now() - interval '61 seconds'")
    assert await tasks.remove(1)
    assert await tasks.get(1) is None
    assert (await tasks.insert([NewTask(submission(1))])).statuses == {}


async def test_an_unstorable_task_becomes_a_failed_row(tasks: TaskRepository, rows: Rows) -> None:
    bad = submission(1, type="a\0b")
    with pytest.raises(psycopg.DataError):
        await tasks.insert([NewTask(bad), NewTask(submission(2))])
    await tasks.insert_unstorable(bad, reason="NUL in type")
    assert await rows.read(1, "status", "error->>'code'") == ("failed", "unstorable")
    assert await rows.outbox() == [[1]]


async def test_an_ended_session_takes_no_heartbeat(executors: ExecutorRepository, rows: Rows) -> None:
    await rows.session(1)
    await rows.session(2)
    assert await executors.raise_beats({1: 5, 2: 3, 3: 1}) == {1, 2}
    assert not await executors.end_session(1, beat=4)
    assert await executors.end_session(1, beat=5)
    assert await executors.raise_beats({1: 6, 2: 2}) == {2}
    sessions = await executors.scan_sessions(manager_id="m", replica="m1")
    assert [(session.session_id, session.beat) for session in sessions] == [(2, 3)]


async def test_pages_go_from_the_newest_and_filter(tasks: TaskRepository, rows: Rows) -> None:
    await rows.queued(*range(1, 6))
    await rows.queued(6, type="other")
    page = await tasks.list_page(status=TaskStatus.QUEUED, type_name="noop", limit=2, after=5)
    assert [row.task_id for row in page] == [4, 3]
    counts, _ = await tasks.count_statuses()
    assert counts[TaskStatus.QUEUED] == 6


async def test_lists_take_several_statuses_and_types_or_ids(tasks: TaskRepository, rows: Rows) -> None:
    await rows.processing(8, 9)
    await rows.queued(*range(1, 6))
    await rows.queued(6, 7, type="other")
    await tasks.complete([report(9, 1)])

    async def listed(**wanted: Any) -> tuple[list[int], int]:
        found, after = await list_tasks(tasks, Listing(**{"limit": 3, **wanted}))
        return [row.task_id for row in found], after

    assert await listed() == ([9, 8, 7], 7)
    both = {"statuses": (TaskStatus.QUEUED, TaskStatus.PROCESSING), "type_names": ("noop", "other")}
    assert await listed(**both) == ([8, 7, 6], 6)
    assert await listed(**both, after=6) == ([5, 4, 3], 3)
    assert await listed(**both, after=3) == ([2, 1], 0)
    assert await listed(type_names=("other", "nothing")) == ([7, 6], 0)
    # Those that are named come on one page.
    assert await listed(task_ids=(1, 6, 8, 9, 99)) == ([9, 8, 6, 1], 0)
    assert await listed(task_ids=(1, 6, 8, 9), **both) == ([8, 6, 1], 0)
    assert await tasks.remove(9)
    assert await listed(task_ids=(9,)) == ([], 0)


async def test_expired_tasks_are_hidden_and_their_shells_dropped_a_day_later(tasks: TaskRepository, rows: Rows) -> None:
    await rows.processing(1, 2)
    await tasks.complete([report(1, 1), report(2, 1)])
    await rows.set(1, "finished_at = now() - interval '8 days'")
    assert await tasks.remove_expired(retention=timedelta(days=7)) == [1]
    assert await tasks.drop_shells() == 0
    await rows.set(1, "removed_at = now() - interval '25 hours'")
    assert await tasks.drop_shells() == 1
    assert await tasks.get(2) is not None
