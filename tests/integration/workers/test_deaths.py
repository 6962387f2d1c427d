"""Workers die, hang and cheat; only what they were running pays for it."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from execution_service.workers.outcomes import Outcome, PoolSize
from tests.support.waiting import wait_until
from tests.support.worker_bench import Bench, attempt, lines_of, running_bench


@pytest.mark.alone
@pytest.mark.parametrize(
    ("data", "number", "exit_code"),
    [
        ({"signal": signal.SIGKILL}, signal.SIGKILL, 0),
        ({"signal": signal.SIGSEGV}, signal.SIGSEGV, 0),
        ({"exit_code": 0}, 0, 0),
        ({"exit_code": 7}, 0, 7),
    ],
)
async def test_a_crash_costs_only_its_own_attempt(
    bench: Bench, data: dict[str, int], number: int, exit_code: int
) -> None:
    for i in range(1, 100):
        await bench.run(attempt(i, "noop"))
    bench.submit(attempt(100, "crash", {"times": 0}))
    await bench.outcome(100)
    bench.submit(
        *(attempt(i, "noop") for i in range(101, 201)),
        attempt(201, "crash", data),
        *(attempt(i, "noop") for i in range(202, 301)),
    )
    died = await bench.outcome(201)
    assert (died.outcome, died.started) == (Outcome.WORKER_DIED, True)
    assert died.error is not None
    assert (died.error.code, died.error.signal, died.error.exit_code) == ("worker_died", number, exit_code)
    began = time.monotonic()
    for i in range(202, 301):
        assert (await bench.outcome(i)).outcome is Outcome.COMPLETED
    assert time.monotonic() - began < 3
    # Those before it may have ended without their outcome being sent: they are given back, and not charged.
    assert {bench.finished[i, 1].outcome for i in range(101, 201)} <= {Outcome.COMPLETED, Outcome.HANDED_BACK}


async def test_the_evidence_of_a_death_is_kept(bench: Bench) -> None:
    died = await bench.run(attempt(1, "print_and_die", {"line": "about to touch nothing"}))
    assert died.error is not None
    assert "SIGSEGV" in died.error.message
    assert "about to touch nothing" in died.error.message
    assert "Peak memory" in died.error.message
    assert died.error.peak_memory > 1024 * 1024
    assert died.log == "about to touch nothing\n"
    assert died.worker_id
    assert died.started_at is not None
    assert died.executed_at is not None
    assert 0 <= died.executed_at - died.started_at < 10


async def test_what_was_not_started_runs_elsewhere_and_once(bench: Bench, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    for i in range(1, 20):
        await bench.run(attempt(i, "append_line", {"path": "/dev/null"}))
    bench.submit(attempt(20, "crash", {"times": 0}))
    await bench.outcome(20)
    bench.submit(
        attempt(100, "crash", {"signal": signal.SIGKILL}),
        *(attempt(i, "append_line", {"path": str(trace)}) for i in range(101, 201)),
    )
    for i in range(101, 201):
        assert (await bench.outcome(i)).outcome is Outcome.COMPLETED
    started = [line[0] for line in lines_of(trace) if line[2] == "start"]
    assert sorted(started) == sorted(str(i) for i in range(101, 201))


@pytest.mark.alone
async def test_an_attempt_that_takes_too_long_is_ended_with_its_worker(bench: Bench) -> None:
    began = time.monotonic()
    done = await bench.run(attempt(1, "spin", timeout=0.5))
    assert time.monotonic() - began < 2.5
    assert (done.outcome, done.started) == (Outcome.FAILED, True)
    assert done.error is not None
    assert done.error.code == "timeout"
    assert (await bench.run(attempt(2, "noop"))).outcome is Outcome.COMPLETED


async def test_an_async_attempt_that_takes_too_long_costs_its_neighbours_nothing(bench: Bench) -> None:
    before = {worker.pid for worker in bench.pool.workers()}
    bench.submit(
        attempt(1, "sleep_async", {"seconds": 30}, pool="io", timeout=0.3),
        attempt(2, "sleep_async", {"seconds": 1}, pool="io"),
    )
    late, neighbour = await bench.outcome(1), await bench.outcome(2)
    assert late.error is not None
    assert (late.outcome, late.error.code) == (Outcome.FAILED, "timeout")
    assert neighbour.outcome is Outcome.COMPLETED
    assert {worker.pid for worker in bench.pool.workers()} == before


async def test_a_timeout_error_of_the_handlers_own_is_no_timeout(bench: Bench) -> None:
    done = await bench.run(attempt(1, "own_timeout_error", pool="io"))
    assert done.error is not None
    assert done.error.code == "handler_error"


async def test_an_async_attempt_that_blocks_the_loop_is_killed_and_its_neighbour_handed_back(bench: Bench) -> None:
    bench.submit(attempt(2, "sleep_async", {"seconds": 20}, pool="io"))
    await bench.running(2)
    bench.submit(attempt(1, "spin_async", pool="io", timeout=0.3))
    late, neighbour = await bench.outcome(1), await bench.outcome(2)
    assert late.error is not None
    assert (late.outcome, late.error.code) == (Outcome.FAILED, "timeout")
    assert (neighbour.outcome, neighbour.started) == (Outcome.HANDED_BACK, True)


async def test_all_that_ran_in_an_async_worker_that_died_by_itself_is_told_so(bench: Bench) -> None:
    bench.submit(*(attempt(i, "sleep_async", {"seconds": 20}, pool="io") for i in (1, 2, 3)))
    pid = await bench.running(3)
    os.kill(pid, signal.SIGKILL)
    for i in (1, 2, 3):
        died = await bench.outcome(i)
        assert died.outcome is Outcome.WORKER_DIED
        assert died.started_at is not None


@pytest.mark.parametrize("what", ["noise", "huge", "half"])
async def test_garbage_from_a_worker_is_its_death(bench: Bench, what: str) -> None:
    done = await bench.run(attempt(1, "write_garbage", {"what": what}))
    assert done.outcome is Outcome.WORKER_DIED
    assert (await bench.run(attempt(2, "noop"))).outcome is Outcome.COMPLETED


async def test_a_worker_that_closes_its_descriptors_has_died(bench: Bench) -> None:
    done = await bench.run(attempt(1, "close_descriptors"))
    assert done.outcome is Outcome.WORKER_DIED
    assert (await bench.run(attempt(2, "noop"))).outcome is Outcome.COMPLETED


async def test_a_stopped_worker_is_replaced(bench: Bench) -> None:
    done = await bench.run(attempt(1, "stop_self", timeout=1))
    assert done.error is not None
    assert done.error.code == "timeout"
    await bench.run(attempt(2, "stop_self_later"))
    pid = next(worker.pid for worker in bench.pool.workers() if worker.pool == "cpu")
    await wait_until(lambda: psutil.Process(pid).status() == psutil.STATUS_STOPPED)
    # It holds an attempt that it may start and does not: it is given up, and the attempt runs in another.
    assert (await bench.run(attempt(3, "noop"))).outcome is Outcome.COMPLETED


async def test_a_fork_in_a_handler_leaves_one_worker(bench: Bench) -> None:
    done = await bench.run(attempt(1, "fork"))
    child = json.loads(done.result or b"0")
    assert child > 0
    await wait_until(lambda: not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE)
    assert (await bench.run(attempt(2, "noop"))).outcome is Outcome.COMPLETED


async def test_children_of_a_handler_end_with_its_attempt(bench: Bench) -> None:
    bench.submit(attempt(1, "start_child"))
    await wait_until(lambda: bench.progress)
    child = int(bench.progress[0].message)
    bench.pool.cancel(1, 1)
    assert (await bench.outcome(1)).outcome is Outcome.CANCELLED
    await wait_until(lambda: _gone(child))


@pytest.mark.alone
async def test_a_dead_worker_is_replaced_within_a_second(bench: Bench) -> None:
    await bench.run(attempt(1, "noop"))
    pid = next(worker.pid for worker in bench.pool.workers() if worker.pool == "cpu")
    os.kill(pid, signal.SIGKILL)
    began = time.monotonic()
    assert (await bench.run(attempt(2, "noop"))).outcome is Outcome.COMPLETED
    assert time.monotonic() - began < 1.5


async def test_an_isolated_attempt_has_a_fresh_worker_to_itself(bench: Bench) -> None:
    shared = await bench.run(attempt(1, "noop"))
    alone = await bench.run(attempt(1, "noop", number=2, isolated=True))
    assert alone.outcome is Outcome.COMPLETED
    assert alone.worker_id != shared.worker_id
    await wait_until(lambda: alone.worker_id not in {worker.worker_id for worker in bench.pool.workers()})
    died = await bench.run(attempt(2, "crash", {"exit_code": 3}, isolated=True))
    assert died.outcome is Outcome.WORKER_DIED
    assert (await bench.run(attempt(3, "noop"))).worker_id == shared.worker_id


_PARENT = """
import asyncio, sys, tempfile
from pathlib import Path
from tests.support.worker_bench import attempt, running_bench
from execution_service.workers.outcomes import PoolSize

async def main():
    async with running_bench(Path(sys.argv[1]), {"cpu": PoolSize(1), "io": PoolSize(1, 4)}) as bench:
        bench.submit(attempt(1, "start_child"))
        while not bench.progress:
            await asyncio.sleep(0.01)
        pids = [worker.pid for worker in bench.pool.workers()] + [int(bench.progress[0].message)]
        print("PIDS", *pids, flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""


async def test_nothing_outlives_a_pool_that_was_killed(tmp_path: Path) -> None:
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", _PARENT, str(tmp_path), stdout=subprocess.PIPE)
    assert parent.stdout is not None
    line = b""
    while not line.startswith(b"PIDS"):
        line = await asyncio.wait_for(parent.stdout.readline(), 20)
    pids = [int(word) for word in line.split()[1:]]
    assert len(pids) == 3
    parent.kill()
    await parent.wait()
    await wait_until(lambda: all(_gone(pid) for pid in pids))


async def test_scratch_left_by_a_killed_pool_is_cleared_by_the_next(tmp_path: Path) -> None:
    left = tmp_path / "pool-left" / "worker" / "1-1"
    left.mkdir(parents=True)
    async with running_bench(tmp_path, {"cpu": PoolSize(1)}):
        assert _names(tmp_path / "pool-left") == []
        async with running_bench(tmp_path, {"cpu": PoolSize(1)}):
            assert len(_names(tmp_path)) == 2
    assert _names(tmp_path) == []


def _gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir()) if folder.exists() else []
