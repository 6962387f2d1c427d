"""One pool's queue and workers: which attempt goes to which worker, and how many workers there are."""

import math
from collections import deque
from collections.abc import Callable, Iterable

from execution_service.workers.autopsy import Death
from execution_service.workers.durations import PREFETCH_SECONDS, Durations
from execution_service.workers.frames import BATCH_BYTES
from execution_service.workers.held import Held
from execution_service.workers.outcomes import PoolSize
from execution_service.workers.process import WorkerProcess
from execution_service.workers.watch import is_stuck

ATTEMPTS_PER_WORKER_MAX = 2000
# A worker that lived shorter than this delays its successor, the more often this happens in a row.
QUICK_DEATH_SECONDS = 1.0
_FIRST_DELAY_SECONDS = 0.1
_READY_DELAY_SECONDS_MAX = 0.5
_UNREADY_DELAY_SECONDS_MAX = 5.0


class Lane:
    """A pool of the replica: attempts wait here in order until a worker has room for them."""

    def __init__(
        self, name: str, size: PoolSize, durations: Durations, start_worker: Callable[["Lane"], WorkerProcess]
    ) -> None:
        self.name = name
        self.slots_per_process = size.slots_per_process
        self.target = size.processes
        self.workers: list[WorkerProcess] = []
        self._durations = durations
        self._start_worker = start_worker
        self._waiting: deque[Held] = deque()
        self._isolated: deque[Held] = deque()
        self._quick_deaths = 0
        self._start_after = float("-inf")

    @property
    def slots(self) -> int:
        """How many attempts run at once in the workers that are there."""
        return self.slots_per_process * sum(1 for worker in self.workers if _counts(worker))

    def add(self, held: Held) -> None:
        """Queue an attempt; `pump` sends it."""
        (self._isolated if held.attempt.isolated else self._waiting).append(held)

    def put_back(self, attempts: Iterable[Held]) -> None:
        """Queue attempts that come back unstarted, before all others and in their order."""
        for held in reversed(list(attempts)):
            held.worker = None
            held.told = False
            (self._isolated if held.attempt.isolated else self._waiting).appendleft(held)

    def remove(self, held: Held) -> None:
        """Take an attempt out that no worker has been given."""
        if not held.attempt.isolated:
            self._waiting.remove(held)
            return
        for worker in self.workers:
            if worker.reserved_for is held:
                worker.kill()
                return
        self._isolated.remove(held)

    def take_all(self) -> list[Held]:
        """Empty the queue."""
        waiting = [*self._isolated, *self._waiting]
        self._isolated.clear()
        self._waiting.clear()
        for worker in self.workers:
            if worker.reserved_for is not None and worker.reserved_for.worker is None:
                waiting.append(worker.reserved_for)
                worker.kill()
        return waiting

    def pump(self) -> None:
        """Give waiting attempts to workers that have room, evenly, the least loaded first."""
        if not self._waiting:
            return
        open_workers = sorted((w for w in self.workers if w.ready and _counts(w)), key=_load)
        if not open_workers:
            return
        share = math.ceil(len(self._waiting) / len(open_workers))
        for limit in (share, ATTEMPTS_PER_WORKER_MAX):
            for worker in open_workers:
                if batch := self._take(worker, limit):
                    worker.assign(batch)
            if not self._waiting:
                return

    def serve_reserved(self, worker: WorkerProcess) -> None:
        """Send a worker that has become ready the attempt for which it was started."""
        held = worker.reserved_for
        if held is not None and not worker.killed:
            worker.load_bytes += len(held.attempt.data)
            worker.assign([held])

    def keep_size(self, now: float) -> None:
        """Start the workers that are missing, and fresh ones for attempts that are to run alone."""
        if now < self._start_after:
            return
        for _ in range(self.target - sum(1 for worker in self.workers if _counts(worker))):
            self.workers.append(self._start_worker(self))
        reserved = sum(1 for worker in self.workers if worker.reserved_for is not None)
        while self._isolated and reserved < max(2, self.target):
            worker = self._start_worker(self)
            worker.reserved_for = self._isolated.popleft()
            self.workers.append(worker)
            reserved += 1

    def note_death(self, worker: WorkerProcess, death: Death, now: float) -> None:
        """Forget a worker that has ended; its successor waits if workers keep dying at their start."""
        self.workers.remove(worker)
        held = worker.reserved_for
        if held is not None and held.worker is None and not worker.killed:
            self._isolated.appendleft(held)
        if death.killed:
            return
        if now - worker.began >= QUICK_DEATH_SECONDS:
            self._quick_deaths = 0
            return
        self._quick_deaths += 1
        if self._quick_deaths > 1:
            longest = _READY_DELAY_SECONDS_MAX if worker.ready else _UNREADY_DELAY_SECONDS_MAX
            doublings = min(self._quick_deaths - 2, 10)
            self._start_after = now + min(longest, _FIRST_DELAY_SECONDS * 2**doublings)

    def _take(self, worker: WorkerProcess, limit: int) -> list[Held]:
        batch: list[Held] = []
        waiting, cost_of = self._waiting, self._durations.cost
        load_max = 0.0 if is_stuck(worker) else PREFETCH_SECONDS * worker.slots
        held_now = len(worker.entries)
        while waiting and len(batch) < limit:
            held = waiting[0]
            cost = cost_of(held.attempt.type)
            size = len(held.attempt.data)
            if held_now >= worker.slots and (worker.load + cost > load_max or held_now >= ATTEMPTS_PER_WORKER_MAX):
                break
            if held_now and worker.load_bytes + size > BATCH_BYTES:
                break
            waiting.popleft()
            batch.append(held)
            held_now += 1
            held.cost = cost
            worker.load += cost
            worker.load_bytes += size
        return batch


def _counts(worker: WorkerProcess) -> bool:
    return not (worker.retiring or worker.killed or worker.reserved_for is not None or worker.closed_at is not None)


def _load(worker: WorkerProcess) -> float:
    return worker.load
