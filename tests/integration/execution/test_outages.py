"""A replica without its result DB: it starts, keeps what has finished, and runs nothing twice."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from execution_service.rpc.servicer import SERVICE_NAME
from execution_service.service import ExecutionService
from headrace.local.postgres import PostgresServer
from headrace.v1 import execution_pb2, task_pb2
from servicekit.grpc_channel import open_channel
from tests.integration.execution.conftest import settings_for
from tests.integration.execution.manager import Manager
from tests.integration.execution.messages import assignment
from tests.support.servers import RunningServer
from tests.support.waiting import wait_until

MIB = 1024 * 1024


class ResultServer:
    """A PostgreSQL server of one test, to be killed and started again."""

    def __init__(self, root: Path) -> None:
        self._server = PostgresServer(root / "server")
        self._server.prepare(databases=["results"])
        self._running = RunningServer(self._server, log=root / "postgres.log")
        self.dsn = self._server.dsn("results")
        self.kill = self._running.kill
        self.start = self._running.start
        self.close = self._running.close


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[ResultServer]:
    server = ResultServer(tmp_path)
    yield server
    server.close()


async def test_a_replica_starts_before_its_result_db_and_asks_for_work_once_it_is_there(
    server: ResultServer, tmp_path: Path
) -> None:
    service = ExecutionService(settings_for(server.dsn, tmp_path))
    await service.start()
    try:
        async with Manager(service.replica.address) as manager:
            await wait_until(lambda: manager.newest_beat >= 3)
            assert manager.open("cpu") == 0
            server.start()
            await wait_until(lambda: manager.open("cpu") == 2)
            manager.assign([assignment(1)])
            await wait_until(lambda: manager.reported(1))
    finally:
        await service.stop()


async def test_results_outlive_a_crash_of_the_result_db_and_nothing_runs_twice(
    server: ResultServer, tmp_path: Path
) -> None:
    trace = tmp_path / "trace"
    server.start()
    service = ExecutionService(settings_for(server.dsn, tmp_path))
    await service.start()
    try:
        async with Manager(service.replica.address) as manager:
            await wait_until(lambda: manager.open("cpu") == 2)
            nap = {"seconds": 0.1, "trace": str(trace)}
            manager.assign([assignment(1, type_name="nap", data=nap), assignment(2, 2, type_name="nap", data=nap)])
            server.kill()
            await wait_until(lambda: len(service.replica.outcomes.writer) > 0)
            manager.ask((1, 1), (2, 2))
            await wait_until(lambda: len(manager.answers) == 2)
            assert set(manager.answers.values()) == {execution_pb2.Answer.STATE_HELD}
            assert manager.reports == []
            # On the loop it would keep the replica from hearing its manager, for longer than it waits for one.
            await asyncio.to_thread(server.start)
            await wait_until(lambda: len(manager.reports) == 2, timeout=20)
            assert {report.outcome for report in manager.reports} == {task_pb2.OUTCOME_COMPLETED}
            assert sorted(trace.read_text(encoding="utf-8").splitlines()) == ["1 1", "2 2"]
    finally:
        await service.stop()


async def test_a_full_spool_ends_the_demand_and_an_empty_one_brings_it_back(
    server: ResultServer, tmp_path: Path
) -> None:
    server.start()
    service = ExecutionService(settings_for(server.dsn, tmp_path, spool_bytes=MIB))
    await service.start()
    try:
        async with Manager(service.replica.address) as manager:
            await wait_until(lambda: manager.open("cpu") == 2)
            server.kill()
            blob = {"value": 600 * 1024}
            manager.assign([assignment(1, type_name="blob", data=blob)])
            await wait_until(lambda: len(service.replica.outcomes.writer) == 1 and manager.open("cpu") > 0)
            manager.assign([assignment(2, type_name="blob", data=blob)])
            await wait_until(lambda: len(service.replica.outcomes.writer) == 2 and manager.open("cpu") == 0)
            assert service.replica.outcomes.is_full
            # What does not need the result DB is still told, and what was granted before is still run.
            manager.assign([assignment(3, type_name="nap", data={"seconds": "soon"})])
            await wait_until(lambda: manager.reported(3))
            assert manager.reported(3)[0].error.code == "invalid_data"
            assert manager.open("cpu") <= 0
            await asyncio.to_thread(server.start)
            await wait_until(lambda: len(manager.reports) == 3, timeout=20)
            await wait_until(lambda: manager.open("cpu") > 0)
    finally:
        await service.stop()


async def test_a_drain_does_not_wait_for_ever_for_results_to_be_stored(server: ResultServer, tmp_path: Path) -> None:
    server.start()
    service = ExecutionService(settings_for(server.dsn, tmp_path))
    await service.start()
    async with Manager(service.replica.address) as manager:
        await wait_until(lambda: manager.open("cpu") == 2)
        server.kill()
        manager.assign([assignment(1)])
        await wait_until(lambda: len(service.replica.outcomes.writer) == 1)
        began = time.monotonic()
        await service.drain()
        assert time.monotonic() - began < 9
        assert manager.said_bye
        assert manager.reports == []


async def test_a_replica_is_ready_while_its_results_find_their_way(server: ResultServer, tmp_path: Path) -> None:
    service = ExecutionService(settings_for(server.dsn, tmp_path))
    await service.start()
    health = health_pb2.HealthCheckRequest(service=SERVICE_NAME)
    try:
        async with open_channel(service.replica.address) as channel, Manager(service.replica.address) as manager:
            stub = health_pb2_grpc.HealthStub(channel)

            async def is_ready() -> bool:
                answer = await stub.Check(health, timeout=1)
                return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

            await wait_until(lambda: manager.newest_beat >= 2)
            assert not await is_ready(), "its result DB was never there"
            await asyncio.to_thread(server.start)
            await wait_until(is_ready, timeout=20)
            server.kill()
            assert await is_ready(), "nothing waits for the result DB"
            await wait_until(lambda: manager.open("cpu") == 2)
            manager.assign([assignment(1)])
            await wait_until(lambda: len(service.replica.outcomes.writer) == 1)
            assert await is_ready()
            await wait_until(lambda: _not(is_ready()), timeout=15)
            await asyncio.to_thread(server.start)
            await wait_until(is_ready, timeout=20)
            assert len(manager.reported(1)) == 1
    finally:
        await service.stop()


async def _not(answer: Awaitable[bool]) -> bool:
    return not await answer
