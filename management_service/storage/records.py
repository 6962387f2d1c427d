"""Rows as the repositories take and give them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from headrace.v1.task_pb2 import Report, Submission, TaskType
from management_service.domain.statuses import TaskEvent, TaskStatus


@dataclass(frozen=True, slots=True)
class NewTask:
    """A submission to be stored, and the session that it is to be handed to directly, if any."""

    submission: Submission
    session_id: int | None = None


class Inserted(NamedTuple):
    """Tasks that were new, with the status that each got; one outbox row tells of all of them."""

    statuses: dict[int, str]
    outbox_ids: frozenset[int]


class Claimed(NamedTuple):
    task_id: int
    attempt: int
    session_id: int
    type: str
    data: bytes
    timeout_ms: int
    round_base: int
    isolated: bool
    max_attempts: int
    options: bytes | None
    solitary: bool
    revision: int
    priority: int
    ready_found: int
    outbox_id: int


class Completed(NamedTuple):
    task_id: int
    attempt: int
    type: str
    revision: int
    outbox_id: int


class Change(NamedTuple):
    """A task after a change of its row, of which an outbox row tells."""

    task_id: int
    attempt: int
    type: str
    status: str
    revision: int
    error: str | None
    pool: str
    outbox_id: int


class Ending(NamedTuple):
    """An attempt that ended otherwise than with a stored result."""

    event: TaskEvent
    report: Report
    worth_retrying: bool = True


class AttemptState(NamedTuple):
    """What became of a task that a report speaks of."""

    task_id: int
    attempt: int
    status: str
    result_attempt: int | None


class TaskRow(NamedTuple):
    task_id: int
    type: str
    status: str
    data: bytes | None
    error: str | None
    pool: str
    priority: int
    attempt: int
    max_attempts: int
    starts: int
    failures: int
    worker_deaths: int
    replica_losses: int
    timeout_ms: int
    revision: int
    run_at: datetime
    accepted_at: datetime | None
    created_at: datetime
    claimed_at: datetime | None
    started_at: datetime | None
    executed_at: datetime | None
    finished_at: datetime | None
    cancel_requested_at: datetime | None
    replica: str | None
    worker: str | None
    result_attempt: int | None
    expires_at: datetime | None
    options: bytes | None
    # JSON array of EndedAttempt; None where there is none.
    ended_attempts: str | None


class EndedAttempt(msgspec.Struct, frozen=True):
    """An attempt on record."""

    attempt: int
    replica: str | None
    worker: str | None
    claimed_at: datetime | None
    started_at: datetime | None
    ended_at: datetime
    outcome: str
    error: dict[str, Any] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedFilter:
    """Which failed or cancelled tasks are meant; None: any. Times by the database's clock."""

    status: TaskStatus = TaskStatus.FAILED
    type_name: str | None = None
    error_code: str | None = None
    finished_after: datetime | None = None
    finished_before: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """Which tasks are to be listed: all that are named, else the newest ones. Nothing named: any."""

    task_ids: Sequence[int] = ()
    statuses: Sequence[TaskStatus] = ()
    type_names: Sequence[str] = ()
    limit: int
    after: int | None = None


class FailureCount(NamedTuple):
    """How many failed tasks of a type have an error of this code."""

    type: str
    error_code: str
    tasks: int


class PresentState(NamedTuple):
    task_id: int
    attempt: int
    type: str
    status: str
    revision: int
    error: str | None
    removed: bool


class LiveSession(NamedTuple):
    session_id: int
    beat: int
    address: str
    replica: str


@dataclass(frozen=True, slots=True)
class Session:
    """A session as its Hello introduces it."""

    session_id: int
    replica: str
    address: str
    beat: int
    task_types: Sequence[TaskType]


class CatalogRow(NamedTuple):
    name: str
    pool: str
    description: str
    data_schema: str
    result_schema: str
    timeout_ms: int
    max_attempts: int
    version: str
    details: bytes
    replicas: list[str]
