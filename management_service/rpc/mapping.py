"""Between rows and protobuf: the only module that knows both."""

from datetime import datetime

import msgspec
from google.protobuf.timestamp_pb2 import Timestamp

from headrace.v1 import management_pb2, task_pb2
from management_service.domain.statuses import TaskEvent, TaskStatus
from management_service.storage.records import CatalogRow, EndedAttempt, TaskRow

STATUS_TO_PROTO: dict[str, task_pb2.TaskStatus.ValueType] = {
    status.value: task_pb2.TaskStatus.Value(f"TASK_STATUS_{status.name}") for status in TaskStatus
}
STATUS_FROM_PROTO: dict[task_pb2.TaskStatus.ValueType, TaskStatus] = {
    number: TaskStatus(name) for name, number in STATUS_TO_PROTO.items()
}
# What an outcome other than `completed` means for the task, and whether a further attempt could mend it.
EVENT_OF_OUTCOME: dict[task_pb2.Outcome.ValueType, tuple[TaskEvent, bool]] = {
    task_pb2.OUTCOME_FAILED: (TaskEvent.ATTEMPT_FAILED, True),
    task_pb2.OUTCOME_FAILED_FOR_GOOD: (TaskEvent.ATTEMPT_FAILED, False),
    task_pb2.OUTCOME_WORKER_DIED: (TaskEvent.WORKER_DIED, True),
    task_pb2.OUTCOME_CANCELLED: (TaskEvent.ATTEMPT_CANCELLED, False),
    task_pb2.OUTCOME_HANDED_BACK: (TaskEvent.HANDED_BACK, True),
}


_ENDED_ATTEMPTS = msgspec.json.Decoder(list[EndedAttempt])


def error_from_json(text: str | None) -> task_pb2.TaskError | None:
    return task_pb2.TaskError(**msgspec.json.decode(text)) if text else None


def task_to_proto(row: TaskRow, *, result: bytes | None = None, result_unavailable: bool = False) -> task_pb2.Task:
    """The task as clients see it."""
    return task_pb2.Task(
        task_id=row.task_id,
        type=row.type,
        status=STATUS_TO_PROTO[row.status],
        data=row.data or b"",
        result=result or b"",
        result_unavailable=result_unavailable,
        error=error_from_json(row.error),
        pool=row.pool,
        priority=row.priority,
        attempt=row.attempt,
        max_attempts=row.max_attempts,
        starts=row.starts,
        failures=row.failures,
        worker_deaths=row.worker_deaths,
        replica_losses=row.replica_losses,
        timeout_ms=row.timeout_ms,
        revision=row.revision,
        run_at=_timestamp(row.run_at),
        accepted_at=_timestamp(row.accepted_at),
        created_at=_timestamp(row.created_at),
        claimed_at=_timestamp(row.claimed_at),
        started_at=_timestamp(row.started_at),
        executed_at=_timestamp(row.executed_at),
        finished_at=_timestamp(row.finished_at),
        cancel_requested_at=_timestamp(row.cancel_requested_at),
        replica=row.replica or "",
        worker=row.worker or "",
        result_attempt=row.result_attempt or 0,
        attempts=attempts_of(row),
        expires_at=_timestamp(row.expires_at),
        options=task_pb2.TaskOptions.FromString(row.options) if row.options else None,
    )


def attempts_of(row: TaskRow) -> list[task_pb2.Attempt]:
    """The attempts on record, and the latest one where the row itself tells of it."""
    ended = _ENDED_ATTEMPTS.decode(row.ended_attempts) if row.ended_attempts else []
    attempts = [
        task_pb2.Attempt(
            attempt=one.attempt,
            replica=one.replica or "",
            worker=one.worker or "",
            claimed_at=_timestamp(one.claimed_at),
            started_at=_timestamp(one.started_at),
            ended_at=_timestamp(one.ended_at),
            outcome=task_pb2.Outcome.Value(f"OUTCOME_{one.outcome.upper()}"),
            error=task_pb2.TaskError(**one.error) if one.error else None,
        )
        for one in ended
    ]
    if row.data is not None and row.status in (TaskStatus.PROCESSING, TaskStatus.COMPLETED):
        completed = row.status == TaskStatus.COMPLETED
        latest = task_pb2.Attempt(
            attempt=row.attempt,
            replica=row.replica or "",
            worker=row.worker or "",
            claimed_at=_timestamp(row.claimed_at),
            started_at=_timestamp(row.started_at),
            ended_at=_timestamp(row.executed_at or row.finished_at) if completed else None,
            outcome=task_pb2.OUTCOME_COMPLETED if completed else task_pb2.OUTCOME_UNSPECIFIED,
        )
        attempts.append(latest)
    return attempts


def catalog_entry(row: CatalogRow) -> management_pb2.CatalogEntry:
    task_type = task_pb2.TaskType(
        name=row.name,
        pool=row.pool,
        description=row.description,
        data_schema=row.data_schema,
        result_schema=row.result_schema,
        timeout_ms=row.timeout_ms,
        max_attempts=row.max_attempts,
        version=row.version,
    )
    task_type.MergeFromString(row.details)
    return management_pb2.CatalogEntry(task_type=task_type, replicas=row.replicas)


def _timestamp(value: datetime | None) -> Timestamp | None:
    if value is None:
        return None
    stamp = Timestamp()
    stamp.FromDatetime(value)
    return stamp
