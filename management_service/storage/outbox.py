"""Changes that may not have been published: written with the change itself, cleared after the publication."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from management_service.storage.tasks import QUERIES
from servicekit.postgres import Database


class OutboxRow(NamedTuple):
    """The lists are parallel. Without statuses it stands for the present state of the tasks."""

    outbox_id: int
    task_ids: list[int]
    statuses: list[str] | None
    attempts: list[int] | None
    revisions: list[int] | None
    created_at: datetime


class Outbox:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def take_stale(self, *, age: timedelta, limit: int) -> list[OutboxRow]:
        """Return the oldest rows that nobody cleared within `age` (by the database's clock)."""
        rows = await self._database.fetch(QUERIES["take_stale_outbox"], {"age": age, "limit": limit})
        return [OutboxRow(*row) for row in rows]

    async def clear(self, outbox_ids: Sequence[int]) -> None:
        await self._database.execute(QUERIES["delete_outbox"], {"outbox_ids": list(outbox_ids)})
