"""A pool of real worker processes gets larger and smaller while it works."""

from pathlib import Path

from execution_service.workers.outcomes import Outcome, PoolSize
from tests.support.waiting import wait_until
from tests.support.worker_bench import Bench, attempt, running_bench


def pids(bench: Bench) -> set[int]:
    return {worker.pid for worker in bench.pool.workers()}


async def test_added_workers_take_what_waits_and_count_once_they_are_ready(tmp_path: Path) -> None:
    async with running_bench(tmp_path, {"cpu": PoolSize(1)}) as bench:
        bench.submit(attempt(1, "sleep_for", {"seconds": 20}))
        await bench.running(1)
        assert bench.pool.resize("cpu", 2)
        assert bench.pool.slots("cpu") == 1
        await wait_until(lambda: bench.pool.slots("cpu") == 3)
        bench.submit(attempt(2, "sleep_for", {"seconds": 20}), attempt(3, "sleep_for", {"seconds": 20}))
        assert len({await bench.running(number) for number in (1, 2, 3)}) == 3


async def test_a_pool_that_shrinks_lets_idle_workers_go_and_never_one_that_runs_something(tmp_path: Path) -> None:
    async with running_bench(tmp_path, {"cpu": PoolSize(3)}) as bench:
        bench.submit(attempt(1, "sleep_for", {"seconds": 2}))
        busy = await bench.running(1)
        assert bench.pool.resize("cpu", -2)
        assert bench.pool.slots("cpu") == 1
        await wait_until(lambda: pids(bench) == {busy})
        assert not bench.pool.resize("cpu", -1)
        assert (await bench.outcome(1)).outcome is Outcome.COMPLETED
        assert pids(bench) == {busy}


async def test_the_load_of_a_pool_counts_the_busy_and_what_waits(tmp_path: Path) -> None:
    async with running_bench(tmp_path, {"cpu": PoolSize(2)}) as bench:
        bench.submit(*(attempt(number, "sleep_for", {"seconds": 20}) for number in (1, 2)))
        for number in (1, 2):
            await bench.running(number)
        bench.pool.load("cpu")
        await wait_until(lambda: bench.pool.load("cpu").busy == 2.0)
        bench.submit(attempt(3, "noop"))
        assert bench.pool.load("cpu").waiting == 1


async def test_what_waits_while_all_workers_are_in_long_attempts_is_handed_back(tmp_path: Path) -> None:
    async with running_bench(tmp_path, {"cpu": PoolSize(1), "io": PoolSize(1, 2)}) as bench:
        bench.submit(*(attempt(number, "sleep_for", {"seconds": 20}) for number in (2, 3)))
        bench.submit(*(attempt(number, "sleep_async", {"seconds": 20}, pool="io") for number in (4, 5, 6)))

        def are_back() -> bool:
            bench.pool.hand_back_excess()
            return len(bench.finished) == 2

        await wait_until(are_back)
        for done in bench.finished.values():
            assert (done.outcome, done.started) == (Outcome.HANDED_BACK, False)
            assert done.error is not None
            assert done.error.code == "handed_back"
        assert bench.finished.keys() == {(3, 1), (6, 1)}
