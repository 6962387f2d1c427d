"""New tasks into the database, whichever way they came, and on to a replica where none has to wait."""

from collections.abc import Sequence

import structlog

from headrace.v1.task_pb2 import Submission
from management_service.dispatch import Dispatcher
from management_service.storage.tasks import TaskRepository
from servicekit.errors import AlreadyExists

log = structlog.stdlib.get_logger(__name__)


class TaskStore:
    def __init__(self, tasks: TaskRepository, dispatcher: Dispatcher) -> None:
        self._tasks = tasks
        self._dispatcher = dispatcher

    async def store(self, submissions: Sequence[Submission]) -> dict[int, str]:
        """Store tasks and return the statuses of those that were new; storing one again changes nothing.

        Raises Unavailable, or psycopg.DataError or IntegrityError for the whole batch; then nothing was stored.
        """
        handover = self._dispatcher.reserve(submissions)
        try:
            inserted = await self._tasks.insert(handover.tasks)
        except BaseException:
            self._dispatcher.release(handover)
            raise
        self._dispatcher.settle(handover, inserted)
        return inserted.statuses

    async def store_with_keys(self, submissions: Sequence[Submission]) -> list[int]:
        """Store tasks of which some carry an idempotency key; return the ids that hold, in order.

        Raises AlreadyExists when a key was used before with another fingerprint; tasks stored beside it are stored.
        """
        new = await self.store(submissions)
        keys = [s.idempotency_key for s in submissions if s.idempotency_key and s.task_id not in new]
        holders = await self._tasks.find_by_keys(keys) if keys else {}
        ids = []
        for submission in submissions:
            holder = holders.get(submission.idempotency_key)
            if submission.task_id in new or holder is None:
                ids.append(submission.task_id)
                continue
            task_id, fingerprint = holder
            if fingerprint != submission.fingerprint:
                raise AlreadyExists(
                    f"the idempotency key was used for task {task_id} with another body", code="idempotency_conflict"
                )
            ids.append(task_id)
        return ids

    async def store_unstorable(self, submission: Submission, *, reason: str) -> None:
        """Store a task that the database refused, as failed."""
        await self._tasks.insert_unstorable(submission, reason=reason)
