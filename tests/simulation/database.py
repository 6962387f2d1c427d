"""The task database as its clients see it: far away, sometimes slow or gone, and with replies that get lost."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from contextvars import Context
from random import Random
from typing import Any, TypeVar, cast

import psycopg
from psycopg import errors

from servicekit.errors import Unavailable
from servicekit.postgres import Database, Work
from tests.simulation.tables import NAMES, LockedError, Rows, Tables, Transaction
from tests.simulation.virtual_time import Process, VirtualLoop

T = TypeVar("T")

_LOCK_SECONDS = 2.0
_LOCK_LOOK_SECONDS = 0.02
_IDLE_SECONDS = 5.0


class DatabaseServer:
    """`away`: refuses everybody. `slow`: which part of the messages takes up to how many seconds longer, of all
    statements or of those of one name. `loses`: which part of the replies does not arrive.
    """

    def __init__(self, loop: VirtualLoop, tables: Tables, rng: Random) -> None:
        self.tables = tables
        self.away = False
        self.slow = (0.0, 0.0)
        self.slow_name: str | None = None
        self.loses = 0.0
        self._loop = loop
        self._rng = rng
        self._open: dict[Transaction, Process] = {}

    async def ask(self, work: Callable[[], T], *, name: str = "commit") -> T:
        """Do `work` on the server at one instant and return what it returns."""
        reply: asyncio.Future[T] = self._loop.create_future()
        began = self._loop.time()

        def arrive() -> None:
            if self.away:
                answer(psycopg.OperationalError("connection refused"))
                return
            try:
                result = work()
            except LockedError:
                if self._loop.time() - began > _LOCK_SECONDS:
                    answer(errors.LockNotAvailable("lock timeout"))
                else:
                    self._later(_LOCK_LOOK_SECONDS, arrive)
            except psycopg.Error as error:
                answer(error)
            else:
                lost = self._rng.random() < self.loses
                answer(psycopg.OperationalError("connection reset") if lost else result)

        def answer(content: T | psycopg.Error) -> None:
            self._later(self._hop_seconds(name), hand_over, content)

        def hand_over(content: T | psycopg.Error) -> None:
            if reply.done():
                return
            if isinstance(content, psycopg.Error):
                reply.set_exception(content)
            else:
                reply.set_result(content)

        self._later(self._hop_seconds(name), arrive)
        return await reply

    def begin(self, process: Process) -> Transaction:
        transaction = Transaction()
        self._open[transaction] = process
        self._later(_IDLE_SECONDS, self.abort, transaction)
        return transaction

    def require_open(self, transaction: Transaction) -> None:
        if transaction not in self._open:
            raise errors.IdleInTransactionSessionTimeout("the transaction was ended")

    def commit(self, transaction: Transaction) -> None:
        self.require_open(transaction)
        del self._open[transaction]
        self.tables.commit(transaction)

    def abort(self, transaction: Transaction) -> None:
        if self._open.pop(transaction, None) is not None:
            self.tables.roll_back(transaction)

    def client_died(self, process: Process) -> None:
        for transaction in [transaction for transaction, owner in self._open.items() if owner is process]:
            self.abort(transaction)

    def fail(self) -> None:
        """Restart: what was not committed is gone."""
        self.away = True
        for transaction in list(self._open):
            self.abort(transaction)

    def _hop_seconds(self, name: str) -> float:
        part, longest = self.slow if self.slow_name in (None, name) else (0.0, 0.0)
        extra = self._rng.uniform(0, longest) if self._rng.random() < part else 0.0
        return self._rng.uniform(0.0002, 0.003) + extra

    def _later(self, seconds: float, call: Callable[..., object], *args: object) -> None:
        """In no process: the network and the server do not freeze."""
        self._loop.call_later(seconds, call, *args, context=Context())


class _Cursor:
    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    async def fetchall(self) -> Rows:
        return self._rows

    async def fetchone(self) -> tuple[Any, ...] | None:
        return self._rows[0] if self._rows else None


class _Connection:
    def __init__(self, server: DatabaseServer, process: Process) -> None:
        self._server = server
        self._process = process
        self._transaction: Transaction | None = None

    async def execute(
        self, statement: bytes, params: Mapping[str, object] | None = None, *, binary: bool = False
    ) -> _Cursor:
        server, transaction = self._server, self._transaction

        def work() -> Rows:
            own = transaction or server.begin(self._process)
            server.require_open(own)
            try:
                rows = server.tables.execute(statement, params, own)
            except LockedError:
                if transaction is None:
                    server.abort(own)
                raise
            if transaction is None:
                server.commit(own)
            return rows

        return _Cursor(await server.ask(work, name=NAMES[statement]))

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        transaction = self._transaction = self._server.begin(self._process)
        try:
            yield
        except BaseException:
            self._server.abort(transaction)
            raise
        await self._server.ask(lambda: self._server.commit(transaction))


class SimulatedDatabase(Database):
    """One process' way to the server, with the repeats of the real one."""

    def __init__(self, server: DatabaseServer, process: Process) -> None:
        self.name = "simulated"
        self._server = server
        self._process = process

    async def run(self, work: Work[T]) -> T:
        try:
            return await self._once(work)
        except errors.LockNotAvailable as error:
            raise Unavailable(str(error), code="database_unavailable") from error
        except psycopg.OperationalError:
            pass
        except errors.IdleInTransactionSessionTimeout:
            pass
        try:
            return await self._once(work)
        except (psycopg.OperationalError, errors.IdleInTransactionSessionTimeout) as error:
            raise Unavailable(str(error), code="database_unavailable") from error

    async def _once(self, work: Work[T]) -> T:
        connection = _Connection(self._server, self._process)
        return await work(cast("psycopg.AsyncConnection", connection))

    async def fetch(self, query: bytes, params: Mapping[str, object] | None = None) -> Rows:
        async def work(connection: psycopg.AsyncConnection) -> Rows:
            return await (await connection.execute(query, params)).fetchall()

        return await self.run(work)

    async def execute(self, query: bytes, params: Mapping[str, object] | None = None) -> int:
        return len(await self.fetch(query, params))
