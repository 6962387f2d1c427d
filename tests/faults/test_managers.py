"""All managers are away, one is frozen, one is killed together with a replica.

The outages are shorter than those that operators know, and longer than every timeout that counts: streams are given up
after 2.5 s, sessions after 4 s, held rows after 5 s.
"""

import asyncio
import time

import pytest

from tests.faults.harness.checker import Allowed
from tests.faults.harness.run import Run
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(180)]

AWAY_SECONDS = 8.0


async def test_f11_what_runs_goes_on_while_all_managers_are_away(run: Run) -> None:
    stack = run.stack
    ending = await run.start_tasks(4, seconds=3)
    outlasting = await run.client.submit(run.tasks(4, seconds=12))
    await run.started(8)
    sessions = await stack.live_sessions()
    killed = time.monotonic()
    stack.kill(*stack.names("management"))
    accepted = await run.client.submit(run.tasks(3))

    async def stored() -> set[int]:
        return {int(str(row[0])) for row in await stack.query("SELECT task_id FROM results", results=True)}

    async def all_stored() -> bool:
        return set(ending) <= await stored()

    await wait_until(all_stored, timeout=AWAY_SECONDS)
    assert not any(stack[name].running for name in stack.names("management"))
    await asyncio.sleep(max(0.0, killed + AWAY_SECONDS - time.monotonic()))  # the fault itself
    assert not set(accepted) & run.effects.starts().keys()
    await stack.start(*stack.names("management"))
    back = time.monotonic()
    await run.client.finals([*ending, *accepted])
    recovered = time.monotonic() - back
    print(f"F11 recovery_s={recovered:.1f}")  # noqa: T201
    await run.client.finals(outlasting)
    assert await stack.live_sessions() == sessions
    await run.settle()


async def test_f12_a_thawed_manager_ends_no_session_and_overwrites_nothing(run: Run) -> None:
    stack = run.stack
    running = await run.start_tasks(4, seconds=3)
    run.recorder.follow(*running)
    sessions = await stack.live_sessions()
    frozen = time.monotonic()
    stack.freeze("management-0")
    later: list[int] = []
    while not set(later) & run.effects.starts().keys():
        later += await run.client.submit(run.tasks(1))
        assert time.monotonic() - frozen < 10
        await asyncio.sleep(0.1)
    handed_out = time.monotonic() - frozen
    tasks = await run.client.finals(running)
    await asyncio.sleep(max(0.0, frozen + AWAY_SECONDS - time.monotonic()))  # the fault itself
    # What its sockets hold is by now told to the other manager, and that has answered.
    stack.thaw("management-0")

    async def scans_again() -> bool:
        sql = "SELECT count(*) FROM managers WHERE replica = 'management-0' AND scanned_at > now() - interval '1 s'"
        return (await stack.query(sql))[0][0] == 1

    await wait_until(scans_again, timeout=10)
    # Its first count of silence could have come to an end now.
    more = await run.client.submit(run.tasks(2, seconds=5))
    await run.client.finals([*later, *more])
    print(f"F12 handed_out_again_s={handed_out:.1f}")  # noqa: T201
    assert handed_out < 2
    assert await stack.live_sessions() == sessions
    again = await run.client.finals(running)
    assert [(task["status"], task["revision"]) for task in again] == [
        (task["status"], task["revision"]) for task in tasks
    ]
    await run.settle()


async def test_f14_the_other_manager_ends_the_session_of_a_replica_killed_with_a_manager(run: Run) -> None:
    stack = run.stack
    await run.start_tasks(4, seconds=8)
    sessions = await stack.live_sessions()
    victim, lost = await run.busiest()
    killed = time.monotonic()
    stack.kill("management-0", victim)
    await wait_until(lambda: len(run.seconds_to_rerun(killed)) == len(lost), timeout=20)
    reruns = run.seconds_to_rerun(killed)
    run.recovered("F14", reruns[-1], within=5)
    assert any("session_ended" in line and str(sessions[victim]) in line for line in stack.log_lines("management-1"))
    await run.settle(Allowed(reruns=len(lost)))
