"""Task ids, taken from blocks that management leased to this gateway alone."""

import asyncio

import structlog

from gateway.management import Management
from servicekit.errors import HeadraceError, Unavailable
from servicekit.loops import BackgroundLoop

log = structlog.stdlib.get_logger(__name__)

# The next block is asked for when a block is used by half; until it is there, once in this many seconds.
_LEASE_SECONDS = 1.0


class TaskIds:
    """Hands out unbroken ranges. What is left of a block that is too short for a range is thrown away."""

    def __init__(self, management: Management) -> None:
        self._management = management
        self._current = range(0)
        self._half = 0
        self._next: range | None = None
        self._leasing = asyncio.Lock()
        self._loop = BackgroundLoop("task_ids", self.run_once, interval=_LEASE_SECONDS)

    @property
    def available(self) -> bool:
        return bool(self._current) or self._next is not None

    def start(self) -> None:
        self._loop.start()

    async def stop(self) -> None:
        await self._loop.stop()

    async def take(self, count: int) -> int:
        """Return the first of `count` ids in a row. Raises Unavailable when no block can be had now."""
        while len(self._current) < count:
            if self._next is None:
                await self._lease()
            if self._next is None:  # somebody else took it while this call waited
                continue
            self._begin(self._next)
            if len(self._current) < count:
                raise Unavailable(f"A block of ids is shorter than {count}.", code="ids_unavailable")
        first: int = self._current.start
        self._current = self._current[count:]
        if self._next is None and len(self._current) <= self._half:
            self._loop.wake()
        return first

    async def run_once(self) -> None:
        """Lease the next block when it is time."""
        if self._next is None and len(self._current) <= self._half:
            await self._lease()

    async def _lease(self) -> None:
        async with self._leasing:
            if self._next is not None:
                return
            try:
                block = await self._management.reserve_task_ids()
            except HeadraceError as error:
                raise Unavailable("No task ids can be had now.", code="ids_unavailable") from error
            if not block:
                raise Unavailable("No task ids can be had now.", code="ids_unavailable")
            log.info("task_ids_leased", first=block[0], last=block[-1])
            self._next = block

    def _begin(self, block: range) -> None:
        self._current = block
        self._half = len(block) // 2
        self._next = None
