"""Stacks for the fault scenarios: one that a module's tests share, or one of a test's own."""

import itertools
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Protocol

import pytest
import pytest_asyncio

from tests.faults.harness.run import Run
from tests.faults.harness.stack import Sizes, Stack

# The seed of all random faults: printed with a failure, to be given again.
SEED = int(os.environ.get("FAULT_SEED", "0")) or int.from_bytes(os.urandom(3))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A run of all tests takes the quick scenarios alone; one that names this folder, or files in it, all of them."""
    if any("faults" in argument for argument in config.invocation_params.args):
        return
    here = Path(__file__).parent
    slow = [item for item in items if item.path.parent == here and _needs_a_stack(item) and not _is_quick(item)]
    config.hook.pytest_deselected(items=slow)
    left_out = set(slow)
    items[:] = [item for item in items if item not in left_out]


def _needs_a_stack(item: pytest.Item) -> bool:
    return bool({"run", "stack_factory", "shared_stack"} & set(getattr(item, "fixturenames", ())))


def _is_quick(item: pytest.Item) -> bool:
    return item.get_closest_marker("quick") is not None


def pytest_report_header() -> str:
    return f"fault seed: {SEED} (FAULT_SEED={SEED} replays it)"


@pytest.fixture(scope="session")
def seed() -> int:
    return SEED


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def shared_stack(tmp_path_factory: pytest.TempPathFactory, seed: int) -> AsyncIterator[Stack]:
    """The cluster of all scenarios that need no special one: 2 gateways, 2 managers, 2 executors of 4 workers."""
    sizes = Sizes(gateways=2, workers=4)
    async with Stack(tmp_path_factory.mktemp("stack"), sizes, seed=seed) as stack:
        yield stack


@pytest_asyncio.fixture(loop_scope="session")
async def run(shared_stack: Stack, tmp_path: Path) -> AsyncIterator[Run]:
    """A scenario on the shared cluster."""
    async with Run(shared_stack, tmp_path) as run:
        yield run


class StackFactory(Protocol):
    """Starts a cluster of a test's own; it is stopped after the test."""

    async def __call__(self, sizes: Sizes | None = None) -> Stack: ...


@pytest_asyncio.fixture(loop_scope="session")
async def stack_factory(tmp_path: Path, seed: int) -> AsyncIterator[StackFactory]:
    """For scenarios that need other sizes or settings."""
    numbers = itertools.count(1)
    async with AsyncExitStack() as running:

        async def start(sizes: Sizes | None = None) -> Stack:
            return await running.enter_async_context(Stack(tmp_path / f"stack-{next(numbers)}", sizes, seed=seed))

        yield start
