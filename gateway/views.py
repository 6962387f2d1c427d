"""What REST clients see of a task."""

from typing import Any, Final

from gateway.task_options import complete_backoff
from headrace.v1.task_pb2 import Attempt, AttemptLog, Backoff, Outcome, Task, TaskStatus
from servicekit.task_views import STATUS_NAMES, error_view, raw, time_view

# A failure is a failure to readers: whether it was worth another attempt is told by what followed.
_OUTCOME_NAMES: dict[int, str] = {
    **{value: name.removeprefix("OUTCOME_").lower() for name, value in Outcome.items() if value},
    Outcome.OUTCOME_FAILED_FOR_GOOD: "failed",
}
# In the order in which they usually come.
_TIMES: Final = (
    "accepted_at",
    "created_at",
    "run_at",
    "claimed_at",
    "started_at",
    "executed_at",
    "cancel_requested_at",
    "finished_at",
)


def waiting_task(task_id: int) -> Task:
    """A task that was accepted and is not stored yet: revision 0."""
    return Task(task_id=task_id, status=TaskStatus.TASK_STATUS_QUEUED)


def task_view(task: Task, *, notice: str | None = None) -> dict[str, Any]:
    """One task with its data, result and attempts; `notice` is why it cannot be run now."""
    return {
        "id": task.task_id,
        "type": task.type or None,
        "status": STATUS_NAMES.get(task.status),
        "result": raw(task.result),
        "result_unavailable": task.result_unavailable,
        "error": _error(task, log_tail=True),
        "data": raw(task.data),
        "notice": notice,
        "attempts": [attempt_view(attempt) for attempt in task.attempts],
        **_facts(task),
    }


def listed_task_view(task: Task) -> dict[str, Any]:
    """One task of a list, without data, result and attempts."""
    return {
        "id": task.task_id,
        "type": task.type or None,
        "status": STATUS_NAMES.get(task.status),
        "error": _error(task),
        **_facts(task),
    }


def log_view(log: AttemptLog) -> dict[str, Any]:
    """The log of one attempt."""
    return {"attempt": log.attempt, "log": log.log, "stored_at": time_view(log, "stored_at")}


def attempt_view(attempt: Attempt) -> dict[str, Any]:
    return {
        "attempt": attempt.attempt,
        "replica": attempt.replica or None,
        "worker": attempt.worker or None,
        "claimed_at": time_view(attempt, "claimed_at"),
        "started_at": time_view(attempt, "started_at"),
        "ended_at": time_view(attempt, "ended_at"),
        "outcome": _OUTCOME_NAMES.get(attempt.outcome),
        "error": _error(attempt, log_tail=True),
    }


def backoff_view(backoff: Backoff) -> dict[str, Any]:
    return {"initial": backoff.initial_ms / 1000, "factor": backoff.factor, "maximum": backoff.max_ms / 1000}


def _facts(task: Task) -> dict[str, Any]:
    stored = task.revision > 0
    return {
        "attempt": task.attempt,
        "max_attempts": task.max_attempts or None,
        "starts": task.starts,
        "failures": task.failures,
        "worker_deaths": task.worker_deaths,
        "replica_losses": task.replica_losses,
        "priority": task.priority if stored else None,
        "pool": task.pool or None,
        "timeout": task.timeout_ms / 1000 if task.timeout_ms else None,
        "soft_timeout": task.options.soft_timeout_ms / 1000 if task.options.soft_timeout_ms else None,
        "backoff": backoff_view(complete_backoff(task.options)) if stored else None,
        "revision": task.revision,
        **{name: time_view(task, name) for name in _TIMES},
        "expires_at": time_view(task, "expires_at"),
        "replica": task.replica or None,
        "worker": task.worker or None,
    }


def _error(holder: Task | Attempt, *, log_tail: bool = False) -> dict[str, Any] | None:
    return error_view(holder.error, log_tail=log_tail) if holder.HasField("error") else None
