"""What has to happen by itself: tasks becoming due, updates published again, finished tasks removed."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta

import structlog

from headrace.v1.task_pb2 import TaskUpdate
from management_service.domain.statuses import FINAL
from management_service.publishing import Publisher, update_of_past, update_of_state
from management_service.reports import ReportDesk
from management_service.storage.executors import ExecutorRepository
from management_service.storage.outbox import Outbox, OutboxRow
from management_service.storage.records import PresentState
from management_service.storage.tasks import TaskRepository
from servicekit import failpoints
from servicekit.loops import BackgroundLoop

log = structlog.stdlib.get_logger(__name__)

DUE_SECONDS = 0.25
OUTBOX_SECONDS = 0.5
RETENTION_SECONDS = 10.0
_OUTBOX_AGE = timedelta(seconds=1)
_OUTBOX_ROWS_MAX = 100


class Scheduler:
    """Queues tasks whose time has come, and fails those that were not started in time."""

    def __init__(self, tasks: TaskRepository, reports: ReportDesk) -> None:
        self._tasks = tasks
        self._reports = reports
        self._loop = BackgroundLoop("scheduler", self.run_once, interval=DUE_SECONDS)

    def start(self) -> None:
        self._loop.start()

    async def stop(self) -> None:
        await self._loop.stop()

    def problem(self, *, within: float) -> str | None:
        """A check for readiness."""
        return self._loop.problem(within=within)

    async def run_once(self) -> None:
        while changes := await self._tasks.expire():
            log.info("tasks_expired", count=len(changes), first=changes[0].task_id)
            self._reports.publish(changes)
        while changes := await self._tasks.promote_due():
            failpoints.hit("scheduler.after_promote")
            self._reports.publish(changes)


class OutboxRelay:
    """Clears what was published, and publishes again what its manager did not get to."""

    def __init__(self, outbox: Outbox, tasks: TaskRepository, publisher: Publisher) -> None:
        self._outbox = outbox
        self._tasks = tasks
        self._publisher = publisher
        self._loop = BackgroundLoop("outbox", self.run_once, interval=OUTBOX_SECONDS)

    def start(self) -> None:
        self._loop.start()

    async def stop(self) -> None:
        await self._loop.stop()

    async def run_once(self) -> None:
        await self._clear()
        rows = await self._outbox.take_stale(age=_OUTBOX_AGE, limit=_OUTBOX_ROWS_MAX)
        if rows:
            await self._publish_again(rows)
            await self._outbox.clear([row.outbox_id for row in rows])

    async def _clear(self) -> None:
        """Delete what no later batch of completions has taken along."""
        if cleared := self._publisher.take_cleared():
            try:
                await self._outbox.clear(cleared)
            except BaseException:
                self._publisher.give_back_cleared(cleared)
                raise

    async def _publish_again(self, rows: Sequence[OutboxRow]) -> None:
        """Publish the changes, and make readers of tasks that were removed or started again ask management."""
        task_ids = sorted({task_id for row in rows for task_id in row.task_ids})
        states = {state.task_id: state for state in await self._tasks.read_present(task_ids)}
        stale = {task_id for row in rows for task_id in row.task_ids if _is_stale(states.get(task_id))}
        if stale:
            await self._publisher.put_tombstones(stale)
        updates = [update for row in rows for update in _updates_of(row, states)]
        await self._publisher.publish_now(updates)
        log.info("updates_published_again", updates=len(updates), first=task_ids[0])


def _is_stale(state: PresentState | None) -> bool:
    """Whether a cache may hold an end of the task that is no longer true."""
    return state is not None and (state.removed or (state.status not in FINAL and state.attempt > 0))


def _updates_of(row: OutboxRow, states: Mapping[int, PresentState]) -> Iterator[TaskUpdate]:
    """The updates that a row tells of; none of tasks that are removed."""
    if row.statuses is None or row.attempts is None or row.revisions is None:
        present = (states.get(task_id) for task_id in row.task_ids)
        yield from (update_of_state(state) for state in present if state is not None and not state.removed)
        return
    for task_id, status, attempt, revision in zip(row.task_ids, row.statuses, row.attempts, row.revisions, strict=True):
        state = states.get(task_id)
        if state is not None and not state.removed:
            yield update_of_past(state, status=status, attempt=attempt, revision=revision, at=row.created_at)


class Retention:
    """Hides finished tasks past their time, and drops what has been hidden for a day."""

    def __init__(self, tasks: TaskRepository, executors: ExecutorRepository, *, retention: timedelta) -> None:
        self._tasks = tasks
        self._executors = executors
        self._retention = retention
        self._loop = BackgroundLoop("retention", self.run_once, interval=RETENTION_SECONDS, jitter=0.5)

    def start(self) -> None:
        self._loop.start()

    async def stop(self) -> None:
        await self._loop.stop()

    async def run_once(self) -> None:
        removed = await self._tasks.remove_expired(retention=self._retention)
        dropped = await self._tasks.drop_shells()
        await self._executors.forget_old_rows(retention=self._retention + timedelta(days=1))
        if removed or dropped:
            log.info("tasks_removed", hidden=len(removed), dropped=dropped)
