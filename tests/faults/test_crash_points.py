"""Crash points C1 to C18, each with a process that is killed, that freezes for a while, and that meets an error.

A case arms one failpoint, gives the cluster work that passes it, waits until it has fired, and holds the run to the
invariants. What each case may cost is in the table. Frozen processes go on after FROZEN_SECONDS: longer than the
silence after which streams are ended (2.5 s) and sessions too (4 s).
"""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import pytest
from redis.asyncio import Redis

from servicekit.redis_keys import SUBMISSIONS, SUBMISSIONS_GROUP
from tests.faults.harness.checker import Allowed
from tests.faults.harness.run import Run
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(180)]

FROZEN_SECONDS = 6.0
KINDS = ("kill", "stop", "raise")

Work = Callable[[Run], Coroutine[Any, Any, None]]


@dataclass(frozen=True, slots=True)
class Point:
    """`roles`: whose process passes the point. `reruns`: attempts that a kill, and a freeze, may run again."""

    failpoint: str
    work: Work
    roles: tuple[str, ...] = ("management",)
    reruns_killed: int = 0
    reruns_frozen: int = 0
    # The work passes the point whoever does it, so once is enough.
    once: bool = False


async def _submit(run: Run) -> None:
    await run.client.try_submit(run.tasks(3))


async def _submit_without_redis(run: Run) -> None:
    """Over gRPC: the gateways cannot reach Redis."""
    for number in range(run.stack.sizes.gateways):
        link = run.stack.link(f"gateway-{number}", "redis")
        link.faults.refuse = True
        link.reset()
    await run.client.try_submit(run.tasks(3))


async def _submit_many_that_wait(run: Run) -> None:
    """More than are handed over directly: the rest is claimed."""
    await run.client.try_submit(run.tasks(40, seconds=0.1))


async def _fail_once(run: Run) -> None:
    await run.client.try_submit([{"type": "fail", "data": {"times": 1}, "backoff": FAST}])


async def _cancel_a_running_one(run: Run) -> None:
    [task_id] = await run.start_tasks(1, seconds=3)
    # The answer may be lost with the process that gives it.
    await asyncio.gather(run.client.delete(task_id), return_exceptions=True)


async def _lose_a_replica(run: Run) -> None:
    await run.start_tasks(4, seconds=3)
    run.stack.kill("execution-0")


FAST = {"initial": 0.05, "maximum": 0.1}
# Up to this many attempts run in one executor at a time, or wait in it.
HELD = 12

POINTS = {
    "C01": Point("gateway.before_append", _submit, roles=("gateway",)),
    "C02": Point("gateway.after_append", _submit, roles=("gateway",)),
    "C03": Point("gateway.after_store", _submit_without_redis, roles=("gateway",)),
    "C04": Point("intake.before_store", _submit),
    "C06": Point("intake.after_store", _submit),
    # Acknowledging and deleting are one transaction.
    "C07": Point("intake.after_let_go", _submit),
    "C08": Point("dispatch.after_claim", _submit_many_that_wait),
    "C08 handed over": Point("dispatch.after_insert", _submit),
    "C09": Point("links.after_write", _submit_many_that_wait),
    "C10": Point("replica.before_start", _submit, ("execution",), HELD, HELD),
    "C12": Point("results.before_insert", _submit, ("execution",), HELD, HELD),
    # A replica that gets attempt 2 finds the stored result: nothing that left one is run again. What else the dead
    # replica held may be.
    "C13": Point("results.after_insert", _submit, ("execution",), HELD, HELD),
    "C14": Point("reports.before_commit", _submit),
    "C15": Point("reports.after_commit", _submit),
    "C16": Point("leases.after_end", _lose_a_replica, ("management",), HELD, HELD, once=True),
    "C17": Point("scheduler.after_promote", _fail_once),
    "C18": Point("lifecycle.after_cancel", _cancel_a_running_one, once=True),
}
QUICK = {"C02-kill", "C06-kill", "C08-kill", "C13-kill", "C14-raise", "C15-kill"}
CASES = [
    pytest.param(point, kind, id=case, marks=[pytest.mark.quick] if case in QUICK else [])
    for name, point in POINTS.items()
    for kind in KINDS
    for case in [f"{name[:3]}-{kind}{name[3:]}"]
]


async def _work_until_fired(run: Run, point: Point) -> None:
    """Which way a task takes depends on where demand happens to be: work until one has passed the point."""
    await point.work(run)
    while not point.once and not run.stack.has_fired(point.failpoint):
        await asyncio.sleep(0.2)
        await point.work(run)


@pytest.mark.parametrize(("point", "kind"), CASES)
async def test_crash_point(run: Run, point: Point, kind: str) -> None:
    stack = run.stack
    stack.arm(point.failpoint, kind)
    working = asyncio.create_task(_work_until_fired(run, point))
    await stack.fired(point.failpoint)
    if kind == "kill":
        await wait_until(lambda: any(not stack[name].running for role in point.roles for name in stack.names(role)))
    elif kind == "stop":
        await asyncio.sleep(FROZEN_SECONDS)  # the fault itself: so long is the process away
        stack.thaw(*stack.processes)
    await working
    # Work goes on at once, whatever state the process was in.
    stack.heal()
    later = await run.client.submit(run.tasks(2))
    await run.client.finals(later)
    reruns = {"kill": point.reruns_killed, "stop": point.reruns_frozen, "raise": 0}[kind]
    # A manager may have died with the executor that it was to replace.
    reruns = max(reruns, HELD if point.failpoint == "leases.after_end" else 0)
    await run.settle(Allowed(reruns=reruns, charged=20, statuses=("completed", "cancelled")))


@pytest.mark.parametrize("kind", KINDS, ids=[f"C05-{kind}" for kind in KINDS])
async def test_in_the_transaction_of_the_insert(run: Run, kind: str) -> None:
    """While PostgreSQL holds up their INSERT, managers are killed, freeze, or are cut off: it is done or it is not."""
    stack = run.stack
    lock = asyncio.create_task(stack.query("BEGIN; LOCK TABLE tasks IN EXCLUSIVE MODE; SELECT pg_sleep(2); COMMIT"))
    await _until_locked(run)
    await run.client.submit(run.tasks(3))

    async def insert_waits() -> bool:
        rows = await stack.query("SELECT 1 FROM pg_locks WHERE relation = 'tasks'::regclass AND NOT granted")
        return bool(rows)

    await wait_until(insert_waits)
    managers = stack.names("management")
    if kind == "kill":
        stack.kill(*managers)
    elif kind == "stop":
        stack.freeze(*managers)
        await asyncio.sleep(FROZEN_SECONDS)
    else:
        await stack.query(
            "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE relation = 'tasks'::regclass AND NOT granted"
        )
    await lock
    await run.settle()


async def _until_locked(run: Run) -> None:
    async def locked() -> bool:
        sql = "SELECT 1 FROM pg_locks WHERE relation = 'tasks'::regclass AND mode = 'ExclusiveLock' AND granted"
        return bool(await run.stack.query(sql))

    await wait_until(locked)


async def test_what_is_acknowledged_and_not_deleted_is_stored(run: Run) -> None:
    """Acknowledging and deleting are one transaction of ours (C07); here somebody else has torn them apart."""
    stack = run.stack
    managers = stack.names("management")
    stack.freeze(*managers)
    await run.client.submit(run.tasks(3))
    async with Redis.from_url(stack.redis_url) as redis:
        reply: Any = await redis.xreadgroup(SUBMISSIONS_GROUP, "gone", {SUBMISSIONS: ">"})
        [[_, entries]] = reply
        await redis.xack(SUBMISSIONS, SUBMISSIONS_GROUP, *(entry_id for entry_id, _ in entries))
        assert await redis.xlen(SUBMISSIONS) == len(entries)
    stack.thaw(*managers)
    await run.settle()


@pytest.mark.parametrize("kind", KINDS, ids=[f"C11-{kind}" for kind in KINDS])
async def test_in_the_middle_of_a_task(run: Run, kind: str) -> None:
    if kind == "raise":
        await run.client.submit([{"type": "fail", "data": {"times": 1}, "backoff": FAST}] * 4)
        await run.settle(Allowed(charged=4))
        return
    await run.start_tasks(4, seconds=8)
    if kind == "kill":
        run.stack.kill("execution-0")
    else:
        run.stack.freeze("execution-0")
        await asyncio.sleep(FROZEN_SECONDS)
    await wait_until(lambda: any(line.attempt > 1 for line in run.effects.lines()), timeout=20)
    await run.settle(Allowed(reruns=4))
