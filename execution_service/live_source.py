"""The live updates of one replica: of the attempts that it holds, as it learns of them."""

from collections.abc import Sequence

from execution_service.attempts import AttemptTable, Held, Phase
from headrace.v1.task_pb2 import TaskStatus, TaskUpdate
from servicekit.errors import NotFound
from servicekit.live.cursors import Cursor
from servicekit.live.events import LiveEvent
from servicekit.live.filters import Filter
from servicekit.live.sources import Snapshot


class ReplicaSource:
    """A LiveSource without cursors or revisions: both are known to management alone.

    A snapshot is read in the moment in which listening begins, so nothing falls between them or is told twice.
    """

    is_deaf = False
    position = None

    def __init__(self, table: AttemptTable) -> None:
        self._table = table

    async def ready(self) -> None:
        pass

    def replay(self, cursor: Cursor) -> Sequence[LiveEvent] | None:
        return None

    def revision_of(self, task_id: int) -> int | None:
        return None

    async def snapshot(self, wanted: Filter) -> Snapshot:
        """The attempts that have not ended; raises NotFound where the only task that is named is not held here."""
        running = {held.task_id: held for held in self._table.held() if held.phase is not Phase.FINISHED}
        missing = sorted(wanted.task_ids - running.keys())
        if missing and len(wanted.task_ids) == 1:
            raise NotFound(f"This replica does not run task {missing[0]}.", code="task_not_found")
        updates = [update for held in running.values() if wanted.wants(update := _update(held))]
        return Snapshot(updates, missing=missing)


def _update(held: Held) -> TaskUpdate:
    return TaskUpdate(
        task_id=held.task_id, type=held.type, status=TaskStatus.TASK_STATUS_PROCESSING, attempt=held.attempt
    )
