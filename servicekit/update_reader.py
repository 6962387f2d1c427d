"""Follows the stream of updates in Redis from its end on, over any loss of the connection.

The stream keeps some minutes (`redis_keys.UPDATES`), so an interruption shorter than that costs delay and nothing else.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, Protocol

import structlog
from redis.asyncio import ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from servicekit.cancelling import cancel_and_wait
from servicekit.redis_errors import REDIS_ERRORS
from servicekit.redis_keys import UPDATES, UPDATES_FIELD

log = structlog.stdlib.get_logger(__name__)

_CONNECT_SECONDS = 1.0
# An empty answer after so long is the sign of life of a quiet server.
_BLOCK_SECONDS = 1.0
# How much longer than that an answer may take.
_ANSWER_SECONDS = 1.5
_PAUSE_SECONDS = 0.5
# A read that is full may be behind, and is followed by a look whether it fell out of what is kept.
_ENTRIES_MAX = 64

EntryId = tuple[int, int]
START: EntryId = (0, 0)


class Listener(Protocol):
    """What is done with the stream. Nothing of it may raise or wait."""

    def take(self, entry_id: EntryId, message: bytes) -> None:
        """The next entry: a serialized UpdateBatch, or whatever else somebody has written there."""
        ...

    def lose_track(self) -> None:
        """Entries may have been missed: what follows begins anew. Also called before the first."""
        ...

    def change_hearing(self) -> None:
        """The connection has come or gone."""
        ...


class UpdateReader:
    def __init__(self, redis_url: str, listener: Listener) -> None:
        self.connected = False
        # The newest entry that was handed on, or the end of the stream when it was first read.
        self.position: EntryId | None = None
        self._listener = listener
        self._pool = ConnectionPool.from_url(
            redis_url,
            protocol=2,
            # Timeouts of our own: with redis-py's, one cancellation in ten was swallowed.
            socket_timeout=None,
            socket_connect_timeout=None,
            retry=Retry(NoBackoff(), 0),
        )
        self._task: asyncio.Task[None] | None = None
        self._loss_reported = False

    def start(self) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="update_reader")

    async def stop(self) -> None:
        if self._task is not None:
            await cancel_and_wait(self._task)
            self._task = None

    async def kept(self) -> AsyncIterator[list[tuple[EntryId, bytes]]]:
        """All entries that are kept, some at a time, over a connection of its own. Raises what Redis raises."""
        connection: Any = self._pool.make_connection()  # type: ignore[no-untyped-call]
        position = START
        try:
            await _connect(connection)
            entries = [(START, b"")]
            while entries:
                answer = await _ask(connection, "XRANGE", UPDATES, f"({text_of(position)}", "+", "COUNT", _ENTRIES_MAX)
                entries = list(_entries(answer))
                if entries:
                    position = entries[-1][0]
                    yield entries
        finally:
            await connection.disconnect(nowait=True)

    async def _run(self) -> None:
        while True:
            try:
                await self._follow()
            except REDIS_ERRORS as error:
                self._report_loss(error)
            except Exception as error:
                log.error("update_reader_failed", exc_info=error)
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _follow(self) -> None:
        """Read on until the connection is lost."""
        connection: Any = self._pool.make_connection()  # type: ignore[no-untyped-call]
        try:
            await _connect(connection)
            position = await self._find_place(connection)
            self._set_connected(True)
            while True:
                entries = await self._read(connection, position)
                for entry_id, message in entries:
                    self.position = position = entry_id
                    self._listener.take(entry_id, message)
                if len(entries) >= _ENTRIES_MAX:
                    position = await self._find_place(connection)
        finally:
            self._set_connected(False)
            await connection.disconnect(nowait=True)

    async def _find_place(self, connection: Any) -> EntryId:
        """Go on where we were, if everything after it is still there; else from the end."""
        newest = _first_id(await _ask(connection, "XREVRANGE", UPDATES, "+", "-", "COUNT", 1))
        oldest = _first_id(await _ask(connection, "XRANGE", UPDATES, "-", "+", "COUNT", 1))
        position = self.position
        # A stream that was empty has lost nothing either, unless more than is kept was added since.
        if position is not None and (position == START or oldest <= position <= newest):
            return position
        log.info("update_reader_starts", at=text_of(newest), was=text_of(position) if position else None)
        self.position = newest
        self._listener.lose_track()
        return newest

    async def _read(self, connection: Any, after: EntryId) -> list[tuple[EntryId, bytes]]:
        block = int(_BLOCK_SECONDS * 1000)
        answer = await _ask(
            connection, "XREAD", "COUNT", _ENTRIES_MAX, "BLOCK", block, "STREAMS", UPDATES, text_of(after)
        )
        return list(_entries(answer[0][1])) if answer else []

    def _set_connected(self, connected: bool) -> None:
        if connected:
            self._loss_reported = False
        if connected != self.connected:
            self.connected = connected
            self._listener.change_hearing()

    def _report_loss(self, error: Exception) -> None:
        if not self._loss_reported:
            log.warning("update_reader_lost", reason=f"{type(error).__name__}: {error}"[:300])
        self._loss_reported = True


def text_of(entry_id: EntryId) -> str:
    return f"{entry_id[0]}-{entry_id[1]}"


async def _connect(connection: Any) -> None:
    async with asyncio.timeout(_CONNECT_SECONDS):
        await connection.connect()


async def _ask(connection: Any, *command: str | int) -> Any:
    async with asyncio.timeout(_BLOCK_SECONDS + _ANSWER_SECONDS):
        await connection.send_command(*command)
        return await connection.read_response()


def _entries(answer: Sequence[Any]) -> Iterator[tuple[EntryId, bytes]]:
    for entry_id, fields in answer:
        ms, _, seq = entry_id.decode().partition("-")
        content = dict(zip(fields[::2], fields[1::2], strict=True))
        yield (int(ms), int(seq)), content.get(UPDATES_FIELD, b"")


def _first_id(answer: Sequence[Any]) -> EntryId:
    return next((entry_id for entry_id, _ in _entries(answer)), START)
