"""The statements that decide by themselves decide as the domain does, for every state that matters."""

import itertools
import random
from datetime import timedelta

from headrace.v1.task_pb2 import TaskStatus as ProtoStatus
from management_service.domain.statuses import TRANSITIONS, TaskEvent, TaskStatus
from management_service.domain.task import Task, end_attempt, request_cancel
from management_service.storage.executors import ExecutorRepository
from management_service.storage.tasks import TaskRepository
from tests.support.task_rows import SESSION, Rows


async def test_a_rescue_moves_as_the_domain_says(
    tasks: TaskRepository, executors: ExecutorRepository, rows: Rows
) -> None:
    cases = list(itertools.product(range(3), (False, True)))
    await rows.processing(*range(1, len(cases) + 1))
    for task_id, (losses, cancelled) in enumerate(cases, start=1):
        cancel = "now()" if cancelled else "NULL"
        await rows.set(task_id, f"replica_losses = {losses}, cancel_requested_at = {cancel}")
    await executors.end_session(SESSION, beat=0)
    moved = {change.task_id: change.status for change in await tasks.rescue()}
    for task_id, (losses, cancelled) in enumerate(cases, start=1):
        task = Task(
            status=TaskStatus.PROCESSING,
            attempt=1,
            max_attempts=3,
            replica_losses=losses,
            cancel_requested=cancelled,
        )
        after = end_attempt(task, TaskEvent.SESSION_ENDED, attempt=1, rng=random.Random(0))
        assert moved[task_id] == after.status, (losses, cancelled)


async def test_a_cancel_moves_as_the_domain_says(tasks: TaskRepository, rows: Rows) -> None:
    await rows.processing(1)
    await rows.queued(2)
    await rows.queued(3, delay_ms=60_000)
    await rows.queued(4)
    await rows.set(4, "status = 'retrying'")
    for task_id in (1, 2, 3, 4):
        status = TaskStatus(await rows.read(task_id, "status::text"))
        after = request_cancel(Task(status=status, max_attempts=3, attempt=1))
        change = await tasks.request_cancel(task_id)
        assert change is not None
        assert change.status == after.status


async def test_the_words_for_statuses_agree_everywhere(rows: Rows) -> None:
    cursor = await rows.connection.execute("SELECT unnest(enum_range(NULL::task_status))::text")
    in_sql = {row[0] for row in await cursor.fetchall()}
    in_proto = {name.removeprefix("TASK_STATUS_").lower() for name in ProtoStatus.keys()} - {"unspecified"}  # noqa: SIM118
    assert in_sql == in_proto == {status.value for status in TaskStatus}
    assert {transition.target for transition in TRANSITIONS} == set(TaskStatus)


async def test_a_due_time_is_kept_by_the_clock_of_the_database(tasks: TaskRepository, rows: Rows) -> None:
    await rows.queued(1, delay_ms=5000)
    due_in = await rows.read(1, "run_at - created_at")
    assert due_in == timedelta(seconds=5)
