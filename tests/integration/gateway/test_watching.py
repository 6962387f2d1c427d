import asyncio
import json
import os
import signal
import time
from typing import Any

import pytest
import redis.asyncio
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from headrace.v1.task_pb2 import Progress, Submission, TaskStatus, TaskUpdate
from servicekit import redis_keys
from servicekit.errors import Unavailable
from servicekit.updates import FeedSignal, UpdateFeed
from tests.support.fake_management import FakeManagement
from tests.support.running_gateway import RunningGateway
from tests.support.servers import RunningServer
from tests.support.updates import publish_message, publish_update
from tests.support.waiting import wait_until

QUEUED = TaskStatus.TASK_STATUS_QUEUED
PROCESSING = TaskStatus.TASK_STATUS_PROCESSING
COMPLETED = TaskStatus.TASK_STATUS_COMPLETED


class Publisher:
    """Moves rows and tells of it, as management does."""

    def __init__(self, store: redis.asyncio.Redis, management: FakeManagement) -> None:
        self._store = store
        self._management = management

    async def move(self, task_id: int, status: TaskStatus.ValueType, *, result: bytes | None = None) -> None:
        task = self._management.move(task_id, status, result=result or b"")
        await self.publish(TaskUpdate(task_id=task_id, status=status, revision=task.revision, result=result))

    async def publish(self, update: TaskUpdate) -> None:
        await publish_update(self._store, update)


@pytest.fixture
async def publisher(running: RunningGateway, store: redis.asyncio.Redis, management: FakeManagement) -> Publisher:
    await wait_until(lambda: running.gateway.feed.connected)
    management.store(Submission(task_id=7, type="noop", data=b"{}", pool="io"))
    return Publisher(store, management)


def socket(running: RunningGateway, task_id: object, **options: Any) -> connect:
    return connect(f"ws://127.0.0.1:{running.port}/ws/tasks/{task_id}", **options)


async def event(connection: ClientConnection) -> dict[str, Any]:
    message = json.loads(await asyncio.wait_for(connection.recv(), 5))
    assert message["event"] == "task_update"
    data: dict[str, Any] = message["data"]
    return data


async def closed(connection: ClientConnection) -> int:
    with pytest.raises(ConnectionClosed):
        await asyncio.wait_for(connection.recv(), 5)
    assert connection.close_code is not None
    return connection.close_code


@pytest.mark.alone
async def test_a_wait_is_answered_when_the_task_ends(running: RunningGateway, publisher: Publisher) -> None:
    waiting = asyncio.create_task(running.client.get("/api/tasks/7?wait=30"))
    await wait_until(lambda: running.gateway.feed.listeners)
    await publisher.move(7, PROCESSING)
    started = time.monotonic()
    await publisher.move(7, COMPLETED, result=b'{"n":1}')
    response = await asyncio.wait_for(waiting, 1)
    assert (response.json()["status"], response.json()["result"]) == ("completed", {"n": 1})
    assert time.monotonic() - started < 0.5


async def test_a_wait_for_a_task_without_a_row_goes_on(
    running: RunningGateway, store: redis.asyncio.Redis, publisher: Publisher, management: FakeManagement
) -> None:
    await store.zadd(redis_keys.UNSTORED, {redis_keys.marker(8, 8): 8})
    waiting = asyncio.create_task(running.client.get("/api/tasks/8?wait=30"))
    await wait_until(lambda: management.calls["GetTask"])
    management.store(Submission(task_id=8, type="noop", data=b"{}", pool="io"))
    await publisher.move(8, COMPLETED, result=b"8")
    assert (await asyncio.wait_for(waiting, 1)).json()["result"] == 8


async def test_a_wait_that_runs_out_answers_with_the_present_state(
    running: RunningGateway, publisher: Publisher
) -> None:
    response = await running.client.get("/api/tasks/7?wait=0.1")
    assert (response.status_code, response.json()["status"]) == (200, "queued")
    assert running.gateway.feed.listeners == 0


async def test_an_update_that_was_lost_is_made_up_for_by_reading_again(
    running: RunningGateway, publisher: Publisher, management: FakeManagement
) -> None:
    waiting = asyncio.create_task(running.client.get("/api/tasks/7?wait=30"))
    await wait_until(lambda: management.calls["GetTask"])
    management.move(7, COMPLETED, result=b"1")
    assert (await asyncio.wait_for(waiting, 4)).json()["status"] == "completed"


async def test_a_socket_tells_the_whole_story_and_closes(running: RunningGateway, publisher: Publisher) -> None:
    async with socket(running, 7) as connection:
        first = await event(connection)
        assert (first["id"], first["status"], first["revision"]) == (7, "queued", 1)
        await publisher.move(7, PROCESSING)
        assert (await event(connection))["status"] == "processing"
        progress = Progress(n=1, fraction=0.5, message="half")
        await publisher.publish(TaskUpdate(task_id=7, status=PROCESSING, attempt=1, progress=progress))
        assert (await event(connection))["progress"] == {"n": 1, "fraction": 0.5, "message": "half"}
        await publisher.move(7, COMPLETED, result=b"[1]")
        final = await event(connection)
        assert (final["status"], final["result"]) == ("completed", [1])
        assert set(final) == {
            "id", "type", "status", "result", "error", "attempt", "revision", "progress", "at",
        }  # fmt: skip
        assert await closed(connection) == 1000
    await wait_until(lambda: running.gateway.feed.listeners == 0)


async def test_a_large_result_is_read_for_the_final_event(running: RunningGateway, publisher: Publisher) -> None:
    async with socket(running, 7, max_size=None) as connection:
        await event(connection)
        running.management.move(7, COMPLETED, result=b'"' + b"x" * 200_000 + b'"')
        await publisher.publish(TaskUpdate(task_id=7, status=COMPLETED, revision=2))
        assert len((await event(connection))["result"]) == 200_000
        assert await closed(connection) == 1000


@pytest.mark.parametrize(
    ("task_id", "code", "word"),
    [("999", 4404, "task_not_found"), ("abc", 4422, "invalid_id"), ("0", 4422, "invalid_id")],
)
async def test_a_socket_of_no_task_says_why(
    running: RunningGateway, publisher: Publisher, task_id: str, code: int, word: str
) -> None:
    async with socket(running, task_id) as connection:
        message = json.loads(await asyncio.wait_for(connection.recv(), 5))
        assert (message["event"], message["data"]["code"]) == ("error", word)
        assert await closed(connection) == code


async def test_a_page_of_another_site_cannot_listen_in(running: RunningGateway, publisher: Publisher) -> None:
    with pytest.raises(InvalidStatus) as caught:
        async with socket(running, 7, origin="https://elsewhere.example"):
            pass
    assert caught.value.response.status_code == 403
    async with socket(running, 7, origin=f"http://127.0.0.1:{running.port}") as connection:
        assert (await event(connection))["status"] == "queued"


async def test_what_clients_send_is_dropped_within_bounds(running: RunningGateway, publisher: Publisher) -> None:
    async with socket(running, 7) as connection:
        await event(connection)
        await connection.send("{")
        await connection.send(b"\x00\xff")
        await publisher.move(7, PROCESSING)
        assert (await event(connection))["status"] == "processing"
        await connection.send("x" * 70_000)
        assert await closed(connection) == 1009


async def test_a_client_that_leaves_leaves_nothing_behind(running: RunningGateway, publisher: Publisher) -> None:
    async with socket(running, 7) as connection:
        await event(connection)
        assert running.gateway.feed.listeners == 1
    await wait_until(lambda: running.gateway.feed.listeners == 0 and running.gateway.metrics.sockets_open == 0)


async def test_a_drain_closes_sockets_with_restart_and_answers_waits(
    running: RunningGateway, publisher: Publisher
) -> None:
    waiting = asyncio.create_task(running.client.get("/api/tasks/7?wait=30"))
    async with socket(running, 7) as connection:
        await event(connection)
        await wait_until(lambda: running.gateway.feed.listeners == 2)
        started = time.monotonic()
        await running.drain()
        assert time.monotonic() - started < 3
        assert await closed(connection) == 1012
    response = await waiting
    assert (response.status_code, response.json()["status"]) == (200, "queued")


async def test_the_feed_comes_back_by_itself_and_asks_for_a_fresh_snapshot(
    own_redis: tuple[RunningServer, str],
) -> None:
    server, url = own_redis
    feed = UpdateFeed(url)
    feed.start()
    subscription = feed.subscribe(7)
    assert await subscription.next(timeout=5) is FeedSignal.RESYNC
    await asyncio.to_thread(server.kill)
    await wait_until(lambda: not feed.connected)
    await asyncio.to_thread(server.start)
    assert await subscription.next(timeout=5) is FeedSignal.RESYNC
    async with redis.asyncio.Redis.from_url(url) as client:
        update = TaskUpdate(task_id=7, status=QUEUED, revision=1)
        await publish_message(client, b"not a batch")
        await publish_update(client, update)
    assert await subscription.next(timeout=5) == update
    await feed.stop()


async def test_a_feed_whose_redis_is_frozen_knows_it(own_redis: tuple[RunningServer, str]) -> None:
    server, url = own_redis
    feed = UpdateFeed(url)
    feed.start()
    await wait_until(lambda: feed.connected)
    os.kill(server.pid, signal.SIGSTOP)
    try:
        await wait_until(lambda: not feed.connected, timeout=8)
    finally:
        os.kill(server.pid, signal.SIGCONT)
    await wait_until(lambda: feed.connected)
    await feed.stop()


async def test_a_wait_outlives_a_management_that_is_away_for_a_moment(
    running: RunningGateway, publisher: Publisher, management: FakeManagement
) -> None:
    waiting = asyncio.create_task(running.client.get("/api/tasks/7?wait=30"))
    await wait_until(lambda: management.calls["GetTask"])
    management.failures["GetTask"] = Unavailable("no database", code="database_unavailable")
    await publisher.move(7, COMPLETED, result=b"1")
    await wait_until(lambda: management.calls["GetTask"] >= 2)
    management.failures.clear()
    assert (await asyncio.wait_for(waiting, 4)).json()["status"] == "completed"
