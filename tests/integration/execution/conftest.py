"""A whole replica in the test's process, with real workers and a real result DB."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr

from execution_service.service import ExecutionService
from execution_service.settings import ExecutionSettings
from tests.integration.execution.manager import Manager

SAMPLE_TASKS = "tests.integration.execution.sample_tasks"
NOBODY = "http://127.0.0.1:9"


def settings_for(results_dsn: str, scratch_dir: Path, *, spool_bytes: int = 2**28) -> ExecutionSettings:
    return ExecutionSettings(
        replica="exec-1",
        results_dsn=SecretStr(results_dsn),
        workers=2,
        io_slots=8,
        task_modules=(SAMPLE_TASKS,),
        scratch_dir=scratch_dir,
        consul_url=NOBODY,
        grace=timedelta(seconds=1),
        spool_bytes=spool_bytes,
    )


@pytest.fixture
async def service(postgres_dsn: str, tmp_path: Path) -> AsyncIterator[ExecutionService]:
    """A replica that has started; nobody is at the address of its registry."""
    running = ExecutionService(settings_for(postgres_dsn, tmp_path))
    await running.start()
    yield running
    await running.stop()


@pytest.fixture
async def manager(service: ExecutionService) -> AsyncIterator[Manager]:
    async with Manager(service.replica.address) as manager:
        yield manager
