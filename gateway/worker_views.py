"""What REST clients see of worker processes."""

from typing import Any

from headrace.v1.execution_pb2 import RunningAttempt, Worker

_STATES: dict[int, str] = {value: name.removeprefix("STATE_").lower() for name, value in Worker.State.items() if value}
_MIB = 1024 * 1024


def worker_view(worker: Worker) -> dict[str, Any]:
    return {
        "id": worker.worker_id,
        "startTime": worker.start_time.ToJsonString(),
        "replica": worker.replica,
        "pid": worker.pid,
        "pool": worker.pool,
        "state": _STATES.get(worker.state),
        "slots": worker.slots,
        "tasks": [_running_view(running) for running in worker.running],
        "tasks_done": worker.tasks_done,
        "memory_mib": round(worker.memory_bytes / _MIB, 1) if worker.memory_bytes else None,
    }


def removal_words(worker: Worker) -> str:
    """What becomes of a worker that was to be removed."""
    if worker.state != Worker.STATE_DRAINING:
        again = "; what it ran starts again in another one" if worker.running else ""
        return f"Worker {worker.worker_id} ends now{again}."
    count = len(worker.running)
    rest = {0: "what it holds has", 1: "the task that it runs has"}.get(count, f"the {count} tasks that it runs have")
    return f"Worker {worker.worker_id} takes no more tasks, and ends when {rest} ended."


def _running_view(running: RunningAttempt) -> dict[str, Any]:
    return {
        "id": running.task_id,
        "attempt": running.attempt,
        "type": running.type,
        "running_for": running.running_ms / 1000,
    }
