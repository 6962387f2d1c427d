"""Lists of tasks by several statuses, types or ids at once."""

from itertools import product

from management_service.storage.records import Listing, TaskRow
from management_service.storage.tasks import TaskRepository


async def list_tasks(tasks: TaskRepository, wanted: Listing) -> tuple[list[TaskRow], int]:
    """Return a page, newest first, and where the next one begins; 0 when there is none."""
    if wanted.task_ids:
        named = await tasks.list_named(wanted.task_ids, statuses=wanted.statuses, type_names=wanted.type_names)
        return named, 0
    found: list[TaskRow] = []
    # One query each: the indexes serve single statuses, and tasks of each pair come in the order that is wanted.
    for status, type_name in product(wanted.statuses or (None,), wanted.type_names or (None,)):
        found += await tasks.list_page(status=status, type_name=type_name, limit=wanted.limit + 1, after=wanted.after)
    found.sort(key=lambda row: row.task_id, reverse=True)
    page = found[: wanted.limit]
    return page, page[-1].task_id if len(found) > wanted.limit else 0
