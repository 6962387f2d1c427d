import asyncio
import os
import signal
import time

import pytest

from headrace.v1.task_pb2 import TaskStatus
from servicekit.errors import Unavailable
from tests.support.fake_management import FakeManagement
from tests.support.running_gateway import RunningGateway, run_gateway
from tests.support.servers import RunningServer
from tests.support.waiting import wait_until

TASK = {"type": "noop", "data": {}}


async def submit(running: RunningGateway) -> tuple[int, str]:
    response = await running.client.post("/api/tasks", json=TASK)
    assert response.status_code == 201, response.text
    return response.json()["task_id"], response.headers["headrace-durability"]


@pytest.mark.alone
async def test_submissions_go_over_grpc_while_redis_is_down_and_back_afterwards(
    own_redis: tuple[RunningServer, str], management: FakeManagement
) -> None:
    server, url = own_redis
    async with run_gateway(url, management) as running:
        first, durability = await submit(running)
        assert durability == "redis-aof"
        await asyncio.to_thread(server.kill)
        second, durability = await submit(running)
        assert (second, durability) == (first + 1, "postgres")
        assert list(management.rows) == [second]
        started = time.monotonic()
        await submit(running)
        assert time.monotonic() - started < 0.5
        await asyncio.to_thread(server.start)
        await wait_until(lambda: running.gateway.gate.available)
        assert (await submit(running))[1] == "redis-aof"


@pytest.mark.alone
async def test_an_answer_that_is_lost_is_settled_over_grpc_with_the_same_id(
    own_redis: tuple[RunningServer, str], management: FakeManagement
) -> None:
    server, url = own_redis
    async with run_gateway(url, management) as running:
        first, _ = await submit(running)
        os.kill(server.pid, signal.SIGSTOP)
        try:
            started = time.monotonic()
            task_id, durability = await submit(running)
        finally:
            os.kill(server.pid, signal.SIGCONT)
        assert (task_id, durability) == (first + 1, "postgres")
        assert [submission.task_id for batch in management.submitted for submission in batch] == [task_id]
        assert time.monotonic() - started < 4


async def test_without_redis_and_management_nothing_is_accepted(
    own_redis: tuple[RunningServer, str], management: FakeManagement
) -> None:
    server, url = own_redis
    async with run_gateway(url, management) as running:
        await asyncio.to_thread(server.kill)
        management.failures["SubmitTasks"] = Unavailable("away", code="database_unavailable")
        response = await running.client.post("/api/tasks", json=TASK)
        assert (response.status_code, response.json()["code"]) == (503, "not_accepted")
        assert "retry-after" in response.headers


async def test_it_is_ready_while_one_of_the_stores_answers(
    own_redis: tuple[RunningServer, str], management: FakeManagement, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, url = own_redis
    monkeypatch.setattr("gateway.core._SILENCE_SECONDS", 1.5)

    async def status() -> int:
        return (await running.client.get("/readyz")).status_code

    async def unready() -> bool:
        return await status() == 503

    async def ready() -> bool:
        return await status() == 200

    async with run_gateway(url, management) as running:
        await asyncio.to_thread(server.kill)
        await wait_until(lambda: not running.gateway.gate.available)
        await wait_until(ready)
        management.failures["ListTaskTypes"] = Unavailable("away")
        await wait_until(unready)
        assert "stores" in (await running.client.get("/readyz")).json()["problems"]
        await asyncio.to_thread(server.start)
        await wait_until(ready)


async def test_reads_go_on_without_redis_but_nothing_is_called_unknown(
    own_redis: tuple[RunningServer, str], management: FakeManagement
) -> None:
    server, url = own_redis
    async with run_gateway(url, management) as running:
        await asyncio.to_thread(server.kill)
        task_id, _ = await submit(running)
        assert (await running.client.get(f"/api/tasks/{task_id}")).json()["status"] == "queued"
        assert (await running.client.get("/api/tasks/999")).status_code == 503
        assert (await running.client.delete("/api/tasks/999")).status_code == 503


async def test_a_wait_ends_without_redis_too(own_redis: tuple[RunningServer, str], management: FakeManagement) -> None:
    server, url = own_redis
    async with run_gateway(url, management) as running:
        await asyncio.to_thread(server.kill)
        task_id, _ = await submit(running)
        waiting = asyncio.create_task(running.client.get(f"/api/tasks/{task_id}?wait=10"))
        await wait_until(lambda: running.gateway.feed.listeners)
        management.move(task_id, TaskStatus.TASK_STATUS_COMPLETED, result=b"1")
        response = await asyncio.wait_for(waiting, 5)
        assert response.json()["result"] == 1
