"""What the gateway asks execution replicas for. Each answers for its own workers alone, so all are asked at once."""

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc
import structlog

from headrace.v1 import execution_pb2 as pb
from servicekit.discovery import ServiceWatch
from servicekit.errors import (
    Cancelled,
    DeadlineExceeded,
    FieldError,
    HeadraceError,
    InvalidArgument,
    NotFound,
    Unavailable,
    error_from_rpc,
)
from servicekit.pointers import nearest, shown
from servicekit.replica_pool import ReplicaPool

if TYPE_CHECKING:  # exists for type checkers alone
    from headrace.v1.execution_pb2_grpc import ExecutionServiceAsyncStub

log = structlog.stdlib.get_logger(__name__)

# For each of the calls that a request is made of, of which those to several replicas run side by side.
CALL_SECONDS = 2.0
DEFAULT_POOL = "cpu"
_NO_ANSWER = (Unavailable, DeadlineExceeded, Cancelled)
_LEAVING = (pb.Worker.STATE_DRAINING, pb.Worker.STATE_ENDING)


@dataclass(frozen=True, slots=True)
class WorkerList:
    """The workers of the replicas that answered, and the names of those that did not."""

    workers: Sequence[pb.Worker]
    unreachable: Sequence[str]


class Execution:
    """Every call raises HeadraceError: Unavailable `replica_unreachable` where a replica does not answer in time."""

    def __init__(self, watch: ServiceWatch, pool: "ReplicaPool[ExecutionServiceAsyncStub]") -> None:
        """`watch` is that of `pool`, and lists replicas also while their health checks fail."""
        self._watch = watch
        self._pool = pool

    async def list_workers(self) -> WorkerList:
        """Ask all replicas. Raises Unavailable if none is known, or none answers."""
        answers = await self._ask_all()
        unreachable = [name for name, workers in answers.items() if workers is None]
        return WorkerList([worker for workers in answers.values() for worker in workers or ()], unreachable)

    async def get_worker(self, worker_id: str) -> pb.Worker:
        """Ask the one replica that may have the worker. Raises NotFound."""
        name = self._holder(worker_id)
        response = await self._call(name, lambda stub: stub.ListWorkers, pb.ListWorkersRequest())
        worker: pb.Worker | None = next((each for each in response.workers if each.worker_id == worker_id), None)
        if worker is None:
            raise _no_worker(worker_id)
        return worker

    async def create_worker(self, *, pool: str | None, replica: str | None) -> pb.Worker:
        """Start a worker where it is wished, else on the replica with the fewest in the pool. Started at most once.

        Raises InvalidArgument for a replica or pool that does not exist.
        """
        wanted = DEFAULT_POOL if pool is None else pool
        if not wanted:  # which a replica takes for the default
            raise _invalid("pool", "The name of a pool is not empty.")
        name = self._known(replica) if replica is not None else _roomiest(await self._ask_all(), wanted)
        request = pb.CreateWorkerRequest(pool=wanted)
        response: pb.CreateWorkerResponse = await self._call(name, lambda stub: stub.CreateWorker, request)
        return response.worker

    async def delete_worker(self, worker_id: str, *, force: bool) -> pb.Worker:
        """Have a worker drained, or killed; returns what it is at then. Raises NotFound, and Conflict for the last one
        of its pool.
        """
        name = self._holder(worker_id)
        request = pb.DeleteWorkerRequest(worker_id=worker_id, force=force)
        response: pb.DeleteWorkerResponse = await self._call(name, lambda stub: stub.DeleteWorker, request)
        return response.worker

    async def _ask_all(self) -> dict[str, Sequence[pb.Worker] | None]:
        """The workers by replica, None for one that does not answer. At least one does."""
        names = list(self._addresses())
        if not names:
            raise Unavailable("No execution replica is known.", code="no_replica")
        answers = dict(zip(names, await asyncio.gather(*map(self._ask, names)), strict=True))
        if not any(workers is not None for workers in answers.values()):
            raise Unavailable(f"No execution replica answers: {', '.join(names)}.", code="replica_unreachable")
        return answers

    async def _ask(self, name: str) -> Sequence[pb.Worker] | None:
        try:
            response = await self._call(name, lambda stub: stub.ListWorkers, pb.ListWorkersRequest())
        except HeadraceError as error:
            log.info("workers_not_listed", replica=name, code=error.code, reason=error.message)
            return None
        workers: Sequence[pb.Worker] = response.workers
        return workers

    async def _call(self, name: str, method: "Callable[[ExecutionServiceAsyncStub], Any]", request: Any) -> Any:
        address = self._addresses().get(name)
        if address is None:  # it has left in the meantime
            raise _no_answer(name)
        try:
            return await method(self._pool.stub_for(address))(request, timeout=CALL_SECONDS)
        except grpc.aio.AioRpcError as rpc_error:
            error = error_from_rpc(rpc_error)
            said_by_replica = error.code != error.default_code
            raise (error if said_by_replica or not isinstance(error, _NO_ANSWER) else _no_answer(name)) from rpc_error

    def _addresses(self) -> dict[str, str]:
        """Where each replica is, by its name. Of two of one name, the later is the one that is still listed."""
        return {end.meta.get("replica", end.service_id): end.address for end in self._watch.endpoints}

    def _holder(self, worker_id: str) -> str:
        """The replica that a worker's id begins with. Raises NotFound if there is none of that name."""
        name = worker_id.rsplit("-", 2)[0]
        if name == worker_id or name not in self._addresses():
            raise _no_worker(worker_id)
        return name

    def _known(self, replica: str) -> str:
        names = list(self._addresses())
        if replica in names:
            return replica
        hint = nearest(replica, names) or (f" Known are {', '.join(names)}." if names else "")
        raise _invalid("replica", f"There is no execution replica {shown(replica)!r}.{hint}")


def _roomiest(answers: Mapping[str, Sequence[pb.Worker] | None], pool: str) -> str:
    """The replica with the fewest workers in the pool, one of them that has the pool if any has."""
    counts = {
        name: sum(1 for worker in workers if worker.pool == pool and worker.state not in _LEAVING)
        for name, workers in answers.items()
        if workers is not None
    }
    candidates = {name: count for name, count in counts.items() if count} or counts
    # Of several with as few, any: requests that come together do not all go to the same one.
    return min(candidates, key=lambda name: (candidates[name], random.random()))


def _invalid(name: str, message: str) -> InvalidArgument:
    code, pointer = f"unknown_{name}", f"/{name}"
    return InvalidArgument(f"{pointer}: {message}", code=code, fields=[FieldError(pointer, code, message)])


def _no_answer(name: str) -> Unavailable:
    return Unavailable(f"The execution replica {shown(name)} does not answer.", code="replica_unreachable")


def _no_worker(worker_id: str) -> NotFound:
    return NotFound(f"There is no worker {shown(worker_id)!r}.", code="worker_not_found")
