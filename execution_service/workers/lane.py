"""One pool's queue and workers: which attempt goes to which worker, and how many workers there are."""

import math
from collections import deque
from collections.abc import Callable, Iterable
from itertools import islice

from execution_service.workers.autopsy import Death
from execution_service.workers.durations import PREFETCH_SECONDS, Durations
from execution_service.workers.frames import BATCH_BYTES
from execution_service.workers.held import Held
from execution_service.workers.outcomes import LaneLoad, PoolSize
from execution_service.workers.process import WorkerProcess
from execution_service.workers.watch import is_stuck, long_running
from servicekit.errors import Conflict, Overloaded

ATTEMPTS_PER_WORKER_MAX = 2000
# What would wait longer than this for its turn is handed back: another replica may have room for it.
WAIT_SECONDS_MAX = 0.1
# Nothing is handed back before the first has waited this long: until then it is a guess from durations that vary.
WAIT_SECONDS_MIN = 0.05
# Of one pool, whether by the settings or by hand.
WORKERS_MAX = 256
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
        # As many as the settings and requests say, and as many as the load adds to them.
        self.base = size.processes
        self.extra = 0
        self.workers: list[WorkerProcess] = []
        self._durations = durations
        self._start_worker = start_worker
        self._waiting: deque[Held] = deque()
        self._isolated: deque[Held] = deque()
        self._quick_deaths = 0
        self._start_after = float("-inf")
        # How many were ready at once since the target was last below that.
        self._reached = 0
        self._busy_sum = self._busy_looks = 0
        # How many attempts were found to run for long though their types are short.
        self.stuck = 0

    @property
    def target(self) -> int:
        """How many workers there are to be."""
        return self.base + self.extra

    @property
    def slots(self) -> int:
        """How many attempts run at once in the workers that are there. A worker and its successor count as one.

        One that is to replace another counts while it starts; one that was added does when it is ready.
        """
        serving = self._serving()
        return self.slots_per_process * min(self.target, len(serving), max(self._reached, _ready(serving)))

    def look(self) -> None:
        """Note how many workers are busy right now, and how many attempts take longer than they should."""
        self.stuck = sum(self._is_short(held) for worker in self.workers for held in long_running(worker))
        self._busy_sum += sum(1 for worker in self._serving() if worker.entries)
        self._busy_looks += 1

    def load(self) -> LaneLoad:
        """How busy the workers were since the last call."""
        busy = self._busy_sum / max(1, self._busy_looks)
        self._busy_sum = self._busy_looks = 0
        return LaneLoad(self.base, self.extra, busy, len(self._waiting) + len(self._isolated))

    def resize(self, change: int) -> bool:
        """Add workers, which `keep_size` starts, or retire idle ones; return whether anything was changed."""
        if change > 0:
            added = min(change, WORKERS_MAX - self.target)
            self.extra += added
            return added > 0
        idle = [worker for worker in self._serving() if worker.ready and not worker.entries][:-change]
        for worker in idle:
            _retire(worker)
        self.extra -= len(idle)
        return bool(idle)

    def grow(self) -> WorkerProcess:
        """Start one more worker, now and for good. Raises Overloaded at the bound, which draining ones count for."""
        if max(self.target, len(self.workers)) >= WORKERS_MAX:
            message = f"The pool {self.name} has {WORKERS_MAX} worker processes, as many as a replica may have."
            raise Overloaded(message, code="too_many_workers")
        worker = self._start()
        self.base += 1
        return worker

    def shrink(self, worker: WorkerProcess, *, force: bool) -> None:
        """Take a worker out of service for good, with `force` at once. Raises Conflict for the last one.

        One that leaves anyhow, as it was told so before or was started for a single attempt, is not counted again.
        """
        if _counts(worker):
            if self.target <= 1:
                message = f"It is the last worker of the pool {self.name}. Create another one there first."
                raise Conflict(message, code="last_worker")
            self.base -= 1
        _retire(worker)
        if force:
            self._unreserve(worker)
            worker.kill()

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

    def take_excess(self, now: float) -> list[Held]:
        """Take out what would wait for too long, as its type is long and no worker is free for it, or as short ones
        before it fill the time of the workers that are not in a long one.

        A type that was never measured gets the benefit of the doubt as long as one of them is left.
        """
        if not self._waiting or now - self._waiting[0].since < WAIT_SECONDS_MIN:
            return []
        free = self._slots_without_long()
        room, seconds = free, free * WAIT_SECONDS_MAX
        kept: deque[Held] = deque()
        excess: list[Held] = []
        for held in self._waiting:
            if self._is_short(held):
                seconds -= self._durations.least(held.attempt.type)
                fits = seconds >= 0
            elif self._durations.is_long(held.attempt.type):
                room -= 1
                fits = room >= 0
            else:
                fits = free > 0
            (kept if fits else excess).append(held)
        if excess:
            self._waiting = kept
        return excess

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
        """Give waiting attempts to workers that have room, evenly, the least loaded first.

        A long one takes the last worker that is not in a long one only after the short ones that are here: no more of
        those are asked for then, and they would wait for its end.
        """
        if not self._waiting:
            return
        open_workers = sorted((w for w in self.workers if w.ready and _counts(w)), key=_load)
        if not open_workers:
            return
        if self.slots_per_process == 1 and sum(1 for w in open_workers if not self._is_in_long(w)) <= 1:
            self._put_short_first()
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
        """Retire the workers that are too many, start those that are missing or to replace a worn one.

        Besides, start fresh ones for attempts that are to run alone.
        """
        serving = self._serving()
        self._reached = min(self.target, max(self._reached, _ready(serving)))
        missing = self.target - len(serving)
        if missing < 0:
            self._retire_surplus(serving)
        if now < self._start_after:
            return
        for _ in range(missing or self._replaceable(serving)):
            self._start()
        reserved = sum(1 for worker in self.workers if worker.reserved_for is not None)
        while self._isolated and reserved < max(2, self.target):
            worker = self._start()
            worker.reserved_for = self._isolated.popleft()
            reserved += 1

    def note_death(self, worker: WorkerProcess, death: Death, now: float) -> None:
        """Forget a worker that has ended; its successor waits if workers keep dying at their start."""
        self.workers.remove(worker)
        self._unreserve(worker)
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

    def _serving(self) -> list[WorkerProcess]:
        return [worker for worker in self.workers if _counts(worker)]

    def _start(self) -> WorkerProcess:
        worker = self._start_worker(self)
        self.workers.append(worker)
        return worker

    def _replaceable(self, serving: list[WorkerProcess]) -> int:
        """How many successors of worn workers may be started while none is missing.

        One at a time, since a start takes as much of the processors as thousands of short tasks; and no more while as
        many still drain, which may take them as long as the longest task.
        """
        if not any(worker.worn for worker in serving):
            return 0
        return int(sum(1 for worker in self.workers if worker.retiring) < self.target)

    def _retire_surplus(self, serving: list[WorkerProcess]) -> None:
        """Let those go that others can do without, worn ones first: as many are ready as there are to be."""
        ready = [worker for worker in serving if worker.ready]
        for worker in sorted(ready, key=_expendable)[: max(0, len(ready) - self.target)]:
            _retire(worker)

    def _unreserve(self, worker: WorkerProcess) -> None:
        """Let another worker be started for the attempt that this one has not been given yet."""
        held = worker.reserved_for
        if held is not None and held.worker is None and not worker.killed:
            worker.reserved_for = None
            self._isolated.appendleft(held)

    def _is_short(self, held: Held) -> bool:
        return self._durations.is_short(held.attempt.type)

    def _is_in_long(self, worker: WorkerProcess) -> bool:
        """Whether a worker that runs one attempt at a time has one that may be long."""
        return is_stuck(worker) or not all(self._is_short(held) for held in islice(worker.entries.values(), 1))

    def _put_short_first(self) -> None:
        if not self._is_short(self._waiting[0]):
            self._waiting = deque(sorted(self._waiting, key=lambda held: not self._is_short(held)))

    def _slots_without_long(self) -> int:
        """Slots, also those of workers that start just now, in which no attempt runs that is known to take long."""
        return sum(worker.slots - len(self._long_ones(worker)) for worker in self._serving())

    def _long_ones(self, worker: WorkerProcess) -> set[int]:
        slow = {held.seq for held in long_running(worker)}
        first = islice(worker.entries.values(), worker.slots)
        return slow | {held.seq for held in first if self._durations.is_long(held.attempt.type)}

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


def _ready(workers: Iterable[WorkerProcess]) -> int:
    return sum(1 for worker in workers if worker.ready)


def _retire(worker: WorkerProcess) -> None:
    """Give a worker no more attempts; it ends when it has none."""
    worker.retiring = True
    if not worker.entries and worker.reserved_for is None:
        worker.kill()


def _load(worker: WorkerProcess) -> float:
    return worker.load


def _expendable(worker: WorkerProcess) -> tuple[bool, float]:
    return not worker.worn, worker.load
