"""Consul goes away, freezes and lies: nobody drops a live peer, and nothing is run again (P18).

Outages are shorter than those that operators know, but longer than every timeout that is involved: checks run each
second with a timeout of a second, watches wait 2 to 30 s, registrations are looked at every 5 s.
"""

import asyncio
import time
from collections.abc import Callable

import pytest

from tests.faults.harness import registry
from tests.faults.harness.checker import Allowed
from tests.faults.harness.registry import LyingRegistry
from tests.faults.harness.run import Run
from tests.faults.harness.stack import Stack
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(180)]

OUTAGE_SECONDS = 12.0
LIE_SECONDS = 4.0


def streams_opened(stack: Stack) -> int:
    """How often an execution replica was dialled with success so far."""
    names = stack.names("execution")
    return sum("manager_attached" in line for name in names for line in stack.log_lines(name))


async def work_goes_on(run: Run, *, seconds: float) -> None:
    """Submit through both gateways all the time; every single request has to be served."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        entry = await run.client.try_submit(run.tasks(2))
        assert entry.outcome == "acked", f"{entry}"
        await asyncio.sleep(0.1)


@pytest.mark.parametrize("how", ["killed", "frozen"])
async def test_f60_without_consul_everything_goes_on(run: Run, how: str) -> None:
    stack = run.stack
    opened = streams_opened(stack)
    await run.start_tasks(4, seconds=OUTAGE_SECONDS / 2)
    if how == "killed":
        stack.kill("consul")
    else:
        stack.freeze("consul")
    await work_goes_on(run, seconds=OUTAGE_SECONDS)
    assert streams_opened(stack) == opened
    await run.settle()


async def test_f60_a_replica_that_starts_without_consul_is_found_in_the_database(run: Run) -> None:
    stack = run.stack
    stack.kill("consul", "execution-0")
    await stack.start("execution-0")
    await wait_until(lambda: "manager_attached" in stack["execution-0"].log_since_start(), timeout=15)
    await run.settle()


@pytest.mark.parametrize(
    "lie", [registry.nothing, registry.half, registry.doubled, registry.with_dead_ones, registry.with_wrong_ports]
)
async def test_f61_a_list_that_is_wrong_costs_no_live_peer(run: Run, lie: registry.Doctor) -> None:
    async with LyingRegistry(run.stack) as liar:
        await work_goes_on(run, seconds=1)
        opened = streams_opened(run.stack)
        running = await run.start_tasks(4, seconds=LIE_SECONDS / 2)
        liar.doctor = lie
        liar.wake()
        liar.asked.clear()
        await work_goes_on(run, seconds=LIE_SECONDS)
        assert set(liar.asked) == {"headrace-management", "headrace-execution"}, "the lie was not told"
        assert streams_opened(run.stack) == opened
        liar.doctor = None
        await run.client.finals(running)
    await run.settle()


@pytest.mark.parametrize("nonsense", [registry.server_error, registry.web_page])
async def test_f61_an_answer_that_is_none_costs_no_live_peer(run: Run, nonsense: registry.Nonsense) -> None:
    async with LyingRegistry(run.stack) as liar:
        opened = streams_opened(run.stack)
        liar.nonsense = nonsense()
        liar.wake()
        liar.asked.clear()
        await work_goes_on(run, seconds=LIE_SECONDS)
        assert liar.asked, "the lie was not told"
        assert streams_opened(run.stack) == opened
        liar.nonsense = None
    await run.settle()


async def test_f62_flapping_checks_end_no_stream(run: Run) -> None:
    async with LyingRegistry(run.stack) as liar:
        await run.start_tasks(4, seconds=10)
        opened = streams_opened(run.stack)
        for number in range(10):
            liar.doctor = registry.nothing if number % 2 else registry.as_it_is
            liar.wake()
            await work_goes_on(run, seconds=1)
        assert streams_opened(run.stack) == opened
        liar.doctor = None
    await run.settle()


@pytest.mark.parametrize("index", [registry.falling, registry.standing])
async def test_f63_without_a_rising_index_nobody_asks_in_a_circle(
    run: Run, index: Callable[[], registry.IndexDoctor]
) -> None:
    watchers = len(run.stack.names("management")) + len(run.stack.names("gateway"))
    async with LyingRegistry(run.stack) as liar:
        liar.index = index()
        liar.wake()
        await work_goes_on(run, seconds=1)
        liar.asked.clear()
        began = time.monotonic()
        await work_goes_on(run, seconds=6)
        asked, seconds = liar.asked.total(), time.monotonic() - began
        print(f"F63 questions_per_watcher_and_second={asked / seconds / watchers:.2f}")  # noqa: T201
        assert asked, "nobody asked"
        assert asked / watchers <= seconds + 2
        liar.index = None
    await run.settle()


async def test_f64_a_replica_that_died_and_came_back_on_another_port_is_found_there(run: Run) -> None:
    stack = run.stack
    await run.start_tasks(4, seconds=4)
    stack.kill("execution-0")
    await stack.move("execution-0")
    await work_goes_on(run, seconds=3)
    await run.settle(Allowed(reruns=4))
