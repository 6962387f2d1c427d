"""Worker processes of a simulated replica: each runs one attempt at a time, and reads the lease page before it."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from random import Random

from execution_service.attempts import Key
from execution_service.workers.lease_page import LeasePage
from execution_service.workers.outcomes import Attempt, AttemptError, Finished, Outcome
from servicekit.clock import Clock
from tests.simulation.virtual_time import Process, VirtualLoop

_PIPE_SECONDS = 0.0005
_LOOK_SECONDS = 0.05
_CANCEL_SECONDS = 0.05
_RESULT = b'{"words":1}'

# Told of each handler's start, and of its end however it ends: the attempt and whether it began.
Observer = Callable[[Attempt, bool], None]


class _Worker:
    def __init__(self, process: Process) -> None:
        self.process = process
        self.attempt: Attempt | None = None
        self.started = False


class SimulatedWorkers:
    """The pool's side and its workers'. A killed worker is replaced at once."""

    def __init__(
        self,
        loop: VirtualLoop,
        parent: Process,
        page: LeasePage,
        clock: Clock,
        *,
        slots: int,
        rng: Random,
        on: Observer,
    ) -> None:
        self.on_finished: Callable[[list[Finished]], None] = lambda _finished: None
        self._loop = loop
        self._parent = parent
        self._page = page
        self._clock = clock
        self._rng = rng
        self._observe = on
        self._queue: deque[Attempt] = deque()
        self._workers = [self._new() for _ in range(slots)]

    @property
    def processes(self) -> list[Process]:
        return [worker.process for worker in self._workers]

    # What the replica asks for.

    def slots(self, _pool: str) -> int:
        return len(self._workers)

    def mean_seconds(self, _type_name: str) -> float | None:
        return 0.04

    def is_short(self, _type_name: str) -> bool:
        return True

    def stuck(self, _pool: str) -> int:
        return 0

    def submit(self, attempts: Sequence[Attempt]) -> None:
        self._queue.extend(attempts)
        self._pump()

    def cancel(self, task_id: int, attempt: int) -> None:
        self._parent.call_later(_CANCEL_SECONDS, self._cancel, (task_id, attempt))

    def abandon(self, keys: Iterable[Key]) -> None:
        gone = set(keys)
        self._drop(lambda attempt: (attempt.task_id, attempt.attempt) in gone)

    def kill_session(self, session_id: int) -> None:
        self._drop(lambda attempt: attempt.session_id == session_id)

    # What befalls them.

    def worker_dies(self) -> None:
        """The worker of a running attempt is gone, and its parent sees it."""
        for worker in self._workers:
            if worker.started and worker.attempt is not None:
                attempt = worker.attempt
                self._kill(worker)
                self._parent.call_later(_PIPE_SECONDS, self._lost, attempt)
                return

    def die(self) -> None:
        """With their parent."""
        for worker in self._workers:
            self._kill(worker)

    def _lost(self, attempt: Attempt) -> None:
        self._report(attempt, Outcome.WORKER_DIED, started=True)
        self._pump()

    def _cancel(self, key: Key) -> None:
        for attempt in [attempt for attempt in self._queue if (attempt.task_id, attempt.attempt) == key]:
            self._queue.remove(attempt)
            self._report(attempt, Outcome.CANCELLED, started=False)
        for worker in self._workers:
            attempt_now = worker.attempt
            if attempt_now is not None and (attempt_now.task_id, attempt_now.attempt) == key:
                started = worker.started
                self._kill(worker)
                self._report(attempt_now, Outcome.CANCELLED, started=started)
        self._pump()

    def _drop(self, meant: Callable[[Attempt], bool]) -> None:
        self._queue = deque(attempt for attempt in self._queue if not meant(attempt))
        for worker in self._workers:
            if worker.attempt is not None and meant(worker.attempt):
                self._kill(worker)
        self._pump()

    def _new(self) -> _Worker:
        return _Worker(self._loop.process(f"{self._parent.name} worker"))

    def _kill(self, worker: _Worker) -> None:
        worker.process.kill()
        if worker.started and worker.attempt is not None:
            self._observe(worker.attempt, False)
        self._workers[self._workers.index(worker)] = self._new()

    def _pump(self) -> None:
        for worker in self._workers:
            if self._queue and worker.attempt is None:
                worker.attempt = self._queue.popleft()
                worker.process.spawn(self._work(worker, worker.attempt))

    async def _work(self, worker: _Worker, attempt: Attempt) -> None:
        await asyncio.sleep(_PIPE_SECONDS)
        while not self._page.may_start(attempt.session_id, self._clock.boottime()):  # noqa: ASYNC110 - as workers do
            await asyncio.sleep(_LOOK_SECONDS)
        worker.started = True
        self._observe(attempt, True)
        await asyncio.sleep(self._rng.choice((0.005, 0.02, 0.1, 0.5, 2.0)))
        outcome = Outcome.COMPLETED if self._rng.random() < 0.85 else Outcome.FAILED
        worker.started = False
        self._observe(attempt, False)
        self._parent.call_later(_PIPE_SECONDS, self._ended, worker, attempt, outcome)

    def _ended(self, worker: _Worker, attempt: Attempt, outcome: Outcome) -> None:
        if worker.attempt is attempt:
            worker.attempt = None
        self._report(attempt, outcome, started=True)
        self._pump()

    def _report(self, attempt: Attempt, outcome: Outcome, *, started: bool) -> None:
        done = outcome is Outcome.COMPLETED
        error = None if done else AttemptError(outcome.name.lower(), "simulated")
        self.on_finished(
            [
                Finished(
                    attempt.task_id,
                    attempt.attempt,
                    outcome,
                    _RESULT if done else None,
                    error,
                    started,
                    "w",
                    None,
                    None,
                )
            ]
        )
