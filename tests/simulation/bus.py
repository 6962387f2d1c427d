"""Redis as managers use it here: the channel of updates with somebody who listens, and that of ready pools."""

from collections.abc import Callable, Iterable
from contextvars import Context
from typing import Any

from redis.exceptions import ConnectionError as RedisConnectionError

from headrace.v1.task_pb2 import TaskUpdate, UpdateBatch
from servicekit.redis_keys import READY_CHANNEL, UPDATES_CHANNEL
from tests.simulation.virtual_time import Process, VirtualLoop

_HOP_SECONDS = 0.001


class Bus:
    """`away`: refuses everybody, and what is published then reaches nobody."""

    def __init__(self, loop: VirtualLoop, on_update: Callable[[TaskUpdate], None]) -> None:
        self.away = False
        self._loop = loop
        self._on_update = on_update
        self._on_ready: list[tuple[Process, Callable[[Iterable[str]], None]]] = []

    def listen(self, process: Process, on_ready: Callable[[Iterable[str]], None]) -> None:
        self._on_ready = [entry for entry in self._on_ready if not entry[0].dead]
        self._on_ready.append((process, on_ready))

    async def send(self, commands: list[tuple[str, Any]]) -> None:
        """Do them all, if the bus is there when they arrive."""
        reply = self._loop.create_future()

        def arrive() -> None:
            if not self.away:
                for channel, content in commands:
                    self._publish(channel, content)
            self._loop.call_later(_HOP_SECONDS, answer, self.away, context=Context())

        def answer(failed: bool) -> None:
            if not reply.done():
                reply.set_result(failed)

        self._loop.call_later(_HOP_SECONDS, arrive, context=Context())
        if await reply:
            raise RedisConnectionError("connection refused")

    def _publish(self, channel: str, content: Any) -> None:
        if channel == UPDATES_CHANNEL:
            for update in UpdateBatch.FromString(content).updates:
                self._on_update(TaskUpdate.FromString(update))
        elif channel == READY_CHANNEL:
            for process, on_ready in self._on_ready:
                process.call_later(_HOP_SECONDS, on_ready, content.split(","))


class SimulatedRedis:
    """A client of the bus, and a pipeline of itself."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    def pipeline(self, *, transaction: bool) -> "_Pipeline":
        del transaction
        return _Pipeline(self._bus)

    async def publish(self, channel: str, content: Any) -> None:
        await self._bus.send([(channel, content)])


class _Pipeline:
    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._commands: list[tuple[str, Any]] = []

    def publish(self, channel: str, content: Any) -> None:
        self._commands.append((channel, content))

    def set(self, key: str, content: Any, *, ex: int) -> None:
        """A tombstone: nobody reads caches here."""

    async def execute(self) -> None:
        await self._bus.send(self._commands)
