"""How often the progress of an attempt is passed on: five times a second, and always the last before its end.

Without a timer for each attempt: what has to wait is let out when anything else is sent, or by the next tick.
"""

from collections.abc import Iterable

from execution_service.attempts import Key
from execution_service.workers.outcomes import ProgressItem

INTERVAL_SECONDS = 0.2
# However often it is asked for, what waits is looked through so seldom.
_LOOK_SECONDS = 0.05


class ProgressPacer:
    """The latest progress of each attempt that has had its share."""

    def __init__(self) -> None:
        self._waiting: dict[Key, ProgressItem] = {}
        # When the progress of an attempt was passed on, the oldest first.
        self._passed_at: dict[Key, float] = {}
        self._looked_at = 0.0

    def note(self, items: Iterable[ProgressItem], now: float) -> list[ProgressItem]:
        """Take progress, and return what may be passed on at once."""
        self._forget(now)
        due = []
        for item in items:
            key = (item.task_id, item.attempt)
            if key in self._passed_at:
                self._waiting[key] = item
            else:
                self._passed_at[key] = now
                due.append(item)
        return due

    def take_due(self, now: float) -> list[ProgressItem]:
        """What has waited for long enough."""
        if not self._waiting or now - self._looked_at < _LOOK_SECONDS:
            return []
        self._looked_at = now
        self._forget(now)
        due = [key for key in self._waiting if key not in self._passed_at]
        self._passed_at.update(dict.fromkeys(due, now))
        return [self._waiting.pop(key) for key in due]

    def take_last(self, keys: Iterable[Key]) -> list[ProgressItem]:
        """What waits of attempts that have ended."""
        if not self._waiting:
            return []
        return [self._waiting.pop(key) for key in keys if key in self._waiting]

    def _forget(self, now: float) -> None:
        while self._passed_at:
            key, passed_at = next(iter(self._passed_at.items()))
            if now - passed_at < INTERVAL_SECONDS:
                return
            del self._passed_at[key]
