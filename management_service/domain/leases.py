"""When a manager may end a session: a lease is counted in heartbeats, never timed by a wall clock.

Times are seconds of the manager's own monotonic clock.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

SCAN_SECONDS = 0.5
# A scan that comes later than this after the one before leaves a gap in which we did not listen.
SCAN_GAP_MAX = 1.5
SILENCE_SECONDS = 4.0
# Where the stream was reset and redialling is refused, or another session answers at the address. Always more than
# the 2.5 s after which a replica without an echo starts nothing.
SILENCE_WHEN_GONE_SECONDS = 3.0


@dataclass(slots=True)
class _Watch:
    beat: int
    since: float


@dataclass(frozen=True, slots=True)
class Lapse:
    """A session to be ended, if its beat is still the number read."""

    session_id: int
    beat: int


class LeaseCounter:
    """Counts the silence of every live session over an unbroken row of scans.

    Silence counts only if we were listening: a failed or late scan, a beat that moved and anything heard from the
    session on a stream of ours each start its count again.
    """

    def __init__(self) -> None:
        self._watched: dict[int, _Watch] = {}
        self._last_scan: float | None = None

    def heard(self, session_id: int, *, now: float) -> None:
        """Note a Hello or a heartbeat of the session on any stream."""
        if watch := self._watched.get(session_id):
            watch.since = now

    def scan_failed(self) -> None:
        """Note that the beats could not be read or our own row could not be written."""
        self._watched.clear()
        self._last_scan = None

    def scan(self, beats: Mapping[int, int], *, gone: Iterable[int], now: float) -> list[Lapse]:
        """Take the beats of all live sessions, read at `now` along with a write of our own row.

        `gone`: sessions whose stream was reset and whose address refuses us or answers for another session.
        """
        if self._last_scan is not None and now - self._last_scan > SCAN_GAP_MAX:
            self._watched.clear()
        self._last_scan = now
        gone = frozenset(gone)
        lapses = []
        for session_id, beat in beats.items():
            watch = self._watched.get(session_id)
            if watch is None or watch.beat != beat:
                self._watched[session_id] = _Watch(beat, now)
                continue
            limit = SILENCE_WHEN_GONE_SECONDS if session_id in gone else SILENCE_SECONDS
            if now - watch.since >= limit:
                lapses.append(Lapse(session_id, beat))
        for session_id in self._watched.keys() - beats.keys():
            del self._watched[session_id]
        return lapses
