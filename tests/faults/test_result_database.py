"""The result database is away while tasks end, and a replica dies with results in its hands."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.faults.conftest import StackFactory
from tests.faults.harness.checker import Allowed
from tests.faults.harness.run import Run
from tests.faults.harness.stack import Sizes
from tests.faults.harness.workers import workers_of
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(180)]

RECOVERY_SECONDS = 5.0
_MIB = 1024 * 1024


async def test_f48_results_wait_while_their_database_is_away(run: Run) -> None:
    """Longer than every timeout of a statement (5 s) and of a session (4 s)."""
    stack = run.stack
    await stack.crash("results")
    crashed = time.monotonic()
    task_ids = await run.client.submit(run.async_tasks(200, seconds=0.2))
    await wait_until(lambda: sum(line.event == "end" for line in run.effects.lines()) == 200, timeout=20)
    while time.monotonic() - crashed < 8:  # the outage itself
        rows = await stack.query("SELECT DISTINCT status::text FROM tasks")
        assert rows == [("processing",)]
    await stack.start("results")
    back = time.monotonic()
    await run.client.finals(task_ids)
    recovery = time.monotonic() - back
    run.recovered("F48", recovery, within=RECOVERY_SECONDS)
    await run.settle()


async def test_f48_what_waits_is_bounded(stack_factory: StackFactory, tmp_path: Path) -> None:
    """With room for 1 MiB a replica takes no more than that and what it was running; the rest waits in the queue."""
    size, count = 50_000, 600
    env = {"execution": {"HEADRACE_SPOOL_BYTES": str(_MIB)}}
    stack = await stack_factory(Sizes(managers=1, executors=1, role_env=env))
    async with Run(stack, tmp_path) as run:
        await stack.crash("results")
        task_ids: list[int] = []

        async with workers_of(stack, "execution-0") as workers:

            async def taken_up() -> bool:
                [(queued,)] = await stack.query("SELECT count(*) FROM tasks WHERE status = 'queued'")
                return bool(queued) or await workers.tasks_done() == len(task_ids)

            # A few at a time, so that each finds the replica as the ones before have left it.
            while len(task_ids) < count:
                task_ids += await run.client.submit([{"type": "return_bytes", "data": {"bytes": size}}] * 10)
                await wait_until(taken_up)

        async def claimed() -> int:
            [(number,)] = await stack.query("SELECT count(*) FROM tasks WHERE status = 'processing'")
            return int(str(number))

        held = await _steady(claimed)
        print(f"F48 held={held}")  # noqa: T201
        # It was full after 21 of them, and what it had asked for by then would have filled it once more at most.
        assert _MIB // size <= held <= 3 * (_MIB // size)
        await stack.start("results")
        await run.client.finals(task_ids)
        rows = await stack.query("SELECT max(attempt), max(starts) FROM tasks")
        assert rows == [(1, 1)]
        await run.settle()


async def test_f49_results_that_die_with_their_replica_are_made_again_once(run: Run) -> None:
    stack = run.stack
    await stack.crash("results")
    task_ids = await run.start_tasks(8, seconds=1.5)
    await wait_until(lambda: sum(line.event == "end" for line in run.effects.lines()) == 8, timeout=20)
    lost = await run.running_on("execution-0")
    kept = set(task_ids) - lost
    assert lost
    assert kept
    stack.kill("execution-0")
    killed = time.monotonic()

    async def rescued() -> bool:
        return not await stack.query(
            "SELECT 1 FROM tasks JOIN executors USING (session_id) WHERE status = 'processing' AND ended_at IS NOT NULL"
        ) and not await run.running_on("execution-0")

    await wait_until(rescued, timeout=20)
    await stack.start("results")
    await run.client.finals(task_ids)
    print(f"F49 lost={len(lost)} recovery_s={time.monotonic() - killed:.2f}")  # noqa: T201
    verdict = await run.settle(Allowed(reruns=len(lost)))
    assert verdict.reruns == len(lost)
    rows = await stack.query("SELECT task_id, attempt FROM results ORDER BY 1, 2", results=True)
    assert rows == sorted([(task_id, 1) for task_id in kept] + [(task_id, 2) for task_id in lost])


async def _steady(number: Callable[[], Awaitable[int]], *, seconds: float = 3.0) -> int:
    """The value of a number that has not changed for so long."""
    since, last = time.monotonic(), await number()
    while time.monotonic() - since < seconds:
        await asyncio.sleep(0.1)
        if (now := await number()) != last:
            since, last = time.monotonic(), now
    return last
