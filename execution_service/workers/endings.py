"""The outcomes that the pool itself gives to attempts: those that no worker could or would report."""

import signal

import msgspec

from execution_service.workers.autopsy import Death, Stage, death_error, receipt_after_death
from execution_service.workers.failures import NEVER_STARTED, cancelled_error, cpu_error, timeout_error
from execution_service.workers.held import Held
from execution_service.workers.outcomes import AttemptError, Finished, Outcome

_TAKEN_AWAY = AttemptError("handed_back", "Its worker process was taken away from it; it goes to another one.")


def unstarted(held: Held, outcome: Outcome, error: AttemptError | None = None) -> Finished:
    """Return the outcome of an attempt that no handler was started for."""
    if outcome is Outcome.CANCELLED:
        error = NEVER_STARTED
    worker_id = held.worker.worker_id if held.worker is not None else ""
    return Finished(*held.key, outcome, None, error, False, worker_id, None, None)


def ending_after_death(
    held: Held,
    outcome: Outcome,
    death: Death,
    *,
    stage: Stage,
    started_at: float | None,
    ended_at: float,
    stopped_after: float,
) -> Finished:
    """Return the outcome of an attempt whose worker has ended.

    Times are in unix seconds; `stopped_after` is how long before it was told to stop, in seconds.
    """
    started = stage is not Stage.NOT_STARTED
    worker_id = held.worker.worker_id if held.worker is not None else ""
    error = _error_after_death(held, outcome, death, stage, stopped_after) if started else _unstarted_error(outcome)
    times = (started_at, ended_at) if started else (None, None)
    return Finished(*held.key, outcome, None, error, started, worker_id, *times)


def with_time(finished: Finished, stopped_after: float) -> Finished:
    """Return a worker's outcome of a cancelled attempt, with the time that only the pool knows."""
    error = finished.error
    if error is None or error.receipt is None or not finished.started:
        return finished
    receipt = msgspec.structs.replace(error.receipt, stopped_after=stopped_after)
    return msgspec.structs.replace(finished, error=cancelled_error(receipt))


def _error_after_death(
    held: Held, outcome: Outcome, death: Death, stage: Stage, stopped_after: float
) -> AttemptError | None:
    if outcome is Outcome.WORKER_DIED:
        return death_error(death)
    if outcome is Outcome.HANDED_BACK:
        return _TAKEN_AWAY
    if outcome is Outcome.CANCELLED:
        error = cancelled_error(receipt_after_death(stage, death, stopped_after))
    elif death.signal == signal.SIGXCPU:
        error = cpu_error()
    else:
        error = timeout_error(held.attempt.timeout)
    return msgspec.structs.replace(error, peak_memory=death.peak_kib * 1024)


def _unstarted_error(outcome: Outcome) -> AttemptError | None:
    return NEVER_STARTED if outcome is Outcome.CANCELLED else None
