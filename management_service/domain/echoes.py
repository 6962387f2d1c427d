"""Whether a session reads what it is sent: a heart that beats proves nothing about the ears.

A replica whose receiving side is stuck would otherwise keep its session, and the tasks sent to it, for ever.
Times are seconds of the manager's own monotonic clock.
"""

from dataclasses import dataclass

# As long as the silence that ends a session: four heartbeats came, and none told of an echo.
DEAF_SECONDS = 4.0
# An echo that nobody asks about any more: its session has ended long ago.
_FORGOTTEN_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class _Echo:
    number: int
    since: float


class UnprovenEchoes:
    """The oldest echo to each session that its heartbeats have not told of yet."""

    def __init__(self) -> None:
        self._oldest: dict[int, _Echo] = {}

    def sent(self, session_id: int, number: int, *, now: float) -> None:
        """Note an echo on its way to the session."""
        if session_id not in self._oldest:
            self._oldest = {key: e for key, e in self._oldest.items() if now - e.since < _FORGOTTEN_SECONDS}
            self._oldest[session_id] = _Echo(number, now)

    def proven(self, session_id: int, echoed: int | None) -> None:
        """Note the newest echo that the session has read, from whatever manager; None: it does not tell."""
        echo = self._oldest.get(session_id)
        if echo is not None and (echoed is None or echoed >= echo.number):
            del self._oldest[session_id]

    def unproven(self, session_id: int) -> int:
        """Number of the echo that the session has not told of; 0 if there is none. It may be sent again."""
        echo = self._oldest.get(session_id)
        return echo.number if echo is not None else 0

    def is_deaf(self, session_id: int, *, now: float) -> bool:
        echo = self._oldest.get(session_id)
        return echo is not None and now - echo.since >= DEAF_SECONDS
