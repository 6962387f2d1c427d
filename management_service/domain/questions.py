"""Which attempts a manager asks replicas about: nothing is requeued just because a list lacks it."""

from collections.abc import Iterable
from typing import NamedTuple

# An assignment is dropped by its replica when the heartbeat it names was sent over 2.5 s ago. What has been
# `processing` for longer than that and is not held can therefore never arrive any more.
ASK_AFTER_SECONDS = 3.0


class AttemptRow(NamedTuple):
    """An attempt in progress, as a scan reads it."""

    task_id: int
    attempt: int
    session_id: int
    cancel_requested: bool


class AttemptAges:
    """Remembers since when this manager has seen each attempt `processing`, on its own monotonic clock."""

    def __init__(self) -> None:
        self._first_seen: dict[tuple[int, int], float] = {}

    def scan(self, rows: Iterable[AttemptRow], *, now: float) -> list[AttemptRow]:
        """Take all attempts in progress; return those seen in scans at least ASK_AFTER_SECONDS apart."""
        before = self._first_seen
        self._first_seen = {}
        old = []
        for row in rows:
            key = (row.task_id, row.attempt)
            first = before.get(key, now)
            self._first_seen[key] = first
            if now - first >= ASK_AFTER_SECONDS:
                old.append(row)
        return old

    def forget_all(self) -> None:
        """Start again after a gap in which attempts may have come and gone unseen."""
        self._first_seen = {}
