"""Rows of the task database for tests: made with defaults, read back in a few words."""

from collections.abc import Sequence
from typing import Any

import psycopg

from headrace.v1.task_pb2 import OUTCOME_COMPLETED, Outcome, Report, Submission, TaskError, TaskType
from management_service.storage.executors import ExecutorRepository
from management_service.storage.records import Claimed, NewTask, Session
from management_service.storage.tasks import TaskRepository

SESSION = 7001


def submission(task_id: int, **fields: Any) -> Submission:
    """A submission that is valid as it is."""
    defaults: dict[str, Any] = {
        "type": "noop",
        "data": b"{}",
        "pool": "cpu",
        "priority": 4,
        "max_attempts": 3,
        "timeout_ms": 30_000,
    }
    return Submission(task_id=task_id, **(defaults | fields))


def report(task_id: int, attempt: int, outcome: Outcome.ValueType = OUTCOME_COMPLETED, **fields: Any) -> Report:
    """A report of an attempt that was started."""
    if outcome != OUTCOME_COMPLETED:
        fields.setdefault("error", TaskError(code="handler_error", message="no luck"))
    return Report(task_id=task_id, attempt=attempt, outcome=outcome, started=True, worker="w1", **fields)


class Rows:
    """Puts a test's tasks and sessions where it wants them."""

    def __init__(
        self, connection: psycopg.AsyncConnection, tasks: TaskRepository, executors: ExecutorRepository
    ) -> None:
        self.connection = connection
        self._tasks = tasks
        self._executors = executors

    async def session(self, session_id: int = SESSION, *, types: Sequence[str] = ("noop",)) -> int:
        """A live session."""
        task_types = [TaskType(name=name, pool="cpu", timeout_ms=1000, max_attempts=3, version="1") for name in types]
        assert await self._executors.open_session(Session(session_id, f"r{session_id}", "127.0.0.1:1", 0, task_types))
        return session_id

    async def queued(self, *task_ids: int, **fields: Any) -> None:
        """Tasks of which everybody has been told."""
        await self._tasks.insert([NewTask(submission(task_id, **fields)) for task_id in task_ids])
        await self.clear_outbox()

    async def processing(self, *task_ids: int, session_id: int = SESSION, **fields: Any) -> list[Claimed]:
        """Tasks claimed for a live session, attempt 1."""
        await self.session(session_id)
        await self.queued(*task_ids, **fields)
        claimed = await self._tasks.claim(pool="cpu", types=["noop"], slots=[session_id] * len(task_ids))
        await self.clear_outbox()
        return claimed

    async def read(self, task_id: int, *columns: str) -> Any:
        """One column of a row, or several as a tuple."""
        query = f"SELECT {', '.join(columns)} FROM tasks WHERE task_id = {task_id}"
        row = await (await self.connection.execute(query.encode())).fetchone()
        assert row is not None, f"no task {task_id}"
        return row[0] if len(columns) == 1 else row

    async def outbox(self) -> list[list[int]]:
        """The ids whose changes wait to be published, in the order of their rows."""
        cursor = await self.connection.execute("SELECT task_ids FROM outbox ORDER BY outbox_id")
        return [sorted(row[0]) for row in await cursor.fetchall()]

    async def clear_outbox(self) -> None:
        await self.connection.execute("DELETE FROM outbox")

    async def set(self, task_id: int, assignments: str) -> None:
        """Change a row behind everybody's back: `assignments` is the SET list."""
        await self.connection.execute(f"UPDATE tasks SET {assignments} WHERE task_id = {task_id}".encode())
