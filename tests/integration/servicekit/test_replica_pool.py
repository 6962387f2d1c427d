"""The replica pool against real servers that answer, refuse, hang and go away."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from headrace.v1 import management_pb2, management_pb2_grpc
from servicekit import replica_pool
from servicekit.discovery import StaticWatch
from servicekit.errors import DeadlineExceeded, NotFound, Unavailable
from servicekit.grpc_server import GrpcServer
from servicekit.replica_pool import ReplicaPool
from tests.support.waiting import wait_until

Stub = management_pb2_grpc.ManagementServiceStub
Pool = ReplicaPool[Any]


class Replica(management_pb2_grpc.ManagementServiceServicer):
    """One replica; `error` is what it answers, `gate` holds its answers back."""

    def __init__(self) -> None:
        self.calls = 0
        self.waiting = 0
        self.error: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.server = GrpcServer("127.0.0.1", 0)
        self.server.add(
            management_pb2_grpc.add_ManagementServiceServicer_to_server, self, "headrace.v1.ManagementService"
        )

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server.port}"

    async def GetTask(self, request: Any, context: Any) -> management_pb2.GetTaskResponse:
        self.calls += 1
        self.waiting += 1
        try:
            await self.gate.wait()
        finally:
            self.waiting -= 1
        if self.error:
            raise self.error
        return management_pb2.GetTaskResponse()


@pytest.fixture
async def replicas() -> AsyncIterator[list[Replica]]:
    replicas = [Replica(), Replica()]  # type: ignore[abstract]
    for replica in replicas:
        await replica.server.start()
    yield replicas
    for replica in replicas:
        await replica.server.stop(0)


@pytest.fixture
def watch(replicas: list[Replica]) -> StaticWatch:
    return StaticWatch([replica.address for replica in replicas])


@pytest.fixture
async def pool(watch: StaticWatch) -> AsyncIterator[Pool]:
    pool: Pool = ReplicaPool(watch, Stub)
    yield pool
    await pool.close()


async def get(pool: Pool, timeout: float = 2.0) -> Any:
    return await pool.call(lambda stub: stub.GetTask, management_pb2.GetTaskRequest(task_id=1), timeout=timeout)


async def test_a_call_is_answered(pool: Pool, replicas: list[Replica]) -> None:
    assert isinstance(await get(pool), management_pb2.GetTaskResponse)
    assert set(pool.addresses) == {replica.address for replica in replicas}


async def test_calls_go_where_the_fewest_are_in_progress(pool: Pool, replicas: list[Replica]) -> None:
    for replica in replicas:
        replica.gate.clear()
    calls = [asyncio.create_task(get(pool, timeout=10)) for _ in range(20)]
    await wait_until(lambda: [replica.waiting for replica in replicas] == [10, 10])
    for replica in replicas:
        replica.gate.set()
    await asyncio.gather(*calls)


async def test_a_call_that_must_not_be_repeated_is_not_tried_elsewhere(pool: Pool, replicas: list[Replica]) -> None:
    for replica in replicas:
        replica.error = Unavailable("the database is away", code="database_unavailable")
    with pytest.raises(Unavailable):
        await pool.call(lambda stub: stub.GetTask, management_pb2.GetTaskRequest(task_id=1), once=True)
    assert sum(replica.calls for replica in replicas) == 1


async def test_an_answer_that_is_an_error_is_not_tried_elsewhere(pool: Pool, replicas: list[Replica]) -> None:
    for replica in replicas:
        replica.error = NotFound("no task 1", code="task_not_found")
    with pytest.raises(NotFound) as caught:
        await get(pool)
    assert caught.value.code == "task_not_found"
    assert sum(replica.calls for replica in replicas) == 1


async def test_a_replica_that_is_gone_costs_no_call(pool: Pool, replicas: list[Replica]) -> None:
    await replicas[0].server.stop(0)
    for _ in range(10):
        await get(pool)
    assert replicas[1].calls == 10


async def test_a_replica_that_failed_is_avoided_while_there_is_another(
    pool: Pool, replicas: list[Replica], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replica_pool, "_AVOID_SECONDS_MIN", 60.0)
    monkeypatch.setattr(replica_pool, "_AVOID_SECONDS_MAX", 60.0)
    broken, well = replicas
    broken.error = Unavailable("the database is away", code="database_unavailable")
    await wait_until(lambda: asyncio.ensure_future(call_until_tried(pool, broken)))
    tried = broken.calls
    for _ in range(10):
        await get(pool)
    assert broken.calls == tried

    broken.error = None
    well.error = Unavailable("the database is away", code="database_unavailable")
    await get(pool)
    assert broken.calls > tried


async def call_until_tried(pool: Pool, replica: Replica) -> bool:
    await get(pool)
    return replica.calls > 0


async def test_when_all_refuse_their_own_error_comes_at_once(pool: Pool, replicas: list[Replica]) -> None:
    for replica in replicas:
        replica.error = Unavailable("the database is away", code="database_unavailable", retry_after=1.0)
    started = time.monotonic()
    with pytest.raises(Unavailable) as caught:
        await get(pool, timeout=10)
    assert caught.value.code == "database_unavailable"
    assert time.monotonic() - started < 5
    assert [replica.calls for replica in replicas] == [1, 1]


@pytest.mark.alone
async def test_a_frozen_replica_leaves_time_for_another(pool: Pool, replicas: list[Replica]) -> None:
    replicas[0].gate.clear()
    for _ in range(4):
        await get(pool, timeout=1.0)
    assert replicas[1].calls == 4


@pytest.mark.alone
async def test_when_all_are_frozen_the_deadline_ends_the_call(pool: Pool, replicas: list[Replica]) -> None:
    for replica in replicas:
        replica.gate.clear()
    started = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        await get(pool, timeout=0.4)
    assert time.monotonic() - started < 2


async def test_without_a_replica_the_call_fails_at_once() -> None:
    pool: Pool = ReplicaPool(StaticWatch(), Stub)
    with pytest.raises(Unavailable) as caught:
        await get(pool)
    assert caught.value.code == "no_replica"


async def test_a_lone_replica_may_come_back_within_the_time_of_a_call(replicas: list[Replica]) -> None:
    replica = replicas[0]
    port = replica.server.port
    await replica.server.stop(0)
    pool: Pool = ReplicaPool(StaticWatch([f"127.0.0.1:{port}"]), Stub)
    call = asyncio.create_task(get(pool, timeout=10))
    done, _ = await asyncio.wait([call], timeout=0.3)
    assert not done

    replica.server = GrpcServer("127.0.0.1", port)
    replica.server.add(
        management_pb2_grpc.add_ManagementServiceServicer_to_server, replica, "headrace.v1.ManagementService"
    )
    await replica.server.start()
    assert isinstance(await call, management_pb2.GetTaskResponse)
    await pool.close()


async def test_the_pool_follows_its_watch(pool: Pool, watch: StaticWatch, replicas: list[Replica]) -> None:
    first, second = replicas
    watch.replace([second.address])
    await get(pool)
    assert (first.calls, pool.addresses) == (0, (second.address,))
    with pytest.raises(Unavailable):
        pool.stub_for(first.address)

    watch.replace([first.address])
    await pool.stub_for(first.address).GetTask(management_pb2.GetTaskRequest(), timeout=5)
    assert first.calls == 1


async def test_a_call_in_progress_outlives_the_listing_of_its_replica(
    pool: Pool, watch: StaticWatch, replicas: list[Replica]
) -> None:
    for replica in replicas:
        replica.gate.clear()
    call = asyncio.create_task(get(pool, timeout=10))
    await wait_until(lambda: sum(replica.waiting for replica in replicas) == 1)
    watch.replace([])
    for replica in replicas:
        replica.gate.set()
    assert isinstance(await call, management_pb2.GetTaskResponse)
