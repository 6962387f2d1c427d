"""The task rows: every statement over a batch, guarded, and safe to repeat whole."""

import random
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import psycopg
from google.protobuf.timestamp_pb2 import Timestamp

from headrace.v1.task_pb2 import CancelReceipt, Report, Submission, TaskError, TaskOptions
from management_service.domain.backoff import DEFAULT_BACKOFF, Backoff
from management_service.domain.questions import AttemptRow
from management_service.domain.statuses import TaskEvent, TaskStatus
from management_service.domain.task import REPLICA_LOSSES_MAX, Task, end_attempt
from management_service.storage.records import (
    AttemptState,
    Change,
    Claimed,
    Completed,
    Ending,
    FailureCount,
    FinishedFilter,
    Inserted,
    NewTask,
    PresentState,
    TaskRow,
)
from servicekit import failpoints
from servicekit.pg_arrays import (
    bool_array,
    bytea_array,
    int4_array,
    int8_array,
    text_array,
    timestamptz_array_of_micros,
)
from servicekit.postgres import Database
from servicekit.queries import load_queries

QUERIES = load_queries("management_service.storage")
# How the records call an attempt that ended by an event: the lower-case name of its headrace.v1.Outcome.
OUTCOME_OF_EVENT = {
    TaskEvent.ATTEMPT_FAILED: "failed",
    TaskEvent.WORKER_DIED: "worker_died",
    TaskEvent.ATTEMPT_CANCELLED: "cancelled",
    TaskEvent.HANDED_BACK: "handed_back",
    TaskEvent.REFUSED: "refused",
}
_ROWS_MAX = 1000
_CLAIM_BYTES_MAX = 4 * 2**20


class TaskRepository:
    """The rows of a batch belong to different tasks and are sorted by id, so that batches lock in one order."""

    def __init__(self, database: Database, *, rng: random.Random) -> None:
        self._database = database
        self._rng = rng

    async def insert(self, tasks: Sequence[NewTask]) -> Inserted:
        """Store new tasks and return those that were new.

        A task with a session comes back `processing` (attempt 1, revision 1) only if that session lives. Raises
        psycopg.DataError or IntegrityError for the whole batch when PostgreSQL refuses one task for its data.
        """
        rows = await self._database.fetch(QUERIES["insert_tasks"], _task_columns(tasks))
        return Inserted(
            {task_id: status for task_id, status, _ in rows}, frozenset(outbox_id for _, _, outbox_id in rows[:1])
        )

    async def insert_unstorable(self, submission: Submission, *, reason: str) -> None:
        """Store a refused task as failed and without its data, so that its id reaches a final status."""
        error = {"code": "unstorable", "message": reason}
        params = {
            "task_id": submission.task_id,
            "type": printable(submission.type)[:200] or "unknown",
            "pool": printable(submission.pool)[:200] or "unknown",
            "error": msgspec.json.encode(error).decode(),
        }
        await self._database.fetch(QUERIES["insert_unstorable"], params)

    async def find_by_keys(self, keys: Sequence[str]) -> dict[str, tuple[int, bytes]]:
        """Return task id and fingerprint for each idempotency key that is taken."""
        rows = await self._database.fetch(QUERIES["find_by_keys"], {"keys": list(keys)})
        return {key: (task_id, bytes(fingerprint)) for key, task_id, fingerprint in rows}

    async def claim(self, *, pool: str, types: Sequence[str], slots: Sequence[int]) -> list[Claimed]:
        """Give up to `len(slots)` ready tasks to the sessions in `slots`, one each, most urgent first."""
        params = {"pool": pool, "types": list(types), "slots": int8_array(slots), "bytes_max": _CLAIM_BYTES_MAX}
        claimed = [Claimed(*row) for row in await self._database.fetch(QUERIES["claim_tasks"], params)]
        claimed.sort(key=lambda task: (-task.priority, task.task_id))
        return claimed

    async def count_waiting(self, pools: Iterable[str]) -> dict[tuple[str, str], int]:
        """Count the ready tasks by pool and type, among the first 100 of each pool."""
        rows = await self._database.fetch(QUERIES["count_waiting"], {"pools": sorted(pools)})
        return {(pool, name): count for pool, name, count in rows}

    async def list_solitary(self) -> list[tuple[str, str]]:
        """Return pool and type of the ready tasks that two replicas were lost under; none while one is in progress."""
        return [(pool, name) for pool, name in await self._database.fetch(QUERIES["list_solitary"])]

    async def claim_solitary(self, *, pool: str, types: Sequence[str], session_id: int) -> list[Claimed]:
        """Give one ready task that two replicas were lost under to the session, unless another is in progress."""
        params = {"pool": pool, "types": list(types), "session_id": session_id}

        async def work(connection: psycopg.AsyncConnection) -> list[Claimed]:
            async with connection.transaction():
                await connection.execute(QUERIES["lock_solitary"])
                cursor = await connection.execute(QUERIES["claim_solitary"], params, binary=True)
                return [Claimed(*row) for row in await cursor.fetchall()]

        return await self._database.run(work)

    async def complete(self, reports: Sequence[Report], *, published: Sequence[int] = ()) -> list[Completed]:
        """Close the attempts of `reports`, one per task; return those that owned their tasks.

        Also deletes the outbox rows `published`.
        """
        reports = sorted(reports, key=lambda report: report.task_id)
        params = {
            "task_ids": int8_array([report.task_id for report in reports]),
            "attempts": int4_array([report.attempt for report in reports]),
            "started": bool_array([report.started for report in reports]),
            "workers": text_array([printable(report.worker) for report in reports]),
            "started_at": timestamptz_array_of_micros([_micros(report, "started_at") for report in reports]),
            "executed_at": timestamptz_array_of_micros([_micros(report, "executed_at") for report in reports]),
            "published": list(published),
        }
        return [Completed(*row) for row in await self._database.fetch(QUERIES["complete_attempts"], params)]

    async def read_attempts(self, task_ids: Sequence[int]) -> dict[int, AttemptState]:
        rows = await self._database.fetch(QUERIES["read_attempts"], {"task_ids": int8_array(task_ids)})
        return {row[0]: AttemptState(*row) for row in rows}

    async def end_attempts(self, endings: Sequence[Ending]) -> list[Change]:
        """Move tasks whose attempts ended without a result, one per task; return those whose attempt was current."""
        by_task = {ending.report.task_id: ending for ending in endings}
        keys = {
            "task_ids": sorted(by_task),
            "attempts": [by_task[task_id].report.attempt for task_id in sorted(by_task)],
        }

        async def work(connection: psycopg.AsyncConnection) -> list[Change]:
            async with connection.transaction():
                cursor = await connection.execute(QUERIES["lock_attempts"], keys, binary=True)
                decided = [_decide(row, by_task[row[0]], self._rng) for row in await cursor.fetchall()]
                if not decided:
                    return []
                failpoints.hit("reports.rows_locked")
                columns = {name: [row[name] for row in decided] for name in decided[0]}
                cursor = await connection.execute(QUERIES["move_attempts"], columns, binary=True)
                return [Change(*row) for row in await cursor.fetchall()]

        return await self._database.run(work)

    async def rescue(self) -> list[Change]:
        """Take back up to 1,000 tasks whose session has ended or does not exist."""
        return await self._changes("rescue_tasks", {"limit": _ROWS_MAX, "losses_max": REPLICA_LOSSES_MAX})

    async def promote_due(self) -> list[Change]:
        """Queue up to 1,000 scheduled or retrying tasks whose time has come."""
        return await self._changes("promote_due", {"limit": _ROWS_MAX})

    async def expire(self) -> list[Change]:
        """Fail up to 1,000 tasks that were not started in time."""
        return await self._changes("expire_tasks", {"limit": _ROWS_MAX})

    async def scan_attempts(self) -> list[AttemptRow]:
        return [AttemptRow(*row) for row in await self._database.fetch(QUERIES["scan_attempts"])]

    async def request_cancel(self, task_id: int) -> Change | None:
        """Cancel the task, or record the wish; None when it is final, not there, or has been asked before."""
        changes = await self._changes("request_cancel", {"task_id": task_id})
        return changes[0] if changes else None

    async def retry(self, task_ids: Sequence[int]) -> list[Change]:
        """Start final tasks again; those that are not final, or not there, do not come back."""
        return await self._changes("retry_tasks", {"task_ids": int8_array(task_ids)})

    async def find_finished(self, wanted: FinishedFilter, *, limit: int) -> list[int]:
        """Return the ids of tasks that fit and could be started again, newest first."""
        params = {
            "status": wanted.status.value,
            "type": wanted.type_name,
            "code": wanted.error_code,
            "finished_after": wanted.finished_after,
            "finished_before": wanted.finished_before,
            "limit": limit,
        }

        async def work(connection: psycopg.AsyncConnection) -> list[int]:
            async with connection.transaction():
                await connection.execute(QUERIES["plan_for_values"])
                cursor = await connection.execute(QUERIES["find_finished"], params, binary=True)
                return [row[0] for row in await cursor.fetchall()]

        return await self._database.run(work)

    async def remove(self, task_id: int) -> bool:
        """Hide a finished task; False when there is none, or a cancel of it is younger than 60 s."""
        return bool(await self._database.fetch(QUERIES["remove_task"], {"task_id": task_id}))

    async def get(self, task_id: int) -> TaskRow | None:
        rows = await self._database.fetch(QUERIES["get_task"], {"task_id": task_id})
        return TaskRow(*rows[0]) if rows else None

    async def list_page(
        self, *, status: TaskStatus | None, type_name: str | None, limit: int, after: int | None
    ) -> list[TaskRow]:
        params = {"status": status and status.value, "type": type_name, "limit": limit, "after": after}

        async def work(connection: psycopg.AsyncConnection) -> list[TaskRow]:
            async with connection.transaction():
                await connection.execute(QUERIES["plan_for_values"])
                cursor = await connection.execute(QUERIES["list_tasks"], params, binary=True)
                return [TaskRow(*row) for row in await cursor.fetchall()]

        return await self._database.run(work)

    async def list_named(
        self, task_ids: Sequence[int], *, statuses: Sequence[TaskStatus], type_names: Sequence[str]
    ) -> list[TaskRow]:
        """Those of the named tasks that have one of the statuses and types; no statuses or types: any."""
        params = {
            "task_ids": int8_array(task_ids),
            "statuses": text_array([status.value for status in statuses]),
            "types": text_array(type_names),
        }
        return [TaskRow(*row) for row in await self._database.fetch(QUERIES["list_named_tasks"], params)]

    async def read_present(self, task_ids: Sequence[int]) -> list[PresentState]:
        rows = await self._database.fetch(QUERIES["read_updates"], {"task_ids": int8_array(task_ids)})
        return [PresentState(*row) for row in rows]

    async def count_statuses(self) -> tuple[dict[TaskStatus, int], timedelta]:
        """Return tasks by status (completed ones estimated) and how long the oldest ready one has waited."""
        counts = {TaskStatus(name): count for name, count in await self._database.fetch(QUERIES["count_statuses"])}
        estimated = await self._database.fetch(QUERIES["estimate_rows"])
        total = estimated[0][0] if estimated else 0
        counts[TaskStatus.COMPLETED] = max(total - sum(counts.values()), 0)
        [(oldest_ms,)] = await self._database.fetch(QUERIES["oldest_queued"])
        return counts, timedelta(milliseconds=oldest_ms)

    async def count_failures(self) -> list[FailureCount]:
        """Count failed tasks by type and code, the largest 100 groups first."""
        return [FailureCount(*row) for row in await self._database.fetch(QUERIES["count_failures"])]

    async def remove_expired(self, *, retention: timedelta) -> list[int]:
        """Hide up to 1,000 tasks that finished longer than `retention` ago; return their ids."""
        params = {"retention": retention, "limit": _ROWS_MAX}
        return [row[0] for row in await self._database.fetch(QUERIES["remove_expired"], params)]

    async def drop_shells(self) -> int:
        """Delete up to 1,000 rows hidden more than a day ago; return how many."""
        return await self._database.execute(QUERIES["drop_shells"], {"limit": _ROWS_MAX})

    async def _changes(self, name: str, params: dict[str, object]) -> list[Change]:
        return [Change(*row) for row in await self._database.fetch(QUERIES[name], params)]


def printable(text: str) -> str:
    """`text` as PostgreSQL can store it: without NUL."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}") if "\0" in text else text


def error_json(error: TaskError) -> str:
    """The error as the task row keeps it; fields that say nothing are left out."""
    fields: dict[str, object] = {"code": printable(error.code), "message": printable(error.message)}
    if error.exception:
        fields["exception"] = printable(error.exception)
    if error.signal:
        fields["signal"] = error.signal
    if error.exit_code:
        fields["exit_code"] = error.exit_code
    if error.peak_memory_bytes:
        fields["peak_memory_bytes"] = error.peak_memory_bytes
    if error.log_tail:
        fields["log_tail"] = printable(error.log_tail)
    if error.HasField("receipt"):
        fields["receipt"] = {
            "ended_by": CancelReceipt.EndedBy.Name(error.receipt.ended_by),
            "stopped_after_ms": error.receipt.stopped_after_ms,
            "processes_gone": error.receipt.processes_gone,
        }
    return msgspec.json.encode(fields).decode()


# The error of a task whose cancel came true when its attempt ended for another reason; that is on its record.
_CANCELLED_AT_ITS_END = error_json(
    TaskError(
        code="cancelled",
        message="cancelled when its attempt had ended for another reason",
        receipt=CancelReceipt(ended_by=CancelReceipt.ENDED_BY_ITS_END, processes_gone=True),
    )
)


def _task_columns(tasks: Sequence[NewTask]) -> dict[str, Any]:
    tasks = sorted(tasks, key=lambda task: task.submission.task_id)
    rows = [task.submission for task in tasks]
    owners = [task.session_id for task in tasks]
    return {
        "task_ids": int8_array([row.task_id for row in rows]),
        "types": text_array([row.type for row in rows]),
        "data": bytea_array([row.data for row in rows]),
        "pools": text_array([row.pool for row in rows]),
        "priorities": int4_array([row.priority for row in rows]),
        "max_attempts": int4_array([row.max_attempts for row in rows]),
        "timeouts": int8_array([row.timeout_ms for row in rows]),
        "run_at": timestamptz_array_of_micros([_micros(row, "run_at") for row in rows]),
        "delays": int8_array([row.delay_ms for row in rows]),
        "accepted_at": timestamptz_array_of_micros([_micros(row, "accepted_at") for row in rows]),
        "keys": text_array([row.idempotency_key or None for row in rows]),
        "fingerprints": bytea_array([row.fingerprint or None for row in rows]),
        "expires": int8_array([row.expires_in_ms or None for row in rows]),
        "options": bytea_array([row.options.SerializeToString() if row.HasField("options") else None for row in rows]),
        "owners": int8_array(owners),
        "sessions": sorted({owner for owner in owners if owner is not None}),
    }


def _micros(message: Submission | Report, field: Any) -> int | None:
    """A timestamp as microseconds since 1970; None where it is not set."""
    if not message.HasField(field):
        return None
    value: Timestamp = getattr(message, field)
    return value.seconds * 1_000_000 + value.nanos // 1000


def _time(report: Report, field: Any) -> datetime | None:
    return getattr(report, field).ToDatetime(UTC) if report.HasField(field) else None


def _decide(row: tuple[Any, ...], ending: Ending, rng: random.Random) -> dict[str, object]:
    """Apply the domain's rule to a locked row; return the columns of its row in move_attempts."""
    task_id, attempt, _type, max_attempts, failures, worker_deaths, losses, refusals, round_base, revision = row[:10]
    before = Task(
        status=TaskStatus.PROCESSING,
        attempt=attempt,
        max_attempts=max_attempts,
        failures=failures,
        worker_deaths=worker_deaths,
        replica_losses=losses,
        refusals=refusals,
        round_base=round_base,
        revision=revision,
        session_id=row[12],
        cancel_requested=row[10],
    )
    report = ending.report
    after = end_attempt(
        before,
        ending.event,
        attempt=attempt,
        rng=rng,
        backoff=_backoff(row[13]),
        retry_after=timedelta(milliseconds=report.retry_after_ms) if report.HasField("retry_after_ms") else None,
        worth_retrying=ending.worth_retrying,
    )
    error = error_json(report.error) if report.HasField("error") else None
    told_itself = ending.event is TaskEvent.ATTEMPT_CANCELLED
    return {
        "task_ids": task_id,
        "statuses": after.status.value,
        "delays": round(after.due_in.total_seconds() * 1000),
        "failures": after.failures,
        "worker_deaths": after.worker_deaths,
        "refusals": after.refusals,
        "errors": error if told_itself or after.status is not TaskStatus.CANCELLED else _CANCELLED_AT_ITS_END,
        "started": report.started,
        "workers": printable(report.worker) or None,
        "started_at": _time(report, "started_at"),
        "executed_at": _time(report, "executed_at"),
        "outcomes": OUTCOME_OF_EVENT[ending.event],
        "attempt_errors": error,
    }


def _backoff(options: bytes | None) -> Backoff:
    if options is None:
        return DEFAULT_BACKOFF
    parsed = TaskOptions.FromString(options)
    if not parsed.HasField("backoff"):
        return DEFAULT_BACKOFF
    given = parsed.backoff
    return Backoff(timedelta(milliseconds=given.initial_ms), given.factor, timedelta(milliseconds=given.max_ms))
