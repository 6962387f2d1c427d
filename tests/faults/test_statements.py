"""Statements whose outcome the services do not know, and statements that the database refuses for a while.

In F20 to F25 the statement takes effect and its answer is lost: a lock holds the statement up until its connection is
marked, so the one that is lost is the one that is meant.
"""

import asyncio
import time
from collections import Counter

import psycopg
import pytest

from management_service.storage.executors import QUERIES as EXECUTOR_QUERIES
from management_service.storage.tasks import QUERIES as TASK_QUERIES
from tests.faults.harness.checker import Allowed
from tests.faults.harness.ledger import Entry
from tests.faults.harness.run import Run
from tests.faults.harness.stack import Stack
from tests.faults.harness.statements import holding, lose_answer
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(180)]

NO_WRITES = "LOCK TABLE tasks IN SHARE MODE"
# As they are seen in pg_stat_activity.
INSERT = "%INSERT INTO tasks (%"
CLAIM = "%picked AS MATERIALIZED%numbered AS%"
BEATS = "WITH heard AS%"
COMPLETE = "WITH reported AS%"
END_SESSION = "UPDATE executors SET ended_at = now()%AND beat =%"
RESCUE = "WITH lost AS%"
STORE_RESULTS = "INSERT INTO results%"
ANSWERS_LOST = 20
ROUNDS_MAX = 1_000


async def test_f20_tasks_whose_insert_was_not_answered_are_stored_once(run: Run) -> None:
    """On their way from Redis."""
    entries = await _submit_until_lost(run, keys=False)
    assert {entry.durability for entry in entries} == {"redis-aof"}
    await run.settle(finals=run.ledger.acked)


async def test_f20_a_submission_whose_insert_was_not_answered_has_one_id(run: Run) -> None:
    """With a key they are stored before they are accepted."""
    entries = await _submit_until_lost(run, keys=True)
    assert {entry.durability for entry in entries} == {"postgres"}
    for entry in entries:
        assert await run.client.submit(run.tasks(3), key=entry.key) == entry.task_ids
    verdict = await run.settle(finals=run.ledger.acked)
    assert not verdict.unexpected


@pytest.mark.parametrize(("role", "database"), [("management", "postgres"), ("execution", "results")])
async def test_f20_any_answer_of_a_database_may_be_lost(run: Run, role: str, database: str) -> None:
    """One in twenty, of whatever statement (F20 to F25); the seed says which. Nothing is lost, nothing runs twice."""
    links = [run.stack.link(name, database) for name in run.stack.names(role)]
    before = sum(link.counters.replies_lost for link in links)

    def lost() -> int:
        return sum(link.counters.replies_lost for link in links) - before

    for link in links:
        link.faults.lose_replies_part = 0.05
    for _ in range(ROUNDS_MAX):
        entry = await run.client.try_submit(run.tasks(10))
        await run.client.finals(entry.task_ids)
        if lost() >= ANSWERS_LOST:
            break
    assert lost() >= ANSWERS_LOST
    for link in links:
        link.heal()
    await run.settle(finals=run.ledger.acked)


async def _submit_until_lost(run: Run, *, keys: bool) -> list[Entry]:
    losing = asyncio.create_task(lose_answer(run.stack, lock=NO_WRITES, pattern=INSERT))
    entries: list[Entry] = []
    while not losing.done():
        entries.append(await run.client.try_submit(run.tasks(3), key=f"f20-{len(entries)}" if keys else None))
    await losing
    lost = time.monotonic()
    await run.client.finals(run.ledger.acked)
    print(f"F20 recovery_s={time.monotonic() - lost:.1f}")  # noqa: T201
    return entries


async def test_f21_a_claim_whose_answer_is_lost_is_given_back(run: Run) -> None:
    """What it claimed runs nowhere: its replica is asked, and has never heard of it."""
    stack = run.stack
    task_ids = await run.client.submit(run.tasks(800, seconds=0.1))
    await run.started(8)
    for _ in range(3):
        await lose_answer(stack, lock="LOCK TABLE tasks IN EXCLUSIVE MODE", pattern=CLAIM)
    [(queued,)] = await stack.query("SELECT count(*) FROM tasks WHERE status = 'queued'")
    assert queued, "the claims may have found nothing"
    lost = time.monotonic()
    await run.client.finals(task_ids)
    [(claimed_twice,)] = await stack.query("SELECT count(*) FROM tasks WHERE attempt > 1")
    assert claimed_twice
    print(f"F21 claimed_twice={claimed_twice} recovery_s={time.monotonic() - lost:.1f}")  # noqa: T201
    await run.settle()


async def test_f22_heartbeats_whose_answers_are_lost_end_no_session(run: Run) -> None:
    stack = run.stack
    await run.start_tasks(4, seconds=6)
    sessions = await stack.live_sessions()
    lock = "SELECT FROM executors WHERE ended_at IS NULL FOR UPDATE"
    for _ in range(6):
        await lose_answer(stack, lock=lock, pattern=BEATS)
    later = await run.client.submit(run.tasks(4))
    await run.client.finals(later)
    assert await stack.live_sessions() == sessions
    await run.settle()


async def test_f23_a_completion_whose_answer_is_lost_is_recorded_once(run: Run) -> None:
    task_ids = await run.start_tasks(8, seconds=1)
    run.recorder.follow(*task_ids)
    for _ in range(3):
        losing = asyncio.create_task(lose_answer(run.stack, lock=NO_WRITES, pattern=COMPLETE))
        while not losing.done():
            task_ids += (await run.client.try_submit(run.tasks(2))).task_ids
        await losing
    lost = time.monotonic()
    await run.client.finals(task_ids)
    print(f"F23 recovery_s={time.monotonic() - lost:.1f}")  # noqa: T201
    await run.settle()
    revisions = Counter(event.task_id for event in run.recorder.events if event.status == "completed")
    assert set(revisions) <= set(task_ids)
    assert set(revisions.values()) == {1}


@pytest.mark.parametrize("statement", ["end", "rescue"])
async def test_f24_the_end_of_a_session_or_the_rescue_of_its_tasks_happens_once(run: Run, statement: str) -> None:
    stack = run.stack
    await run.start_tasks(4, seconds=8)
    victim, lost = await run.busiest()
    session_id = (await stack.live_sessions())[victim]
    killed = time.monotonic()
    stack.kill(victim)
    async with holding(stack) as row, holding(stack) as table:
        await row.lock(f"SELECT FROM executors WHERE session_id = {session_id} FOR UPDATE")
        ports = await row.until_blocked(END_SESSION, timeout=10)
        assert ports
        if statement == "rescue":
            await table.lock(NO_WRITES)
            await row.release()
            ports = await table.until_blocked(RESCUE, timeout=10)
            assert ports
            assert session_id not in (await stack.live_sessions()).values()
            await table.lose_answers(ports)
        else:
            await row.lose_answers(ports)
    await wait_until(lambda: len(run.seconds_to_rerun(killed)) == len(lost), timeout=20)
    print(f"F24 {statement} recovery_s={run.seconds_to_rerun(killed)[-1]:.1f}")  # noqa: T201
    await run.settle(Allowed(reruns=len(lost)))
    [(losses, most)] = await stack.query("SELECT sum(replica_losses), max(replica_losses) FROM tasks")
    assert (losses, most) == (len(lost), 1)


async def test_f25_an_insert_of_results_whose_answer_is_lost_stores_one(run: Run) -> None:
    stack = run.stack
    task_ids = await run.start_tasks(8, seconds=1)
    for _ in range(3):
        losing = asyncio.create_task(
            lose_answer(stack, lock="LOCK TABLE results IN SHARE MODE", pattern=STORE_RESULTS, results=True)
        )
        while not losing.done():
            task_ids += (await run.client.try_submit(run.tasks(2))).task_ids
        await losing
    lost = time.monotonic()
    await run.client.finals(task_ids)
    print(f"F25 recovery_s={time.monotonic() - lost:.1f}")  # noqa: T201
    await run.settle()
    rows = await stack.query("SELECT task_id, attempt FROM results", results=True)
    assert sorted(int(str(task_id)) for task_id, _ in rows) == sorted(task_ids)


TERMINATIONS = 40


async def test_f26_connections_that_the_server_ends_in_turn_cost_nothing(run: Run) -> None:
    stack = run.stack
    sessions = await stack.live_sessions()
    stop = asyncio.Event()
    loading = asyncio.create_task(run.client.load(lambda: run.tasks(3, seconds=0.02), stop=stop))
    ended = 0
    for dsn in (stack.task_dsn, stack.result_dsn):
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
            ended += await _terminate(connection)
    stop.set()
    await loading
    assert ended >= 2 * TERMINATIONS
    print(f"F26 connections_ended={ended}")  # noqa: T201
    assert {entry.status for entry in run.ledger.entries} <= {201, 503}
    assert await stack.live_sessions() == sessions
    await run.settle()


async def _terminate(connection: psycopg.AsyncConnection) -> int:
    """End the connections of all services but ours, one after the other, many times."""
    own = connection.info.backend_pid
    ended = 0
    deadline = time.monotonic() + 30
    while ended < TERMINATIONS:
        assert time.monotonic() < deadline
        cursor = await connection.execute(
            "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> %s", [own]
        )
        for (pid,) in await cursor.fetchall():
            cursor = await connection.execute("SELECT pg_terminate_backend(%s)", [pid])
            row = await cursor.fetchone()
            ended += bool(row and row[0])
            await asyncio.sleep(0.05)  # one after the other, so that repeats meet the next one
    return ended


REFUSE = """
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF random() < 0.2 THEN
        RAISE EXCEPTION 'refused: %', regexp_replace(left(current_query(), 300), '\\s+', ' ', 'g')
            USING ERRCODE = (ARRAY['serialization_failure', 'deadlock_detected'])[1 + floor(random() * 2)::int];
    END IF;
    RETURN NULL;
END $$;
"""
TABLES = ("tasks", "executors", "managers", "ended_attempts")
# Each of them has to be refused. Others are as well, as they come.
STATEMENTS = {
    name: " ".join(query.partition(b"%")[0].decode().split())[:150]
    for queries, names in (
        (
            TASK_QUERIES,
            ("insert_tasks", "claim_tasks", "complete_attempts", "move_attempts", "promote_due", "request_cancel"),
        ),
        (EXECUTOR_QUERIES, ("raise_beats", "scan_sessions")),
    )
    for name in names
    for query in [queries[name]]
}
FAST = {"initial": 0.05, "maximum": 0.1}


async def test_f26_every_statement_that_conflicts_is_repeated(run: Run) -> None:
    """One in five statements that write fails with the state of a serialization failure or a deadlock."""
    stack = run.stack
    sessions = await stack.live_sessions()
    logged = len(stack.log_lines("postgres"))
    failing = 0
    await stack.query(REFUSE)
    try:
        for table in TABLES:
            await stack.query(
                f"CREATE TRIGGER refuse AFTER INSERT OR UPDATE OR DELETE ON {table}"
                " FOR EACH STATEMENT EXECUTE FUNCTION refuse()"
            )
        deadline = time.monotonic() + 40
        while not _refused(stack, logged) >= STATEMENTS.keys():
            assert time.monotonic() < deadline, STATEMENTS.keys() - _refused(stack, logged)
            await run.client.submit([*run.tasks(20), {"type": "fail", "data": {"times": 1}, "backoff": FAST}])
            failing += 1
            for task_id in await run.client.submit(run.tasks(1, delay=600)):
                assert (await run.client.delete(task_id)).status_code in (200, 202, 204, 404, 503)
        await run.client.finals(run.ledger.acked)
    finally:
        await stack.query("DROP FUNCTION refuse CASCADE")
    assert {entry.status for entry in run.ledger.entries} <= {201, 503}
    assert await stack.live_sessions() == sessions
    await run.settle(Allowed(charged=failing, statuses=("completed", "cancelled")))


def _refused(stack: Stack, since: int) -> set[str]:
    """The names of the statements of STATEMENTS that were refused, as the log of the server tells."""
    lines = [line.partition("refused: ")[2] for line in stack.log_lines("postgres")[since:]]
    return {name for name, begin in STATEMENTS.items() if any(line.startswith(begin) for line in lines)}


async def test_f26_heartbeats_that_meet_a_deadlock_are_repeated(run: Run) -> None:
    """A real one: we lock the rows of two sessions against the order in which managers do."""
    stack = run.stack
    await run.start_tasks(4, seconds=4)
    sessions = await stack.live_sessions()
    low, high = sorted(sessions.values())
    before = await _deadlocks(stack)
    deadline = time.monotonic() + 40
    async with holding(stack) as holder:
        while await _deadlocks(stack) == before:
            assert time.monotonic() < deadline
            # Theirs looks for a deadlock after 1 s and is the one to die; ours would look much later.
            await holder.lock("SET LOCAL deadlock_timeout = '20s'")
            await holder.lock(_lock_of(high))
            # Sooner or later they write both in one statement, which locks the lower one and waits for us.
            while await _can_lock(stack, low):
                assert time.monotonic() < deadline
                await asyncio.sleep(0.01)
            await holder.lock(_lock_of(low))
            await holder.release()
    later = await run.client.submit(run.tasks(4))
    await run.client.finals(later)
    assert await stack.live_sessions() == sessions
    await run.settle()


def _lock_of(session_id: int) -> str:
    return f"SELECT FROM executors WHERE session_id = {session_id} FOR UPDATE"


async def _can_lock(stack: Stack, session_id: int) -> bool:
    try:
        await stack.query(f"{_lock_of(session_id)} NOWAIT")
    except psycopg.errors.LockNotAvailable:
        return False
    return True


async def _deadlocks(stack: Stack) -> int:
    [(count,)] = await stack.query("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
    return int(str(count))
