"""Managers and executors are killed and frozen while tasks run."""

import time

import pytest

from tests.faults.harness.checker import Allowed
from tests.faults.harness.run import Run
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(180)]


@pytest.mark.quick
async def test_f10_a_killed_manager_costs_no_execution(run: Run) -> None:
    task_ids = await run.start_tasks(8, seconds=4)
    killed = time.monotonic()
    run.stack.kill("management-0")
    later = await run.client.submit(run.tasks(1))
    await run.client.finals(task_ids + later)
    assert time.monotonic() - killed < 60
    await run.settle()


@pytest.mark.quick
async def test_f34_tasks_of_a_killed_executor_run_elsewhere_within_5_s(run: Run) -> None:
    await run.start_tasks(4, seconds=6)
    killed = time.monotonic()
    run.stack.kill("execution-0")
    lost = 4 - len({line.task_id for line in run.effects.lines() if line.event == "end"})
    assert lost
    await wait_until(lambda: run.seconds_to_rerun(killed), timeout=20)
    reruns = run.seconds_to_rerun(killed)
    print("rerun after", reruns)  # noqa: T201
    assert reruns[-1] < 5
    await run.settle(Allowed(reruns=4))
