"""The ways between managers and a replica carry nothing, one direction only, or what nobody reads."""

import time

import pytest

from tests.faults.harness.checker import Allowed
from tests.faults.harness.proxy import Connection
from tests.faults.harness.run import Run
from tests.faults.harness.stack import Stack
from tests.support.processes import local_ports
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(180)]

# A stream is given up after 2.5 s of silence; the replica looks every 0.25 s.
NOTICED_SECONDS = 3.0


async def test_f15_tasks_of_a_replica_that_is_cut_off_run_elsewhere_within_8_s(run: Run) -> None:
    stack = run.stack
    await run.start_tasks(4, seconds=9)
    victim, lost = await run.busiest()
    cut = time.monotonic()
    stack.link_to(victim).blackhole()
    await wait_until(lambda: len(run.seconds_to_rerun(cut)) == len(lost), timeout=20)
    reruns = run.seconds_to_rerun(cut)
    run.recovered("F15", reruns[-1], within=8)
    # The handlers that were cut off end, and their results are stored, before the replica hears of its end.
    await wait_until(lambda: {(task_id, 1) for task_id in lost} <= _ended(run), timeout=20)

    async def late_results() -> int:
        sql = f"SELECT count(*) FROM results WHERE attempt = 1 AND task_id IN ({', '.join(map(str, lost))})"
        return int(str((await stack.query(sql, results=True))[0][0]))

    async def all_late_results() -> bool:
        return await late_results() == len(lost)

    await wait_until(all_late_results)
    stack.link_to(victim).heal()
    for task in await run.client.finals(lost):
        assert (task["status"], task["attempt"]) == ("completed", 2)
    await run.settle(Allowed(reruns=len(lost)))
    rows = await stack.query("SELECT task_id, result_attempt FROM tasks")
    assert {task_id for task_id, attempt in rows if attempt == 2} == set(lost)


@pytest.mark.parametrize("direction", ["to_replica", "from_replica"])
async def test_f16_the_deaf_side_of_a_connection_gives_it_up(run: Run, direction: str) -> None:
    """What a manager has dialled passes one direction only; the other manager, and what it dials later, are whole."""
    stack = run.stack
    running = await run.start_tasks(4, seconds=5)
    sessions = await stack.live_sessions()
    connections = _connections_of(stack, "management-0", "execution-0")
    deaf, words = (
        ("execution-0", ("manager_detached", '"reason": "silent"'))
        if direction == "to_replica"
        else ("management-0", ("link_lost", '"reason": "silent"'))
    )
    known = _count(stack, deaf, words)
    cut = time.monotonic()
    for connection in connections:
        connection.faults.blackhole_up = direction == "to_replica"
        connection.faults.blackhole_down = direction == "from_replica"
    during = await run.client.submit(run.tasks(6))
    await wait_until(lambda: _count(stack, deaf, words) > known)
    noticed = time.monotonic() - cut
    after = await run.client.submit(run.tasks(6))
    await run.client.finals([*after, *running, *during])
    print(f"F16 {direction} noticed_s={noticed:.1f} recovery_s={time.monotonic() - cut:.1f}")  # noqa: T201
    assert noticed < NOTICED_SECONDS
    assert await stack.live_sessions() == sessions
    await run.settle()


async def test_f17_a_replica_that_reads_nothing_is_ended_though_its_heart_beats(run: Run) -> None:
    """All its readers hang: it gives each stream up as silent, and beats on those that are dialled anew."""
    stack = run.stack
    await run.start_tasks(4, seconds=13)
    sessions = await stack.live_sessions()
    victim, lost = await run.busiest()
    known = _count(stack, victim, ("manager_attached",))
    stack.arm("replica.before_read", "hold_all", replica=victim)
    await stack.fired("replica.before_read")
    deaf = time.monotonic()

    async def is_ended() -> bool:
        return sessions[victim] not in (await stack.live_sessions()).values()

    await wait_until(is_ended, timeout=20)
    ended = time.monotonic() - deaf
    # It was heard all the time: by new streams too.
    assert _count(stack, victim, ("manager_attached",)) > known
    await wait_until(lambda: len(run.seconds_to_rerun(deaf)) == len(lost), timeout=20)
    print(f"F17 session_ended_s={ended:.1f} recovery_s={run.seconds_to_rerun(deaf)[-1]:.1f}")  # noqa: T201
    # 4 s until its heartbeats count for nothing, and 4 s of silence.
    assert 4 < ended < 10
    stack.disarm()
    await run.settle(Allowed(reruns=len(lost)))


def _connections_of(stack: Stack, manager: str, replica: str) -> list[Connection]:
    """The connections that a manager has dialled to a replica: that of its stream, and one for other calls."""
    link = stack.link_to(replica)
    found = [connection for port in local_ports(stack[manager].pid) if (connection := link.connection(port))]
    assert found, f"{manager} has no connection to {replica}"
    return found


def _ended(run: Run) -> set[tuple[int, int]]:
    return {(line.task_id, line.attempt) for line in run.effects.lines() if line.event == "end"}


def _count(stack: Stack, name: str, words: tuple[str, ...]) -> int:
    """Lines of a log that have all the words."""
    return sum(all(word in line for word in words) for line in stack.log_lines(name))
