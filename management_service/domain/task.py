"""A task as far as decisions about it go, and each decision as a function from task to task.

The hot ones (claim, complete, rescue) run as guarded SQL statements over batches; tests hold the two together.
"""

import random
from dataclasses import dataclass, replace
from datetime import timedelta

from management_service.domain.backoff import DEFAULT_BACKOFF, RETRY_AFTER_MAX, Backoff, refusal_delay
from management_service.domain.statuses import FINAL, TaskEvent, TaskStatus

WORKER_DEATHS_MAX = 3
REPLICA_LOSSES_MAX = 3
# From so many losses on a task runs with nothing beside it, and one such task at a time.
SOLITARY_LOSSES = 2


class StaleAttemptError(Exception):
    """The attempt does not own the task: it never did, it ended, or a later one was claimed."""


class NotAllowedError(Exception):
    """The task's status does not admit the change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    status: TaskStatus
    max_attempts: int
    attempt: int = 0
    failures: int = 0
    worker_deaths: int = 0
    replica_losses: int = 0
    refusals: int = 0
    round_base: int = 0
    revision: int = 1
    result_attempt: int | None = None
    session_id: int | None = None
    cancel_requested: bool = False
    # How long after now it is due; meaningful for queued, scheduled and retrying.
    due_in: timedelta = timedelta(0)


def claim(task: Task, *, session_id: int) -> Task:
    """Give the task to a session: the next attempt begins."""
    if task.status is not TaskStatus.QUEUED:
        raise NotAllowedError(task.status)
    return replace(
        task,
        status=TaskStatus.PROCESSING,
        attempt=task.attempt + 1,
        session_id=session_id,
        revision=task.revision + 1,
        due_in=timedelta(0),
    )


def become_due(task: Task) -> Task:
    """Put a scheduled or retrying task whose time has come into the queue."""
    if task.status not in (TaskStatus.SCHEDULED, TaskStatus.RETRYING):
        raise NotAllowedError(task.status)
    return replace(task, status=TaskStatus.QUEUED, revision=task.revision + 1, due_in=timedelta(0))


def expire(task: Task) -> Task:
    """Fail a task that was not started in time."""
    if task.status not in (TaskStatus.SCHEDULED, TaskStatus.QUEUED, TaskStatus.RETRYING):
        raise NotAllowedError(task.status)
    return replace(task, status=TaskStatus.FAILED, revision=task.revision + 1, due_in=timedelta(0))


def request_cancel(task: Task) -> Task:
    """Cancel at once when no attempt is in progress, else record the wish. Recording it twice changes nothing."""
    if task.status in FINAL:
        raise NotAllowedError(task.status)
    if task.status is TaskStatus.PROCESSING:
        if task.cancel_requested:
            return task
        return replace(task, cancel_requested=True, revision=task.revision + 1)
    return replace(task, status=TaskStatus.CANCELLED, cancel_requested=True, revision=task.revision + 1)


def retry_by_hand(task: Task) -> Task:
    """Start a final task again as a new round. Attempts go on counting, what is charged to it starts from 0."""
    if task.status not in FINAL:
        raise NotAllowedError(task.status)
    return replace(
        task,
        status=TaskStatus.QUEUED,
        round_base=task.attempt,
        result_attempt=None,
        cancel_requested=False,
        failures=0,
        worker_deaths=0,
        replica_losses=0,
        refusals=0,
        revision=task.revision + 1,
        due_in=timedelta(0),
    )


def end_attempt(
    task: Task,
    event: TaskEvent,
    *,
    attempt: int,
    rng: random.Random,
    backoff: Backoff = DEFAULT_BACKOFF,
    retry_after: timedelta | None = None,
    worth_retrying: bool = True,
) -> Task:
    """Move the task after its attempt ended by `event`. After a failure it is due again when `backoff` says, or after
    `retry_after` (at most 7 days) where the handler asked for that.

    Raises StaleAttemptError unless `attempt` is in progress. A move to a status that is not final goes to `cancelled`
    instead where a cancel was asked for.
    """
    if task.status is not TaskStatus.PROCESSING or task.attempt != attempt:
        raise StaleAttemptError
    charged = _charge(task, event)
    status, due_in = _next_status(charged, event, worth_retrying=worth_retrying)
    if status is TaskStatus.RETRYING:
        failures = charged.failures + charged.worker_deaths
        due_in = backoff.delay(failures, rng) if retry_after is None else min(retry_after, RETRY_AFTER_MAX)
    if status not in FINAL and task.cancel_requested:
        status, due_in = TaskStatus.CANCELLED, timedelta(0)
    return replace(
        charged,
        status=status,
        due_in=due_in,
        revision=task.revision + 1,
        result_attempt=attempt if status is TaskStatus.COMPLETED else None,
    )


def _charge(task: Task, event: TaskEvent) -> Task:
    """Count `event` where it counts. What a drain, a refusal or a neighbour does is never charged to a task."""
    match event:
        case TaskEvent.ATTEMPT_FAILED:
            return replace(task, failures=task.failures + 1, refusals=0)
        case TaskEvent.WORKER_DIED:
            return replace(task, worker_deaths=task.worker_deaths + 1, refusals=0)
        case TaskEvent.SESSION_ENDED:
            return replace(task, replica_losses=task.replica_losses + 1, refusals=0)
        case TaskEvent.REFUSED:
            return replace(task, refusals=task.refusals + 1)
        case _:
            return replace(task, refusals=0)


def _next_status(task: Task, event: TaskEvent, *, worth_retrying: bool) -> tuple[TaskStatus, timedelta]:
    now = timedelta(0)
    match event:
        case TaskEvent.ATTEMPT_COMPLETED:
            return TaskStatus.COMPLETED, now
        case TaskEvent.ATTEMPT_CANCELLED:
            return TaskStatus.CANCELLED, now
        case TaskEvent.ATTEMPT_FAILED | TaskEvent.WORKER_DIED:
            spent = task.failures + task.worker_deaths
            if not worth_retrying or spent >= task.max_attempts or task.worker_deaths >= WORKER_DEATHS_MAX:
                return TaskStatus.FAILED, now
            return TaskStatus.RETRYING, now
        case TaskEvent.SESSION_ENDED:
            lost = task.replica_losses >= REPLICA_LOSSES_MAX
            return (TaskStatus.FAILED if lost else TaskStatus.QUEUED), now
        case TaskEvent.REFUSED:
            return TaskStatus.QUEUED, refusal_delay(task.refusals)
        case TaskEvent.HANDED_BACK:
            return TaskStatus.QUEUED, now
        case _:
            raise NotAllowedError(event)
