"""Whoever watches a task is told its whole story, whatever becomes of clients, gateways and channels of Redis (P14).

The channels are trusted to come from management: who can write to Redis can forge an end, so Redis is not to be open to
others. What is tested here is noise: garbage, repeats, old messages, announcements of nothing.
"""

import asyncio
import re
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import psutil
import pytest
import redis.asyncio
import websockets

from headrace.v1.task_pb2 import TASK_STATUS_PROCESSING, Progress, TaskUpdate, UpdateBatch
from servicekit.redis_keys import READY_CHANNEL, SUBMISSIONS_CHANNEL, UPDATES
from tests.faults.harness.checker import Allowed
from tests.faults.harness.run import Run
from tests.faults.harness.stack import Stack
from tests.support.updates import publish_message, publish_update
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(180)]

# F65: messages of this size, more than any buffer on the way takes.
FLOOD_MESSAGES, FLOOD_TEXT = 4_000, "x" * 4_000
ANSWER_SECONDS_MAX = 1.0
MEMORY_GROWTH_MAX = 64 * 2**20
# F68: pings are sent every 20 s and answered within 20 s.
FOUND_SECONDS = 45.0


@asynccontextmanager
async def redis_of(stack: Stack) -> AsyncIterator[redis.asyncio.Redis]:
    client = redis.asyncio.Redis.from_url(stack.redis_url)
    try:
        yield client
    finally:
        await client.aclose()


async def sockets_open(stack: Stack, number: int = 0) -> int:
    """How many WebSockets a gateway holds, as it says itself."""
    async with httpx.AsyncClient(base_url=stack.gateway_url(number), timeout=10) as http:
        text = (await http.get("/metrics")).text
    found = re.search(r"^headrace_websockets_open (\d+)", text, re.MULTILINE)
    assert found is not None, text
    return int(found[1])


def progress_of(task_id: int, number: int) -> TaskUpdate:
    """Progress of a first attempt."""
    progress = Progress(n=number, fraction=0.5, message=FLOOD_TEXT)
    return TaskUpdate(
        task_id=task_id, type="append_line", status=TASK_STATUS_PROCESSING, attempt=1, revision=1, progress=progress
    )


async def test_f65_a_slow_watcher_is_cut_off_and_others_do_not_notice(run: Run) -> None:
    stack = run.stack
    slow, other = await run.start_tasks(2, seconds=6)
    run.recorder.follow(other)
    receiver = socket.socket()
    receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    receiver.setblocking(False)
    await asyncio.get_running_loop().sock_connect(receiver, ("127.0.0.1", stack.port("gateway-0")))
    url = f"ws://127.0.0.1:{stack.port('gateway-0')}/ws/tasks/{slow}"
    gateway = psutil.Process(stack["gateway-0"].pid)
    before = gateway.memory_info().rss
    # Nobody reads from it: after its first message everything stays in the buffers.
    async with websockets.connect(url, sock=receiver, max_queue=1, ping_interval=None, close_timeout=0.1):
        await wait_until(lambda: run.recorder.events)
        open_before = await sockets_open(stack)
        async with redis_of(stack) as client:
            for number in range(1, FLOOD_MESSAGES + 1):
                await publish_update(client, progress_of(slow, number))

        answered: list[float] = []

        async def was_cut() -> bool:
            asked = time.monotonic()
            count = await sockets_open(stack)
            answered.append(time.monotonic() - asked)
            return count < open_before

        began = time.monotonic()
        await wait_until(was_cut, timeout=30)
        print(f"F65 cut_after_s={time.monotonic() - began:.1f} others_waited_s={max(answered):.2f}")  # noqa: T201
        assert max(answered) < ANSWER_SECONDS_MAX, "the gateway does not answer others"
    growth = gateway.memory_info().rss - before
    assert growth < MEMORY_GROWTH_MAX, f"{growth >> 20} MiB more"
    run.recorder.follow(slow)
    await run.settle(finals=[slow, other])


async def test_f66_losing_the_channel_again_and_again_loses_no_update(run: Run) -> None:
    stack = run.stack
    stop = asyncio.Event()

    async def kill_subscriptions() -> int:
        killed = 0
        async with redis_of(stack) as client:
            while not stop.is_set():
                killed += await client.client_kill_filter(_type="pubsub")
                await asyncio.sleep(2)
        return killed

    killing = asyncio.create_task(kill_subscriptions())
    for _ in range(12):
        task_ids = await run.client.submit(run.tasks(4, seconds=0.3))
        run.recorder.follow(*task_ids)
        await asyncio.sleep(1)
    stop.set()
    assert await killing >= 10, "no subscription was killed"
    await run.settle()


async def test_f67_watchers_of_a_gateway_that_restarts_come_back_to_the_whole_story(run: Run) -> None:
    stack, watchers = run.stack, 200
    task_ids = await run.client.submit(run.tasks(watchers, delay=12))
    run.recorder.follow(*task_ids)

    async def are_open() -> bool:
        return await sockets_open(stack) == watchers

    await wait_until(are_open, timeout=20)
    assert await stack.stop("gateway-0") == [0]
    await wait_until(lambda: len(run.recorder.close_codes) >= watchers)
    assert set(run.recorder.close_codes) == {1012}
    await stack.start("gateway-0")
    await run.settle(finals=task_ids)


async def test_f68_a_watcher_that_vanishes_is_found_by_its_silence(run: Run) -> None:
    stack = run.stack
    [task_id] = await run.client.submit(run.tasks(1, delay=70))
    link = stack.link_to("gateway-0")
    async with websockets.connect(
        f"ws://{link.host}:{link.port}/ws/tasks/{task_id}", ping_interval=None, close_timeout=0.1
    ) as watcher:
        await watcher.recv()
        assert await sockets_open(stack) == 1
        link.blackhole()
        began = time.monotonic()

        async def is_freed() -> bool:
            return await sockets_open(stack) == 0

        await wait_until(is_freed, timeout=FOUND_SECONDS)
        print(f"F68 found_after_s={time.monotonic() - began:.1f}")  # noqa: T201
        link.heal()
    await run.client.delete(task_id)
    await run.settle(Allowed(statuses=("cancelled",)))


async def test_f69_noise_on_the_channels_changes_nothing(run: Run) -> None:
    stack = run.stack
    async with redis_of(stack) as client:
        running = await run.start_tasks(4, seconds=4)
        run.recorder.follow(*running)
        others = await run.client.submit(run.tasks(20))
        run.recorder.follow(*others)
        await run.client.finals(others)
        entries = await client.xrange(UPDATES) or []
        heard = [value for _, fields in entries for value in (fields or {}).values() if isinstance(value, bytes)]
        assert heard, "no update was heard"
        for noise in (b"", b"\xff" * 100, b"garbage", UpdateBatch(task_ids=running).SerializeToString()):
            await publish_message(client, noise)
            await client.publish(READY_CHANNEL, noise)
            await client.publish(SUBMISSIONS_CHANNEL, noise)
        for message in [*reversed(heard), *heard, *heard]:
            await publish_message(client, message)
        await client.publish(READY_CHANNEL, "cpu,io,no-such-pool")
        unknown = TaskUpdate(task_id=10**15, type="noop", status=TASK_STATUS_PROCESSING, attempt=1, revision=2)
        await publish_update(client, unknown)
    await run.settle(finals=running)
