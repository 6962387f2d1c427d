"""The results of attempts in their own database. Nothing else reads or writes it."""

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any, TypeVar

from psycopg import AsyncConnection

from result_store.model import Copied, CopyRequest, NewLog, NewResult, ResultKey, StoredLog, StoredResult
from servicekit.pg_arrays import bytea_array, int4_array, int8_array, text_array
from servicekit.postgres import Database
from servicekit.queries import load_queries

_QUERIES = load_queries("result_store")

_Item = TypeVar("_Item", NewResult, NewLog, CopyRequest, ResultKey)
# Of more attempts than these the logs of the last ones are given.
_LOGS_MAX = 20


class ResultStore:
    """Every method is safe to repeat, and raises errors.Unavailable while the database is away."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def insert(self, results: Sequence[NewResult]) -> None:
        """Store the results; returns after the commit. What is stored under a key never changes again."""
        rows = _one_per_key(results)
        if not rows:
            return
        params = {**_keys(rows), "results": bytea_array([row.result for row in rows])}
        await self._execute("insert_results", params)

    async def copy_to_attempt(self, items: Sequence[CopyRequest]) -> list[Copied]:
        """Give each attempt the newest result that an earlier attempt of its round left. Those without one are not in
        the answer; those whose copy was there already are.
        """
        rows = _one_per_key(items)
        if not rows:
            return []
        params = {**_keys(rows), "round_bases": int4_array([row.round_base for row in rows])}
        return [Copied(*row) for row in await self._fetch("copy_results", params)]

    async def get(self, keys: Iterable[ResultKey]) -> list[StoredResult]:
        """The results that are there, in the order of their keys."""
        rows = _one_per_key([ResultKey(*key) for key in keys])
        if not rows:
            return []
        return [StoredResult(*row) for row in await self._fetch("select_results", _keys(rows))]

    async def insert_logs(self, logs: Sequence[NewLog]) -> None:
        """Store the logs of attempts; the first of each stays."""
        rows = _one_per_key(logs)
        if rows:
            await self._execute("insert_logs", {**_keys(rows), "logs": text_array([row.log for row in rows])})

    async def get_logs(self, task_id: int) -> list[StoredLog]:
        """The logs of the newest attempts of a task, in their order; of those that left none there is nothing."""
        params = {"task_id": task_id, "limit": _LOGS_MAX}
        return [StoredLog(*row) for row in await self._fetch("select_logs", params)]

    async def remove(self, task_ids: Iterable[int]) -> None:
        """Remove all results and logs of the tasks; repeat it where it fails in between."""
        if ids := sorted(set(task_ids)):
            await self._execute("delete_results", {"task_ids": int8_array(ids)})
            await self._execute("delete_logs", {"task_ids": int8_array(ids)})

    async def sweep(self, older_than: timedelta, limit: int) -> int:
        """Remove at most `limit` results, and as many logs, that were stored longer ago than `older_than`.

        Return how many of the more numerous kind.
        """
        params = {"older_than": older_than, "limit": limit}
        return max(await self._execute("sweep_results", params), await self._execute("sweep_logs", params))

    async def _execute(self, query: str, params: dict[str, Any]) -> int:
        async def work(conn: AsyncConnection) -> int:
            return (await conn.execute(_QUERIES[query], params)).rowcount

        return await self._database.run(work)

    async def _fetch(self, query: str, params: dict[str, Any]) -> list[tuple[Any, ...]]:
        async def work(conn: AsyncConnection) -> list[tuple[Any, ...]]:
            return await (await conn.execute(_QUERIES[query], params, binary=True)).fetchall()

        return await self._database.run(work)


def _one_per_key(items: Sequence[_Item]) -> list[_Item]:
    """The items in the order of their keys, the first of each: batches that lock in one order cannot deadlock."""
    unique: dict[tuple[int, int], _Item] = {}
    for item in items:
        unique.setdefault((item.task_id, item.attempt), item)
    return [unique[key] for key in sorted(unique)]


def _keys(rows: Sequence[_Item]) -> dict[str, Any]:
    return {
        "task_ids": int8_array([row.task_id for row in rows]),
        "attempts": int4_array([row.attempt for row in rows]),
    }
