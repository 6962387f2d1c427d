"""What clients see of a task wherever they look: names of statuses, errors, times, and updates as JSON."""

from typing import Any

import msgspec
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from headrace.v1.task_pb2 import CancelReceipt, Task, TaskError, TaskStatus, TaskUpdate

STATUS_NAMES: dict[int, str] = {
    value: name.removeprefix("TASK_STATUS_").lower() for name, value in TaskStatus.items() if value
}
STATUSES = {name: TaskStatus.Value(f"TASK_STATUS_{name.upper()}") for name in STATUS_NAMES.values()}
FINAL = frozenset((TaskStatus.TASK_STATUS_COMPLETED, TaskStatus.TASK_STATUS_FAILED, TaskStatus.TASK_STATUS_CANCELLED))
# A result of more bytes is not part of an update: the update refers to it.
RESULT_BYTES_MAX = 4096
_ENDED_BY_NAMES: dict[int, str] = {
    value: name.removeprefix("ENDED_BY_").lower() for name, value in CancelReceipt.EndedBy.items() if value
}
_MIB = 1024 * 1024
# When a task last changed is the latest of these.
_CHANGE_TIMES = (
    "accepted_at",
    "created_at",
    "claimed_at",
    "started_at",
    "executed_at",
    "cancel_requested_at",
    "finished_at",
)


def is_final(status: int) -> bool:
    return status in FINAL


def update_view(update: TaskUpdate) -> dict[str, Any]:
    """The data of a `task_update` event."""
    progress = update.progress
    completed = update.status == TaskStatus.TASK_STATUS_COMPLETED
    return {
        "id": update.task_id,
        "type": update.type or None,
        "status": STATUS_NAMES.get(update.status),
        "result": raw(update.result),
        "result_url": f"/api/tasks/{update.task_id}" if completed and not update.HasField("result") else None,
        "error": error_view(update.error) if update.HasField("error") else None,
        "attempt": update.attempt,
        "revision": update.revision,
        "progress": {"n": progress.n, "fraction": progress.fraction, "message": progress.message or None}
        if update.HasField("progress")
        else None,
        "at": time_view(update, "at"),
    }


def update_of_task(task: Task) -> TaskUpdate:
    """The update that tells of a task's present state; a result of more than RESULT_BYTES_MAX is left out."""
    present: list[Timestamp] = [getattr(task, name) for name in _CHANGE_TIMES if task.HasField(name)]  # type: ignore[arg-type]
    update = TaskUpdate(
        task_id=task.task_id,
        type=task.type,
        status=task.status,
        attempt=task.attempt,
        revision=task.revision,
        at=max(present, key=lambda time: (time.seconds, time.nanos), default=None),
    )
    if task.HasField("error"):
        update.error.CopyFrom(task.error)
    if task.result and len(task.result) <= RESULT_BYTES_MAX:
        update.result = task.result
    return update


def error_view(error: TaskError, *, log_tail: bool = False) -> dict[str, Any]:
    """An error; the last lines of the log only with `log_tail`: they are long."""
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


def raw(value: bytes) -> msgspec.Raw | None:
    """JSON that is passed on as it is."""
    return msgspec.Raw(value) if value else None


def time_view(holder: Message, name: str) -> str | None:
    """A timestamp as RFC 3339 in UTC, or nothing where it is not set."""
    if not holder.HasField(name):
        return None
    time: Timestamp = getattr(holder, name)
    return time.ToJsonString()


def _receipt(receipt: CancelReceipt) -> dict[str, Any]:
    return {
        "ended_by": _ENDED_BY_NAMES.get(receipt.ended_by),
        "stopped_after": receipt.stopped_after_ms / 1000,
        "processes_gone": receipt.processes_gone,
    }
