"""Live streams of one replica: the routes of the gateway, for what runs here."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from execution_service.service import ExecutionService
from tests.integration.execution.conftest import settings_for
from tests.integration.execution.manager import Manager
from tests.integration.execution.messages import assignment
from tests.support.javascript import javascript_client
from tests.support.live import open_events, open_socket
from tests.support.waiting import wait_until


async def test_an_attempt_is_told_from_its_start_to_its_end(service: ExecutionService, manager: Manager) -> None:
    await wait_until(lambda: manager.open("cpu") == 2)
    async with (
        open_socket(service.http_port, "/ws/tasks") as everything,
        open_socket(service.http_port, "/socket.io/nap?status=completed") as ends,
    ):
        assert await everything.snapshot() == await ends.snapshot() == []
        manager.assign([assignment(1, type_name="nap", data={"seconds": 0.3}), assignment(2)])
        updates: list[dict[str, Any]] = []
        while len([update for update in updates if update["status"] == "completed"]) < 2:
            updates.append(await everything.update())
        of_nap = [update for update in updates if update["id"] == 1]
        assert [update["status"] for update in of_nap] == ["processing", "processing", "completed"]
        assert [update["revision"] for update in of_nap] == [0, 0, 0]
        assert of_nap[1]["progress"] == {"n": 1, "fraction": 0.5, "message": "sleeping"}
        assert of_nap[-1]["result"] == {"value": 1}
        assert (await ends.update())["id"] == 1


async def test_the_stream_of_one_task_begins_with_what_is_held_and_ends_with_it(
    service: ExecutionService, manager: Manager
) -> None:
    await wait_until(lambda: manager.open("cpu") == 2)
    manager.assign([assignment(1, type_name="nap", data={"seconds": 0.5})])
    await wait_until(lambda: manager.progress)
    async with (
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{service.http_port}") as client,
        open_socket(service.http_port, "/ws/tasks/1") as socket,
        open_events(client, "/api/tasks/1/events") as events,
    ):
        [held] = await socket.snapshot()
        assert (held["id"], held["type"], held["status"], held["attempt"]) == (1, "nap", "processing", 1)
        assert (await events.event("snapshot"))["tasks"] == [held]
        assert (await socket.update())["status"] == "completed"
        assert (await events.event("task_update"))["status"] == "completed"
        assert await socket.closed() == 1000
        assert await events.ended()


WRONG = [
    ("/api/tasks/99/events", 404, "task_not_found"),
    ("/api/events?id=99", 404, "task_not_found"),
    ("/api/events?status=done", 422, "invalid_parameter"),
    ("/api/tasks", 404, "not_found"),
]


async def test_what_is_wrong_is_told_as_at_the_gateway(service: ExecutionService, subtests: pytest.Subtests) -> None:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{service.http_port}") as client:
        for path, status, code in WRONG:
            with subtests.test(path):
                answer = await client.get(path)
                assert (answer.status_code, answer.json()["code"]) == (status, code)
                assert answer.headers["content-type"] == "application/problem+json"
        assert (await client.head("/api/events")).status_code == 405
    for path, code in (("/socket.io/nope", "unknown_task_type"), ("/ws/tasks/99", "task_not_found")):
        with subtests.test(path):
            async with open_socket(service.http_port, path) as socket:
                assert (await socket.event("error"))["code"] == code
                assert await socket.closed() == 4404


async def test_a_drain_tells_the_end_of_what_runs_before_it_ends_the_streams(postgres_dsn: str, tmp_path: Path) -> None:
    service = ExecutionService(settings_for(postgres_dsn, tmp_path))
    await service.start()
    async with Manager(service.replica.address) as manager:
        await wait_until(lambda: manager.open("cpu") == 2)
        manager.assign([assignment(1, type_name="nap", data={"seconds": 0.4})])
        await wait_until(lambda: manager.progress)
        async with open_socket(service.http_port, "/ws/tasks") as socket:
            assert len(await socket.snapshot()) == 1
            draining = asyncio.create_task(service.drain())
            assert (await socket.update())["status"] == "completed"
            assert await socket.closed() == 1012
            await draining


async def test_pages_follow_a_replica_by_socket_io(service: ExecutionService, manager: Manager) -> None:
    await wait_until(lambda: manager.open("cpu") == 2)
    address = f"http://127.0.0.1:{service.http_port}"
    async with javascript_client(f"{address}/nap") as page, javascript_client(f"{address}/absent") as stranger:
        assert (await stranger.hear("connect_error")).args[1]["code"] == "invalid_namespace"
        assert (await page.hear("snapshot")).args[0]["tasks"] == []
        manager.assign([assignment(1, type_name="nap", data={"seconds": 0.3}), assignment(2)])
        updates = [(await page.hear("task_update")).args for _ in range(3)]
        assert [(data["id"], data["status"], cursor) for data, cursor in updates] == [
            (1, "processing", None),
            (1, "processing", None),
            (1, "completed", None),
        ]
