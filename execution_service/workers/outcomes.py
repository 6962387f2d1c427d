"""What the pool is given and what it gives back: attempts, how they ended, their progress, and the workers.

They are msgspec structs laid out as arrays, so that the very same objects travel in the frames between the pool and
its workers without a conversion on the way.
"""

from dataclasses import dataclass
from enum import IntEnum

import msgspec


class Outcome(IntEnum):
    """How an attempt ended; numbered as `headrace.v1.Outcome`."""

    COMPLETED = 1
    FAILED = 2
    FAILED_FOR_GOOD = 3
    WORKER_DIED = 4
    CANCELLED = 5
    HANDED_BACK = 6


class EndedBy(IntEnum):
    """What ended an attempt that was to be cancelled; numbered as `headrace.v1.CancelReceipt.EndedBy`."""

    NOT_STARTED = 1
    HANDLER = 2
    SIGTERM = 3
    SIGKILL = 4
    ITS_END = 5


class Attempt(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One attempt to be run.

    `timeout` and `soft_timeout` are in seconds, the latter 0 for none; `isolated` asks for a worker that has run
    nothing before, `solitary` for a whole replica that runs nothing else.
    """

    task_id: int
    attempt: int
    session_id: int
    type: str
    data: bytes
    pool: str
    timeout: float
    isolated: bool
    max_attempts: int
    soft_timeout: float = 0.0
    solitary: bool = False


class CancelReceipt(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """How a cancel came true: `stopped_after` seconds after it was asked for, 0 where no handler ran.

    `processes_gone` says that nothing runs for the attempt any more, neither its handler nor what it had started.
    """

    ended_by: EndedBy
    stopped_after: float
    processes_gone: bool


class AttemptError(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Why an attempt did not complete.

    `signal`, `exit_code` and `peak_memory` (bytes) are 0 unless the worker process ended under it, or because of it.
    `receipt` is there after a cancel.
    """

    code: str
    message: str
    exception: str = ""
    signal: int = 0
    exit_code: int = 0
    peak_memory: int = 0
    receipt: CancelReceipt | None = None


class Finished(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """How an attempt ended. `result` is JSON, set when it completed; times are unix seconds, for display.

    `log` is the end of what the handler printed and logged; the pool fills it in. `retry_after` is in seconds.
    """

    task_id: int
    attempt: int
    outcome: Outcome
    result: bytes | None
    error: AttemptError | None
    started: bool
    worker_id: str
    started_at: float | None
    executed_at: float | None
    log: str = ""
    retry_after: float | None = None


class ProgressItem(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """How far an attempt has come: `n` counts up from 1, `fraction` never falls, `at` is in unix seconds."""

    task_id: int
    attempt: int
    type: str
    n: int
    fraction: float
    message: str
    at: float


@dataclass(frozen=True, slots=True)
class LaneLoad:
    """How busy a pool is: `busy` is the mean number of busy workers since the last look, `waiting` counts attempts."""

    base: int
    extra: int
    busy: float
    waiting: int


@dataclass(frozen=True, slots=True)
class PoolSize:
    """How many worker processes a pool has and how many attempts each runs at once."""

    processes: int
    slots_per_process: int = 1


class WorkerState(IntEnum):
    """What a worker process is at; numbered as `headrace.v1.Worker.State`."""

    STARTING = 1
    READY = 2
    BUSY = 3
    DRAINING = 4
    ENDING = 5


@dataclass(frozen=True, slots=True)
class RunningAttempt:
    """An attempt whose handler has run for so many seconds, by a clock that is good enough for display."""

    task_id: int
    attempt: int
    type: str
    seconds: float


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """A worker process as people see it; `started_at` is in unix seconds, `memory` in bytes, 0 where it is gone."""

    worker_id: str
    pid: int
    pool: str
    state: WorkerState
    slots: int
    started_at: float
    running: tuple[RunningAttempt, ...]
    tasks_done: int
    memory: int
