"""The workers of a replica, as it lists them."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from headrace.v1 import execution_pb2
from headrace.v1.execution_pb2_grpc import ExecutionServiceStub
from servicekit.grpc_channel import open_channel
from tests.faults.harness.stack import Stack


class Workers:
    """Asks one replica."""

    def __init__(self, channel: Any) -> None:
        self._stub: Any = ExecutionServiceStub(channel)

    async def list(self, pool: str = "cpu") -> list[execution_pb2.Worker]:
        answer = await self._stub.ListWorkers(execution_pb2.ListWorkersRequest(), timeout=5)
        return [worker for worker in answer.workers if worker.pool == pool]

    async def replaced(self, pid: int, count: int) -> bool:
        """Whether there are `count` workers again, none of which is the process `pid`."""
        workers = await self.list()
        return len(workers) == count and all(worker.pid != pid for worker in workers)

    async def tasks_done(self) -> int:
        """How many tasks the present workers have run."""
        return sum(worker.tasks_done for worker in await self.list())


@contextlib.asynccontextmanager
async def workers_of(stack: Stack, name: str) -> AsyncIterator[Workers]:
    link = stack.link_to(name)
    channel = open_channel(f"{link.host}:{link.port}")
    try:
        yield Workers(channel)
    finally:
        await channel.close()
