"""A gateway for the tests that share a Redis, and Redis servers of their own for those that kill one."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import redis.asyncio

from headrace.local.redis import RedisServer
from headrace.v1.task_pb2 import Submission
from tests.support.fake_management import FakeManagement
from tests.support.live import Publisher
from tests.support.running_gateway import RunningGateway, run_gateway
from tests.support.servers import RunningServer
from tests.support.waiting import wait_until


@pytest.fixture
def management() -> FakeManagement:
    return FakeManagement()


@pytest.fixture
async def running(redis_url: str, management: FakeManagement) -> AsyncIterator[RunningGateway]:
    async with run_gateway(redis_url, management) as gateway:
        yield gateway


@pytest.fixture
async def store(redis_url: str) -> AsyncIterator[redis.asyncio.Redis]:
    """A client of the shared Redis, to look at what the gateway wrote."""
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
async def publisher(running: RunningGateway, store: redis.asyncio.Redis, management: FakeManagement) -> Publisher:
    await wait_until(lambda: running.gateway.feed.connected)
    management.store(Submission(task_id=7, type="noop", data=b"{}", pool="io"))
    return Publisher(store, management)


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[tuple[RunningServer, str]]:
    """A Redis server of the test alone, and its URL."""
    server = RedisServer(tmp_path / "redis")
    server.prepare()
    running = RunningServer(server, log=tmp_path / "redis.log")
    running.start()
    yield running, server.url
    running.close()
