"""Hands each event to the readers that want it; an event costs nothing to those that do not."""

from collections.abc import Iterable, Sequence

from servicekit.errors import Overloaded
from servicekit.live.events import LiveEvent
from servicekit.live.filters import Filter
from servicekit.live.mailbox import Mailbox, Signal

LISTENERS_MAX = 20_000
# The tasks that all listeners together may name.
NAMED_MAX = 500_000


class Listener:
    """A mailbox and what goes into it."""

    def __init__(self, hub: "Hub", wanted: Filter) -> None:
        self.wanted = wanted
        self.mailbox = Mailbox(self.close)
        self._hub = hub

    def close(self) -> None:
        """Hear nothing more; safe to repeat."""
        self._hub.remove(self)


class Hub:
    """Listeners, found by task where they name tasks, else by type where they name types."""

    def __init__(self, *, listeners_max: int = LISTENERS_MAX) -> None:
        self._listeners_max = listeners_max
        self._listeners: set[Listener] = set()
        self._by_task: dict[int, set[Listener]] = {}
        self._by_type: dict[str, set[Listener]] = {}
        self._of_all: set[Listener] = set()
        self._named = 0
        self.is_closed = False

    def __len__(self) -> int:
        return len(self._listeners)

    def add(self, wanted: Filter) -> Listener:
        """Listen from now on. Raises Overloaded when there are too many already."""
        crowded = len(self._listeners) >= self._listeners_max
        if crowded or self._named + len(wanted.task_ids) > NAMED_MAX:
            raise Overloaded("Too many streams are open here.", code="too_many_streams", retry_after=5.0)
        listener = Listener(self, wanted)
        if self.is_closed:
            listener.mailbox.signal(Signal.CLOSED)
            return listener
        self._listeners.add(listener)
        self._named += len(wanted.task_ids)
        for place in self._places(wanted):
            place.add(listener)
        return listener

    def remove(self, listener: Listener) -> None:
        if listener not in self._listeners:
            return
        self._listeners.remove(listener)
        self._named -= len(listener.wanted.task_ids)
        for place in self._places(listener.wanted):
            place.discard(listener)
        for task_id in listener.wanted.task_ids:
            if not self._by_task.get(task_id, True):
                del self._by_task[task_id]
        for name in listener.wanted.types:
            if not self._by_type.get(name, True):
                del self._by_type[name]

    @property
    def hears_all(self) -> bool:
        """Whether somebody listens to more than single tasks."""
        return bool(self._of_all or self._by_type)

    def hears(self, task_id: int) -> bool:
        """Whether somebody may want an event of this task."""
        return self.hears_all or task_id in self._by_task

    def publish(self, events: Sequence[LiveEvent]) -> None:
        """Hand on events, in order."""
        for event in events:
            update = event.update
            for listeners in (self._by_task.get(update.task_id), self._by_type.get(update.type), self._of_all):
                # A copy, since a listener that is cut off takes itself off the list.
                for listener in tuple(listeners or ()):
                    if listener.wanted.wants(update):
                        listener.mailbox.put(event)

    def reset(self) -> None:
        """Tell everybody that events may have been missed."""
        for listener in self._listeners:
            listener.mailbox.signal(Signal.RESET)

    def nudge(self) -> None:
        """Make everybody look whether the source still hears."""
        for listener in self._listeners:
            listener.mailbox.nudge()

    def close(self) -> None:
        """Tell everybody that nothing more comes."""
        self.is_closed = True
        for listener in self._listeners:
            listener.mailbox.signal(Signal.CLOSED)

    def _places(self, wanted: Filter) -> Iterable[set[Listener]]:
        if wanted.task_ids:
            return [self._by_task.setdefault(task_id, set()) for task_id in wanted.task_ids]
        if wanted.types:
            return [self._by_type.setdefault(name, set()) for name in wanted.types]
        return [self._of_all]
