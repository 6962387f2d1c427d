"""The present state of the tasks that a live stream is about."""

from collections.abc import Sequence

from gateway.cache import TaskCache
from gateway.management import Management
from gateway.reads import TaskReader
from gateway.shared_reads import SharedReads
from gateway.views import waiting_task
from headrace.v1.management_pb2 import ListTasksRequest
from headrace.v1.task_pb2 import Task, TaskStatus
from servicekit.errors import Unavailable
from servicekit.live.filters import Filter
from servicekit.live.sources import Snapshot
from servicekit.task_views import update_of_task

# Of tasks that are not named, so many of the newest are told.
TASKS_MAX = 200


class Snapshots:
    """Equal filters asked for at the same moment share one read."""

    def __init__(self, reader: TaskReader, cache: TaskCache, management: Management) -> None:
        self._reader = reader
        self._cache = cache
        self._management = management
        self._reads = SharedReads(self._read)

    async def read(self, wanted: Filter) -> Snapshot:
        """Read what a filter fits. Raises NotFound where the only task that it names does not exist."""
        return await self._reads.read(wanted)

    async def _read(self, wanted: Filter) -> Snapshot:
        if not wanted.task_ids:
            return await self._read_newest(wanted)
        if len(wanted.task_ids) == 1:
            [task_id] = wanted.task_ids
            return _snapshot([await self._reader.read(task_id)], wanted)
        return await self._read_named(wanted)

    async def _read_newest(self, wanted: Filter) -> Snapshot:
        request = ListTasksRequest(types=sorted(wanted.types), statuses=_statuses(wanted), limit=TASKS_MAX)
        response = await self._management.list_tasks(request)
        return _snapshot(response.tasks, wanted, more=bool(response.next_after))

    async def _read_named(self, wanted: Filter) -> Snapshot:
        """All statuses and types are asked for: a task that does not fit is not missing."""
        # Before management is asked, so that a task that is stored in between is found by one or the other.
        unstored = await self._cache.unstored(sorted(wanted.task_ids))
        response = await self._management.list_tasks(ListTasksRequest(task_ids=sorted(wanted.task_ids)))
        found = {task.task_id: task for task in response.tasks}
        if not found.keys() <= wanted.task_ids:
            raise Unavailable("The management service is older than this gateway.", code="management_outdated")
        absent = wanted.task_ids - found.keys()
        if absent and unstored is None:
            raise Unavailable("It cannot be told now which tasks were accepted.", code="redis_unavailable")
        waiting = absent & (unstored or frozenset())
        tasks = [*found.values(), *(waiting_task(task_id) for task_id in sorted(waiting, reverse=True))]
        return _snapshot(tasks, wanted, missing=sorted(absent - waiting))


def _snapshot(tasks: Sequence[Task], wanted: Filter, *, more: bool = False, missing: Sequence[int] = ()) -> Snapshot:
    updates = (update_of_task(task) for task in tasks)
    return Snapshot([update for update in updates if wanted.wants(update)], more, missing)


def _statuses(wanted: Filter) -> "list[TaskStatus.ValueType]":
    return [TaskStatus.ValueType(status) for status in sorted(wanted.statuses)]
