"""Redis dies, hangs, drops its clients and loses the end of its file: submissions go on, and what it took is kept (P9).

Outages last longer than everything that waits for Redis: its clients give up after 1.5 s, loops pause for up to 2 s
after a failure, the gateways probe every 0.5 s.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from redis.asyncio import Redis

from servicekit.redis_keys import SUBMISSIONS, SUBMISSIONS_CHANNEL
from tests.faults.harness.ledger import Entry
from tests.faults.harness.run import Run
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(180)]

RECOVERY_SECONDS = 5.0
OUTAGE_SECONDS = 20.0
# The first request after a loss waits this much longer than others; the rest is what an answer takes here.
FIRST_WAITS_SECONDS = 1.5
ANSWER_SECONDS = 1.0


def keep_managers_from_redis(run: Run) -> None:
    """Let entries stay in the stream: the managers hear nothing of Redis any more, and send nothing."""
    for name in run.stack.names("management"):
        run.stack.link(name, "redis").blackhole()


async def submit_durably(run: Run, count: int, *, size: int = 2) -> None:
    """Fill the stream with entries of which clients were told that they are on disk."""
    for _ in range(count):
        entry = await run.client.try_submit(run.tasks(size))
        assert (entry.outcome, entry.durability) == ("acked", "redis-aof")


async def submit_while(run: Run, condition: Callable[[], bool]) -> list[Entry]:
    """Submit through all gateways in turn; every single request has to be accepted."""
    entries = []
    while condition():
        entry = await run.client.try_submit(run.tasks(1))
        assert entry.outcome == "acked", f"{entry}"
        entries.append(entry)
        await asyncio.sleep(0.05)
    return entries


async def everything_goes_on(run: Run, since: float) -> float:
    """Wait until both gateways append again and the services hear of it; return the seconds since `since`."""
    stack = run.stack

    async def as_before() -> bool:
        entries = [await run.client.try_submit(run.tasks(1)) for _ in range(stack.sizes.gateways)]
        await run.client.finals([task_id for entry in entries for task_id in entry.task_ids])
        async with Redis.from_url(stack.redis_url) as redis:
            [(_, managers)] = await redis.pubsub_numsub(SUBMISSIONS_CHANNEL)
            gateways = [client for client in await redis.client_list() if client["cmd"] == "xread"]
        hearing = managers == stack.sizes.managers and len(gateways) == stack.sizes.gateways
        return hearing and {entry.durability for entry in entries} == {"redis-aof"}

    await wait_until(as_before, timeout=30)
    return time.monotonic() - since


def pids(run: Run) -> dict[str, int]:
    return {name: process.pid for name, process in run.stack.processes.items() if name != "redis"}


async def entries_waiting(run: Run) -> int:
    async with Redis.from_url(run.stack.redis_url) as redis:
        return int(await redis.xlen(SUBMISSIONS))


async def test_f02_what_a_killed_redis_acknowledged_is_there_again(run: Run) -> None:
    stack = run.stack
    keep_managers_from_redis(run)
    await submit_durably(run, 20)
    waiting = await entries_waiting(run)
    assert waiting == 20
    killed = time.monotonic()
    stack.kill("redis")
    meanwhile = await submit_while(run, lambda: time.monotonic() < killed + 5)
    assert {entry.durability for entry in meanwhile} == {"postgres"}
    # One of each gateway finds out; those after it do not wait.
    slow = sorted(entry.seconds for entry in meanwhile)
    assert slow[-1] < FIRST_WAITS_SECONDS + ANSWER_SECONDS
    assert slow[-3] < ANSWER_SECONDS
    await stack.start("redis")
    back = time.monotonic()
    assert await entries_waiting(run) >= waiting
    stack.heal()
    recovered = await everything_goes_on(run, back)
    print(f"F02 first_submission_s={slow[-1]:.2f} later_s={slow[-3]:.2f}")  # noqa: T201
    run.recovered("F02", recovered, within=RECOVERY_SECONDS)
    await run.settle()


async def test_f03_redis_killed_in_a_rewrite_and_with_a_torn_file_has_what_it_acknowledged(run: Run) -> None:
    stack = run.stack
    keep_managers_from_redis(run)
    await submit_durably(run, 20)
    # One entry of a rewrite takes 20 ms: it is in progress for seconds.
    async with Redis.from_url(stack.redis_url) as redis:
        await redis.config_set("rdb-key-save-delay", 20_000)
        await redis.mset({f"test:filler:{number}": "x" for number in range(500)})
        await redis.bgrewriteaof()

        async def rewriting() -> bool:
            return bool((await redis.info("persistence"))["aof_rewrite_in_progress"])

        await wait_until(rewriting)
        # Acknowledged while the rewrite goes on.
        await submit_durably(run, 5)
        assert await rewriting()
    stack.kill("redis")
    await stack.start("redis")
    assert await entries_waiting(run) == 25
    for number in range(stack.sizes.gateways):
        stack.link(f"gateway-{number}", "redis").blackhole()
    for torn in (1, 17, 40):
        last = b"last-words-that-nobody-was-promised" * 3
        async with Redis.from_url(stack.redis_url) as redis:
            await redis.set("test:last", last)
        stack.kill("redis")
        file = max((stack.folder / "redis").rglob("*.incr.aof"), key=lambda path: int(path.name.split(".")[-3]))
        content = file.read_bytes()
        assert content.endswith(last + b"\r\n"), "something else was written last"
        with file.open("r+b") as opened:
            opened.truncate(len(content) - torn)
        await stack.start("redis")
        async with Redis.from_url(stack.redis_url) as redis:
            assert await redis.get("test:last") is None, "the file was not torn"
            assert await redis.xlen(SUBMISSIONS) == 25
    async with Redis.from_url(stack.redis_url) as redis:
        await redis.delete(*[f"test:filler:{number}" for number in range(500)])
    await run.settle(finals=run.ledger.acked)


async def test_f04_after_an_outage_of_redis_all_loops_go_on(run: Run) -> None:
    stack = run.stack
    before = pids(run)
    running = await run.start_tasks(4, seconds=OUTAGE_SECONDS / 2)
    watched = await run.client.submit(run.tasks(4, seconds=OUTAGE_SECONDS / 4))
    run.recorder.follow(*running, *watched)
    killed = time.monotonic()
    stack.kill("redis")
    meanwhile = await submit_while(run, lambda: time.monotonic() < killed + OUTAGE_SECONDS)
    assert {entry.durability for entry in meanwhile} == {"postgres"}
    await stack.start("redis")
    recovered = await everything_goes_on(run, time.monotonic())
    run.recovered("F04", recovered, within=RECOVERY_SECONDS)
    assert pids(run) == before
    # Nothing is run again, and the watchers have every final update.
    await run.settle()
    assert {event.task_id for event in run.recorder.events if event.status == "completed"} == {*running, *watched}


async def _drop_clients(run: Run) -> None:
    await _drop(run, "normal")


async def _drop_subscribers(run: Run) -> None:
    await _drop(run, "pubsub")


async def _drop(run: Run, kind: str) -> None:
    """Three times, so that what connects again is dropped again."""
    async with Redis.from_url(run.stack.redis_url) as redis:
        for _ in range(3):
            assert await redis.client_kill_filter(_type=kind, skipme=True) > 0
            await asyncio.sleep(0.5)


async def _pause(run: Run) -> None:
    async with Redis.from_url(run.stack.redis_url) as redis:
        await redis.client_pause(5_000)
    await asyncio.sleep(5)


async def _hang(run: Run) -> None:
    run.stack.freeze("redis")
    await asyncio.sleep(5)
    run.stack.thaw("redis")


@pytest.mark.parametrize("break_it", [_drop_clients, _drop_subscribers, _pause, _hang])
async def test_f05_redis_drops_or_ignores_its_clients(
    run: Run, break_it: Callable[[Run], Coroutine[Any, Any, None]]
) -> None:
    before = pids(run)
    await run.start_tasks(4, seconds=6)
    breaking = asyncio.create_task(break_it(run))
    meanwhile = await submit_while(run, lambda: not breaking.done())
    await breaking
    if break_it in (_pause, _hang):
        assert "postgres" in {entry.durability for entry in meanwhile}, "Redis was there all the time"
    assert max(entry.seconds for entry in meanwhile) < FIRST_WAITS_SECONDS + ANSWER_SECONDS
    recovered = await everything_goes_on(run, time.monotonic())
    run.recovered(f"F05 {break_it.__name__.strip('_')}", recovered, within=RECOVERY_SECONDS)
    assert pids(run) == before
    await run.settle()


async def test_f07_an_entry_whose_delivery_was_lost_is_taken_over_within_10_s(run: Run) -> None:
    links = [run.stack.link(name, "redis") for name in run.stack.names("management")]
    before = sum(link.counters.replies_lost for link in links)
    for link in links:
        # Of all that Redis says to a manager, only an entry holds the type of its tasks.
        link.faults.lose_replies_with = b"append_line"
        link.faults.lose_replies = 1
    task_ids = await run.client.submit(run.tasks(3))
    submitted = time.monotonic()
    await wait_until(lambda: sum(link.counters.replies_lost for link in links) > before)
    run.stack.heal()
    async with Redis.from_url(run.stack.redis_url) as redis:
        assert await redis.xlen(SUBMISSIONS) == 1
    await run.client.finals(task_ids)
    taken_over = time.monotonic() - submitted
    print(f"F07 taken_over_s={taken_over:.2f}")  # noqa: T201
    assert taken_over < 10
    await run.settle()
