"""Redis as managers use it here: the stream of updates with somebody who reads it, and the channel of ready pools."""

from collections import Counter
from collections.abc import Callable, Iterable
from contextvars import Context
from typing import Any

from redis.exceptions import ConnectionError as RedisConnectionError

from headrace.v1.task_pb2 import TaskUpdate, UpdateBatch
from servicekit.redis_keys import READY_CHANNEL, UPDATES_FIELD
from tests.simulation.virtual_time import Process, VirtualLoop

_HOP_SECONDS = 0.001


class Bus:
    """`away`: refuses everybody, and what is published then reaches nobody."""

    def __init__(self, loop: VirtualLoop, on_update: Callable[[TaskUpdate], None]) -> None:
        self.away = False
        self._loop = loop
        self._on_update = on_update
        self._on_ready: list[tuple[Process, Callable[[Iterable[str]], None]]] = []
        self._entries = 0
        self._added: Counter[str] = Counter()

    def listen(self, process: Process, on_ready: Callable[[Iterable[str]], None]) -> None:
        self._on_ready = [entry for entry in self._on_ready if not entry[0].dead]
        self._on_ready.append((process, on_ready))

    async def send(self, commands: list[tuple[Any, ...]]) -> list[Any]:
        """Do them all, if the bus is there when they arrive; return the answers."""
        reply = self._loop.create_future()

        def arrive() -> None:
            answers = None if self.away else [self._do(*command) for command in commands]
            self._loop.call_later(_HOP_SECONDS, answer, answers, context=Context())

        def answer(answers: list[Any] | None) -> None:
            if not reply.done():
                reply.set_result(answers)

        self._loop.call_later(_HOP_SECONDS, arrive, context=Context())
        answers: list[Any] | None = await reply
        if answers is None:
            raise RedisConnectionError("connection refused")
        return answers

    def _do(self, command: str, *arguments: Any) -> Any:
        if command == "xadd":
            self._entries += 1
            for update in UpdateBatch.FromString(arguments[1][UPDATES_FIELD]).updates:
                self._on_update(TaskUpdate.FromString(update))
            return f"{int(self._loop.time() * 1000)}-{self._entries}".encode()
        if command == "hincrby":
            self._added[arguments[1]] += arguments[2]
            return self._added[arguments[1]]
        if command == "publish" and arguments[0] == READY_CHANNEL:
            for process, on_ready in self._on_ready:
                process.call_later(_HOP_SECONDS, on_ready, arguments[1].split(","))
        return 0


class SimulatedRedis:
    """A client of the bus."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    def pipeline(self, *, transaction: bool) -> "_Pipeline":
        del transaction
        return _Pipeline(self._bus)


class _Pipeline:
    """Takes any command, and does them when it is executed."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._commands: list[tuple[Any, ...]] = []

    def __getattr__(self, command: str) -> Callable[..., None]:
        def put(*arguments: Any, **options: Any) -> None:
            del options
            self._commands.append((command, *arguments))

        return put

    async def execute(self) -> list[Any]:
        return await self._bus.send(self._commands)
