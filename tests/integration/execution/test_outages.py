"""A replica without its result DB: it starts, keeps what has finished, and runs nothing twice."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from execution_service.service import ExecutionService
from headrace.local.postgres import PostgresServer
from headrace.v1 import execution_pb2, task_pb2
from tests.integration.execution.conftest import settings_for
from tests.integration.execution.manager import Manager
from tests.integration.execution.messages import assignment
from tests.support.servers import RunningServer
from tests.support.waiting import wait_until


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
