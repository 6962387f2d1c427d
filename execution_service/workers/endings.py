"""The outcomes that the pool itself gives to attempts: those that no worker could or would report."""

import signal

from execution_service.workers.autopsy import Death, death_error
from execution_service.workers.failures import CANCELLED, cpu_error, timeout_error
from execution_service.workers.held import Held
from execution_service.workers.outcomes import AttemptError, Finished, Outcome


def unstarted(held: Held, outcome: Outcome, error: AttemptError | None = None) -> Finished:
    """Return the outcome of an attempt that no handler was started for."""
    if outcome is Outcome.CANCELLED:
        error = CANCELLED
    worker_id = held.worker.worker_id if held.worker is not None else ""
    return Finished(*held.key, outcome, None, error, False, worker_id, None, None)


def ending_after_death(held: Held, outcome: Outcome, death: Death, *, started: bool, ended_at: float) -> Finished:
    """Return the outcome of an attempt whose worker has ended; `ended_at` is in unix seconds."""
    error = None
    if outcome is Outcome.WORKER_DIED:
        error = death_error(death)
    elif outcome is Outcome.CANCELLED:
        error = CANCELLED
    elif outcome is Outcome.FAILED:
        error = cpu_error() if death.signal == signal.SIGXCPU else timeout_error(held.attempt.timeout)
    worker_id = held.worker.worker_id if held.worker is not None else ""
    return Finished(*held.key, outcome, None, error, started, worker_id, None, ended_at if started else None)
