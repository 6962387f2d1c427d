"""The database access of the services, against a server that they lose."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psycopg
import pytest

from headrace.local.postgres import PostgresServer
from servicekit import pg_pool
from servicekit.errors import Overloaded, Unavailable
from servicekit.postgres import Database
from tests.support.servers import RunningServer
from tests.support.waiting import wait_until


async def fetch(conn: psycopg.AsyncConnection, query: str) -> object:
    row = await (await conn.execute(query.encode())).fetchone()
    return row[0] if row else None


async def backend(conn: psycopg.AsyncConnection) -> object:
    return await fetch(conn, "SELECT pg_backend_pid()")


@pytest.fixture
async def database(postgres_dsn: str) -> AsyncIterator[Database]:
    database = Database(postgres_dsn, name="test", max_size=2)
    await database.open()
    yield database
    await database.close()


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("statement_timeout", "5s"),
        ("lock_timeout", "2s"),
        ("idle_in_transaction_session_timeout", "5s"),
        ("synchronous_commit", "on"),
        ("TimeZone", "UTC"),
        ("application_name", "test"),
    ],
)
async def test_every_connection_has_its_bounds(database: Database, setting: str, value: str) -> None:
    assert await database.run(lambda conn: fetch(conn, f"SHOW {setting}")) == value


async def test_options_of_the_dsn_are_kept_and_win(postgres_dsn: str) -> None:
    database = Database(f"{postgres_dsn}?options=-c%20statement_timeout%3D9s", name="test")
    assert await database.run(lambda conn: fetch(conn, "SHOW statement_timeout")) == "9s"
    assert await database.run(lambda conn: fetch(conn, "SHOW lock_timeout")) == "2s"
    await database.close()


async def test_a_connection_is_used_again(database: Database) -> None:
    assert await database.run(backend) == await database.run(backend)


async def test_a_lost_connection_costs_one_repeat(database: Database, postgres_dsn: str) -> None:
    first = await database.run(backend)
    async with await psycopg.AsyncConnection.connect(postgres_dsn, autocommit=True) as other:
        await other.execute("SELECT pg_terminate_backend(%s, 5000)", [first])

    assert await database.run(backend) != first


async def test_a_connection_lost_in_the_middle_repeats_the_whole_work(database: Database, postgres_dsn: str) -> None:
    seen: list[object] = []

    async def work(conn: psycopg.AsyncConnection) -> str:
        seen.append(await backend(conn))
        if len(seen) == 1:
            async with await psycopg.AsyncConnection.connect(postgres_dsn, autocommit=True) as other:
                await other.execute("SELECT pg_terminate_backend(%s, 5000)", seen)
        await backend(conn)
        return "done"

    assert await database.run(work) == "done"
    assert len(set(seen)) == 2


async def test_a_deadlock_repeats_the_whole_work(database: Database) -> None:
    tries = 0

    async def work(conn: psycopg.AsyncConnection) -> int:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise psycopg.errors.DeadlockDetected
        return tries

    assert await database.run(work) == 3


async def test_conflicts_without_end_become_unavailable(database: Database) -> None:
    tries = 0

    async def work(conn: psycopg.AsyncConnection) -> None:
        nonlocal tries
        tries += 1
        raise psycopg.errors.SerializationFailure

    with pytest.raises(Unavailable) as caught:
        await database.run(work)
    assert caught.value.code == "database_unavailable"
    assert tries == 6


async def test_a_statement_that_takes_too_long_becomes_unavailable_at_once(database: Database) -> None:
    async def work(conn: psycopg.AsyncConnection) -> None:
        await conn.execute("SET statement_timeout = 50")
        await conn.execute("SELECT pg_sleep(10)")

    async with asyncio.timeout(2):
        with pytest.raises(Unavailable, match="statement timeout"):
            await database.run(work)


@pytest.mark.parametrize(
    ("query", "error"),
    [
        ("SELECT 1 / 0", psycopg.errors.DivisionByZero),
        ("SELECT 'x'::integer", psycopg.errors.InvalidTextRepresentation),
        ("SELEKT", psycopg.errors.SyntaxError),
        ("DO $$ BEGIN RAISE 'x' USING ERRCODE = '54000'; END $$", psycopg.errors.ProgramLimitExceeded),
    ],
)
async def test_errors_in_the_data_come_through(database: Database, query: str, error: type[psycopg.Error]) -> None:
    with pytest.raises(error):
        await database.run(lambda conn: fetch(conn, query))


async def test_a_transaction_left_open_does_not_reach_the_next_work(database: Database) -> None:
    async def work(conn: psycopg.AsyncConnection) -> object:
        await conn.execute("BEGIN")
        return await backend(conn)

    assert await database.run(work) != await database.run(backend)


async def test_work_that_is_cancelled_gives_its_connection_back(database: Database) -> None:
    entered = asyncio.Event()

    async def work(conn: psycopg.AsyncConnection) -> None:
        entered.set()
        await conn.execute("SELECT pg_sleep(10)")

    for _ in range(3):
        entered.clear()
        task = asyncio.create_task(database.run(work))
        await entered.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    assert await database.run(lambda conn: fetch(conn, "SELECT 1")) == 1


async def test_waiting_for_a_connection_is_bounded(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pg_pool, "ACQUIRE_SECONDS", 0.05)
    gate = asyncio.Event()

    async def hold(conn: psycopg.AsyncConnection) -> None:
        await gate.wait()

    holders = [asyncio.create_task(database.run(hold)) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded) as caught:
        await database.run(backend)
    assert caught.value.code == "database_busy"
    gate.set()
    await asyncio.gather(*holders)


@pytest.fixture
def mortal_server(tmp_path: Path) -> Iterator[tuple[PostgresServer, RunningServer]]:
    server = PostgresServer(tmp_path / "server")
    server.prepare()
    running = RunningServer(server, log=tmp_path / "postgres.log")
    yield server, running
    running.close()


async def test_a_server_may_come_late_and_may_come_back(mortal_server: tuple[PostgresServer, RunningServer]) -> None:
    server, running = mortal_server
    database = Database(server.dsn("postgres"), name="test", min_size=2)
    await database.open()
    with pytest.raises(Unavailable) as caught:
        await database.run(backend)
    assert caught.value.code == "database_unavailable"
    assert caught.value.retry_after == 1.0

    async def is_unavailable() -> bool:
        try:
            await database.run(backend)
        except Unavailable:
            return True
        return False

    for _ in range(2):
        await asyncio.to_thread(running.start)
        assert await database.run(backend)
        await asyncio.to_thread(running.kill)
        # A session of the killed server may live on until it looks for its parent.
        await wait_until(is_unavailable)

    await database.close()
