"""Replicas die, come back, never come up, or are there twice."""

import os
import time

import httpx
import pytest

from tests.faults.harness.checker import Allowed
from tests.faults.harness.run import Run
from tests.faults.harness.stack import descendants
from tests.support.processes import has_ended
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(180)]

KILLED_SECONDS = 5.0


@pytest.mark.quick
async def test_f10_a_killed_manager_costs_no_execution(run: Run) -> None:
    """Seven of eight workers are busy: what comes later is handed out by the other manager within 2 s."""
    task_ids = await run.start_tasks(7, seconds=4)
    killed = time.monotonic()
    run.stack.kill("management-0")
    [later] = await run.client.submit(run.tasks(1))
    await run.client.finals([*task_ids, later])
    [started] = [line.at for line in run.effects.lines() if line.task_id == later and line.event == "start"]
    run.recovered("F10", started - killed, within=2)
    await run.settle()


async def test_f34_tasks_of_a_killed_executor_run_elsewhere_within_5_s(run: Run) -> None:
    """With tasks that block and six on an event loop; the other replica has room for all of them beside its own."""
    await run.start_async_on("execution-0", seconds=12, at_least=6)
    blocking = await run.client.submit(run.tasks(4, seconds=6))
    await wait_until(lambda: run.effects.starts().keys() >= set(blocking))
    lost = await run.running_on("execution-0")
    below = descendants([run.stack["execution-0"].pid])
    assert len(lost) >= 8
    assert lost.intersection(blocking)
    assert len(below) >= run.stack.sizes.workers + 1
    killed = time.monotonic()
    run.stack.kill("execution-0")
    await wait_until(lambda: all(has_ended(pid) for pid in below))
    gone = time.monotonic() - killed
    await wait_until(lambda: len(run.seconds_to_rerun(killed)) == len(lost), timeout=20)
    reruns = run.seconds_to_rerun(killed)
    print(f"F34 processes_gone_s={gone:.2f}")  # noqa: T201
    assert gone < 1
    run.recovered("F34", reruns[-1], within=KILLED_SECONDS)
    await run.settle(Allowed(reruns=len(lost)))


async def test_f35_without_any_replica_tasks_wait_and_spend_no_attempt(run: Run) -> None:
    """Away for three times as long as a silent session lives."""
    executors = run.stack.names("execution")
    running = await run.start_tasks(8, seconds=2)
    run.stack.kill(*executors)
    killed = time.monotonic()
    waiting = await run.client.submit(run.tasks(20))

    async def statuses() -> list[tuple[object, ...]]:
        return await run.stack.query(
            "SELECT status::text, attempt, replica_losses, count(*) FROM tasks GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"
        )

    async def all_wait() -> bool:
        return {status for status, *_ in await statuses()} == {"queued"}

    await wait_until(all_wait, timeout=10)
    before = await statuses()
    while time.monotonic() - killed < 12:  # the outage itself
        assert await statuses() == before
        async with httpx.AsyncClient() as http:
            answer = await http.get(f"{run.stack.gateway_url()}/api/tasks/{waiting[0]}", timeout=5)
        assert answer.json()["status"] == "queued"
    back = time.monotonic()
    await run.stack.start(*executors)
    await wait_until(lambda: len(run.effects.starts()) == len(running) + len(waiting), timeout=20)
    print(f"F35 recovery_s={time.monotonic() - back:.2f}")  # noqa: T201
    verdict = await run.settle(Allowed(reruns=len(running)))
    assert verdict.reruns == len(running)
    # Each was claimed once for each of its starts, or handed back unstarted where there was no room; none was spent.
    handed_back = "(SELECT count(*) FROM ended_attempts a WHERE a.task_id = t.task_id AND a.outcome = 'handed_back')"
    assert not await run.stack.query(
        f"SELECT task_id FROM tasks t WHERE attempt > starts + replica_losses + {handed_back} OR failures > 0"
    )


async def test_f36_a_replica_that_dies_with_its_first_task_again_and_again_is_not_flooded(run: Run) -> None:
    """Six rounds instead of twenty: each is a whole start, a whole death, and a whole session to be ended."""
    stack = run.stack
    rounds, batch = 6, 40
    for _ in range(rounds):
        stack.arm("replica.before_start", "kill execution-0")
        await run.submit_until_fired("replica.before_start", batch, seconds=0.1)
        await wait_until(lambda: not stack["execution-0"].running)
        await stack.start("execution-0")
    await run.client.finals(run.ledger.acked)
    rows = await stack.query(
        "SELECT count(*)::int FROM ended_attempts WHERE outcome NOT IN ('completed', 'handed_back') GROUP BY session_id"
    )
    lost = [int(str(count)) for (count,) in rows]
    print(f"F36 deaths={rounds} lost_with_each={lost}")  # noqa: T201
    # No more than it had workers for, and as many again that it had asked for ahead.
    assert len(lost) == rounds
    assert max(lost) <= 2 * stack.sizes.workers
    # Most were run by the other replica meanwhile; none of them was charged, or lost so often that it failed.
    await run.settle(Allowed(reruns=sum(lost)))


async def test_f37_a_replica_that_comes_back_under_its_name_owns_nothing_of_before(run: Run) -> None:
    await run.start_tasks(8, seconds=3)
    lost = await run.running_on("execution-0")
    before = await _sessions(run, "execution-0")
    assert len(lost) == 4
    killed = time.monotonic()
    await run.stack.restart("execution-0")
    await wait_until(lambda: len(run.seconds_to_rerun(killed)) == len(lost), timeout=20)
    reruns = run.seconds_to_rerun(killed)
    run.recovered("F37", reruns[-1], within=KILLED_SECONDS)
    # Its tasks may be run elsewhere before it has opened its new session.
    await wait_until(lambda: _sessions(run, "execution-0"))
    after = await _sessions(run, "execution-0")
    assert len(before) == len(after) == 1
    assert before != after
    await run.settle(Allowed(reruns=len(lost)))
    rows = await run.stack.query("SELECT task_id, attempt, session_id FROM tasks WHERE attempt > 1")
    assert {task_id for task_id, *_ in rows} == lost
    assert {(attempt, session in before) for _, attempt, session in rows} == {(2, False)}


async def test_f38_a_second_replica_of_a_name_refuses_to_start_while_the_first_serves(run: Run) -> None:
    task_ids = await run.start_tasks(8, seconds=5)
    sessions = await _sessions(run, "execution-0")
    second = run.stack.spawn_second("execution-0")
    code = await second.wait_ended()
    assert code == os.EX_CONFIG
    assert "HEADRACE_REPLICA" in second.tail()
    assert await _sessions(run, "execution-0") == sessions
    await run.client.finals(task_ids)
    await run.settle()


async def _sessions(run: Run, replica: str) -> set[object]:
    """The live sessions of a replica."""
    rows = await run.stack.query(f"SELECT session_id FROM executors WHERE replica = '{replica}' AND ended_at IS NULL")
    return {session_id for (session_id,) in rows}
