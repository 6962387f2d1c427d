"""The task database with its repositories."""

import random
from collections.abc import AsyncIterator

import psycopg
import pytest

from management_service.storage.executors import ExecutorRepository
from management_service.storage.tasks import TaskRepository
from servicekit.migrations import migrate
from servicekit.postgres import Database
from tests.support.task_rows import Rows


@pytest.fixture
async def task_dsn(postgres_dsn: str) -> str:
    """A fresh task database with the newest schema."""
    await migrate(postgres_dsn, "management_service.storage")
    return postgres_dsn


@pytest.fixture
async def database(task_dsn: str) -> AsyncIterator[Database]:
    database = Database(task_dsn, name="test")
    await database.open()
    yield database
    await database.close()


@pytest.fixture
def tasks(database: Database) -> TaskRepository:
    return TaskRepository(database, rng=random.Random(1))


@pytest.fixture
def executors(database: Database) -> ExecutorRepository:
    return ExecutorRepository(database)


@pytest.fixture
async def rows(task_dsn: str, tasks: TaskRepository, executors: ExecutorRepository) -> AsyncIterator[Rows]:
    async with await psycopg.AsyncConnection.connect(task_dsn, autocommit=True) as connection:
        yield Rows(connection, tasks, executors)
