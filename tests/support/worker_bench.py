"""A running pool whose outcomes a test can wait for, and whose lease is renewed until the test lets it lapse."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from execution_service.workers.lease_page import LeasePage, boottime
from execution_service.workers.outcomes import Attempt, Finished, PoolSize, ProgressItem
from execution_service.workers.pool import WorkerPool
from execution_service.workers.wear import NO_LIMITS, WearLimits
from tests.support.waiting import wait_until

SESSION = 7
MODULES = ("tests.support.probe_tasks", "tests.support.toxic_tasks", "tests.support.stopping_tasks")


class Bench:
    """A pool, what it has reported, and short ways to give it work."""

    def __init__(
        self,
        scratch: Path,
        pools: dict[str, PoolSize],
        modules: tuple[str, ...],
        environment: Mapping[str, str] | None,
        wear: WearLimits,
    ) -> None:
        self.lease = LeasePage.create()
        self.renewing = True
        self.finished: dict[tuple[int, int], Finished] = {}
        self.order: list[int] = []
        self.progress: list[ProgressItem] = []
        self.pool = WorkerPool(
            name="test",
            registry_modules=modules,
            pools=pools,
            lease_page=self.lease,
            scratch_dir=scratch,
            on_finished=self._on_finished,
            on_progress=self.progress.extend,
            environment=environment,
            wear=wear,
        )

    def _on_finished(self, items: list[Finished]) -> None:
        for item in items:
            key = (item.task_id, item.attempt)
            assert key not in self.finished, f"{item} reported twice; first {self.finished[key]}"
            self.finished[key] = item
            self.order.append(item.task_id)

    async def renew(self) -> None:
        while True:
            if self.renewing:
                self.lease.write(SESSION, boottime())
            await asyncio.sleep(0.2)

    def submit(self, *attempts: Attempt) -> None:
        self.pool.submit(attempts)

    async def outcome(self, task_id: int, attempt: int = 1, *, timeout: float = 15) -> Finished:
        await wait_until(lambda: (task_id, attempt) in self.finished, timeout=timeout)
        return self.finished[task_id, attempt]

    async def run(self, item: Attempt, *, timeout: float = 15) -> Finished:
        self.submit(item)
        return await self.outcome(item.task_id, item.attempt, timeout=timeout)

    async def running(self, task_id: int) -> int:
        """Wait until the task runs; return the pid of its worker."""
        found: list[int] = []

        def look() -> bool:
            found[:] = [w.pid for w in self.pool.workers() if any(each.task_id == task_id for each in w.running)]
            return bool(found)

        await wait_until(look)
        return found[0]


def attempt(
    task_id: int,
    type_name: str,
    data: Any = None,
    *,
    number: int = 1,
    session_id: int = SESSION,
    pool: str = "cpu",
    timeout: float = 30.0,
    soft_timeout: float = 0.0,
    isolated: bool = False,
) -> Attempt:
    body = data if isinstance(data, bytes) else json.dumps(data if data is not None else {}).encode()
    return Attempt(task_id, number, session_id, type_name, body, pool, timeout, isolated, 3, soft_timeout)


@contextlib.asynccontextmanager
async def running_bench(
    scratch: Path,
    pools: dict[str, PoolSize],
    modules: tuple[str, ...] = MODULES,
    environment: Mapping[str, str] | None = None,
    wear: WearLimits = NO_LIMITS,
) -> AsyncIterator[Bench]:
    bench = Bench(scratch, pools, modules, environment, wear)
    bench.lease.write(SESSION, boottime())
    renewal = asyncio.create_task(bench.renew())
    try:
        await bench.pool.start()
        yield bench
    finally:
        renewal.cancel()
        await bench.pool.stop()
        bench.lease.close()


def lines_of(path: Path) -> list[list[str]]:
    """The lines that append_line tasks have left: task id, attempt, event, pid."""
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []
