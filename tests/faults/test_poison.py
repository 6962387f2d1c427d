"""Tasks that kill their worker, or their whole replica, among others that do nothing wrong."""

import asyncio
import signal

import pytest

from tests.faults.harness.checker import Allowed
from tests.faults.harness.run import Run
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(180)]


@pytest.mark.quick
async def test_f56_a_task_that_kills_its_worker_fails_after_three_deaths_and_harms_nobody(run: Run) -> None:
    innocent = await run.client.submit(run.tasks(25, seconds=0.1))
    [poison] = await run.client.submit([{"type": "crash", "data": {"signal": signal.SIGKILL}, "max_attempts": 10}])
    innocent += await run.client.submit(run.tasks(25, seconds=0.1))
    ended = await run.client.final(poison)
    assert (ended["status"], ended["error"]["code"], ended["error"]["signal"]) == ("failed", "worker_died", 9)
    assert {task["status"] for task in await run.client.finals(innocent)} == {"completed"}
    rows = await run.stack.query(f"SELECT worker_deaths, starts, attempt - starts FROM tasks WHERE task_id = {poison}")
    # It may have been handed back unstarted: its second start needs a fresh worker.
    assert rows[0][:2] == (3, 3)
    # Nobody else was started twice or charged.
    await run.settle(Allowed(charged=3, statuses=("completed", "failed")))
    charged = await run.stack.query("SELECT task_id FROM tasks WHERE failures + worker_deaths > 0")
    assert charged == [(poison,)]


async def test_f57_a_task_that_takes_its_replica_down_fails_after_three_losses_the_last_of_them_alone(
    run: Run,
) -> None:
    stack = run.stack
    stop = asyncio.Event()
    load = asyncio.create_task(run.client.load(lambda: run.tasks(4, seconds=0.3), stop=stop, pause=0.4))
    restarts = 0
    try:
        await run.started(4)
        [poison] = await run.client.submit([{"type": "kill_replica", "data": {}}])
        for _ in range(3):
            await wait_until(lambda: _dead(run), timeout=90)
            names = _dead(run)
            assert len(names) == 1
            restarts += 1
            await stack.start(*names)
        ended = await run.client.final(poison)
    finally:
        stop.set()
        await load
    assert (ended["status"], ended["error"]["code"]) == ("failed", "replica_lost")
    losses = await stack.query(
        f"SELECT session_id FROM ended_attempts WHERE task_id = {poison} AND outcome = 'replica_lost' ORDER BY attempt"
    )
    beside = [await _started_and_lost(run, session_id) for (session_id,) in losses]
    print(f"F57 replicas_lost={restarts} lost_beside_it={beside}")  # noqa: T201
    assert len(losses) == restarts == 3
    assert beside[2] == 0
    # The first two losses cost what ran beside it, and only that was started again.
    await run.settle(Allowed(reruns=sum(beside), statuses=("completed", "failed")))
    failed = await stack.query("SELECT task_id FROM tasks WHERE status = 'failed'")
    assert failed == [(poison,)]


async def _started_and_lost(run: Run, session_id: object) -> int:
    """How many attempts ran when a replica was lost; one that was on its way to it lost nothing."""
    rows = await run.stack.query(
        f"SELECT task_id, attempt FROM ended_attempts WHERE session_id = {session_id} AND outcome = 'replica_lost'"
    )
    return len(
        {(int(str(task_id)), int(str(attempt))) for task_id, attempt in rows} & run.effects.started_attempts().keys()
    )


def _dead(run: Run) -> list[str]:
    return [name for name in run.stack.names("execution") if not run.stack[name].running]
