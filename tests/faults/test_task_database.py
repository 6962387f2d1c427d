"""The task database dies, falls silent, is cut off, is crowded, cannot clean up, and is put back in time."""

import asyncio
import contextlib
import itertools
import shutil
import statistics
import subprocess
import time
from collections.abc import AsyncIterator

import psycopg
import pytest

from management_service.storage.tasks import QUERIES
from servicekit.pg_arrays import int8_array
from tests.faults.harness.checker import Allowed
from tests.faults.harness.client import Client
from tests.faults.harness.ledger import Ledger
from tests.faults.harness.run import Run
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(180)]

RECOVERY_SECONDS = 5.0


async def test_f33_one_lost_task_among_four_thousand_is_found_in_two_scans(run: Run) -> None:
    """Its row is the last one of all, far beyond what one statement rescues."""
    stack = run.stack
    [(live,)] = await stack.query("SELECT min(session_id) FROM executors WHERE ended_at IS NULL")
    base, count = 7_000_000_000_000, 4_000
    await stack.query(
        "INSERT INTO tasks (task_id, type, pool, status, priority, attempt, max_attempts, timeout_ms, session_id,"
        " run_at, claimed_at, data)"
        f" SELECT id, 'noop', 'cpu', 'processing', 4, 1, 3, 30000, {live}, now(), now(), '{{}}'"
        f" FROM generate_series({base}::bigint, {base + count}::bigint) AS id"
    )
    run.promise(range(base, base + count + 1))
    dead = 5
    await stack.query(
        "INSERT INTO executors (session_id, replica, address, types, ended_at)"
        f" VALUES ({dead}, 'dead', '', '{{}}', now());"
        f" UPDATE tasks SET session_id = {dead} WHERE task_id = {base + count}"
    )
    lost = time.monotonic()

    async def rescued() -> bool:
        sql = f"SELECT 1 FROM tasks WHERE task_id = {base + count} AND replica_losses = 1"
        return bool(await stack.query(sql))

    await wait_until(rescued)
    found = time.monotonic() - lost
    print(f"F33 found_s={found:.2f}")  # noqa: T201
    assert found < 2 * 0.5 + 0.5
    # The rest was on no replica either: asked, refused, and run.
    await run.settle()
    [(losses,)] = await stack.query("SELECT count(*) FROM tasks WHERE replica_losses > 0")
    assert losses == 1


async def test_f40_a_task_ten_times_as_long_as_a_silent_session_lives_runs_once(run: Run) -> None:
    task_ids = await run.client.submit(run.tasks(1, seconds=41) + run.async_tasks(1, seconds=41))
    await run.client.finals(task_ids)
    ends = [line for line in run.effects.lines() if line.event == "end"]
    assert {(line.task_id, line.attempt) for line in ends} == {(task_id, 1) for task_id in task_ids}
    await run.settle()


async def test_f41_a_killed_task_database_costs_no_execution_and_no_submission(run: Run) -> None:
    stack = run.stack
    task_ids = await run.start_tasks(8, seconds=3)
    await stack.crash("postgres")
    entries = [await run.client.try_submit(run.tasks(2)) for _ in range(5)]
    assert {(entry.outcome, entry.durability) for entry in entries} == {("acked", "redis-aof")}
    # Until every task that ran has ended: its result is stored and its report waits.
    await wait_until(lambda: sum(line.event == "end" for line in run.effects.lines()) == 8, timeout=20)
    await stack.start("postgres")
    back = time.monotonic()
    await wait_until(lambda: len(run.effects.starts()) == 18, timeout=30)
    recovery = time.monotonic() - back
    run.recovered("F41", recovery, within=RECOVERY_SECONDS)
    await run.client.finals(task_ids)
    await run.settle()


async def test_f42_a_frozen_task_database_costs_no_execution(run: Run) -> None:
    """No error, only silence, for longer than a statement may take and than a silent session lives."""
    stack = run.stack
    await run.start_tasks(8, seconds=3)
    stack.freeze("postgres")
    frozen = time.monotonic()
    try:
        entry = await run.client.try_submit(run.tasks(2))
        assert (entry.outcome, entry.durability) == ("acked", "redis-aof")
        await wait_until(lambda: sum(line.event == "end" for line in run.effects.lines()) == 8, timeout=20)
        await asyncio.sleep(max(0.0, frozen + 7 - time.monotonic()))  # the outage itself
        assert len(run.effects.starts()) == 8
    finally:
        stack.thaw("postgres")
    thawed = time.monotonic()
    await wait_until(lambda: len(run.effects.starts()) == 10, timeout=30)
    recovery = time.monotonic() - thawed
    run.recovered("F42", recovery, within=RECOVERY_SECONDS)
    await run.settle()
    assert not run.logged("management", "session_ended")


async def test_f43_a_manager_cut_off_from_the_database_steps_back_and_the_other_goes_on(run: Run) -> None:
    """There are slots for all tasks, so that none waits for another."""
    stack = run.stack
    task_ids = await run.start_tasks(4, seconds=8)
    link = stack.link("management-0", "postgres")
    link.blackhole()
    async with run.outage("management-0"):
        await wait_until(lambda: _is_not_ready(run), timeout=15)
        began = time.monotonic()
        later = await run.client.submit(run.tasks(4))
        await wait_until(lambda: len(run.effects.starts()) == 8, timeout=20)
        other = time.monotonic() - began
        await run.client.finals(task_ids + later)
        link.heal()
    assert other < 2
    print(f"F43 other_started_s={other:.2f}")  # noqa: T201
    await run.settle()
    assert not run.logged("management", "session_ended")


async def _is_not_ready(run: Run) -> bool:
    return not await run.stack.serves("management-0")


async def test_f44_claims_stay_quick_while_a_transaction_is_held_open(run: Run) -> None:
    """Two hundred tasks a second for twenty seconds instead of minutes; none of their dead rows can be removed."""
    stack = run.stack
    async with _open_transaction(stack.task_dsn):
        stop = asyncio.Event()
        loads = [asyncio.create_task(run.client.load(lambda: _noops(20), stop=stop, pause=0.2)) for _ in range(2)]
        began = time.monotonic()
        while time.monotonic() - began < 20:
            assert all(not load.done() for load in loads)
            await asyncio.sleep(0.5)
        stop.set()
        await asyncio.gather(*loads)
        await run.client.finals(run.ledger.acked[-5:])
        await wait_until(lambda: _none_unfinished(run), timeout=60)
        count = len(run.ledger.acked)
        seconds = await _time_claims(stack.task_dsn, times=100)
        await stack.query("ANALYZE tasks")
        [(dead,)] = await stack.query("SELECT n_dead_tup FROM pg_stat_user_tables WHERE relname = 'tasks'")
    late = sorted(seconds)[int(0.99 * len(seconds))]
    middle = statistics.median(seconds)
    print(f"F44 tasks={count} dead_rows={dead} claim_s={middle:.4f} claim_s_p99={late:.4f}")  # noqa: T201
    assert int(str(dead)) > 2_000
    assert late < 0.05
    await run.settle()


@contextlib.asynccontextmanager
async def _open_transaction(dsn: str) -> AsyncIterator[None]:
    """A transaction that keeps the versions of all rows alive that were there at its begin."""
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        await connection.set_isolation_level(psycopg.IsolationLevel.REPEATABLE_READ)
        await connection.execute("SELECT pg_current_xact_id(), count(*) FROM tasks")
        yield
        await connection.rollback()


async def _time_claims(dsn: str, *, times: int) -> list[float]:
    """How long claims take that are rolled back."""
    seconds = []
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        await connection.execute("SET plan_cache_mode = force_generic_plan")
        cursor = await connection.execute("SELECT min(session_id) FROM executors WHERE ended_at IS NULL")
        [(session,)] = await cursor.fetchall()
        slots = int8_array([session] * 8)
        params = {"pool": "cpu", "types": ["noop"], "slots": slots, "bytes_max": 4 * 1024 * 1024}
        for _ in range(times):
            async with connection.transaction(force_rollback=True):
                began = time.monotonic()
                await connection.execute(QUERIES["claim_tasks"], params, binary=True)
                seconds.append(time.monotonic() - began)
    return seconds


async def _none_unfinished(run: Run) -> bool:
    [(count,)] = await run.stack.query("SELECT count(*) FROM tasks WHERE finished_at IS NULL")
    return count == 0


def _noops(count: int) -> list[dict[str, object]]:
    return [{"type": "noop", "data": {}}] * count


async def test_f45_a_manager_frozen_with_rows_locked_holds_up_nobody_for_long(run: Run) -> None:
    """A claim is one statement, so no manager can freeze within it; the end of a failed attempt is two."""
    stack = run.stack
    stack.arm("reports.rows_locked", "stop")
    [failing] = await run.client.submit([{"type": "fail", "data": {"times": 1}}])
    await stack.fired("reports.rows_locked")
    frozen = time.monotonic()
    task_ids = await run.client.submit(run.tasks(20))
    await wait_until(lambda: len(run.effects.starts()) == 20, timeout=20)
    others = time.monotonic() - frozen
    # The server ends the transaction, and the report goes to the other manager.
    await run.client.finals([failing, *task_ids])
    own = time.monotonic() - frozen
    print(f"F45 others_started_s={others:.2f} locked_task_ended_s={own:.2f}")  # noqa: T201
    assert others < 5
    await run.settle(Allowed(charged=1))


async def test_f46_used_up_connections_cost_no_execution_and_no_process(run: Run) -> None:
    """Others hold every connection; the managers have lost theirs and get no new ones."""
    stack = run.stack
    managers = {name: stack[name].pid for name in stack.names("management")}
    await run.start_tasks(8, seconds=5)
    async with _all_connections(stack.task_dsn):
        entry = await run.client.try_submit(run.tasks(2))
        assert (entry.outcome, entry.durability) == ("acked", "redis-aof")
        keyed = await run.client.try_submit(run.tasks(1), key="f46")
        assert keyed.status == 503
        await wait_until(lambda: sum(line.event == "end" for line in run.effects.lines()) == 8, timeout=20)
        assert len(run.effects.starts()) == 8
    back = time.monotonic()
    await run.client.submit(run.tasks(1), key="f46")
    await wait_until(lambda: len(run.effects.starts()) == 11, timeout=30)
    recovery = time.monotonic() - back
    run.recovered("F46", recovery, within=RECOVERY_SECONDS)
    assert managers == {name: stack[name].pid for name in managers}
    await run.settle()
    assert not run.logged("management", "session_ended")


@contextlib.asynccontextmanager
async def _all_connections(dsn: str) -> AsyncIterator[None]:
    """Hold every connection that the server has to give, those of all others included."""
    async with contextlib.AsyncExitStack() as held:

        async def connect() -> psycopg.AsyncConnection | None:
            try:
                connection = await psycopg.AsyncConnection.connect(dsn, autocommit=True, application_name="crowd")
            except psycopg.OperationalError:
                return None
            await held.enter_async_context(connection)
            return connection

        first = await connect()
        assert first is not None
        for _ in range(200):
            while await connect() is not None:
                pass
            cursor = await first.execute(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
                " WHERE backend_type = 'client backend' AND application_name <> 'crowd'"
            )
            [(others,)] = await cursor.fetchall()
            if others == 0:
                yield
                return
        raise AssertionError("others still have connections")


async def test_f47_after_a_restore_no_id_is_given_twice_and_results_without_a_task_wait_for_their_age(
    run: Run,
) -> None:
    """What was accepted after the backup is gone, as an operator knows; its clients keep a ledger of their own."""
    stack = run.stack
    kept = await run.client.submit(run.tasks(3))
    await run.client.finals(kept)
    data = stack.folder / "postgres" / "data"
    backup = stack.folder / "backup"
    await stack.stop("postgres")
    await asyncio.to_thread(subprocess.run, ["cp", "-a", str(data), str(backup)], check=True)
    await stack.start("postgres")
    # A new block of ids each for the gateways, and results, of which the backup knows nothing.
    await stack.restart(*stack.names("gateway"))
    urls = [stack.gateway_url(number) for number in range(stack.sizes.gateways)]
    async with Client(urls, Ledger(stack.folder / "forgotten.jsonl")) as client:
        forgotten = await client.submit(run.tasks(4))
        await client.finals(forgotten)
    assert min(forgotten) - max(kept) > 100_000
    await stack.stop("postgres")
    await asyncio.to_thread(shutil.rmtree, data)
    backup.rename(data)
    restored = time.monotonic()
    await stack.start("postgres")
    await stack.restart(*stack.names("gateway"))
    new = list(itertools.chain(*[await run.client.submit(run.tasks(2)) for _ in range(4)]))
    await run.client.finals(new)
    print(f"F47 recovery_s={time.monotonic() - restored:.2f}")  # noqa: T201
    assert min(new) > max(forgotten)
    assert not set(new) & {*kept, *forgotten}
    await run.settle()
    ids = ", ".join(map(str, forgotten))
    left = await stack.query(f"SELECT task_id FROM results WHERE task_id IN ({ids})", results=True)
    assert len(left) == len(forgotten)
    # Their age removes them: replicas sweep as they start.
    await stack.query(
        f"UPDATE results SET stored_at = now() - interval '9 days' WHERE task_id IN ({ids})", results=True
    )
    await stack.restart("execution-0")

    async def swept() -> bool:
        return not await stack.query(f"SELECT 1 FROM results WHERE task_id IN ({ids})", results=True)

    await wait_until(swept, timeout=15)
    rest = await stack.query("SELECT count(*) FROM results", results=True)
    assert rest == [(len(kept) + len(new),)]
    await run.repair()
