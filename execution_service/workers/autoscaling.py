"""How many workers a pool should have. Pure: what is measured comes in, what is decided comes out with its reason.

Up where all are busy, tasks wait and processors are free; down, one at a time, where one was not needed for long. What
lies between the two keeps the size as it is, so that it does not swing.
"""

from dataclasses import dataclass
from enum import StrEnum

# All have to be busy while tasks wait for as long; the end of one task among many is no reason.
PRESSED_SECONDS = 1.0
# A new worker shows in the figures after as long.
GROW_AGAIN_SECONDS = 2.0
# One processor has to be free for about half of the time.
FREE_CORES_MIN = 0.5
# Without one of them the others would be busy for no more than this part of the time.
SPARE_PART_MAX = 0.8
# After a time without need for one of the workers, they go one after the other, in this part of that time each.
SHRINK_AGAIN_PART = 0.2


class Reason(StrEnum):
    TASKS_WAIT = "tasks_wait"
    IDLE = "idle"
    # Why the size stays.
    STEADY = "steady"
    AT_MAXIMUM = "at_maximum"
    NO_FREE_CORES = "no_free_cores"
    TOO_SOON = "too_soon"


@dataclass(frozen=True, slots=True)
class Bounds:
    """How many workers there may be, and after how long one that is not needed goes."""

    least: int
    most: int
    idle_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What a pool is like. `busy` is a mean since the last look; `waiting` counts tasks without a worker, anywhere."""

    workers: int
    busy: float
    waiting: int
    free_cores: float

    @property
    def is_pressed(self) -> bool:
        return self.waiting > 0 and self.busy > self.workers - 0.5

    @property
    def has_spare(self) -> bool:
        return self.waiting == 0 and self.busy <= (self.workers - 1) * SPARE_PART_MAX


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """For how many seconds it has been so."""

    pressed: float
    spare: float
    since_change: float


@dataclass(frozen=True, slots=True)
class Decision:
    """How many workers more, or fewer."""

    change: int
    reason: Reason


def decide(load: Load, times: Times, bounds: Bounds) -> Decision:
    """Return by how many workers to change the pool now."""
    if load.is_pressed:
        return _grow(load, times, bounds)
    if load.has_spare and load.workers > bounds.least:
        late = times.spare >= bounds.idle_seconds
        if late and times.since_change >= bounds.idle_seconds * SHRINK_AGAIN_PART:
            return Decision(-1, Reason.IDLE)
        return Decision(0, Reason.TOO_SOON)
    return Decision(0, Reason.STEADY)


def _grow(load: Load, times: Times, bounds: Bounds) -> Decision:
    room = bounds.most - load.workers
    if room <= 0:
        return Decision(0, Reason.AT_MAXIMUM)
    if load.free_cores < FREE_CORES_MIN:
        return Decision(0, Reason.NO_FREE_CORES)
    if times.pressed < PRESSED_SECONDS or times.since_change < GROW_AGAIN_SECONDS:
        return Decision(0, Reason.TOO_SOON)
    return Decision(min(room, load.waiting, max(1, int(load.free_cores))), Reason.TASKS_WAIT)


class LoadHistory:
    """Since when a pool has been pressed, or had a worker to spare, and when its size was changed."""

    def __init__(self, now: float) -> None:
        self._pressed_since: float | None = None
        self._spare_since: float | None = None
        self._changed_at = now

    def note(self, load: Load, now: float) -> Times:
        self._pressed_since = _begin(self._pressed_since, now) if load.is_pressed else None
        self._spare_since = _begin(self._spare_since, now) if load.has_spare else None
        return Times(
            pressed=_since(self._pressed_since, now),
            spare=_since(self._spare_since, now),
            since_change=now - self._changed_at,
        )

    def note_change(self, now: float) -> None:
        self._changed_at = now


def _begin(begin: float | None, now: float) -> float:
    return now if begin is None else begin


def _since(begin: float | None, now: float) -> float:
    return 0.0 if begin is None else now - begin
