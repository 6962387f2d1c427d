"""Fixtures that all tests share: real servers, started once per run, and whole clusters."""

import itertools
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Protocol, Unpack

import hypothesis
import psycopg
import pytest
import pytest_asyncio
import redis.asyncio

from headrace.local.cluster import ClusterArguments, LocalCluster
from headrace.local.postgres import PostgresServer
from headrace.local.redis import RedisServer
from headrace.recorded_apis import recorded_apis
from tests.support.servers import RunningServer
from tests.support.sharing import GroupScheduling

# The same examples on every run and machine, however slow it is; HYPOTHESIS_PROFILE=search looks for new ones.
hypothesis.settings.register_profile(
    "same", derandomize=True, deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.register_profile("search", deadline=None, max_examples=1000)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))

# For `role_env`: replicas run the task types of tests beside the built-in ones.
PROBE_TASKS = {"execution": {"HEADRACE_TASK_MODULES": "tests.support.probe_tasks"}}

_database_numbers = itertools.count(1)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> GroupScheduling:
    """Several processes share the tests out by our groups."""
    return GroupScheduling(config, log)


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """A real PostgreSQL server of this test run alone. Tests that kill a server start their own."""
    root: Path = tmp_path_factory.mktemp("postgres")
    server = PostgresServer(root / "server")
    server.prepare()
    running = RunningServer(server, log=root / server.log_file_name)
    running.start()
    yield server
    running.close()


@pytest.fixture
async def postgres_dsn(postgres_server: PostgresServer) -> AsyncIterator[str]:
    """The DSN of a fresh, empty database that is dropped after the test."""
    name = f"test_{next(_database_numbers)}"
    async with await psycopg.AsyncConnection.connect(postgres_server.dsn("postgres"), autocommit=True) as connection:
        await connection.execute(f'CREATE DATABASE "{name}"'.encode())
        yield postgres_server.dsn(name)
        await connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)'.encode())


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A real Redis server of this test run alone. Tests that kill a server start their own."""
    root: Path = tmp_path_factory.mktemp("redis")
    server = RedisServer(root / "server")
    server.prepare()
    running = RunningServer(server, log=root / server.log_file_name)
    running.start()
    yield server
    running.close()


@pytest.fixture
async def redis_url(redis_server: RedisServer) -> str:
    """The URL of a real Redis server with nothing in it."""
    async with redis.asyncio.Redis.from_url(redis_server.url) as client:
        await client.flushall()
    return redis_server.url


class ClusterFactory(Protocol):
    """Starts a cluster of a test's own in a new directory. It is stopped after the test."""

    async def __call__(self, **arguments: Unpack[ClusterArguments]) -> LocalCluster: ...


@pytest.fixture
async def cluster_factory(tmp_path: Path) -> AsyncIterator[ClusterFactory]:
    """For tests that kill processes, or need another number of them."""
    numbers = itertools.count(1)
    async with AsyncExitStack() as running:

        async def start(**arguments: Unpack[ClusterArguments]) -> LocalCluster:
            cluster = LocalCluster(tmp_path / f"cluster-{next(numbers)}", **arguments)
            return await running.enter_async_context(cluster)

        yield start


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LocalCluster]:
    """A cluster with the default sizes that all tests share; they must not harm it.

    It runs the probe tasks too, and asks recorded APIs instead of the public ones.
    """
    with recorded_apis() as apis:
        role_env = {"execution": {**PROBE_TASKS["execution"], **apis.environment}}
        async with LocalCluster(tmp_path_factory.mktemp("cluster") / "data", role_env=role_env) as running:
            yield running
