"""Everything is slow, or breaks all the time: no live session is ended, and all work is done."""

import asyncio
import subprocess
import sys
import time

import pytest

from tests.faults.harness.checker import Allowed
from tests.faults.harness.run import Run
from tests.faults.harness.stack import Stack
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(180)]

# F77 and F79 are shorter than those that operators know, and longer than any lease or timeout: 4 s, 5 s.
BUSY_SECONDS, BUSY_LOOPS = 15.0, 4
RESETS_SECONDS, RESET_PART = 20.0, 0.01
# F78, each way: 200 ms there and back, 100 more or less. A read with its result crosses four links, in 2 s at most.
DELAY_SECONDS, JITTER_SECONDS = 0.1, 0.05
SLOW_TASKS, THROUGHPUT_PART_MIN = 4_000, 0.25


def sessions_ended(stack: Stack) -> int:
    return sum('"session_ended"' in line for name in stack.names("management") for line in stack.log_lines(name))


async def test_f77_busy_processors_end_no_session(run: Run) -> None:
    ended = sessions_ended(run.stack)
    running = await run.start_tasks(6, seconds=BUSY_SECONDS)
    loops = [_start_busy_loop() for _ in range(BUSY_LOOPS)]
    try:
        await run.client.finals(running)
        later = await run.client.submit(run.tasks(20))
        await run.client.finals(later)
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()
    assert sessions_ended(run.stack) == ended
    await run.settle()


def _start_busy_loop() -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", "while True: pass"])


async def test_f78_with_slow_links_everything_works_more_slowly(run: Run) -> None:
    ended = sessions_ended(run.stack)
    fast = await _seconds_for(run, SLOW_TASKS)
    for link in run.stack.all_links():
        link.faults.delay, link.faults.jitter = DELAY_SECONDS, JITTER_SECONDS
    slow = await _seconds_for(run, SLOW_TASKS)
    running = await run.start_tasks(6, seconds=4)
    await run.client.finals(running)
    print(f"F78 seconds_for_{SLOW_TASKS}_tasks: {fast:.1f} without delay, {slow:.1f} with")  # noqa: T201
    assert fast / slow >= THROUGHPUT_PART_MIN
    assert sessions_ended(run.stack) == ended
    await run.settle()


async def _seconds_for(run: Run, count: int) -> float:
    """How long that many tasks take that do nothing, from the first request to the last end."""
    began = time.monotonic()
    batches = [[{"type": "noop", "data": {}}] * 500 for _ in range(count // 500)]
    task_ids = await asyncio.gather(*(run.client.submit(batch) for batch in batches))
    newest = max(max(ids) for ids in task_ids)
    await run.client.final(newest)
    await wait_until(lambda: _all_final(run.stack, sum(map(len, task_ids))), timeout=60)
    return time.monotonic() - began


async def _all_final(stack: Stack, count: int) -> bool:
    [(final, waiting)] = await stack.query(
        "SELECT count(*) FILTER (WHERE finished_at IS NOT NULL), count(*) FILTER (WHERE finished_at IS NULL) FROM tasks"
    )
    return int(str(final)) >= count and waiting == 0


async def test_f79_connections_that_are_reset_at_random_lose_nothing(run: Run) -> None:
    links = run.stack.all_links()
    resets = sum(link.counters.resets for link in links)
    for link in links:
        link.faults.reset_part = RESET_PART
    stop = asyncio.Event()
    watched = await run.client.submit(run.tasks(10, seconds=0.1, delay=5))
    run.recorder.follow(*watched)
    loads = [asyncio.create_task(run.client.load(lambda: run.tasks(20), stop=stop)) for _ in range(2)]
    await asyncio.sleep(RESETS_SECONDS)
    stop.set()
    await asyncio.gather(*loads)
    happened = sum(link.counters.resets for link in links) - resets
    print(f"F79 resets={happened}")  # noqa: T201
    assert happened > 20
    assert len(run.ledger.acked) > 500
    # Where a replica cannot be dialled for seconds, its session ends and what it held runs again.
    await run.settle(Allowed(reruns=len(run.ledger.acked)), finals=watched)
