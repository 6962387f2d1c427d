"""A whole replica asks for what it can start, gives back what it cannot, and fits its workers to the load."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from execution_service.service import ExecutionService
from execution_service.workers.cores import CoreMeter
from headrace.v1 import execution_pb2, task_pb2
from tests.integration.execution.conftest import settings_for
from tests.integration.execution.manager import Manager
from tests.integration.execution.messages import assignment
from tests.support.waiting import wait_until

NAP = {"seconds": 25}


async def run_short_ones(manager: Manager) -> None:
    """Answer demand with short tasks until hundreds of them are asked for."""
    next_id = 1000
    async with asyncio.timeout(20):
        while manager.open("cpu") < 100:
            await wait_until(lambda: manager.open("cpu") > 0)
            count = manager.open("cpu")
            manager.assign(assignment(task_id) for task_id in range(next_id, next_id + count))
            next_id += count
            await wait_until(lambda: len(manager.reports) == next_id - 1000)  # noqa: B023


async def test_long_tasks_that_come_on_demand_for_short_ones_are_given_back_and_none_comes_again(
    manager: Manager, service: ExecutionService
) -> None:
    await run_short_ones(manager)
    manager.assign(assignment(task_id, type_name="nap", data=NAP) for task_id in range(1, 9))
    await wait_until(lambda: len([r for r in manager.reports if r.task_id < 9]) == 6)
    given_back = [report for report in manager.reports if report.task_id < 9]
    assert {(report.outcome, report.started) for report in given_back} == {(task_pb2.OUTCOME_HANDED_BACK, False)}
    assert {report.error.code for report in given_back} == {"handed_back"}
    await wait_until(lambda: manager.open("cpu") == 0)
    assert service.replica.table.unfinished("cpu") == 2


async def test_short_tasks_that_were_asked_for_run_before_a_long_one_takes_the_last_worker(manager: Manager) -> None:
    await run_short_ones(manager)
    manager.assign([assignment(1, type_name="nap", data=NAP)])
    await wait_until(lambda: manager.progress)
    manager.assign([assignment(2, type_name="nap", data=NAP), *(assignment(task_id) for task_id in range(10, 40))])
    await wait_until(lambda: {report.task_id for report in manager.reports} >= set(range(10, 40)))
    ended = {report.task_id: report.outcome for report in manager.reports}
    assert {ended[task_id] for task_id in range(10, 40)} == {task_pb2.OUTCOME_COMPLETED}
    await wait_until(lambda: {item.task_id for item in manager.progress} == {1, 2})
    assert not {1, 2} & ended.keys()


@pytest.fixture
async def growing(
    postgres_dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[ExecutionService]:
    """A replica with one worker that may have three, on a machine with two processors to spare."""
    monkeypatch.setattr(CoreMeter, "free", lambda self, now: 2.0)
    sizes = {"workers": 1, "workers_max": 3, "workers_idle": timedelta(seconds=1)}
    service = ExecutionService(settings_for(postgres_dsn, tmp_path).model_copy(update=sizes))
    await service.start()
    yield service
    await service.stop()


async def test_a_replica_grows_by_what_a_manager_says_and_asks_for_more_then(growing: ExecutionService) -> None:
    def cpu_workers() -> int:
        return sum(1 for worker in growing.workers.workers() if worker.pool == "cpu")

    async with Manager(growing.replica.address) as manager:
        await wait_until(lambda: manager.open("cpu") == 1)
        manager.assign([assignment(1, type_name="nap", data=NAP)])
        await wait_until(lambda: manager.progress)
        assert cpu_workers() == 1
        manager.say(waiting=[execution_pb2.WaitingTasks(pool="cpu", count=5)])
        await wait_until(lambda: manager.open("cpu") == 2)
        assert (cpu_workers(), growing.workers.slots("cpu")) == (3, 3)
        manager.say(waiting=[execution_pb2.WaitingTasks(pool="cpu", count=0)])
        await wait_until(lambda: cpu_workers() == 2)
        await wait_until(lambda: manager.open("cpu") == 1)
        manager.cancel((1, 1))
        await wait_until(lambda: manager.reported(1))
        await wait_until(lambda: cpu_workers() == 1)
        assert manager.reported(1)[0].outcome == task_pb2.OUTCOME_CANCELLED
