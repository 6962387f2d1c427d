"""Updates, and a source of them that tests lead by the hand."""

from collections.abc import Sequence

from headrace.v1.task_pb2 import Progress, TaskStatus, TaskUpdate
from servicekit.errors import HeadraceError
from servicekit.live.cursors import Cursor
from servicekit.live.events import LiveEvent
from servicekit.live.filters import Filter
from servicekit.live.hub import Hub
from servicekit.live.sources import Snapshot

QUEUED = TaskStatus.TASK_STATUS_QUEUED
PROCESSING = TaskStatus.TASK_STATUS_PROCESSING
COMPLETED = TaskStatus.TASK_STATUS_COMPLETED


def update(task_id: int, revision: int, status: "TaskStatus.ValueType" = PROCESSING, **fields: object) -> TaskUpdate:
    return TaskUpdate(task_id=task_id, revision=revision, **{"type": "noop", "status": status, "attempt": 1, **fields})  # type: ignore[arg-type]


def progress(task_id: int, number: int, *, attempt: int = 1) -> TaskUpdate:
    return update(task_id, 0, attempt=attempt, progress=Progress(n=number, fraction=number / 100))


def events(*updates: TaskUpdate) -> list[LiveEvent]:
    return [LiveEvent(each) for each in updates]


def wanted(*task_ids: int, types: Sequence[str] = (), statuses: Sequence[int] = ()) -> Filter:
    return Filter(frozenset(types), frozenset(statuses), frozenset(task_ids))


class ScriptedSource:
    """Rows that change when a test says so, and a log of what was published of it; each entry has one update."""

    def __init__(self) -> None:
        self.hub = Hub()
        self.rows: dict[int, TaskUpdate] = {}
        self.log: list[LiveEvent] = []
        self.is_deaf = False
        self.error: HeadraceError | None = None
        self.reads = 0
        # Entries before this one are not kept.
        self.kept_from = 0

    @property
    def position(self) -> Cursor:
        return Cursor(len(self.log), 0, 0)

    async def ready(self) -> None:
        pass

    def change(self, changed: TaskUpdate) -> TaskUpdate:
        """Commit a change that nobody was told of yet."""
        self.rows[changed.task_id] = changed
        return changed

    def publish(self, *updates: TaskUpdate) -> None:
        """Tell of changes, in the order of the log."""
        for each in updates:
            event = LiveEvent(each, Cursor(len(self.log) + 1, 0, 0))
            self.log.append(event)
            self.hub.publish([event])

    def replay(self, cursor: Cursor) -> Sequence[LiveEvent] | None:
        if not self.kept_from <= cursor.ms <= len(self.log):
            return None
        return [event for event in self.log if event.cursor is not None and event.cursor > cursor]

    def revision_of(self, task_id: int) -> int | None:
        revisions = [e.update.revision for e in self.log if e.update.task_id == task_id and not e.is_progress]
        return max(revisions, default=None)

    async def snapshot(self, wanted: Filter) -> Snapshot:
        self.reads += 1
        if self.error is not None:
            raise self.error
        present = [row for row in self.rows.values() if wanted.wants(row)]
        return Snapshot(present, missing=sorted(wanted.task_ids - self.rows.keys()))
