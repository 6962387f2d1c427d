"""What REST and WebSocket clients see of a task."""

from typing import Any, Final

import msgspec
from google.protobuf.timestamp_pb2 import Timestamp

from headrace.v1.task_pb2 import AttemptLog, Task, TaskError, TaskStatus, TaskUpdate

STATUS_NAMES: dict[int, str] = {
    value: name.removeprefix("TASK_STATUS_").lower() for name, value in TaskStatus.items() if value
}
STATUSES = {name: TaskStatus.Value(f"TASK_STATUS_{name.upper()}") for name in STATUS_NAMES.values()}
FINAL = frozenset((TaskStatus.TASK_STATUS_COMPLETED, TaskStatus.TASK_STATUS_FAILED, TaskStatus.TASK_STATUS_CANCELLED))
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
    """One task with its data and result; `notice` is why it cannot be run now."""
    return {
        "id": task.task_id,
        "type": task.type or None,
        "status": STATUS_NAMES.get(task.status),
        "result": _raw(task.result),
        "result_unavailable": task.result_unavailable,
        "error": error_view(task),
        "data": _raw(task.data),
        "notice": notice,
        **_facts(task),
    }


def listed_task_view(task: Task) -> dict[str, Any]:
    """One task of a list, without data and result."""
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


def error_view(holder: Task | TaskUpdate) -> dict[str, Any] | None:
    if not holder.HasField("error"):
        return None
    error: TaskError = holder.error
    return {
        "code": error.code,
        "message": error.message,
        "exception": error.exception or None,
        "signal": error.signal or None,
        "exit_code": error.exit_code or None,
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
        "revision": task.revision,
        **{name: _time(task, name) for name in _TIMES},
        "replica": task.replica or None,
        "worker": task.worker or None,
    }


def _raw(value: bytes) -> msgspec.Raw | None:
    """JSON that is passed on as it is."""
    return msgspec.Raw(value) if value else None


def _time(holder: Task | TaskUpdate | AttemptLog, name: str) -> str | None:
    if not holder.HasField(name):  # type: ignore[arg-type]
        return None
    time: Timestamp = getattr(holder, name)
    return time.ToJsonString()
