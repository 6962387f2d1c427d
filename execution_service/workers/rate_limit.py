"""A bound on how many lines per second go from workers to the replica's log."""


class RateLimit:
    """Lets a number of events through per second and counts the others."""

    def __init__(self, per_second: int) -> None:
        self._per_second = per_second
        self._window = float("-inf")
        self._passed = 0
        self.dropped = 0

    def grant(self, wanted: int, now: float) -> int:
        """Return how many of the `wanted` events may pass at `now`."""
        if now - self._window >= 1:
            self._window, self._passed = now, 0
        granted = min(wanted, self._per_second - self._passed)
        self._passed += granted
        self.dropped += wanted - granted
        return granted

    def take_dropped(self) -> int:
        """Return how many events were not let through since the last call."""
        dropped, self.dropped = self.dropped, 0
        return dropped
