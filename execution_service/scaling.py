"""Fits the number of workers of a pool to what there is to do."""

from collections.abc import Callable
from typing import Protocol

import structlog

from execution_service.workers.autoscaling import Bounds, Decision, Load, LoadHistory, Reason, decide
from execution_service.workers.cores import CoreMeter
from execution_service.workers.outcomes import LaneLoad
from servicekit.clock import Clock
from servicekit.loops import BackgroundLoop

log = structlog.stdlib.get_logger(__name__)

LOOK_SECONDS = 0.5


class Workers(Protocol):
    """What this module needs of the worker pool."""

    def load(self, pool: str) -> LaneLoad: ...
    def resize(self, pool: str, change: int) -> bool: ...


class WorkerScaling:
    """Looks at one pool now and then. `least` and `most` bound its size relative to the one that was set.

    `waiting` counts the tasks of the pool that no replica has taken; `on_change` is called after the size was changed.
    """

    def __init__(
        self,
        workers: Workers,
        *,
        pool: str,
        least: int,
        most: int,
        idle_seconds: float,
        waiting: Callable[[str], int],
        on_change: Callable[[], None],
        clock: Clock,
    ) -> None:
        self._workers = workers
        self._pool = pool
        self._least = least
        self._most = most
        self._idle_seconds = idle_seconds
        self._waiting = waiting
        self._on_change = on_change
        self._clock = clock
        self._history = LoadHistory(clock.monotonic())
        self._meter = CoreMeter(clock.monotonic())
        self._reason = Reason.STEADY
        self._loop = BackgroundLoop("autoscaling", self.run_once, interval=LOOK_SECONDS, jitter=0)

    def start(self) -> None:
        if self._least < self._most:
            self._loop.start()

    async def stop(self) -> None:
        await self._loop.stop()

    async def run_once(self) -> None:
        now = self._clock.monotonic()
        lane = self._workers.load(self._pool)
        load = Load(
            workers=lane.base + lane.extra,
            busy=lane.busy,
            waiting=lane.waiting + self._waiting(self._pool),
            free_cores=self._meter.free(now),
        )
        bounds = Bounds(max(1, lane.base + self._least), lane.base + self._most, self._idle_seconds)
        decision = decide(load, self._history.note(load, now), bounds)
        if decision.change and self._workers.resize(self._pool, decision.change):
            self._history.note_change(now)
            self._on_change()
            self._tell("workers_scaled", decision, load)
        elif decision.reason is not self._reason and decision.reason in (Reason.AT_MAXIMUM, Reason.NO_FREE_CORES):
            self._tell("workers_not_scaled", decision, load)
        self._reason = decision.reason

    def _tell(self, event: str, decision: Decision, load: Load) -> None:
        log.info(
            event,
            pool=self._pool,
            change=decision.change,
            reason=decision.reason.value,
            workers=load.workers + decision.change,
            busy=round(load.busy, 2),
            waiting=load.waiting,
            free_cores=round(load.free_cores, 2),
        )
