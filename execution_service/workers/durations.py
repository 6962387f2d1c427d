"""How long handlers take, by type: what prefetch is decided by."""

from collections.abc import Iterable

from execution_service.workers.frames import TypeTime

# A worker may hold about so much work that it has not begun, per slot.
PREFETCH_SECONDS = 0.05
# What an attempt costs beside its handler.
_OVERHEAD_SECONDS = 25e-6
_KEPT_PER_TASK = 0.9
# So much of a rise counts at once where a guess has to be cautious: one stall among many short attempts is no rise.
_RISE = 0.1
_TYPES_MAX = 10_000


class Durations:
    """Moving means of measured handler durations."""

    def __init__(self) -> None:
        self._means: dict[str, float] = {}
        self._low: dict[str, float] = {}

    def note(self, times: Iterable[TypeTime]) -> None:
        """Take in what a worker has measured."""
        for time in times:
            mean = self._means.get(time.type)
            average = time.seconds / max(1, time.count)
            if mean is None:
                if len(self._means) < _TYPES_MAX:
                    self._means[time.type] = self._low[time.type] = average
            else:
                self._means[time.type] = average + (mean - average) * _KEPT_PER_TASK**time.count
                low = self._low[time.type]
                self._low[time.type] = min(average, low + (average - low) * _RISE)

    def mean(self, type_name: str) -> float | None:
        """Return how long an attempt of the type takes, None while none was measured."""
        return self._means.get(type_name)

    def is_short(self, type_name: str) -> bool:
        """Return whether attempts of the type may wait for each other; one that was never measured counts as long."""
        mean = self._means.get(type_name)
        return mean is not None and mean <= PREFETCH_SECONDS

    def is_long(self, type_name: str) -> bool:
        """Return whether the type was measured and is not short."""
        return type_name in self._means and not self.is_short(type_name)

    def least(self, type_name: str) -> float:
        """Return a cautious guess of how long an attempt of a measured type takes: what it has been at least lately."""
        return self._low[type_name] + _OVERHEAD_SECONDS

    def cost(self, type_name: str) -> float:
        """Return what an attempt adds to the load of its worker; a type not measured yet fills it."""
        mean = self._means.get(type_name)
        return PREFETCH_SECONDS if mean is None else mean + _OVERHEAD_SECONDS
