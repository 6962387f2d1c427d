"""Where a stream's updates come from: at the gateway the log in Redis, at an execution replica what it runs."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from headrace.v1.task_pb2 import TaskUpdate
from servicekit.live.cursors import Cursor
from servicekit.live.events import LiveEvent
from servicekit.live.filters import Filter
from servicekit.task_views import update_view


@dataclass(slots=True, eq=False)
class Snapshot:
    """The present state of the tasks that a filter fits: all that it names, or the newest ones.

    Encoded once for all readers that share it.
    """

    updates: Sequence[TaskUpdate]
    # Further tasks fit; they are listed at `GET /api/tasks`.
    more: bool = False
    # Tasks that the filter names and that do not exist.
    missing: Sequence[int] = field(default_factory=tuple)
    _data: bytes | None = field(default=None, init=False, repr=False)

    def data(self) -> bytes:
        """The JSON of the data alone."""
        if self._data is None:
            tasks = [update_view(update) for update in self.updates]
            self._data = msgspec.json.encode({"tasks": tasks, "more": self.more, "missing": list(self.missing)})
        return self._data


class LiveSource(Protocol):
    """Publishes to a Hub, per task in the order of revisions and each once; progress by (attempt, n)."""

    @property
    def is_deaf(self) -> bool:
        """Nothing is heard now: readers are told by snapshots what has changed meanwhile."""
        ...

    @property
    def position(self) -> Cursor | None:
        """The place of the event that was published last; nothing where there is none or it cannot be resumed."""
        ...

    async def ready(self) -> None:
        """Return when `replay` can be answered. Raises Unavailable after a bounded time."""
        ...

    def replay(self, cursor: Cursor) -> Sequence[LiveEvent] | None:
        """The events after a place, up to what was published last; nothing where the place is not known any more."""
        ...

    def revision_of(self, task_id: int) -> int | None:
        """The newest revision that was published of a task, where that is known."""
        ...

    async def snapshot(self, wanted: Filter) -> Snapshot:
        """Read the present state. Raises HeadraceError."""
        ...
