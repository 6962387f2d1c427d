"""An attempt as the pool holds it, and what is to become of it."""

from enum import Enum, auto
from typing import TYPE_CHECKING

from execution_service.workers.outcomes import Attempt

if TYPE_CHECKING:
    from execution_service.workers.process import WorkerProcess


class Fate(Enum):
    """What was decided about an attempt that is in a worker."""

    OPEN = auto()
    # A cancel was asked for: it ends as CANCELLED unless its own outcome came first.
    CANCEL = auto()
    # It does not own its task any more: stopped, and nothing is reported.
    ABANDON = auto()
    # Its session has ended: stopped; nothing is reported unless its own outcome came first.
    SESSION_ENDED = auto()
    # It took too long.
    TIMEOUT = auto()
    # Its worker is taken away from it.
    HAND_BACK = auto()


class Held:
    """One attempt from `submit` to its end. Compared by identity."""

    __slots__ = ("attempt", "cost", "fate", "seq", "since", "stop_at", "terminated", "told", "worker")

    def __init__(self, attempt: Attempt, since: float = 0.0) -> None:
        self.attempt = attempt
        # When it came (monotonic seconds).
        self.since = since
        self.worker: WorkerProcess | None = None
        self.seq = 0
        # What it was counted with in the load of its worker, in seconds.
        self.cost = 0.0
        self.fate = Fate.OPEN
        # When it was told to stop (monotonic seconds).
        self.stop_at = 0.0
        # SIGTERM was sent for it.
        self.terminated = False
        # Its worker was told not to start it.
        self.told = False

    @property
    def key(self) -> tuple[int, int]:
        return self.attempt.task_id, self.attempt.attempt
