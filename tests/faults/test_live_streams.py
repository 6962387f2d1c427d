"""Who follows all tasks hears every change once and in order, whatever is killed (P14).

The followers are programs as docs/live.md tells users to write them: they come back at once, at the other server, with
the cursor that they have.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial

import httpx
import pytest

from tests.faults.harness.client import Task
from tests.faults.harness.evidence import drained
from tests.faults.harness.followers import EventsFollower, Follower, RpcFollower, SocketFollower, Story
from tests.faults.harness.run import Run
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(180)]

# They last longer than three restarts.
BATCHES = 24
OUTAGE_SECONDS = 5.0


def mixed_tasks() -> list[Task]:
    """Tasks with all kinds of lives, but for the cancelled ones."""
    return [
        *[{"type": "noop", "data": {"n": number}} for number in range(12)],
        *[{"type": "sleep_async", "data": {"seconds": 0.3}}] * 6,
        *[{"type": "fail", "data": {"times": 1}}] * 4,
        {"type": "fail", "data": {"permanent": True}},
        *[{"type": "progress", "data": {"steps": 3, "seconds_each": 0.05}}] * 2,
    ]


class Load:
    """Submits as long as a scenario breaks things, and cancels some of what it has submitted."""

    def __init__(self, run: Run) -> None:
        self.task_ids: list[int] = []
        self.cancelled: list[int] = []
        self._run = run

    async def submit(self, batches: int) -> None:
        for _ in range(batches):
            self.task_ids += await self._run.client.submit(mixed_tasks())
            await self._cancel(
                {"type": "noop", "data": {}, "delay": 3600}, {"type": "sleep_for", "data": {"seconds": 5}}
            )

    async def _cancel(self, *tasks: Task) -> None:
        task_ids = await self._run.client.submit(tasks)
        self.task_ids += task_ids
        self.cancelled += task_ids
        for task_id in task_ids:
            await wait_until(partial(self._was_cancelled, task_id), timeout=30)

    async def _was_cancelled(self, task_id: int) -> bool:
        # A repeat removes nothing and is answered as the first one.
        with contextlib.suppress(httpx.HTTPError):
            answer = await self._run.client.delete(task_id)
            return answer.status_code in (200, 202)
        return False


@asynccontextmanager
async def followed(run: Run, *, looks_may_skip: bool = False) -> AsyncIterator[list[Follower]]:
    """Followers of all tasks at both gateways, which have all had their first snapshot."""
    urls = [run.stack.gateway_url(number) for number in range(run.stack.sizes.gateways)]
    followers: list[Follower] = [
        kind(Story(f"{kind.__name__}-{number}", looks_may_skip=looks_may_skip), urls, first=number % 2)
        for kind in (SocketFollower, EventsFollower)
        for number in range(4)
    ]
    try:
        await wait_until(lambda: all(follower.story.snapshots for follower in followers))
        yield followers
    finally:
        for follower in followers:
            await follower.stop()


async def revisions_of(run: Run, task_ids: Sequence[int]) -> dict[int, int]:
    """The last revision of each of these tasks, and of those that were stored although the answer was lost."""
    rows = await run.stack.query("SELECT task_id, revision FROM tasks WHERE finished_at IS NOT NULL")
    ends = {int(str(task_id)): int(str(revision)) for task_id, revision in rows}
    assert ends.keys() >= set(task_ids)
    return ends


async def all_told(followers: Sequence[Follower], ends: Mapping[int, int]) -> None:
    """Wait until every follower knows the ends of these tasks, and hold all that it was told to the promise."""

    def missing() -> dict[str, int]:
        stories = [follower.story for follower in followers]
        return {story.name: count for story in stories if (count := len(ends.items() - story.revisions.items()))}

    with contextlib.suppress(AssertionError):
        await wait_until(lambda: not missing(), timeout=20)
    broken = [line for follower in followers for line in follower.story.broken]
    assert not broken, broken[:20]
    assert not missing(), missing()


def summary(followers: Sequence[Follower]) -> str:
    return " ".join(
        f"{follower.story.name}={follower.connections}/{follower.story.updates}/{follower.story.resets}"
        for follower in followers
    )


@pytest.mark.quick
async def test_f87_followers_of_a_killed_gateway_go_on_at_the_other(run: Run) -> None:
    stack, load = run.stack, Load(run)
    async with followed(run) as followers:
        loading = asyncio.create_task(load.submit(4))
        await wait_until(lambda: all(follower.story.updates > 50 for follower in followers))
        stack.kill("gateway-0")
        await loading
        await stack.start("gateway-0")
        await run.client.finals(load.task_ids)
        await drained(stack)
        await all_told(followers, await revisions_of(run, load.task_ids))
        print(f"F87 {summary(followers)}")  # noqa: T201 - connections, updates, resets
        assert sum(follower.connections > 1 for follower in followers) == len(followers) // 2
        assert not any(follower.story.resets for follower in followers)


async def test_f88_gateways_and_a_manager_are_killed_and_nothing_is_missed_or_repeated(run: Run) -> None:
    stack, load = run.stack, Load(run)
    managers = [f"127.0.0.1:{stack.port(name)}" for name in stack.names("management")]
    async with followed(run) as followers:
        first = await run.client.submit(mixed_tasks() * 4)
        watching = RpcFollower(Story("RpcFollower"), managers, first)
        try:
            await wait_until(lambda: watching.connections)
            loading = asyncio.create_task(load.submit(BATCHES))
            for victim in ("gateway-0", "management-0", "gateway-1"):
                stack.kill(victim)
                await more_is_told(followers)
                await stack.start(victim)
                await more_is_told(followers)
            assert not loading.done(), "the last victim was away when all had been submitted"
            await loading
            await run.client.finals([*first, *load.task_ids])
            await drained(stack)
            ends = await revisions_of(run, [*first, *load.task_ids])
            await all_told(followers, ends)
            await all_told([watching], {task_id: ends[task_id] for task_id in first})
        finally:
            await watching.stop()
        print(f"F88 tasks={len(ends)} {summary([*followers, watching])}")  # noqa: T201
        assert all(follower.connections > 1 for follower in (*followers, watching))
        assert not any(follower.story.resets for follower in followers)


async def more_is_told(followers: Sequence[Follower]) -> None:
    """Wait until all followers have heard some more."""
    told = [follower.story.updates for follower in followers]
    await wait_until(
        lambda: all(each.story.updates > before + 10 for each, before in zip(followers, told, strict=True)), timeout=30
    )


async def test_f89_a_redis_that_is_killed_takes_no_change_with_it(run: Run) -> None:
    """While it is away changes are told from the task table: the latest of each task, without a place."""
    stack, load = run.stack, Load(run)
    async with followed(run, looks_may_skip=True) as followers:
        await load.submit(2)
        stack.kill("redis")
        away_until = time.monotonic() + OUTAGE_SECONDS
        while time.monotonic() < away_until:
            await load.submit(1)
        await stack.start("redis")
        await load.submit(2)
        await run.client.finals(load.task_ids)
        await drained(stack)
        await all_told(followers, await revisions_of(run, load.task_ids))
        print(f"F89 {summary(followers)}")  # noqa: T201
        assert not any(follower.story.resets for follower in followers)
