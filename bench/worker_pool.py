"""Measures the worker pool alone: no-op attempts through one worker, and what they cost in pool and worker.

`python -m bench.worker_pool [--seconds 5]` prints a table.
"""

import argparse
import asyncio
import contextlib
import logging
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import structlog
import uvloop

from execution_service.workers.lease_page import LeasePage, boottime
from execution_service.workers.outcomes import Attempt, Finished, Outcome, PoolSize
from execution_service.workers.pool import WorkerPool

_SESSION = 1
_IN_FLIGHT = 4000


@dataclass(frozen=True, slots=True)
class Case:
    title: str
    type: str
    pool: str
    size: PoolSize
    in_flight: int


CASES = (
    Case("def, 1 worker", "noop", "cpu", PoolSize(1), _IN_FLIGHT),
    Case("def, 2 workers", "noop", "cpu", PoolSize(2), _IN_FLIGHT),
    Case("async def, 64 slots", "noop_async", "io", PoolSize(1, 64), _IN_FLIGHT),
    Case("def, one at a time", "noop", "cpu", PoolSize(1), 1),
    Case("async def, one at a time", "noop_async", "io", PoolSize(1, 64), 1),
)


class Load:
    """Keeps a number of attempts in flight and counts those that have ended."""

    def __init__(self, case: Case) -> None:
        self._case = case
        self._next_id = 1
        self.pool: WorkerPool | None = None
        self.done = 0
        self.stopping = False

    def on_finished(self, items: list[Finished]) -> None:
        if self.stopping:
            return
        assert all(item.outcome is Outcome.COMPLETED for item in items), items[0]
        self.done += len(items)
        self.submit(len(items))

    def submit(self, count: int) -> None:
        assert self.pool is not None
        case = self._case
        ids = range(self._next_id, self._next_id + count)
        self._next_id += count
        self.pool.submit([Attempt(i, 1, _SESSION, case.type, b'{"n":%d}' % i, case.pool, 30.0, False, 3) for i in ids])


@contextlib.asynccontextmanager
async def _lease(page: LeasePage) -> AsyncIterator[None]:
    async def renew() -> None:
        while True:
            page.write(_SESSION, boottime())
            await asyncio.sleep(0.5)

    task = asyncio.create_task(renew())
    try:
        yield
    finally:
        task.cancel()


async def _measure(case: Case, seconds: float) -> str:
    page, load = LeasePage.create(), Load(case)
    with tempfile.TemporaryDirectory() as scratch:
        pool = load.pool = WorkerPool(
            name="bench",
            registry_modules=["tests.support.probe_tasks"],
            pools={case.pool: case.size},
            lease_page=page,
            scratch_dir=Path(scratch),
            on_finished=load.on_finished,
            on_progress=lambda items: None,
        )
        async with _lease(page):
            await pool.start()
            pids = [worker.pid for worker in pool.workers()]
            idle_mib = max(psutil.Process(pid).memory_info().rss for pid in pids) / 2**20
            load.submit(case.in_flight)
            await asyncio.sleep(0.5)
            done, parent, workers, began = load.done, time.process_time(), _cpu_seconds(pids), time.perf_counter()
            await asyncio.sleep(seconds)
            done, wall = load.done - done, time.perf_counter() - began
            parent, workers = time.process_time() - parent, _cpu_seconds(pids) - workers
            load.stopping = True
            await pool.drain(5)
            await pool.stop()
    page.close()
    micro = 1e6 / max(1, done)
    return (
        f"{case.title:26} {done / wall:10,.0f} {parent * micro:11.1f} {workers * micro:11.1f} "
        f"{wall * case.in_flight * 1e3 / max(1, done):11.2f} {idle_mib:9.1f}"
    )


def _cpu_seconds(pids: list[int]) -> float:
    times = [psutil.Process(pid).cpu_times() for pid in pids]
    return sum(time.user + time.system for time in times)


async def _main(seconds: float) -> None:
    print(f"{'':26} {'tasks/s':>10} {'pool µs':>11} {'worker µs':>11} {'in pool ms':>11} {'idle MiB':>9}")
    for case in CASES:
        print(await _measure(case, seconds))


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5)
    uvloop.run(_main(parser.parse_args().seconds))
