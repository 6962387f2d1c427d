"""Wall clocks are wrong and jump: no session ends for it, and nothing is run again (P13)."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.faults.harness.clock import WallClock, compiler
from tests.faults.harness.run import Run
from tests.faults.harness.stack import Sizes, Stack

pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.skipif(compiler() is None, reason="needs a C compiler"),
]

HOUR = 3600
# What a scheduled task may wait after its time has come.
LATE_SECONDS_MAX = 1.0


@pytest.fixture(scope="module")
def clock_of_a_manager() -> Iterator[WallClock]:
    with WallClock() as clock:
        yield clock


@pytest.fixture(scope="module")
def clock_of_the_database() -> Iterator[WallClock]:
    with WallClock() as clock:
        yield clock


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def odd_stack(
    tmp_path_factory: pytest.TempPathFactory, clock_of_a_manager: WallClock, clock_of_the_database: WallClock, seed: int
) -> AsyncIterator[Stack]:
    """A cluster where one manager and the task database have clocks of their own."""
    own_env = {"management-0": clock_of_a_manager.environment, "postgres": clock_of_the_database.environment}
    sizes = Sizes(workers=4, own_env=own_env)
    async with Stack(tmp_path_factory.mktemp("odd"), sizes, seed=seed) as stack:
        yield stack


def sessions_ended(stack: Stack) -> int:
    return sum('"session_ended"' in line for name in stack.names("management") for line in stack.log_lines(name))


async def jump(clock: WallClock, shifts: list[int], *, seconds_each: float) -> None:
    for shift in shifts:
        clock.shift(shift)
        await asyncio.sleep(seconds_each)
    clock.shift(0)


def test_a_shifted_clock_is_wrong_and_its_monotonic_one_is_not(clock_of_a_manager: WallClock) -> None:
    program = [sys.executable, "-c", "import time; print(time.time(), time.monotonic())"]
    for shift in (HOUR, -HOUR, 0):
        clock_of_a_manager.shift(shift)
        env = {**os.environ, **clock_of_a_manager.environment}
        told, monotonic = map(float, subprocess.check_output(program, env=env).split())
        assert abs(told - time.time() - shift) < 10
        assert abs(monotonic - time.monotonic()) < 10


@pytest.mark.asyncio(loop_scope="session")
@pytest.mark.parametrize(
    "shifts", [[HOUR], [-HOUR], [600, -600, 600, -600, 600, -600]], ids=["hour_ahead", "hour_behind", "jumps"]
)
async def test_f74_the_wall_clock_of_a_manager_decides_nothing(
    odd_stack: Stack, clock_of_a_manager: WallClock, tmp_path: Path, shifts: list[int]
) -> None:
    async with Run(odd_stack, tmp_path) as run:
        ended = sessions_ended(odd_stack)
        running = await run.start_tasks(6, seconds=6)
        jumping = asyncio.create_task(jump(clock_of_a_manager, shifts, seconds_each=6 / len(shifts)))
        scheduled = await run.client.submit(run.tasks(20, delay=2))
        await run.client.finals([*running, *scheduled])
        await jumping
        maps = Path(f"/proc/{odd_stack['management-0'].pid}/maps").read_text()
        assert clock_of_a_manager.environment["LD_PRELOAD"] in maps, "the manager has an honest clock"
        [(late,)] = await odd_stack.query("SELECT max(extract(epoch FROM claimed_at - run_at))::float8 FROM tasks")
        print(f"F74 scheduled_late_s={late:.2f}")  # noqa: T201
        assert float(str(late)) < LATE_SECONDS_MAX
        assert sessions_ended(odd_stack) == ended
        await run.settle()


@pytest.mark.asyncio(loop_scope="session")
@pytest.mark.parametrize("step", [-30, 30], ids=["back", "forth"])
async def test_f76_a_step_of_the_database_clock_ends_no_session(
    odd_stack: Stack, clock_of_the_database: WallClock, tmp_path: Path, step: int
) -> None:
    async with Run(odd_stack, tmp_path) as run:
        ended = sessions_ended(odd_stack)
        running = await run.start_tasks(6, seconds=8)
        [(before,)] = await odd_stack.query("SELECT extract(epoch FROM clock_timestamp())::float8")
        asked = time.monotonic()
        clock_of_the_database.shift(step)
        [(after,)] = await odd_stack.query("SELECT extract(epoch FROM clock_timestamp())::float8")
        moved = float(str(after)) - float(str(before)) - (time.monotonic() - asked)
        assert abs(moved - step) < 2, "the clock of the database did not move"
        late = await run.client.submit(run.tasks(10, delay=1))
        await run.client.finals([*running, *late])
        clock_of_the_database.shift(0)
        more = await run.client.submit(run.tasks(10))
        await run.client.finals(more)
        assert sessions_ended(odd_stack) == ended
        await run.settle()
