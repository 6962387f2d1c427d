"""A small pool of PostgreSQL connections that are made when they are wanted.

It differs from psycopg_pool in what happens around an outage: no worker waits out a growing pause, so a caller learns
at once that the server is away, and the first call after its return gets a connection.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import psycopg
from psycopg.pq import TransactionStatus

from servicekit.errors import Overloaded

CONNECT_SECONDS = 3
ACQUIRE_SECONDS = 2.0


class ConnectionPool:
    """At most `max_size` connections in autocommit; the one used last is used next."""

    def __init__(self, conninfo: str, *, max_size: int) -> None:
        self._conninfo = conninfo
        self._slots = asyncio.Semaphore(max_size)
        self._idle: list[psycopg.AsyncConnection] = []
        self._closed = False

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[psycopg.AsyncConnection]:
        """Lend a connection. Raises psycopg.OperationalError when there is none to be had, Overloaded when all of
        them were in use for too long.
        """
        await self._acquire_slot()
        try:
            conn = self._take_idle() or await self._connect()
            try:
                yield conn
            finally:
                await self._give_back(conn)
        finally:
            self._slots.release()

    async def warm(self, size: int) -> None:
        """Connect until `size` connections are idle."""
        while len(self._idle) < size and not self._closed:
            self._idle.append(await self._connect())

    async def discard_idle(self) -> None:
        """Close what nobody uses: after a restart of the server every one of them is dead."""
        idle, self._idle = self._idle, []
        await _close_all(idle)

    async def close(self) -> None:
        """Close the connections; those that are lent are closed when they come back."""
        self._closed = True
        await self.discard_idle()

    async def _acquire_slot(self) -> None:
        try:
            async with asyncio.timeout(ACQUIRE_SECONDS):
                await self._slots.acquire()
        except TimeoutError:
            raise Overloaded("every database connection is in use", code="database_busy", retry_after=1.0) from None

    def _take_idle(self) -> psycopg.AsyncConnection | None:
        while self._idle:
            conn = self._idle.pop()
            if not conn.closed:
                return conn
        return None

    async def _connect(self) -> psycopg.AsyncConnection:
        return await psycopg.AsyncConnection.connect(self._conninfo, autocommit=True)

    async def _give_back(self, conn: psycopg.AsyncConnection) -> None:
        if self._closed or conn.info.transaction_status is not TransactionStatus.IDLE:
            await conn.close()
        else:
            self._idle.append(conn)


async def _close_all(connections: Iterable[psycopg.AsyncConnection]) -> None:
    for conn in connections:
        await conn.close()
