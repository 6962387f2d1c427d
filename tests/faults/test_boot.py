"""Processes are asked to stop, and started in every order: nothing is lost, and each waits for what it needs (P16)."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import psycopg
import pytest
import pytest_asyncio

from tests.faults.harness.checker import Allowed
from tests.faults.harness.run import Run
from tests.faults.harness.stack import Sizes, Stack
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(240)]

# What the services of the stack are given, and what an exit may take beyond it.
GRACE_SECONDS, BEYOND_SECONDS = 5, 5
SIGNALS = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
@pytest.mark.parametrize("role", ["gateway", "management", "execution"])
async def test_f70_who_is_asked_to_stop_finishes_what_it_holds(run: Run, role: str, number: signal.Signals) -> None:
    stack, name = run.stack, f"{role}-0"
    task_ids = await run.start_tasks(6, seconds=2)
    run.recorder.follow(*task_ids)
    await wait_until(lambda: {event.task_id for event in run.recorder.events} == set(task_ids))
    waiting = await run.client.submit(run.tasks(40, seconds=0.1))
    stack[name].send(number)
    began = time.monotonic()
    assert await stack[name].wait_ended(GRACE_SECONDS + BEYOND_SECONDS) == 0
    print(f"F70 {role} {number.name} ended_after_s={time.monotonic() - began:.1f}")  # noqa: T201
    if role == "gateway":
        assert run.recorder.close_codes.count(1012) == len(task_ids)
    await run.settle(finals=[*task_ids, *waiting])


async def test_f70_what_does_not_end_within_the_grace_time_is_handed_back_and_charged_nothing(run: Run) -> None:
    stack = run.stack
    task_ids = await run.start_tasks(6, seconds=GRACE_SECONDS + 4)
    stack["execution-0"].send(signal.SIGTERM)
    assert await stack["execution-0"].wait_ended(GRACE_SECONDS + BEYOND_SECONDS) == 0
    await run.client.finals(task_ids)
    [(handed_back, losses)] = await stack.query(
        "SELECT count(*) FILTER (WHERE outcome = 'handed_back'), count(*) FILTER (WHERE outcome = 'replica_lost')"
        " FROM ended_attempts"
    )
    assert int(str(handed_back)) > 0
    assert losses == 0
    await run.settle(Allowed(reruns=int(str(handed_back))))


@pytest.mark.parametrize("role", ["gateway", "management", "execution"])
async def test_f70_a_second_signal_ends_it_at_once(run: Run, role: str) -> None:
    stack, name = run.stack, f"{role}-0"
    task_ids = await run.start_tasks(6, seconds=3)
    # Each holds something; an execution replica alone cannot let go of it at once.
    waits = [asyncio.create_task(run.client.final(task_id)) for task_id in task_ids]
    stack[name].send(signal.SIGTERM)
    await wait_until(lambda: '"stopping"' in stack[name].log_since_start() or not stack[name].running)
    began = time.monotonic()
    if stack[name].running:
        stack[name].send(signal.SIGTERM)
    code = await stack[name].wait_ended()
    assert code == 1 if role == "execution" else code in (0, 1)
    assert time.monotonic() - began < 2
    await asyncio.gather(*waits)
    await run.settle(Allowed(reruns=6))


@pytest.mark.parametrize("after", [0.05, 0.6])
@pytest.mark.parametrize("role", ["gateway", "management", "execution"])
async def test_f70_a_signal_while_it_starts_ends_it(run: Run, role: str, after: float) -> None:
    stack, name = run.stack, f"{role}-0"
    stack.kill(name)
    stack[name].spawn()
    await asyncio.sleep(after)  # any moment of the start will do
    stack[name].send(signal.SIGTERM)
    code = await stack[name].wait_ended(GRACE_SECONDS + BEYOND_SECONDS)
    # Before it has got to its first line, nobody has taken the signal over.
    assert code in (0, -signal.SIGTERM), stack[name].tail()
    await run.settle()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def cold_stack(tmp_path_factory: pytest.TempPathFactory, seed: int) -> AsyncIterator[Stack]:
    """A cluster whose every process is stopped and started, servers included."""
    async with Stack(tmp_path_factory.mktemp("cold"), Sizes(), seed=seed) as stack:
        yield stack


PARTS = (
    ("redis",),
    ("postgres",),
    ("results",),
    ("consul",),
    ("management-0", "management-1"),
    ("execution-0", "execution-1"),
    ("gateway-0",),
)
PAUSE_SECONDS = 1.0


@pytest.mark.parametrize("first", range(len(PARTS)), ids=lambda number: PARTS[number][0])
async def test_f71_whatever_is_started_first_and_last_comes_up(cold_stack: Stack, tmp_path: Path, first: int) -> None:
    async with Run(cold_stack, tmp_path) as run:
        accepted = await run.client.submit(run.tasks(20, seconds=0.2))
        cold_stack.kill(*cold_stack.processes)
        order = PARTS[first:] + PARTS[:first]
        for part in order:
            for name in part:
                cold_stack[name].spawn()
            await asyncio.sleep(PAUSE_SECONDS)  # each has time to find out what is not there
        began = time.monotonic()
        await cold_stack.whole()
        print(f"F71 {order[0][0]} first, {order[-1][0]} last: up_after_s={time.monotonic() - began:.1f}")  # noqa: T201
        names = [name for role in ("gateway", "management", "execution") for name in cold_stack.names(role)]
        assert all(cold_stack[name].running for name in names)
        await run.client.finals(accepted)
        # What ran when everything died may run again.
        await run.settle(Allowed(reruns=20))


MIGRATE = """
import asyncio, sys
from servicekit.migrations import migrate
asyncio.run(migrate(sys.argv[1], "management_service.storage"))
"""
# Slows every statement of a migration down, so that one can be killed in the middle.
SLOW = """
CREATE FUNCTION slow() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.2); END $$;
CREATE EVENT TRIGGER slow ON ddl_command_end EXECUTE FUNCTION slow();
"""
LOOK = """
SELECT table_name, column_name, data_type, is_nullable, column_default FROM information_schema.columns
 WHERE table_schema = 'public' UNION ALL
SELECT tablename, indexname, indexdef, '', '' FROM pg_indexes WHERE schemaname = 'public' UNION ALL
SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid), '', '' FROM pg_constraint
 WHERE connamespace = 'public'::regnamespace
 ORDER BY 1, 2, 3
"""


async def test_f72_a_migration_killed_in_the_middle_is_completed_by_another_manager(run: Run) -> None:
    stack = run.stack
    await stack.query("DROP DATABASE IF EXISTS f72")
    await stack.query("CREATE DATABASE f72")
    dsn = stack.task_dsn.rpartition("/")[0] + "/f72"
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        await connection.execute(SLOW.encode())
        migrating = [_start_migration(dsn) for _ in range(3)]
        try:
            victim = await _holder_of_the_lock(connection, migrating)
            await wait_until(lambda: _has_begun(dsn), timeout=30)
            victim.kill()
            codes = [await asyncio.to_thread(process.wait, 60) for process in migrating]
        finally:
            for process in migrating:
                process.kill()
                process.wait()
        assert sorted(codes) == [-signal.SIGKILL, 0, 0]
        await connection.execute(b"DROP EVENT TRIGGER slow")
        migrated = await (await connection.execute(LOOK.encode())).fetchall()
    assert migrated == await stack.query(LOOK)
    await stack.query("DROP DATABASE f72")
    await run.settle()


def _start_migration(dsn: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", MIGRATE, dsn], env=dict(os.environ))


async def _holder_of_the_lock(
    connection: psycopg.AsyncConnection, processes: list[subprocess.Popen[bytes]]
) -> subprocess.Popen[bytes]:
    """The one of the processes that migrates now."""
    query = (
        b"SELECT a.client_port FROM pg_locks l JOIN pg_stat_activity a USING (pid)"
        b" WHERE l.locktype = 'advisory' AND l.granted AND a.datname = current_database()"
    )
    found: list[subprocess.Popen[bytes]] = []

    async def look() -> bool:
        ports = {row[0] for row in await (await connection.execute(query)).fetchall()}
        for process in processes:
            connections = psutil.Process(process.pid).net_connections()
            if any(each.laddr and each.laddr.port in ports for each in connections):
                found.append(process)
        return bool(found)

    await wait_until(look, timeout=60)
    return found[0]


async def _has_begun(dsn: str) -> bool:
    """A statement of a migration runs."""
    query = b"SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND query LIKE '%CREATE TABLE tasks%'"
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        query += b" AND pid <> pg_backend_pid() AND state <> 'idle'"
        return bool(await (await connection.execute(query)).fetchall())
