"""The way of every service to PostgreSQL: pooled connections, bounded statements, repeats where a repeat can help."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

import psycopg
import structlog
from psycopg import conninfo, errors

from servicekit.errors import Unavailable
from servicekit.pg_pool import CONNECT_SECONDS, ConnectionPool

log = structlog.stdlib.get_logger(__name__)

T = TypeVar("T")
Work = Callable[[psycopg.AsyncConnection], Awaitable[T]]

# A frozen client must not hold rows, and no statement may hold up a batch for long.
_SERVER_SETTINGS = {
    "statement_timeout": "5s",
    "lock_timeout": "2s",
    "idle_in_transaction_session_timeout": "5s",
    "synchronous_commit": "on",
    "timezone": "UTC",
    # Our batches differ in length, not in kind: planning them anew costs more than any plan could save.
    "plan_cache_mode": "force_generic_plan",
}
_LINK_SETTINGS: dict[str, int | str] = {
    "connect_timeout": CONNECT_SECONDS,
    "tcp_user_timeout": 5000,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
}
_CONFLICT_TRIES_MAX = 6
_CONFLICT_PAUSE_SECONDS = 0.02
_CONFLICTS = (errors.SerializationFailure, errors.DeadlockDetected)
# The server is there and cannot now: the same statement again would wait as long for the same answer.
_BUSY = (*_CONFLICTS, errors.QueryCanceled, errors.LockNotAvailable)
# A server that became a standby, or a session that the server ended, are no OperationalError.
_LINK_ERRORS = (psycopg.OperationalError, errors.ReadOnlySqlTransaction, errors.IdleInTransactionSessionTimeout)
# "Program limit exceeded", such as a value too long for an index: psycopg counts it among the operational errors, but
# what is wrong is in the data.
_LIMIT_SQLSTATES = "54"


class Database:
    """One database as one service uses it; `name` shows in `pg_stat_activity` and in logs."""

    def __init__(self, dsn: str, *, name: str, min_size: int = 1, max_size: int = 8) -> None:
        self.name = name
        self._min_size = min_size
        self._pool = ConnectionPool(connection_info(dsn, name=name), max_size=max_size)

    async def open(self) -> None:
        """Connect. Returns also while the server is away: connections are made when they are wanted."""
        try:
            await self._pool.warm(self._min_size)
        except psycopg.OperationalError as error:
            log.warning("database_unavailable_at_start", database=self.name, reason=reason_of(error))

    async def close(self) -> None:
        await self._pool.close()

    async def run(self, work: Work[T]) -> T:
        """Return what `work` returns; it gets a connection in autocommit and may be called several times.

        The whole work is repeated after a deadlock or serialization failure, and once on another connection when the
        connection is lost. It may have been committed then, so it must be safe to repeat. Raises Unavailable when
        that does not help. Errors in the data (SQLSTATE 22, 23) come through as psycopg raises them.
        """
        try:
            return await self._run_through_conflicts(work)
        except _BUSY as error:
            raise self._unavailable(error) from error
        except _LINK_ERRORS as error:
            if _is_about_data(error):
                raise
            log.info("database_connection_lost", database=self.name, reason=reason_of(error))
        await self._pool.discard_idle()
        try:
            return await self._run_through_conflicts(work)
        except _LINK_ERRORS as error:
            if _is_about_data(error):
                raise
            raise self._unavailable(error) from error

    async def fetch(self, query: bytes, params: Mapping[str, object] | None = None) -> list[tuple[Any, ...]]:
        """Run one statement and return its rows, read in the binary format. Errors as `run`."""

        async def work(connection: psycopg.AsyncConnection) -> list[tuple[Any, ...]]:
            cursor = await connection.execute(query, params, binary=True)
            return await cursor.fetchall()

        return await self.run(work)

    async def execute(self, query: bytes, params: Mapping[str, object] | None = None) -> int:
        """Run one statement that gives no rows and return how many it changed. Errors as `run`."""

        async def work(connection: psycopg.AsyncConnection) -> int:
            cursor = await connection.execute(query, params)
            return cursor.rowcount

        return await self.run(work)

    async def _run_through_conflicts(self, work: Work[T]) -> T:
        for tries in range(1, _CONFLICT_TRIES_MAX):
            try:
                return await self._run_once(work)
            except _CONFLICTS as error:
                log.info("database_conflict", database=self.name, sqlstate=error.sqlstate, tries=tries)
            await asyncio.sleep(_CONFLICT_PAUSE_SECONDS * 2**tries * random.random())
        return await self._run_once(work)

    async def _run_once(self, work: Work[T]) -> T:
        async with self._pool.connection() as conn:
            try:
                return await work(conn)
            except psycopg.InterfaceError as error:
                if conn.closed:
                    raise psycopg.OperationalError("the connection is closed") from error
                raise

    def _unavailable(self, error: psycopg.Error) -> Unavailable:
        return Unavailable(f"database {self.name}: {reason_of(error)}", code="database_unavailable", retry_after=1.0)


def connection_info(dsn: str, *, name: str) -> str:
    """The connection string with our bounds added; what `dsn` sets by itself wins."""
    given = conninfo.conninfo_to_dict(dsn)
    options = " ".join(f"-c {key}={value}" for key, value in _SERVER_SETTINGS.items())
    ours = {"application_name": name, **_LINK_SETTINGS} | given
    ours["options"] = f"{options} {given.get('options') or ''}".strip()
    return conninfo.make_conninfo("", **ours)


def _is_about_data(error: psycopg.Error) -> bool:
    return (error.sqlstate or "").startswith(_LIMIT_SQLSTATES)


def reason_of(error: psycopg.Error) -> str:
    """The error in one line, for logs and messages."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"
