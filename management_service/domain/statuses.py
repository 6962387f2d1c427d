"""The statuses of a task and the only changes between them that exist. SQL, protobuf and docs follow this file."""

from dataclasses import dataclass
from enum import StrEnum


class TaskStatus(StrEnum):
    SCHEDULED = "scheduled"  # stored, due at run_at
    QUEUED = "queued"  # due, waiting for an execution replica
    PROCESSING = "processing"  # held by exactly one attempt
    RETRYING = "retrying"  # an attempt failed, due again at run_at
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


FINAL = frozenset({TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED})


class TaskEvent(StrEnum):
    SUBMITTED = "submitted"
    UNSTORABLE = "unstorable"
    BECAME_DUE = "became_due"
    EXPIRED = "expired"
    CLAIMED = "claimed"
    ATTEMPT_COMPLETED = "attempt_completed"
    ATTEMPT_FAILED = "attempt_failed"
    WORKER_DIED = "worker_died"
    HANDED_BACK = "handed_back"
    REFUSED = "refused"
    SESSION_ENDED = "session_ended"
    ATTEMPT_CANCELLED = "attempt_cancelled"
    CANCEL_REQUESTED = "cancel_requested"
    RETRIED_BY_HAND = "retried_by_hand"


@dataclass(frozen=True, slots=True, order=True)
class Transition:
    """`source` None: the task is not stored yet."""

    source: TaskStatus | None
    event: TaskEvent
    target: TaskStatus


_PROCESSING_ENDS: dict[TaskEvent, tuple[TaskStatus, ...]] = {
    TaskEvent.ATTEMPT_COMPLETED: (TaskStatus.COMPLETED,),
    TaskEvent.ATTEMPT_FAILED: (TaskStatus.RETRYING, TaskStatus.FAILED, TaskStatus.CANCELLED),
    TaskEvent.WORKER_DIED: (TaskStatus.RETRYING, TaskStatus.FAILED, TaskStatus.CANCELLED),
    TaskEvent.HANDED_BACK: (TaskStatus.QUEUED, TaskStatus.CANCELLED),
    TaskEvent.REFUSED: (TaskStatus.QUEUED, TaskStatus.CANCELLED),
    TaskEvent.SESSION_ENDED: (TaskStatus.QUEUED, TaskStatus.FAILED, TaskStatus.CANCELLED),
    TaskEvent.ATTEMPT_CANCELLED: (TaskStatus.CANCELLED,),
}

TRANSITIONS: frozenset[Transition] = frozenset(
    [
        *(
            Transition(None, TaskEvent.SUBMITTED, target)
            for target in (TaskStatus.SCHEDULED, TaskStatus.QUEUED, TaskStatus.PROCESSING)
        ),
        Transition(None, TaskEvent.UNSTORABLE, TaskStatus.FAILED),
        Transition(TaskStatus.SCHEDULED, TaskEvent.BECAME_DUE, TaskStatus.QUEUED),
        Transition(TaskStatus.RETRYING, TaskEvent.BECAME_DUE, TaskStatus.QUEUED),
        Transition(TaskStatus.QUEUED, TaskEvent.CLAIMED, TaskStatus.PROCESSING),
        *(
            Transition(TaskStatus.PROCESSING, event, target)
            for event, targets in _PROCESSING_ENDS.items()
            for target in targets
        ),
        *(
            Transition(source, TaskEvent.CANCEL_REQUESTED, TaskStatus.CANCELLED)
            for source in (TaskStatus.SCHEDULED, TaskStatus.QUEUED, TaskStatus.RETRYING)
        ),
        *(
            Transition(source, TaskEvent.EXPIRED, TaskStatus.FAILED)
            for source in (TaskStatus.SCHEDULED, TaskStatus.QUEUED, TaskStatus.RETRYING)
        ),
        *(Transition(source, TaskEvent.RETRIED_BY_HAND, TaskStatus.QUEUED) for source in FINAL),
    ]
)
