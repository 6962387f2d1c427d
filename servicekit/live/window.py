"""The events of the last minutes, in the order in which they were told, for readers that come back."""

from bisect import bisect_right

from servicekit.live.cursors import Cursor
from servicekit.live.events import LiveEvent

EVENTS_MAX = 100_000
AGE_MS_MAX = 5 * 60 * 1000
_COMPACT_AT = 10_000


class EventWindow:
    """Every event that was told after `horizon` is here; earlier ones may not be."""

    def __init__(self, horizon: Cursor) -> None:
        self._horizon = horizon
        self._events: list[LiveEvent] = []
        self._cursors: list[Cursor] = []
        # Those before it have been dropped, and are removed from the lists now and then.
        self._start = 0

    def __len__(self) -> int:
        return len(self._events) - self._start

    @property
    def newest(self) -> Cursor:
        """The place of the newest event; where there is none, the one after which everything is here."""
        return self._cursors[-1] if len(self) else self._horizon

    def append(self, event: LiveEvent, cursor: Cursor) -> LiveEvent | None:
        """Add the newest event, and return the oldest where it is not kept any longer."""
        self._events.append(event)
        self._cursors.append(cursor)
        oldest = self._cursors[self._start]
        if len(self) <= EVENTS_MAX and cursor.ms - oldest.ms <= AGE_MS_MAX:
            return None
        dropped, self._horizon = self._events[self._start], oldest
        self._start += 1
        if self._start >= _COMPACT_AT:
            del self._events[: self._start], self._cursors[: self._start]
            self._start = 0
        return dropped

    def after(self, cursor: Cursor) -> list[LiveEvent] | None:
        """The events after a place; nothing where some of them may be gone, or where nobody has been yet."""
        if not self._horizon <= cursor <= self.newest:
            return None
        return self._events[bisect_right(self._cursors, cursor, lo=self._start) :]
