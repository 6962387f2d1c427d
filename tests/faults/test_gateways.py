"""Gateways are killed, lose the answers of those who store, are restarted and refuse: no task is lost or doubled."""

import asyncio
import signal
import time
from itertools import count

import pytest
from redis.asyncio import Redis

from servicekit.redis_keys import BACKLOG, SUBMISSIONS
from tests.faults.conftest import StackFactory
from tests.faults.harness.client import Client
from tests.faults.harness.run import Run
from tests.faults.harness.stack import Sizes
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(180)]


async def test_f01_another_gateway_serves_while_one_is_killed(run: Run) -> None:
    stack, stop = run.stack, asyncio.Event()
    async with (
        Client([stack.gateway_url(0)], run.ledger) as doomed,
        Client([stack.gateway_url(1)], run.ledger) as other,
    ):
        at_doomed = [asyncio.create_task(doomed.load(lambda: run.tasks(1), stop=stop, pause=0)) for _ in range(16)]
        at_other = asyncio.create_task(other.load(lambda: run.tasks(1), stop=stop))
        await run.started(50)
        killed = time.monotonic()
        stack.kill("gateway-0")
        done = [entry for entry in run.ledger.entries if entry.outcome == "acked"]
        # Long enough for refused connections to be tried again and again.
        await asyncio.sleep(3)
        stop.set()
        await asyncio.gather(*at_doomed, at_other)
    open_then = [entry for entry in run.ledger.entries if entry.sent_at < killed and entry not in done]
    assert any(entry.outcome == "unknown" for entry in open_then), "no request was open"
    later = [entry for entry in run.ledger.entries if entry.sent_at > killed]
    served = [entry for entry in later if entry.status == 201]
    assert len(served) > 10
    # What failed found nobody at the port of the dead one: the other refused nothing.
    assert {entry.outcome for entry in later} == {"acked", "unknown"}
    first = min(entry.sent_at + entry.seconds for entry in served) - killed
    print(f"F01 served_after_s={first:.2f} slowest_s={max(entry.seconds for entry in served):.2f}")  # noqa: T201
    assert first < 1
    await run.settle()


@pytest.mark.quick
async def test_f06_a_lost_answer_to_an_append_stores_once(run: Run) -> None:
    stack = run.stack
    link = stack.link("gateway-0", "redis")
    async with Redis.from_url(stack.redis_url) as redis, Client([stack.gateway_url(0)], run.ledger) as client:
        added = (await redis.xinfo_stream(SUBMISSIONS))["entries-added"]
        link.faults.lose_replies = 1
        entry = await client.try_submit(run.tasks(5))
        lost, link.faults.lose_replies = link.counters.replies_lost, 0
        appended = (await redis.xinfo_stream(SUBMISSIONS))["entries-added"] - added
    assert lost
    assert appended == 1, "the append did not reach Redis"
    # Stored a second time, over gRPC, under the same ids.
    assert (entry.outcome, entry.durability) == ("acked", "postgres")
    await run.client.finals(entry.task_ids)
    verdict = await run.settle()
    assert verdict.unexpected == 0
    assert set(run.effects.starts()) == set(entry.task_ids)


@pytest.mark.quick
async def test_f06_a_lost_answer_to_a_keyed_request_is_repeated_with_the_same_ids(run: Run) -> None:
    stack = run.stack
    tasks = run.tasks(3)
    for name in stack.names("management"):
        stack.link_to(name).faults.blackhole_down = True

    async def stored() -> bool:
        return await stack.query("SELECT count(*) FROM tasks WHERE idempotency_key IS NOT NULL") != [(0,)]

    first = asyncio.create_task(run.client.try_submit(tasks, key="order-1"))
    await wait_until(stored)
    lost = await first
    assert lost.outcome != "acked", "the answer came through"
    for name in stack.names("management"):
        stack.link_to(name).heal()
    ids = await run.client.submit(tasks, key="order-1")
    assert ids == await run.client.submit(tasks, key="order-1")
    verdict = await run.settle(finals=ids)
    assert verdict.unexpected == 0
    assert len(ids) == len(tasks)


@pytest.mark.quick
async def test_f08_a_manager_told_to_stop_with_an_entry_in_hand_loses_nothing(run: Run) -> None:
    stack, manager = run.stack, run.stack["management-0"]
    stack.arm("intake.before_store", "stop", replica="management-0")
    # Which manager reads an entry is a race.
    while not stack.has_fired("intake.before_store"):
        await run.client.submit(run.tasks(2))
    manager.send(signal.SIGTERM)
    later = await run.client.submit(run.tasks(10))
    stack.thaw("management-0")
    told = time.monotonic()
    assert await manager.wait_ended(10) == 0
    ended = time.monotonic() - told
    await run.client.finals(run.ledger.acked, timeout=10)
    print(f"F08 exit_s={ended:.2f} all_done_s={time.monotonic() - told:.2f}")  # noqa: T201
    assert set(later) <= set(run.effects.starts())
    await run.settle()


async def test_f09_at_the_cap_nothing_is_trimmed_and_the_rest_is_refused(stack_factory: StackFactory) -> None:
    cap = 300
    limits = {"HEADRACE_BACKLOG_TASKS_MAX": str(cap)}
    stack = await stack_factory(Sizes(managers=2, executors=1, role_env={"gateway": limits}))
    async with Run(stack, stack.folder / "run") as run, Redis.from_url(stack.redis_url) as redis:
        # Nothing leaves the stream while the task database is away.
        stack.kill("postgres")
        accepted: list[int] = []
        for _ in count():
            entry = await run.client.try_submit(run.tasks(10))
            if entry.outcome != "acked":
                break
            assert entry.durability == "redis-aof"
            accepted += entry.task_ids
        assert len(accepted) == cap
        seconds = []
        for _ in range(200):
            sent = time.monotonic()
            answer = await run.client.http.post("/api/tasks", json=run.tasks(1)[0])
            seconds.append(time.monotonic() - sent)
            assert (answer.status_code, answer.json()["code"]) == (503, "backlog_full"), answer.text
            assert int(answer.headers["Retry-After"]) >= 1
        waiting = int(await redis.hget(BACKLOG, "tasks") or 0)
        assert waiting == cap, "accepted tasks were trimmed, or refused ones kept"
        p99 = sorted(seconds)[int(len(seconds) * 0.99) - 1]
        back = time.monotonic()
        await stack.start("postgres")
        started = time.monotonic()
        accepted += await run.client.submit(run.tasks(10))
        accepting = time.monotonic() - started
        await run.client.finals(accepted)
        print(  # noqa: T201
            f"F09 refused_p99_ms={p99 * 1000:.0f} postgres_start_s={started - back:.1f} accepts_again_s={accepting:.1f}"
        )
        assert p99 < 0.1
        assert accepting < 5
        verdict = await run.settle()
        assert verdict.unexpected == 0


async def test_f13_a_rolling_restart_fails_no_call_after_one_repeat(run: Run) -> None:
    stack, stop, keys = run.stack, asyncio.Event(), count(1)
    urls = [stack.gateway_url(number) for number in range(stack.sizes.gateways)]
    failed: list[object] = []
    repeated = 0

    async def call(client: Client, key: str | None) -> None:
        nonlocal repeated
        tasks = run.tasks(2, seconds=0.05)
        entry = await client.try_submit(tasks, key=key)
        if entry.outcome != "acked":
            repeated += 1
            # At the next gateway, at once: a second later that one may be the one that is restarted.
            entry = await client.try_submit(tasks, key=key)
            if entry.outcome != "acked":
                failed.append(entry)

    async def user(*, keyed: bool) -> None:
        async with Client(urls, run.ledger) as client:
            while not stop.is_set():
                await call(client, f"key-{next(keys)}" if keyed else None)
                await asyncio.sleep(0.1)

    users = [asyncio.create_task(user(keyed=keyed)) for keyed in (False, True)]
    names = [name for role in ("management", "execution", "gateway") for name in stack.names(role)]
    before = {name: stack[name].pid for name in names}
    began = time.monotonic()
    for name in names:
        assert await stack.stop(name) == [0], f"{name} did not end as told: {stack[name].tail()}"
        await stack.start(name)
        await stack.whole()
    took = time.monotonic() - began
    stop.set()
    await asyncio.gather(*users)
    assert all(stack[name].pid != before[name] for name in names)
    print(f"F13 rolled_s={took:.1f} calls={len(run.ledger.entries)} repeated={repeated}")  # noqa: T201
    assert not failed
    # Tasks of 0.05 s end within the grace time: nothing that had been started is handed back.
    await run.settle()
