"""Hands each event to the readers that want it; an event costs nothing to those that do not."""

import itertools
from collections.abc import Iterable, Sequence

from servicekit.errors import Overloaded
from servicekit.live.events import LiveEvent
from servicekit.live.filters import Filter
from servicekit.live.mailbox import Mailbox, Signal

# What listeners are found by: a task, or a type and a status, either of them any.
Key = int | tuple[str | None, int | None]

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
    """Listeners, found by task where they name tasks, else by the types and statuses that they name."""

    def __init__(self, *, listeners_max: int = LISTENERS_MAX) -> None:
        self._listeners_max = listeners_max
        self._listeners: set[Listener] = set()
        self._by_key: dict[Key, set[Listener]] = {}
        # How many of them name no tasks.
        self._broad = 0
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
        self._broad += not wanted.task_ids
        for key in _keys(wanted):
            self._by_key.setdefault(key, set()).add(listener)
        return listener

    def remove(self, listener: Listener) -> None:
        if listener not in self._listeners:
            return
        wanted = listener.wanted
        self._listeners.remove(listener)
        self._named -= len(wanted.task_ids)
        self._broad -= not wanted.task_ids
        for key in _keys(wanted):
            self._by_key[key].remove(listener)
            if not self._by_key[key]:
                del self._by_key[key]

    def hears(self, task_id: int) -> bool:
        """Whether somebody may want an event of this task."""
        return self._broad > 0 or task_id in self._by_key

    def publish(self, events: Sequence[LiveEvent]) -> None:
        """Hand on events, in order."""
        for event in events:
            update = event.update
            keys: tuple[Key, ...] = (update.task_id, *itertools.product((update.type, None), (update.status, None)))
            for key in keys:
                # A copy, since a listener that is cut off takes itself off the list.
                for listener in tuple(self._by_key.get(key, ())):
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


def _keys(wanted: Filter) -> Iterable[Key]:
    """What a listener is found by; an event leads to it by one of them at most."""
    return wanted.task_ids or itertools.product(wanted.types or (None,), wanted.statuses or (None,))
