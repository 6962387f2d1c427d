"""The result store on a real PostgreSQL server."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from result_store.model import Copied, CopyRequest, NewLog, NewResult, ResultKey
from result_store.store import ResultStore
from servicekit.migrations import migrate
from servicekit.postgres import Database


@pytest.fixture
async def store(postgres_dsn: str) -> AsyncIterator[ResultStore]:
    await migrate(postgres_dsn, "result_store")
    database = Database(postgres_dsn, name="results")
    yield ResultStore(database)
    await database.close()


async def contents(store: ResultStore, *keys: tuple[int, int]) -> dict[tuple[int, int], bytes]:
    return {(row.task_id, row.attempt): row.result for row in await store.get([ResultKey(*key) for key in keys])}


async def test_a_result_comes_back_as_it_was_stored(store: ResultStore) -> None:
    await store.insert([NewResult(7, 2, b'{"words": 3}'), NewResult(5, 1, b"\x00\xff")])

    rows = await store.get([ResultKey(7, 2), ResultKey(5, 1), ResultKey(5, 2)])

    assert [(row.task_id, row.attempt, row.result) for row in rows] == [(5, 1, b"\x00\xff"), (7, 2, b'{"words": 3}')]
    assert abs(rows[0].stored_at - datetime.now(UTC)) < timedelta(minutes=1)


async def test_what_is_stored_never_changes(store: ResultStore) -> None:
    await store.insert([NewResult(1, 1, b"first"), NewResult(1, 1, b"twice in one batch")])
    await store.insert([NewResult(1, 1, b"second"), NewResult(2, 1, b"other")])

    assert await contents(store, (1, 1), (2, 1)) == {(1, 1): b"first", (2, 1): b"other"}


async def test_batches_in_opposite_orders_do_not_block_each_other(store: ResultStore) -> None:
    batch = [NewResult(task_id, 1, b"x") for task_id in range(1, 301)]

    await asyncio.gather(*(store.insert(batch[::step]) for step in (1, -1) * 5))

    assert len(await store.get([ResultKey(task_id, 1) for task_id in range(1, 301)])) == 300


async def test_nothing_asked_is_nothing_done(store: ResultStore) -> None:
    await store.insert([])
    await store.remove([])
    assert await store.get([]) == []
    assert await store.copy_to_attempt([]) == []


async def test_a_copy_takes_the_newest_earlier_result_of_the_round(store: ResultStore) -> None:
    await store.insert([NewResult(1, attempt, b"of %d" % attempt) for attempt in (1, 3, 4, 6)])

    assert await store.copy_to_attempt([CopyRequest(1, 2, 5)]) == [Copied(1, 5, 4)]
    assert await contents(store, (1, 5)) == {(1, 5): b"of 4"}


async def test_results_of_an_earlier_round_are_not_copied(store: ResultStore) -> None:
    await store.insert([NewResult(1, 2, b"old round"), NewResult(2, 5, b"the attempt itself")])

    assert await store.copy_to_attempt([CopyRequest(1, 2, 4), CopyRequest(2, 3, 5), CopyRequest(3, 0, 2)]) == []


async def test_a_copy_asked_for_twice_is_found_twice(store: ResultStore) -> None:
    await store.insert([NewResult(1, 1, b"a"), NewResult(9, 1, b"b")])
    wanted = [CopyRequest(9, 0, 2), CopyRequest(1, 0, 3)]

    first = await store.copy_to_attempt(wanted)

    assert first == [Copied(1, 3, 1), Copied(9, 2, 1)]
    assert await store.copy_to_attempt(wanted) == first
    assert await contents(store, (1, 3), (9, 2)) == {(1, 3): b"a", (9, 2): b"b"}


async def test_removing_a_task_removes_all_its_attempts(store: ResultStore) -> None:
    await store.insert([NewResult(1, 1, b""), NewResult(1, 2, b""), NewResult(2, 1, b"stays")])

    await store.remove([1, 1, 3])
    await store.remove([1])

    assert await contents(store, (1, 1), (1, 2), (2, 1)) == {(2, 1): b"stays"}


async def test_a_sweep_removes_old_results_one_bounded_batch_at_a_time(store: ResultStore, postgres_dsn: str) -> None:
    await store.insert([NewResult(task_id, 1, b"old") for task_id in range(1, 6)])
    async with await psycopg.AsyncConnection.connect(postgres_dsn, autocommit=True) as conn:
        await conn.execute("UPDATE results SET stored_at = now() - interval '8 days'")
    await store.insert([NewResult(6, 1, b"new")])

    swept = [await store.sweep(timedelta(days=7), 3) for _ in range(3)]

    assert swept == [3, 2, 0]
    assert await contents(store, *((task_id, 1) for task_id in range(1, 7))) == {(6, 1): b"new"}


async def test_a_sweep_waits_for_nobody(store: ResultStore, postgres_dsn: str) -> None:
    await store.insert([NewResult(1, 1, b""), NewResult(2, 1, b"")])
    async with await psycopg.AsyncConnection.connect(postgres_dsn) as conn:
        await conn.execute("SELECT 1 FROM results WHERE task_id = 1 FOR UPDATE")
        assert await store.sweep(timedelta(seconds=-1), 10) == 1
    assert await contents(store, (1, 1), (2, 1)) == {(1, 1): b""}


async def test_logs_of_a_task_come_in_the_order_of_its_attempts(store: ResultStore) -> None:
    await store.insert_logs([NewLog(7, 2, "second"), NewLog(7, 1, "first"), NewLog(8, 1, "another")])
    await store.insert_logs([NewLog(7, 1, "reported again")])

    logs = await store.get_logs(7)

    assert [(log.attempt, log.log) for log in logs] == [(1, "first"), (2, "second")]
    assert await store.get_logs(9) == []


async def test_of_many_attempts_the_newest_logs_are_given(store: ResultStore) -> None:
    await store.insert_logs([NewLog(7, attempt, str(attempt)) for attempt in range(1, 31)])
    assert [log.attempt for log in await store.get_logs(7)] == list(range(11, 31))


async def test_logs_go_with_their_task_and_by_age(store: ResultStore) -> None:
    await store.insert_logs([NewLog(7, 1, "gone"), NewLog(8, 1, "stays")])
    await store.remove([7])
    assert (await store.get_logs(7), len(await store.get_logs(8))) == ([], 1)
    assert await store.sweep(timedelta(hours=1), 10) == 0
    assert await store.sweep(timedelta(seconds=-60), 10) == 1
    assert await store.get_logs(8) == []
