"""Between protobuf messages and the types of this service; the only module that knows both."""

from collections.abc import Iterable, Sequence
from datetime import datetime

import msgspec
from google.protobuf.timestamp_pb2 import Timestamp

from execution_service.attempts import Held, Key
from execution_service.workers.outcomes import (
    Attempt,
    AttemptError,
    Finished,
    Outcome,
    ProgressItem,
    RunningAttempt,
    WorkerInfo,
)
from headrace.tasks import TaskDefinition, TaskRegistry
from headrace.v1 import execution_pb2, task_pb2
from result_store.model import StoredLog, StoredResult

# A result up to this size travels with its report, for watchers.
RESULT_BYTES_SHOWN = 4 * 1024
MESSAGE_CHARACTERS_MAX = 16 * 1024
LOG_TAIL_BYTES_MAX = 2 * 1024

# What watchers here see of an outcome. Whether a failure is the task's last is for management to say.
_SHOWN = {
    Outcome.COMPLETED: task_pb2.TASK_STATUS_COMPLETED,
    Outcome.FAILED: task_pb2.TASK_STATUS_RETRYING,
    Outcome.FAILED_FOR_GOOD: task_pb2.TASK_STATUS_FAILED,
    Outcome.WORKER_DIED: task_pb2.TASK_STATUS_RETRYING,
    Outcome.CANCELLED: task_pb2.TASK_STATUS_CANCELLED,
    Outcome.HANDED_BACK: task_pb2.TASK_STATUS_QUEUED,
}


def offers(assignments: Iterable[execution_pb2.Assignment], session_id: int) -> list[tuple[Attempt, int]]:
    """The assignments as attempts, each with its round_base."""
    return [
        (
            Attempt(
                item.task_id,
                item.attempt,
                session_id,
                item.type,
                item.data,
                item.pool,
                item.timeout_ms / 1000,
                item.isolated or item.solitary,
                item.max_attempts,
                item.soft_timeout_ms / 1000,
                item.solitary,
            ),
            item.round_base,
        )
        for item in assignments
    ]


def keys(items: Iterable[execution_pb2.AttemptKey]) -> list[Key]:
    return [(item.task_id, item.attempt) for item in items]


def answers(asked: Sequence[Key], held: Sequence[bool]) -> list[execution_pb2.Answer]:
    states = (execution_pb2.Answer.STATE_REFUSED, execution_pb2.Answer.STATE_HELD)
    return [
        execution_pb2.Answer(task_id=task_id, attempt=attempt, state=states[is_held])
        for (task_id, attempt), is_held in zip(asked, held, strict=True)
    ]


def report(finished: Finished) -> task_pb2.Report:
    result = finished.result
    message = task_pb2.Report(
        task_id=finished.task_id,
        attempt=finished.attempt,
        outcome=task_pb2.Outcome.ValueType(finished.outcome),
        started=finished.started,
        worker=finished.worker_id,
        result=result if result is not None and len(result) <= RESULT_BYTES_SHOWN else None,
    )
    if finished.error is not None:
        message.error.CopyFrom(error(finished.error))
        message.error.log_tail = log_tail(finished.log)
    if finished.retry_after is not None and finished.outcome is Outcome.FAILED:
        message.retry_after_ms = round(finished.retry_after * 1000)
    if finished.started_at is not None:
        _set_time(message.started_at, finished.started_at)
    if finished.executed_at is not None:
        _set_time(message.executed_at, finished.executed_at)
    return message


def handed_back(work: Attempt, cause: AttemptError) -> Finished:
    """The outcome of an attempt that was never given to a worker."""
    return Finished(work.task_id, work.attempt, Outcome.HANDED_BACK, None, cause, False, "", None, None)


def failed_for_good(finished: Finished, cause: AttemptError) -> Finished:
    """The same attempt, ended by `cause` after all."""
    return msgspec.structs.replace(finished, outcome=Outcome.FAILED_FOR_GOOD, result=None, error=cause)


def report_unstarted(held: Held, outcome: Outcome, cause: AttemptError | None = None) -> task_pb2.Report:
    """The report of an attempt for which no handler was started."""
    message = task_pb2.Report(
        task_id=held.task_id, attempt=held.attempt, outcome=task_pb2.Outcome.ValueType(outcome), started=False
    )
    if cause is not None:
        message.error.CopyFrom(error(cause))
    return message


def error(cause: AttemptError) -> task_pb2.TaskError:
    message = task_pb2.TaskError(
        code=cause.code,
        message=_storable(cause.message[:MESSAGE_CHARACTERS_MAX]),
        exception=_storable(cause.exception[:MESSAGE_CHARACTERS_MAX]),
        signal=cause.signal,
        exit_code=cause.exit_code,
        peak_memory_bytes=cause.peak_memory,
    )
    if (receipt := cause.receipt) is not None:
        message.receipt.ended_by = task_pb2.CancelReceipt.EndedBy.ValueType(receipt.ended_by)
        message.receipt.stopped_after_ms = max(0, round(receipt.stopped_after * 1000))
        message.receipt.processes_gone = receipt.processes_gone
    return message


def log_tail(log: str) -> str:
    """The last whole lines of a log that fit into 2 KiB; the end of the last one if it alone is longer."""
    body = log.encode("utf-8", "replace").replace(b"\0", b"?")
    if len(body) <= LOG_TAIL_BYTES_MAX:
        return body.decode()
    end = body[-LOG_TAIL_BYTES_MAX:]
    # A cut right behind a line's end takes nothing from the next line.
    if body[-LOG_TAIL_BYTES_MAX - 1] != ord("\n"):
        _, newline, lines = end.partition(b"\n")
        end = lines if newline and lines else end
    return end.decode("utf-8", "ignore")


def progress(item: ProgressItem) -> execution_pb2.AttemptProgress:
    message = execution_pb2.AttemptProgress(
        task_id=item.task_id,
        attempt=item.attempt,
        type=item.type,
        progress=task_pb2.Progress(n=item.n, fraction=item.fraction, message=item.message),
    )
    _set_time(message.at, item.at)
    return message


def started_update(work: Attempt, at: datetime) -> task_pb2.TaskUpdate:
    return task_pb2.TaskUpdate(
        task_id=work.task_id,
        type=work.type,
        status=task_pb2.TASK_STATUS_PROCESSING,
        attempt=work.attempt,
        at=_time(at),
    )


def progress_update(item: execution_pb2.AttemptProgress) -> task_pb2.TaskUpdate:
    return task_pb2.TaskUpdate(
        task_id=item.task_id,
        type=item.type,
        status=task_pb2.TASK_STATUS_PROCESSING,
        attempt=item.attempt,
        at=item.at,
        progress=item.progress,
    )


def outcome_update(ended: task_pb2.Report, type_name: str, at: datetime) -> task_pb2.TaskUpdate:
    return task_pb2.TaskUpdate(
        task_id=ended.task_id,
        type=type_name,
        status=_SHOWN[Outcome(ended.outcome)],
        attempt=ended.attempt,
        at=_time(at),
        result=ended.result if ended.HasField("result") else None,
        error=ended.error if ended.HasField("error") else None,
    )


def task_types(registry: TaskRegistry) -> list[task_pb2.TaskType]:
    return [task_type(definition) for definition in registry.definitions]


def task_type(definition: TaskDefinition) -> task_pb2.TaskType:
    message = task_pb2.TaskType(
        name=definition.name,
        pool=definition.pool,
        description=definition.description,
        data_schema=definition.data_schema,
        result_schema=definition.result_schema,
        timeout_ms=round(definition.timeout * 1000),
        max_attempts=definition.max_attempts,
        version=definition.version,
        limits=task_pb2.TaskLimits(
            memory_mib=definition.limits.memory_mib,
            cpu_seconds=definition.cpu_seconds,
            file_mib=definition.limits.file_mib,
            open_files=definition.limits.open_files,
        ),
        errors=[
            task_pb2.TaskErrorKind(code=kind.code, retry=kind.retry, description=kind.description)
            for kind in definition.errors
        ],
    )
    if definition.soft_timeout is not None:
        message.options.soft_timeout_ms = round(definition.soft_timeout * 1000)
    if (backoff := definition.backoff) is not None:
        message.options.backoff.initial_ms = round(backoff.initial * 1000)
        message.options.backoff.factor = backoff.factor
        message.options.backoff.max_ms = round(backoff.maximum * 1000)
    return message


def worker(info: WorkerInfo, replica: str) -> execution_pb2.Worker:
    message = execution_pb2.Worker(
        worker_id=info.worker_id,
        replica=replica,
        pid=info.pid,
        pool=info.pool,
        running=[running_attempt(attempt) for attempt in info.running],
        tasks_done=info.tasks_done,
        state=execution_pb2.Worker.State.ValueType(info.state),
        slots=info.slots,
        memory_bytes=info.memory,
    )
    _set_time(message.start_time, info.started_at)
    return message


def running_attempt(running: RunningAttempt) -> execution_pb2.RunningAttempt:
    return execution_pb2.RunningAttempt(
        task_id=running.task_id,
        attempt=running.attempt,
        type=running.type,
        running_ms=round(running.seconds * 1000),
    )


def stored_result(stored: StoredResult) -> execution_pb2.StoredResult:
    return execution_pb2.StoredResult(
        task_id=stored.task_id, attempt=stored.attempt, result=stored.result, stored_at=_time(stored.stored_at)
    )


def stored_log(stored: StoredLog) -> task_pb2.AttemptLog:
    return task_pb2.AttemptLog(attempt=stored.attempt, log=stored.log, stored_at=_time(stored.stored_at))


def _storable(text: str) -> str:
    """The text without what neither protobuf nor PostgreSQL takes: lone surrogates and NUL."""
    return text.encode("utf-8", "replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")


def _time(at: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(at)
    return stamp


def _set_time(target: Timestamp, seconds: float) -> None:
    target.FromMicroseconds(round(seconds * 1e6))  # a float has no more at this distance from 1970
