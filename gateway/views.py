"""What REST and WebSocket clients see of a task."""

from typing import Any, Final

import msgspec
from google.protobuf.timestamp_pb2 import Timestamp

from gateway.task_options import complete_backoff
from headrace.v1.task_pb2 import (
    Attempt,
    AttemptLog,
    Backoff,
    CancelReceipt,
    Outcome,
    Task,
    TaskError,
    TaskStatus,
    TaskUpdate,
)

STATUS_NAMES: dict[int, str] = {
    value: name.removeprefix("TASK_STATUS_").lower() for name, value in TaskStatus.items() if value
}
STATUSES = {name: TaskStatus.Value(f"TASK_STATUS_{name.upper()}") for name in STATUS_NAMES.values()}
FINAL = frozenset((TaskStatus.TASK_STATUS_COMPLETED, TaskStatus.TASK_STATUS_FAILED, TaskStatus.TASK_STATUS_CANCELLED))
# A failure is a failure to readers: whether it was worth another attempt is told by what followed.
_OUTCOME_NAMES: dict[int, str] = {
    **{value: name.removeprefix("OUTCOME_").lower() for name, value in Outcome.items() if value},
    Outcome.OUTCOME_FAILED_FOR_GOOD: "failed",
}
_ENDED_BY_NAMES: dict[int, str] = {
    value: name.removeprefix("ENDED_BY_").lower() for name, value in CancelReceipt.EndedBy.items() if value
}
_MIB = 1024 * 1024
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


def is_final(status: int) -> bool:
    return status in FINAL


def waiting_task(task_id: int) -> Task:
    """A task that was accepted and is not stored yet: revision 0."""
    return Task(task_id=task_id, status=TaskStatus.TASK_STATUS_QUEUED)


def task_view(task: Task, *, notice: str | None = None) -> dict[str, Any]:
    """One task with its data, result and attempts; `notice` is why it cannot be run now."""
    return {
        "id": task.task_id,
        "type": task.type or None,
        "status": STATUS_NAMES.get(task.status),
        "result": _raw(task.result),
        "result_unavailable": task.result_unavailable,
        "error": error_view(task, log_tail=True),
        "data": _raw(task.data),
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
        "error": error_view(task),
        **_facts(task),
    }


def log_view(log: AttemptLog) -> dict[str, Any]:
    """The log of one attempt."""
    return {"attempt": log.attempt, "log": log.log, "stored_at": _time(log, "stored_at")}


def attempt_view(attempt: Attempt) -> dict[str, Any]:
    return {
        "attempt": attempt.attempt,
        "replica": attempt.replica or None,
        "worker": attempt.worker or None,
        "claimed_at": _time(attempt, "claimed_at"),
        "started_at": _time(attempt, "started_at"),
        "ended_at": _time(attempt, "ended_at"),
        "outcome": _OUTCOME_NAMES.get(attempt.outcome),
        "error": error_view(attempt, log_tail=True),
    }


def backoff_view(backoff: Backoff) -> dict[str, Any]:
    return {"initial": backoff.initial_ms / 1000, "factor": backoff.factor, "maximum": backoff.max_ms / 1000}


def error_view(holder: Task | TaskUpdate | Attempt, *, log_tail: bool = False) -> dict[str, Any] | None:
    """The error, if there is one; the last lines of the log only with `log_tail`: they are long."""
    if not holder.HasField("error"):
        return None
    error: TaskError = holder.error
    view: dict[str, Any] = {
        "code": error.code,
        "message": error.message,
        "exception": error.exception or None,
        "signal": error.signal or None,
        "exit_code": error.exit_code or None,
        "peak_memory_mib": round(error.peak_memory_bytes / _MIB, 1) if error.peak_memory_bytes else None,
        "receipt": _receipt(error.receipt) if error.HasField("receipt") else None,
    }
    return {**view, "log_tail": error.log_tail or None} if log_tail else view


def _receipt(receipt: CancelReceipt) -> dict[str, Any]:
    return {
        "ended_by": _ENDED_BY_NAMES.get(receipt.ended_by),
        "stopped_after": receipt.stopped_after_ms / 1000,
        "processes_gone": receipt.processes_gone,
    }


def update_event(update: TaskUpdate) -> bytes:
    progress = update.progress
    return _event(
        task_id=update.task_id,
        type_=update.type,
        status=update.status,
        result=_raw(update.result),
        error=error_view(update),
        attempt=update.attempt,
        revision=update.revision,
        progress={"n": progress.n, "fraction": progress.fraction, "message": progress.message or None}
        if update.HasField("progress")
        else None,
        at=_time(update, "at"),
    )


def snapshot_event(task: Task) -> bytes:
    """The present state of a task, in the shape of an update."""
    present: list[Timestamp] = [getattr(task, name) for name in _TIMES if name != "run_at" and task.HasField(name)]
    latest = max(present, key=lambda time: (time.seconds, time.nanos), default=None)
    return _event(
        task_id=task.task_id,
        type_=task.type,
        status=task.status,
        result=_raw(task.result),
        error=error_view(task),
        attempt=task.attempt,
        revision=task.revision,
        progress=None,
        at=latest.ToJsonString() if latest else None,
    )


def _event(*, task_id: int, type_: str, status: int, **rest: Any) -> bytes:
    data = {"id": task_id, "type": type_ or None, "status": STATUS_NAMES.get(status), **rest}
    return msgspec.json.encode({"event": "task_update", "data": data})


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
        **{name: _time(task, name) for name in _TIMES},
        "expires_at": _time(task, "expires_at"),
        "replica": task.replica or None,
        "worker": task.worker or None,
    }


def _raw(value: bytes) -> msgspec.Raw | None:
    """JSON that is passed on as it is."""
    return msgspec.Raw(value) if value else None


def _time(holder: Task | TaskUpdate | Attempt | AttemptLog, name: str) -> str | None:
    if not holder.HasField(name):  # type: ignore[arg-type]
        return None
    time: Timestamp = getattr(holder, name)
    return time.ToJsonString()
