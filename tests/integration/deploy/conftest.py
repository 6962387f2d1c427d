"""Both databases of a deployment, and a place for backups of them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.local.postgres import PostgresServer
from tests.support.databases import Databases


@pytest.fixture(scope="module")
def both(postgres_server: PostgresServer) -> Iterator[Databases]:
    found = Databases(postgres_server)
    yield found
    found.drop()


@pytest.fixture
async def databases(both: Databases) -> Databases:
    """As the services make them, with three completed tasks: 1, 2, 3."""
    await both.reset()
    both.add_completed(1, 2, 3)
    return both


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a backup goes."""
    return tmp_path / "backups" / "first"
