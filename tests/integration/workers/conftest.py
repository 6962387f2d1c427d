"""A running pool for each test."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from execution_service.workers.outcomes import PoolSize
from tests.support.worker_bench import Bench, running_bench


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """One `cpu` worker and one `io` worker with 16 slots."""
    async with running_bench(tmp_path / "scratch", {"cpu": PoolSize(1), "io": PoolSize(1, 16)}) as running:
        yield running
