"""The stream of updates that WatchTasks gives: that of the gateway's live streams, for internal clients."""

import contextlib
from collections.abc import AsyncIterator, Sequence

from headrace.v1.task_pb2 import TaskUpdate
from management_service.publishing import update_of_state
from management_service.storage.tasks import TaskRepository
from servicekit.live.event_log import EventLog
from servicekit.live.filters import Filter
from servicekit.live.hub import Hub
from servicekit.live.mailbox import next_updates

_BATCH_MAX = 1_000


async def watch_tasks(
    hub: Hub, log: EventLog, tasks: TaskRepository, task_ids: Sequence[int]
) -> AsyncIterator[list[TaskUpdate]]:
    """Yield a snapshot of the named tasks, then what changes; without names, what changes of any task.

    Listens first, so that nothing falls between; a reader drops what is not newer than its snapshot. Another snapshot
    comes where updates may have been missed. Raises Overloaded when the reader is too slow, Unavailable when the
    service stops.
    """
    await log.ready()
    with contextlib.closing(hub.add(Filter(task_ids=frozenset(task_ids)))) as listener:
        updates: list[TaskUpdate] = []
        while True:
            if updates:
                yield updates
            elif task_ids:
                yield await _snapshot(tasks, task_ids)
            updates = await next_updates(listener.mailbox, at_most=_BATCH_MAX)


async def _snapshot(tasks: TaskRepository, task_ids: Sequence[int]) -> list[TaskUpdate]:
    return [update_of_state(state) for state in await tasks.read_present(task_ids) if not state.removed]
