"""How much waits in the Redis stream, and when no more is let in."""

import time

from gateway.redis_gate import RedisGate
from servicekit import redis_keys
from servicekit.errors import Overloaded
from servicekit.redis_errors import REDIS_ERRORS

_READ_AGAIN_SECONDS = 0.25


class Backlog:
    """Knows the counters from the last flush; while they are above the cap it reads them now and then."""

    def __init__(self, gate: RedisGate, *, tasks_max: int, bytes_max: int) -> None:
        self._gate = gate
        self._tasks_max = tasks_max
        self._bytes_max = bytes_max
        self._read_at = 0.0
        self.tasks = 0
        self.bytes = 0

    @property
    def full(self) -> bool:
        return self.tasks >= self._tasks_max or self.bytes >= self._bytes_max

    def note(self, tasks: int, size: int) -> None:
        """Take over counters that Redis just told."""
        self.tasks, self.bytes = tasks, size
        self._read_at = time.monotonic()

    async def admit(self) -> None:
        """Raise Overloaded while the stream is full."""
        if not self.full:
            return
        if time.monotonic() - self._read_at >= _READ_AGAIN_SECONDS:
            await self.refresh()
        if self.full:
            raise Overloaded(
                f"{self.tasks} accepted tasks wait to be stored; no more are taken until some are.",
                code="backlog_full",
                retry_after=1.0,
            )

    async def refresh(self) -> None:
        """Read the counters now, if Redis answers."""
        if not self._gate.available:
            return
        self._read_at = time.monotonic()
        try:
            tasks, size = await self._gate.client.hmget(
                redis_keys.BACKLOG, [redis_keys.BACKLOG_TASKS, redis_keys.BACKLOG_BYTES]
            )
        except REDIS_ERRORS as error:
            self._gate.trip(error)
            return
        self.note(int(tasks or 0), int(size or 0))
