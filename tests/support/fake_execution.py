"""Execution replicas over gRPC whose worker processes are only said to exist: their list, and what can go wrong."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, cast

from execution_service.rpc.servicer import SERVICE_NAME, ExecutionServicer
from execution_service.workers.outcomes import RunningAttempt, WorkerInfo, WorkerState
from headrace.v1 import execution_pb2 as pb
from headrace.v1.execution_pb2_grpc import add_ExecutionServiceServicer_to_server
from servicekit.clock import SystemClock
from servicekit.discovery import Endpoint, Listener
from servicekit.errors import FieldError, HeadraceError, InvalidArgument, NotFound
from servicekit.grpc_server import GrpcServer
from servicekit.live.hub import Hub

if TYPE_CHECKING:
    from execution_service.replica import Replica
    from result_store.store import ResultStore

STARTED_AT = 1_900_000_000.25


class FakeWorkers:
    """The workers of one replica. `failure` is what each change raises."""

    def __init__(self, replica: str, pools: Sequence[str]) -> None:
        self.listed: list[WorkerInfo] = []
        self.removed: list[tuple[str, bool]] = []
        self.failure: HeadraceError | None = None
        self._replica = replica
        self._pools = tuple(pools)
        self._number = 0
        for pool in pools:
            self.add_worker(pool)

    def workers(self) -> list[WorkerInfo]:
        return self.listed

    def add_worker(self, pool: str) -> WorkerInfo:
        self._raise()
        if pool not in self._pools:
            message = f"There is no pool {pool!r} here, but {', '.join(self._pools)}."
            raise InvalidArgument(message, code="unknown_pool", fields=[FieldError("/pool", "unknown_pool", message)])
        self._number += 1
        added = WorkerInfo(
            worker_id=f"{self._replica}-{pool}-beef{self._number}",
            pid=1000 + self._number,
            pool=pool,
            state=WorkerState.READY,
            slots=1,
            started_at=STARTED_AT,
            running=(),
            tasks_done=0,
            memory=50 * 1024 * 1024,
        )
        self.listed.append(added)
        return added

    def remove_worker(self, worker_id: str, *, force: bool = False) -> WorkerInfo:
        self._raise()
        self.removed.append((worker_id, force))
        for worker in self.listed:
            if worker.worker_id == worker_id:
                return worker
        raise NotFound(f"There is no worker {worker_id!r} here.", code="worker_not_found")

    def _raise(self) -> None:
        if self.failure is not None:
            raise self.failure


class _NoReplica:
    def settle(self) -> None:
        """There is no demand here."""


class FakeExecutor(ExecutionServicer):
    """One replica with a worker in each of its pools; it says nothing while it is frozen."""

    def __init__(self, name: str, pools: Sequence[str] = ("cpu", "io")) -> None:
        self.name = name
        self.list = FakeWorkers(name, pools)
        self.answers = asyncio.Event()
        self.answers.set()
        self.server = GrpcServer("127.0.0.1", 0)
        self.server.add(add_ExecutionServiceServicer_to_server, self, SERVICE_NAME)
        super().__init__(
            cast("Replica", _NoReplica()),
            self.list,
            cast("ResultStore", None),
            name=name,
            hub=Hub(),
            clock=SystemClock(),
        )

    async def ListWorkers(self, request: pb.ListWorkersRequest, context: Any) -> pb.ListWorkersResponse:
        await self.answers.wait()
        return await super().ListWorkers(request, context)


def busy(worker: WorkerInfo, *task_ids: int, state: WorkerState = WorkerState.BUSY) -> WorkerInfo:
    """The same worker while it runs these tasks."""
    running = tuple(RunningAttempt(task_id, 2, "word_count", 1.5) for task_id in task_ids)
    return WorkerInfo(
        worker.worker_id, worker.pid, worker.pool, state, worker.slots, worker.started_at, running, 7, worker.memory
    )


class NamedWatch:
    """A list of replicas with their names, as the registry has it."""

    def __init__(self) -> None:
        self.endpoints: tuple[Endpoint, ...] = ()
        self._listeners: list[Listener] = []

    def subscribe(self, listener: Listener) -> None:
        self._listeners.append(listener)

    async def start(self) -> None:
        """The list is there."""

    async def stop(self) -> None:
        """Nobody follows anything."""

    def replace(self, executors: Sequence[FakeExecutor]) -> None:
        self.endpoints = tuple(
            Endpoint(f"headrace-execution-{each.name}", f"127.0.0.1:{each.server.port}", {"replica": each.name})
            for each in executors
        )
        for listener in self._listeners:
            listener()


@asynccontextmanager
async def serve_executors(*executors: FakeExecutor) -> AsyncIterator[NamedWatch]:
    """Serve them over gRPC; gives the list that a gateway finds them by."""
    watch = NamedWatch()
    for each in executors:
        await each.server.start()
    watch.replace(executors)
    try:
        yield watch
    finally:
        for each in executors:
            await each.server.stop(0)
