import asyncio
import os
import signal
import time

import pytest
import redis.asyncio

from headrace.v1.task_pb2 import Submission, TaskStatus, TaskUpdate
from servicekit import redis_keys
from servicekit.errors import Unavailable
from servicekit.updates import FeedSignal, UpdateFeed
from tests.support.fake_management import FakeManagement
from tests.support.live import Publisher
from tests.support.running_gateway import RunningGateway
from tests.support.servers import RunningServer
from tests.support.updates import publish_message, publish_update
from tests.support.waiting import wait_until

QUEUED = TaskStatus.TASK_STATUS_QUEUED
PROCESSING = TaskStatus.TASK_STATUS_PROCESSING
COMPLETED = TaskStatus.TASK_STATUS_COMPLETED


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


async def test_the_feed_comes_back_by_itself_and_misses_nothing(
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


async def test_a_drain_answers_waits(running: RunningGateway, publisher: Publisher) -> None:
    waiting = asyncio.create_task(running.client.get("/api/tasks/7?wait=30"))
    await wait_until(lambda: running.gateway.feed.listeners)
    await running.drain()
    response = await waiting
    assert (response.status_code, response.json()["status"]) == (200, "queued")
