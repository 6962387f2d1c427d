"""A worker process as people see it. Looked up when somebody asks, since memory has to be read from the kernel."""

import time

from execution_service.workers.outcomes import RunningAttempt, WorkerInfo, WorkerState
from execution_service.workers.process import WorkerProcess
from execution_service.workers.wear import resident_bytes


def describe_worker(worker: WorkerProcess, *, draining: bool) -> WorkerInfo:
    """Describe a worker now; `draining` says that its whole pool is."""
    return WorkerInfo(
        worker_id=worker.worker_id,
        pid=worker.pid,
        pool=worker.pool,
        state=_state(worker, draining=draining),
        slots=worker.slots,
        started_at=worker.started_at,
        running=_running(worker),
        tasks_done=worker.tasks_done,
        memory=resident_bytes(worker.pid),
    )


def _state(worker: WorkerProcess, *, draining: bool) -> WorkerState:
    if worker.killed or worker.closed_at is not None:
        return WorkerState.ENDING
    if worker.retiring or draining:
        return WorkerState.DRAINING
    if not worker.ready:
        return WorkerState.STARTING
    return WorkerState.BUSY if worker.entries else WorkerState.READY


def _running(worker: WorkerProcess) -> tuple[RunningAttempt, ...]:
    began, now = worker.page.began(), time.time()
    return tuple(
        RunningAttempt(*held.key, held.attempt.type, max(0.0, now - began[seq]))
        for seq, held in worker.entries.items()
        if seq in began
    )
