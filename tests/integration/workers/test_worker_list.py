"""What is told of worker processes, and how many of them there are after they were added and removed."""

import time

import psutil
import pytest

from execution_service.workers.outcomes import Outcome, WorkerInfo, WorkerState
from servicekit.errors import Conflict, InvalidArgument, NotFound, Unavailable
from tests.support.waiting import wait_until
from tests.support.worker_bench import Bench, attempt


def workers_of(bench: Bench, pool: str) -> list[WorkerInfo]:
    return [worker for worker in bench.pool.workers() if worker.pool == pool]


def only(bench: Bench, pool: str = "cpu") -> WorkerInfo:
    (worker,) = workers_of(bench, pool)
    return worker


async def test_a_worker_tells_what_it_is_at(bench: Bench) -> None:
    idle = only(bench)
    assert (idle.state, idle.slots, idle.running, idle.tasks_done) == (WorkerState.READY, 1, (), 0)
    assert idle.worker_id.startswith("test-cpu-")
    assert idle.memory == pytest.approx(psutil.Process(idle.pid).memory_info().rss, rel=0.2)
    assert abs(idle.started_at - psutil.Process(idle.pid).create_time()) < 2
    began = time.monotonic()
    bench.submit(attempt(1, "sleep_for", {"seconds": 0.5}))
    await bench.running(1)
    busy = only(bench)
    (running,) = busy.running
    assert (busy.state, running.task_id, running.attempt, running.type) == (WorkerState.BUSY, 1, 1, "sleep_for")
    assert 0 <= running.seconds <= time.monotonic() - began + 0.1
    await bench.outcome(1)
    assert (only(bench).state, only(bench).tasks_done) == (WorkerState.READY, 1)


async def test_a_worker_of_many_slots_tells_each_attempt(bench: Bench) -> None:
    bench.submit(*(attempt(number, "sleep_async", {"seconds": 30}, pool="io") for number in range(1, 6)))
    await wait_until(lambda: len(only(bench, "io").running) == 5)
    worker = only(bench, "io")
    assert ({each.task_id for each in worker.running}, worker.slots) == ({1, 2, 3, 4, 5}, 16)


async def test_an_added_worker_starts_and_takes_work(bench: Bench) -> None:
    added = bench.pool.add_worker("cpu")
    assert (added.state, added.pool) == (WorkerState.STARTING, "cpu")
    await wait_until(lambda: bench.pool.slots("cpu") == 2)
    bench.submit(*(attempt(number, "sleep_for", {"seconds": 30}) for number in (1, 2)))
    await bench.running(1)
    await bench.running(2)
    assert {worker.state for worker in workers_of(bench, "cpu")} == {WorkerState.BUSY}


async def test_a_worker_that_dies_after_others_were_added_is_replaced(bench: Bench) -> None:
    bench.pool.add_worker("cpu")
    await wait_until(lambda: {worker.state for worker in workers_of(bench, "cpu")} == {WorkerState.READY})
    victim = workers_of(bench, "cpu")[0]
    psutil.Process(victim.pid).kill()
    await wait_until(
        lambda: (
            victim.pid not in {worker.pid for worker in workers_of(bench, "cpu")}
            and [worker.state for worker in workers_of(bench, "cpu")] == [WorkerState.READY] * 2
        )
    )


async def test_a_worker_that_drains_ends_its_task_takes_no_other_and_is_not_replaced(bench: Bench) -> None:
    bench.submit(attempt(1, "sleep_for", {"seconds": 0.6}))
    pid = await bench.running(1)
    old = only(bench)
    bench.pool.add_worker("cpu")
    draining = bench.pool.remove_worker(old.worker_id)
    assert (draining.state, [each.task_id for each in draining.running]) == (WorkerState.DRAINING, [1])
    assert bench.pool.slots("cpu") == 1
    later = await bench.run(attempt(2, "noop"))
    assert later.worker_id != old.worker_id
    assert (await bench.outcome(1)).outcome is Outcome.COMPLETED
    await wait_until(lambda: not psutil.pid_exists(pid))
    assert only(bench).worker_id == later.worker_id


async def test_removing_again_with_force_kills_what_still_drains(bench: Bench) -> None:
    bench.submit(attempt(1, "sleep_deaf", {"seconds": 30}))
    await bench.running(1)
    old = only(bench)
    bench.pool.add_worker("cpu")
    bench.pool.remove_worker(old.worker_id)
    bench.pool.remove_worker(old.worker_id)
    assert bench.pool.remove_worker(old.worker_id, force=True).state is WorkerState.ENDING
    assert (await bench.outcome(1)).outcome is Outcome.HANDED_BACK
    await wait_until(lambda: len(workers_of(bench, "cpu")) == 1)
    assert bench.pool.slots("cpu") == 1


async def test_a_worker_that_still_starts_can_be_removed(bench: Bench) -> None:
    added = bench.pool.add_worker("io")
    assert bench.pool.remove_worker(added.worker_id).state is WorkerState.ENDING
    await wait_until(lambda: len(workers_of(bench, "io")) == 1)
    assert bench.pool.slots("io") == 16


async def test_what_cannot_be_is_refused_and_changes_nothing(bench: Bench) -> None:
    before = {worker.pid for worker in bench.pool.workers()}
    with pytest.raises(InvalidArgument, match="no pool 'gpu' here, but cpu, io") as unknown:
        bench.pool.add_worker("gpu")
    assert [field.field for field in unknown.value.fields] == ["/pool"]
    with pytest.raises(NotFound, match="no worker 'nobody'"):
        bench.pool.remove_worker("nobody", force=True)
    for force in (False, True):
        with pytest.raises(Conflict, match="the last worker of the pool cpu") as last:
            bench.pool.remove_worker(only(bench).worker_id, force=force)
        assert last.value.code == "last_worker"
    assert {worker.pid for worker in bench.pool.workers()} == before
    assert {worker.state for worker in bench.pool.workers()} == {WorkerState.READY}


async def test_a_pool_that_drains_shows_it_and_takes_no_worker(bench: Bench) -> None:
    bench.submit(attempt(1, "sleep_for", {"seconds": 0.3}))
    await bench.running(1)
    await bench.pool.drain(5)
    assert {worker.state for worker in bench.pool.workers()} == {WorkerState.DRAINING}
    with pytest.raises(Unavailable, match="stopping"):
        bench.pool.add_worker("cpu")
