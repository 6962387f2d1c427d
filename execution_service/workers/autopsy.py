"""What becomes of the attempts of a worker that has ended. Pure: decided from what the worker left on its page."""

import signal
from dataclasses import dataclass
from enum import Enum, auto

from execution_service.workers.failures import MESSAGE_BYTES_MAX, clean_text
from execution_service.workers.held import Fate
from execution_service.workers.outcomes import AttemptError, CancelReceipt, EndedBy, Outcome


class Stage(Enum):
    """How far an attempt had come when its worker ended."""

    NOT_STARTED = auto()
    RUNNING = auto()
    # It was started and does not run any more, but its outcome did not arrive.
    ENDED_UNREPORTED = auto()


class Next(Enum):
    """What to do with an attempt that gets no outcome."""

    RUN_AGAIN = auto()
    FORGET = auto()


@dataclass(frozen=True, slots=True)
class Death:
    """How a worker process ended. `killed` says that the pool killed it, for the sake of one attempt or of none.

    `processes_gone` says that it is certain that what its handlers had started is gone with it.
    """

    killed: bool
    signal: int
    exit_code: int
    peak_kib: int
    reason: str
    output: str
    processes_gone: bool = False


def stage_of(seq: int, *, last_started: int, running: dict[int, float]) -> Stage:
    """Return how far the attempt numbered `seq` had come.

    Where none was running, the last one started counts as if it was: what it left behind may well have ended the
    worker, and an attempt that does this each time must not be given back for ever.
    """
    if seq in running or (not running and seq == last_started):
        return Stage.RUNNING
    return Stage.ENDED_UNREPORTED if seq <= last_started else Stage.NOT_STARTED


def judge(fate: Fate, stage: Stage, death: Death, *, draining: bool) -> Outcome | Next:
    """Return the outcome of an attempt whose worker has ended, or what to do with it instead.

    An attempt is charged for the death only if it was running in a worker that ended by itself.
    """
    if fate in (Fate.ABANDON, Fate.SESSION_ENDED):
        return Next.FORGET
    if fate is Fate.CANCEL:
        return Outcome.CANCELLED
    if stage is Stage.NOT_STARTED:
        return Outcome.HANDED_BACK if draining else Next.RUN_AGAIN
    if fate is Fate.TIMEOUT:
        return Outcome.FAILED
    if stage is Stage.RUNNING and fate is Fate.OPEN and not death.killed:
        return Outcome.FAILED if death.signal == signal.SIGXCPU else Outcome.WORKER_DIED
    return Outcome.HANDED_BACK


def death_error(death: Death) -> AttemptError:
    """Return the error of an attempt that was running in a worker that died, with the evidence."""
    parts = [_ending(death), f"Peak memory: {death.peak_kib // 1024} MiB."]
    if death.reason:
        parts.insert(0, death.reason)
    if death.output:
        parts.append("Last output:\n" + death.output)
    message = clean_text(" ".join(parts), MESSAGE_BYTES_MAX)
    return AttemptError("worker_died", message, "", death.signal, death.exit_code, death.peak_kib * 1024)


def receipt_after_death(stage: Stage, death: Death, stopped_after: float) -> CancelReceipt:
    """Return the receipt of an attempt that was to be cancelled when its worker ended."""
    if stage is Stage.NOT_STARTED:
        return CancelReceipt(EndedBy.NOT_STARTED, 0.0, processes_gone=True)
    ended_by = EndedBy.ITS_END
    if stage is Stage.RUNNING and death.killed:
        ended_by = EndedBy.SIGKILL
    elif stage is Stage.RUNNING and death.signal == signal.SIGTERM:
        ended_by = EndedBy.SIGTERM
    return CancelReceipt(ended_by, stopped_after, death.processes_gone)


def _ending(death: Death) -> str:
    if not death.signal:
        return f"The worker process exited with code {death.exit_code}."
    try:
        name = signal.Signals(death.signal).name
    except ValueError:
        name = "unknown"
    return f"The worker process was ended by signal {death.signal} ({name})."
