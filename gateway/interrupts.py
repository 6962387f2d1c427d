"""Ends the requests that still run when the time to stop has come, so that each gets an answer."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Interrupts:
    def __init__(self) -> None:
        self._running: set[asyncio.Timeout] = set()

    @asynccontextmanager
    async def interruptible(self) -> AsyncIterator[asyncio.Timeout]:
        """Raises TimeoutError, and what it gave says `expired()`, when its body was ended by `fire`."""
        async with asyncio.timeout(None) as limit:
            self._running.add(limit)
            try:
                yield limit
            finally:
                self._running.discard(limit)

    def fire(self) -> int:
        """End all that runs; returns how much that was."""
        now = asyncio.get_running_loop().time()
        for limit in self._running:
            limit.reschedule(now)
        return len(self._running)
