"""How much of the stream of updates is kept, for readers that come back: decided by those who add to it.

Every addition also raises the counts of what was ever added, and learns their new values. So each manager knows how
much was added, by anybody, after an entry of its own, and cuts off the oldest of those that are beyond a bound.
"""

from collections import deque
from dataclasses import dataclass

UPDATES_MAX = 100_000
BYTES_MAX = 64 * 1024 * 1024
AGE_MS_MAX = 5 * 60 * 1000
# Entries are remembered this far apart at least.
_STEP_UPDATES = 5_000
_STEP_MS = 1_000


@dataclass(frozen=True, slots=True)
class Mark:
    """An entry of the stream, and the counts right after it."""

    ms: int
    entry_id: str
    updates: int
    bytes: int


class UpdateWindow:
    """Remembers entries of this manager's; at most a few hundred."""

    def __init__(self) -> None:
        self._marks: deque[Mark] = deque()

    def note(self, entry_id: str, *, updates: int, bytes_: int) -> str | None:
        """Take note of an addition, and return the id below which entries may go, if that has changed."""
        newest = Mark(int(entry_id.partition("-")[0]), entry_id, updates, bytes_)
        if self._marks and updates < self._marks[-1].updates:
            # The counts began anew: what is remembered is of a stream that is no more.
            self._marks.clear()
        cut = None
        while self._marks and _is_beyond(self._marks[0], newest):
            cut = self._marks.popleft().entry_id
        last = self._marks[-1] if self._marks else None
        if last is None or updates - last.updates >= _STEP_UPDATES or newest.ms - last.ms >= _STEP_MS:
            self._marks.append(newest)
        return cut


def _is_beyond(mark: Mark, newest: Mark) -> bool:
    return (
        newest.updates - mark.updates > UPDATES_MAX
        or newest.bytes - mark.bytes > BYTES_MAX
        or newest.ms - mark.ms > AGE_MS_MAX
    )
