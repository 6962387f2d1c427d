"""Reads that many want at the same moment, done once for all of them, few at a time."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from servicekit.errors import Overloaded

AT_ONCE_MAX = 8
WAITING_MAX = 10_000
WAIT_SECONDS = 5.0

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class SharedReads(Generic[Key, Value]):
    """Whoever asks is answered by a read that began after it had asked: what it heard before is in the answer."""

    def __init__(self, read: Callable[[Key], Awaitable[Value]]) -> None:
        self._read = read
        self._slots = asyncio.Semaphore(AT_ONCE_MAX)
        # The reads that have not begun.
        self._waiting: dict[Key, asyncio.Task[Value]] = {}

    async def read(self, key: Key) -> Value:
        """Raises what the read raised, and Overloaded when it could not begin in time."""
        waiting = self._waiting.get(key)
        if waiting is None:
            if len(self._waiting) >= WAITING_MAX:
                raise _crowded()
            waiting = self._waiting[key] = asyncio.create_task(self._run(key), name="shared_read")
            waiting.add_done_callback(_note_error)
        # One that gives up must not take the read from the others.
        return await asyncio.shield(waiting)

    async def _run(self, key: Key) -> Value:
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                await self._slots.acquire()
        except TimeoutError:
            raise _crowded() from None
        finally:
            del self._waiting[key]
        try:
            return await self._read(key)
        finally:
            self._slots.release()


def _note_error(read: asyncio.Task[Value]) -> None:
    """All that asked may have given up: nobody is left who would look."""
    if not read.cancelled():
        read.exception()


def _crowded() -> Overloaded:
    return Overloaded("Too many tasks are being read.", code="too_many_reads", retry_after=2.0)
