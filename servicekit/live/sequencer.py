"""Puts the updates of the stream into order: per task by revision, each once.

Managers add what they have committed, each at its own pace, and again where they are not sure that it was added. So an
update may stand in the stream before its predecessor, and twice. Where one comes too early, everything after it waits
until its predecessor is there, which is then told in its place. What is told, and in which order, follows from the
stream alone: every gateway tells the same, and a cursor of one is good at another.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from headrace.v1.task_pb2 import UpdateBatch
from servicekit.live.cursors import Cursor
from servicekit.live.events import LiveEvent
from servicekit.live.window import EventWindow
from servicekit.update_reader import EntryId

# By the clock of the stream: how long a missing revision is waited for. Updates of a manager that died are added by
# another within about 2 s; and a task not heard of before may be an old one, of which nothing is missing.
GAP_MS = 3_000
GAP_UNKNOWN_MS = 250
# By our own clock, where nothing else comes: so much longer.
_PATIENCE_SECONDS = 0.5
_WAITING_MAX = 50_000
_TASKS_MAX = 300_000


@dataclass(slots=True)
class _Item:
    """An update of the stream that has not been told."""

    entry_id: EntryId
    index: int
    task_id: int
    revision: int
    encoded: bytes
    # By our own clock.
    came_at: float
    # Told in the place of another.
    done: bool = False


@dataclass(slots=True)
class _Told:
    revision: int
    event: LiveEvent


class Sequencer:
    """Pure: `now` is a monotonic clock of the caller's. Starts at an entry of which nothing was told."""

    def __init__(self, start: EntryId) -> None:
        self.window = EventWindow(Cursor(*start, 0))
        self._told: dict[int, _Told] = {}
        self._progress: dict[int, tuple[int, int]] = {}
        self._waiting: deque[_Item] = deque()
        self._waiting_by_task: dict[int, list[_Item]] = {}
        self._newest_ms = 0
        self._step = 0
        self._out: list[tuple[int, LiveEvent]] = []

    def revision_of(self, task_id: int) -> int | None:
        """The newest revision that was told of a task, where that is remembered."""
        told = self._told.get(task_id)
        return told.revision if told is not None else None

    def take(self, entry_id: EntryId, message: bytes, *, now: float) -> list[tuple[int, LiveEvent]]:
        """Take the next entry; return what can be told, as (task id, event).

        Raises ValueError or DecodeError for what is no UpdateBatch; nothing has changed then.
        """
        for item in list(_items(entry_id, message, now)):
            if self._waiting or not self._tell(item, Cursor(*entry_id, item.index)):
                self._waiting.append(item)
                self._waiting_by_task.setdefault(item.task_id, []).append(item)
        self._newest_ms = entry_id[0]
        return self.look(now=now)

    def look(self, *, now: float) -> list[tuple[int, LiveEvent]]:
        """Return what can be told by now."""
        while self._waiting and self._tell_first(self._waiting[0], now):
            pass
        out, self._out = self._out, []
        return out

    def seconds_to_look(self, *, now: float) -> float | None:
        """When waiting has an end even if nothing else comes; nothing where nothing waits."""
        if not self._waiting:
            return None
        first = self._waiting[0]
        return max(0.0, first.came_at + self._patience_ms(first) / 1000 + _PATIENCE_SECONDS - now)

    def _tell_first(self, first: _Item, now: float) -> bool:
        """Tell the first that waits, or what it waits for; False where that is not there and may still come."""
        place = Cursor(*first.entry_id, first.index, self._step)
        if first.done or self._tell(first, place):
            self._waiting.popleft()
            self._forget_waiting(first)
            self._step = 0
            return True
        before = self._waiting_before(first)
        if before is not None and (self._follows(before) or self._is_late(first, now)):
            self._emit(before, place)
            before.done = True
            self._step += 1
            return True
        if before is None and self._is_late(first, now):
            self._emit(first, place)
            first.done = True
            return True
        return False

    def _waiting_before(self, first: _Item) -> _Item | None:
        """The lowest revision of the same task that came after `first` and should have come before."""
        told = self.revision_of(first.task_id) or 0
        candidates = [
            item
            for item in self._waiting_by_task[first.task_id]
            if not item.done and told < item.revision < first.revision
        ]
        return min(candidates, key=lambda item: item.revision, default=None)

    def _follows(self, item: _Item) -> bool:
        return item.revision == (self.revision_of(item.task_id) or 0) + 1

    def _patience_ms(self, item: _Item) -> int:
        return GAP_MS if item.task_id in self._told else GAP_UNKNOWN_MS

    def _is_late(self, item: _Item, now: float) -> bool:
        patience = self._patience_ms(item)
        return (
            self._newest_ms - item.entry_id[0] > patience
            or now - item.came_at >= patience / 1000 + _PATIENCE_SECONDS
            or len(self._waiting) > _WAITING_MAX
        )

    def _forget_waiting(self, item: _Item) -> None:
        items = self._waiting_by_task[item.task_id]
        items.remove(item)
        if not items:
            del self._waiting_by_task[item.task_id]

    def _tell(self, item: _Item, place: Cursor) -> bool:
        """Tell an update, or drop one that was told before; False where its predecessor is missing."""
        if not item.revision:
            self._tell_progress(item, place)
            return True
        told = self._told.get(item.task_id)
        last = told.revision if told is not None else 0
        if item.revision > last + 1:
            return False
        if item.revision > last:
            self._emit(item, place)
        return True

    def _tell_progress(self, item: _Item, place: Cursor) -> None:
        """Tell progress of the attempt that is in progress, unless later progress was told."""
        event = LiveEvent(item.encoded, place)
        attempt, number = event.update.attempt, event.update.progress.n
        told = self._told.get(item.task_id)
        if told is not None and (told.event.is_final or told.event.update.attempt != attempt):
            return
        if self._progress.get(item.task_id, (0, 0)) < (attempt, number):
            self._progress[item.task_id] = (attempt, number)
            self._keep(item, place)

    def _emit(self, item: _Item, place: Cursor) -> None:
        event = self._keep(item, place)
        told = self._told.get(item.task_id)
        if told is None:
            self._told[item.task_id] = _Told(item.revision, event)
            if len(self._told) > _TASKS_MAX:
                del self._told[next(iter(self._told))]
        else:
            told.revision, told.event = item.revision, event
        if self._progress:
            self._progress.pop(item.task_id, None)

    def _keep(self, item: _Item, place: Cursor) -> LiveEvent:
        """Tell an event, and keep another of its own: what it is decoded and encoded to goes with its readers."""
        self._out.append((item.task_id, LiveEvent(item.encoded, place)))
        event = LiveEvent(item.encoded, place)
        for dropped in self.window.append(event, place):
            self._forget_told(dropped)
        return event

    def _forget_told(self, dropped: LiveEvent) -> None:
        """Forget a task with its last event, if it has ended."""
        told = self._told.get(dropped.update.task_id)
        if told is not None and told.event is dropped and dropped.is_final:
            del self._told[dropped.update.task_id]


def _items(entry_id: EntryId, message: bytes, now: float) -> Iterator[_Item]:
    batch = UpdateBatch.FromString(message)
    columns = zip(batch.task_ids, batch.revisions, batch.updates, strict=True)
    for index, (task_id, revision, encoded) in enumerate(columns):
        yield _Item(entry_id, index, task_id, revision, encoded, now)
