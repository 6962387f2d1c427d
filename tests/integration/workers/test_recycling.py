"""Workers that have run many tasks, or have grown, are replaced, and nobody who submits tasks can tell."""

import json
from pathlib import Path

import psutil
import pytest
from structlog.testing import capture_logs

from execution_service.workers.outcomes import Outcome, PoolSize, WorkerState
from execution_service.workers.wear import WearLimits
from tests.support.waiting import wait_until
from tests.support.worker_bench import Bench, attempt, running_bench

_MIB = 1024 * 1024


def pids(bench: Bench, pool: str = "cpu") -> set[int]:
    return {worker.pid for worker in bench.pool.workers() if worker.pool == pool}


def ready_pids(bench: Bench) -> set[int]:
    return {worker.pid for worker in bench.pool.workers() if worker.state in (WorkerState.READY, WorkerState.BUSY)}


async def test_a_worker_is_replaced_after_so_many_tasks_and_none_is_lost_or_run_twice(tmp_path: Path) -> None:
    async with running_bench(tmp_path / "scratch", {"cpu": PoolSize(2)}, wear=WearLimits(tasks=200)) as bench:
        seen: set[int] = set()
        submitted = 0
        # There is always work in the workers while they are replaced.
        while len(seen) < 8:
            bench.submit(*(attempt(submitted + number, "noop", {"n": submitted + number}) for number in range(1, 501)))
            submitted += 500
            await wait_until(lambda: len(bench.finished) >= submitted - 500)  # noqa: B023
            seen |= pids(bench)
        await wait_until(lambda: len(bench.finished) == submitted)
    # One that is killed while it holds attempts would hand them back, or have them run again.
    assert {done.outcome for done in bench.finished.values()} == {Outcome.COMPLETED}
    results = [json.loads(bench.finished[number, 1].result or b"")["n"] for number in range(1, submitted + 1)]
    assert results == [*range(1, submitted + 1)]


@pytest.mark.parametrize("pool", ["cpu", "io"])
async def test_a_worker_goes_on_until_its_successor_is_ready(tmp_path: Path, pool: str) -> None:
    handler = "noop" if pool == "cpu" else "noop_async"
    async with running_bench(tmp_path / "scratch", {pool: PoolSize(1)}, wear=WearLimits(tasks=3)) as bench:
        before = pids(bench, pool)
        for number in range(1, 4):
            await bench.run(attempt(number, handler, pool=pool))
        number = 3
        while before & pids(bench, pool):
            number += 1
            assert bench.pool.slots(pool) == 1
            # No task waits for the start of a process: there is always one that takes it.
            assert ready_pids(bench)
            done = await bench.run(attempt(number, handler, pool=pool))
            assert done.outcome is Outcome.COMPLETED
        assert number > 4


async def test_a_running_attempt_is_not_disturbed_by_the_replacement_of_its_worker(tmp_path: Path) -> None:
    async with running_bench(tmp_path / "scratch", {"cpu": PoolSize(1)}, wear=WearLimits(tasks=1)) as bench:
        first = (await bench.run(attempt(1, "noop"))).worker_id
        bench.submit(attempt(2, "sleep_for", {"seconds": 1.0}))
        old = await bench.running(2)
        # The successor takes what comes while the old one still runs.
        await wait_until(lambda: len(ready_pids(bench) - {old}) == 1)
        second = await bench.run(attempt(3, "noop"))
        assert (2, 1) not in bench.finished
        assert second.worker_id != first
        assert (await bench.outcome(2)).outcome is Outcome.COMPLETED
        await wait_until(lambda: not psutil.pid_exists(old))


@pytest.mark.parametrize(("pool", "handler"), [("cpu", "keep_memory"), ("io", "keep_memory_async")])
async def test_a_worker_that_has_grown_is_replaced_and_one_within_the_limit_is_not(
    tmp_path: Path, pool: str, handler: str
) -> None:
    wear = WearLimits(memory=300 * _MIB)
    async with running_bench(tmp_path / "scratch", {pool: PoolSize(1, 1 if pool == "cpu" else 8)}, wear=wear) as bench:
        before = pids(bench, pool)
        with capture_logs() as logs:
            await bench.run(attempt(1, handler, {"mib": 20}, pool=pool))
            done = await bench.run(attempt(2, handler, {"mib": 300}, pool=pool))
            assert done.outcome is Outcome.COMPLETED
            await wait_until(lambda: not before & pids(bench, pool))
        worn = [line for line in logs if line["event"] == "worker_worn"]
        assert [line["reason"].startswith("its memory has grown to 3") for line in worn] == [True]
        (after,) = bench.pool.workers()
        assert after.memory < 300 * _MIB


async def test_memory_that_a_handler_needs_and_gives_back_is_no_growth(tmp_path: Path) -> None:
    async with running_bench(tmp_path / "scratch", {"cpu": PoolSize(1)}, wear=WearLimits(memory=200 * _MIB)) as bench:
        before = pids(bench)
        for number in (1, 2, 3):
            done = await bench.run(attempt(number, "use_memory", {"mib": 300}))
            assert int(done.result or b"0") > 300 * _MIB
        # What the worker says of itself comes before the outcome of its next task.
        await bench.run(attempt(4, "noop"))
        assert pids(bench) == before


async def test_a_limit_below_what_a_worker_begins_with_is_told_and_has_no_effect(tmp_path: Path) -> None:
    with capture_logs() as logs:
        async with running_bench(tmp_path / "scratch", {"cpu": PoolSize(1)}, wear=WearLimits(memory=_MIB)) as bench:
            before = pids(bench)
            for number in (1, 2):
                await bench.run(attempt(number, "noop"))
            assert pids(bench) == before
    assert [line["event"] for line in logs if line["log_level"] == "warning"] == ["memory_limit_without_effect"]


async def test_the_successor_of_a_worker_with_threads_left_behind_is_started_at_once(bench: Bench) -> None:
    with capture_logs() as logs:
        await bench.run(attempt(1, "leave_thread"))
        await bench.run(attempt(2, "noop"))
        await wait_until(lambda: any(line["event"] == "worker_ended" for line in logs))
    order = [line["event"] for line in logs if line["event"] in ("worker_leaves", "worker_started", "worker_ended")]
    assert order == ["worker_leaves", "worker_started", "worker_ended"]
