"""The stream of updates that WatchTasks gives."""

from collections.abc import AsyncIterator, Sequence

from headrace.v1.task_pb2 import TaskUpdate
from management_service.publishing import update_of_state
from management_service.storage.tasks import TaskRepository
from servicekit.errors import Overloaded
from servicekit.updates import FeedSignal, UpdateFeed

_BATCH_MAX = 1_000
_WAIT_SECONDS = 30.0


async def watch_tasks(
    feed: UpdateFeed, tasks: TaskRepository, task_ids: Sequence[int]
) -> AsyncIterator[list[TaskUpdate]]:
    """Yield a snapshot of the named tasks, then what changes; without names, what changes of any task.

    Subscribes first, so that nothing falls between; a reader drops what is not newer than its snapshot. Raises
    Overloaded when the reader is too slow.
    """
    wanted = frozenset(task_ids)
    with feed.subscribe_all() as subscription:
        if wanted:
            yield await _snapshot(tasks, task_ids)
        while True:
            item = await subscription.next(timeout=_WAIT_SECONDS)
            updates: list[TaskUpdate] = []
            while isinstance(item, TaskUpdate):
                updates.append(item)
                item = await subscription.next(timeout=0) if len(updates) < _BATCH_MAX else None
            if updates := [update for update in updates if not wanted or update.task_id in wanted]:
                yield updates
            if item is FeedSignal.CLOSED:
                return
            if item is FeedSignal.OVERFLOW:
                raise Overloaded("the reader is too slow for the updates", code="reader_too_slow")
            if item is FeedSignal.RESYNC and wanted:
                yield await _snapshot(tasks, task_ids)


async def _snapshot(tasks: TaskRepository, task_ids: Sequence[int]) -> list[TaskUpdate]:
    return [update_of_state(state) for state in await tasks.read_present(task_ids) if not state.removed]
