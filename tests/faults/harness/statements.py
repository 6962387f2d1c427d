"""Statements of the services whose answers are lost: a lock of ours holds one up, its connection is marked, and then it
is let go. It takes effect, and the service sees a broken connection.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager

import psycopg

from tests.faults.harness.proxy import Proxy
from tests.faults.harness.stack import Stack
from tests.support.waiting import wait_until

# The services give a lock up after 2 s; each try holds it for less.
_HOLD_SECONDS = 1.5

_BLOCKED = """
SELECT client_port FROM pg_stat_activity
 WHERE wait_event_type = 'Lock' AND backend_type = 'client backend' AND query LIKE %s
"""


class Holder:
    """Locks in one of the databases, held in a transaction of a connection that no proxy is in the way of."""

    def __init__(
        self, links: Sequence[Proxy], connection: psycopg.AsyncConnection, watcher: psycopg.AsyncConnection
    ) -> None:
        self._links = links
        self._connection = connection
        self._watcher = watcher

    async def lock(self, statement: str) -> None:
        await self._connection.execute(statement.encode())

    async def release(self) -> None:
        await self._connection.rollback()

    async def blocked(self, pattern: str) -> set[int]:
        """The ports of connections that wait for a lock in a statement that is LIKE `pattern`."""
        rows = await (await self._watcher.execute(_BLOCKED, [pattern])).fetchall()
        return {int(row[0]) for row in rows}

    async def until_blocked(self, pattern: str, *, timeout: float) -> set[int]:
        """As `blocked`, once there are any; empty if there are none for so long."""
        deadline = time.monotonic() + timeout
        while True:
            ports = await self.blocked(pattern)
            if ports or time.monotonic() > deadline:
                return ports
            await asyncio.sleep(0.01)

    async def lose_answers(self, ports: Collection[int]) -> None:
        """Let go, and have the next answer on each of these connections lost."""
        found = [connection for link in self._links for port in ports if (connection := link.connection(port))]
        assert found, "the statement came past all proxies"
        before = self._lost()
        for connection in found:
            connection.faults.lose_replies = 1
        await self.release()
        await wait_until(lambda: self._lost() > before)

    def _lost(self) -> int:
        return sum(link.counters.replies_lost for link in self._links)


@asynccontextmanager
async def holding(stack: Stack, *, results: bool = False) -> AsyncIterator[Holder]:
    """Locks in the task database, or in the result database."""
    dsn = stack.result_dsn if results else stack.task_dsn
    async with (
        await psycopg.AsyncConnection.connect(dsn) as connection,
        await psycopg.AsyncConnection.connect(dsn, autocommit=True) as watcher,
    ):
        yield Holder(stack.links_to("results" if results else "postgres"), connection, watcher)


async def lose_answer(stack: Stack, *, lock: str, pattern: str, results: bool = False, timeout: float = 20.0) -> None:
    """Lose the answer to the next statement that is LIKE `pattern`, which `lock` holds up; it takes effect."""
    deadline = time.monotonic() + timeout
    async with holding(stack, results=results) as holder:
        while time.monotonic() < deadline:
            await holder.lock(lock)
            if ports := await holder.until_blocked(pattern, timeout=_HOLD_SECONDS):
                await holder.lose_answers(ports)
                return
            await holder.release()
            await asyncio.sleep(0.1)
    raise AssertionError(f"no statement like {pattern!r} was held up within {timeout} s")
