"""Workers of a whole replica over gRPC, and the demand that follows their number."""

from collections.abc import Iterable

import grpc
import pytest

from execution_service.service import ExecutionService
from headrace.v1 import execution_pb2, task_pb2
from headrace.v1.execution_pb2 import Worker
from servicekit.errors import error_from_rpc
from tests.integration.execution.manager import Manager
from tests.integration.execution.messages import assignment
from tests.support.waiting import wait_until


async def listed(manager: Manager, pool: str) -> list[Worker]:
    answer = await manager.stub.ListWorkers(execution_pb2.ListWorkersRequest(), timeout=5)
    return [worker for worker in answer.workers if worker.pool == pool]


async def create(manager: Manager, pool: str = "") -> Worker:
    answer = await manager.stub.CreateWorker(execution_pb2.CreateWorkerRequest(pool=pool), timeout=5)
    return answer.worker


async def delete(manager: Manager, worker_id: str, *, force: bool = False) -> Worker:
    request = execution_pb2.DeleteWorkerRequest(worker_id=worker_id, force=force)
    return (await manager.stub.DeleteWorker(request, timeout=5)).worker


def running_in(workers: Iterable[Worker]) -> dict[int, str]:
    """Where each task runs."""
    return {running.task_id: worker.worker_id for worker in workers for running in worker.running}


async def start_naps(manager: Manager, *task_ids: int, seconds: float = 30) -> dict[int, str]:
    """Have tasks run; return in which worker each does."""
    await wait_until(lambda: manager.open("cpu") >= len(task_ids))
    manager.assign(assignment(task_id, type_name="nap", data={"seconds": seconds}) for task_id in task_ids)
    await wait_until(lambda: {item.task_id for item in manager.progress} >= set(task_ids))
    return running_in(await listed(manager, "cpu"))


async def test_workers_are_listed_with_what_they_run(manager: Manager) -> None:
    places = await start_naps(manager, 7)
    workers = {worker.worker_id: worker for worker in await listed(manager, "cpu")}
    assert len(workers) == 2
    busy = workers.pop(places[7])
    (idle,) = workers.values()
    assert (busy.state, idle.state) == (Worker.STATE_BUSY, Worker.STATE_READY)
    (running,) = busy.running
    assert (running.task_id, running.attempt, running.type) == (7, 1, "nap")
    assert 0 <= running.running_ms < 10_000
    for worker in (busy, idle):
        assert worker.worker_id.startswith("exec-1-cpu-")
        assert (worker.replica, worker.slots, worker.tasks_done) == ("exec-1", 1, 0)
        assert worker.pid > 0
        assert worker.memory_bytes > 10 * 1024 * 1024
        assert worker.start_time.seconds > 0
    (shared,) = await listed(manager, "io")
    assert shared.slots == 8


async def test_demand_follows_the_number_of_workers(manager: Manager) -> None:
    await wait_until(lambda: manager.open("cpu") == 2)
    added = await create(manager)
    assert (added.pool, added.state) == ("cpu", Worker.STATE_STARTING)
    await wait_until(lambda: manager.open("cpu") == 3)
    await create(manager, "cpu")
    await wait_until(lambda: manager.open("cpu") == 4)
    assert await start_naps(manager, 1, 2, 3, 4)
    assert len(set(running_in(await listed(manager, "cpu")).values())) == 4
    await create(manager, "io")
    await wait_until(lambda: manager.open("io") == 16)
    for number, worker in enumerate(await listed(manager, "io"), 1):
        if number == 1:
            await delete(manager, worker.worker_id)
    await wait_until(lambda: manager.open("io") == 8)


async def test_demand_for_a_worker_that_leaves_idle_is_asked_back(manager: Manager) -> None:
    await wait_until(lambda: manager.open("cpu") == 2)
    first, _ = await listed(manager, "cpu")
    assert (await delete(manager, first.worker_id)).state == Worker.STATE_ENDING
    await wait_until(lambda: manager.open("cpu") == 1)


async def test_a_drained_worker_ends_its_task_and_is_not_replaced(manager: Manager, service: ExecutionService) -> None:
    places = await start_naps(manager, 1, seconds=0.5)
    draining = await delete(manager, places[1])
    assert (draining.state, [each.task_id for each in draining.running]) == (Worker.STATE_DRAINING, [1])
    await wait_until(lambda: manager.reported(1))
    assert manager.reported(1)[0].outcome == task_pb2.OUTCOME_COMPLETED
    await wait_until(lambda: places[1] not in {worker.worker_id for worker in service.workers.workers()})
    assert len(await listed(manager, "cpu")) == 1
    await wait_until(lambda: manager.open("cpu") == 1)


async def test_a_worker_that_is_killed_hands_its_task_back_uncharged_and_another_runs_it(manager: Manager) -> None:
    places = await start_naps(manager, 1)
    assert (await delete(manager, places[1], force=True)).state == Worker.STATE_ENDING
    await wait_until(lambda: manager.reported(1))
    (report,) = manager.reported(1)
    assert (report.outcome, report.started) == (task_pb2.OUTCOME_HANDED_BACK, True)
    await wait_until(lambda: manager.open("cpu") == 1)
    manager.assign([assignment(1, 2, type_name="nap", data={"seconds": 0.01}, round_base=1)])
    await wait_until(lambda: len(manager.reported(1)) == 2)
    assert manager.reported(1)[1].outcome == task_pb2.OUTCOME_COMPLETED


@pytest.mark.parametrize(
    ("force", "pool"), [pytest.param(False, "cpu", id="drain"), pytest.param(True, "io", id="force")]
)
async def test_the_last_worker_of_a_pool_is_not_deleted(manager: Manager, force: bool, pool: str) -> None:
    workers = await listed(manager, pool)
    for worker in workers[1:]:
        await delete(manager, worker.worker_id)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await delete(manager, workers[0].worker_id, force=force)
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert error_from_rpc(caught.value).code == "last_worker"
    # After another one was added it can go.
    await create(manager, pool)
    await delete(manager, workers[0].worker_id, force=force)


async def test_what_does_not_exist_is_told(manager: Manager) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await delete(manager, "nobody")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await create(manager, "gpu")
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert [(field.field, field.rule) for field in error_from_rpc(caught.value).fields] == [("/pool", "unknown_pool")]


async def test_a_pool_does_not_grow_beyond_its_bound(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("execution_service.workers.lane.WORKERS_MAX", 3)
    await create(manager)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await create(manager)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert error_from_rpc(caught.value).code == "too_many_workers"
    assert len(await listed(manager, "cpu")) == 3
