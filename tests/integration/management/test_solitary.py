"""A task that two replicas were lost under: with nothing beside it, and one such task at a time."""

import asyncio

from management_service.domain.task import SOLITARY_LOSSES
from management_service.storage.executors import ExecutorRepository
from management_service.storage.tasks import TaskRepository
from tests.support.task_rows import SESSION, Rows, report


async def suspects(rows: Rows, *task_ids: int) -> None:
    await rows.queued(*task_ids)
    for task_id in task_ids:
        await rows.set(task_id, f"replica_losses = {SOLITARY_LOSSES}")


async def test_the_usual_claim_leaves_it_alone(tasks: TaskRepository, rows: Rows) -> None:
    await rows.session()
    await suspects(rows, 1)
    await rows.queued(2)
    await rows.set(2, f"replica_losses = {SOLITARY_LOSSES - 1}")
    claimed = await tasks.claim(pool="cpu", types=["noop"], slots=[SESSION] * 5)
    assert [(task.task_id, task.solitary) for task in claimed] == [(2, False)]


async def test_one_is_in_progress_at_a_time_whoever_claims(tasks: TaskRepository, rows: Rows) -> None:
    await rows.session(1)
    await rows.session(2)
    await suspects(rows, 1, 2)
    assert await tasks.list_solitary() == [("cpu", "noop")]
    claims = await asyncio.gather(
        *(tasks.claim_solitary(pool="cpu", types=["noop"], session_id=session) for session in (1, 2) * 3)
    )
    [claimed] = [task for claim in claims for task in claim]
    assert (claimed.task_id, claimed.solitary, claimed.attempt) == (1, True, 1)
    assert await tasks.list_solitary() == []
    await tasks.complete([report(1, 1)])
    [claimed] = await tasks.claim_solitary(pool="cpu", types=["noop"], session_id=2)
    assert claimed.task_id == 2


async def test_an_ended_session_gets_none(tasks: TaskRepository, executors: ExecutorRepository, rows: Rows) -> None:
    await rows.session()
    await executors.end_session(SESSION, beat=0)
    await suspects(rows, 1)
    assert await tasks.claim_solitary(pool="cpu", types=["noop"], session_id=SESSION) == []


async def test_a_third_loss_is_final(tasks: TaskRepository, executors: ExecutorRepository, rows: Rows) -> None:
    await rows.session()
    await suspects(rows, 1)
    await tasks.claim_solitary(pool="cpu", types=["noop"], session_id=SESSION)
    await executors.end_session(SESSION, beat=0)
    [change] = await tasks.rescue()
    assert change.status == "failed"
    assert await rows.read(1, "error ->> 'code'") == "replica_lost"
