"""The events of the last minutes, in the order in which they were told, for readers that come back."""

from bisect import bisect_right

from servicekit.live.cursors import Cursor
from servicekit.live.events import LiveEvent

EVENTS_MAX = 100_000
BYTES_MAX = 32 * 1024 * 1024
AGE_MS_MAX = 5 * 60 * 1000
_COMPACT_AT = 10_000


class EventWindow:
    """Every event that was told after `horizon` is here; earlier ones may not be."""

    def __init__(self, horizon: Cursor) -> None:
        self._horizon = horizon
        self._events: list[LiveEvent] = []
        self._cursors: list[Cursor] = []
        self._bytes = 0
        # Those before it have been dropped, and are removed from the lists now and then.
        self._start = 0

    def __len__(self) -> int:
        return len(self._events) - self._start

    @property
    def newest(self) -> Cursor:
        """The place of the newest event; where there is none, the one after which everything is here."""
        return self._cursors[-1] if len(self) else self._horizon

    def append(self, event: LiveEvent, cursor: Cursor) -> list[LiveEvent]:
        """Add the newest event, and return the oldest ones that are not kept any longer."""
        self._events.append(event)
        self._cursors.append(cursor)
        self._bytes += event.size
        dropped = []
        while len(self) > 1 and self._is_over(cursor):
            oldest = self._events[self._start]
            self._horizon = self._cursors[self._start]
            self._bytes -= oldest.size
            self._start += 1
            dropped.append(oldest)
        if self._start >= _COMPACT_AT:
            del self._events[: self._start], self._cursors[: self._start]
            self._start = 0
        return dropped

    def _is_over(self, newest: Cursor) -> bool:
        return (
            len(self) > EVENTS_MAX or self._bytes > BYTES_MAX or newest.ms - self._cursors[self._start].ms > AGE_MS_MAX
        )

    def after(self, cursor: Cursor) -> list[LiveEvent] | None:
        """The events after a place; nothing where some of them may be gone, or where nobody has been yet."""
        if not self._horizon <= cursor <= self.newest:
            return None
        return self._events[bisect_right(self._cursors, cursor, lo=self._start) :]
