"""How long handlers take, by type: what prefetch is decided by."""

from collections.abc import Iterable

from execution_service.workers.frames import TypeTime

# A worker may hold about so much work that it has not begun, per slot.
PREFETCH_SECONDS = 0.05
# What an attempt costs beside its handler.
_OVERHEAD_SECONDS = 25e-6
_KEPT_PER_TASK = 0.9
_TYPES_MAX = 10_000


class Durations:
    """Moving means of measured handler durations."""

    def __init__(self) -> None:
        self._means: dict[str, float] = {}

    def note(self, times: Iterable[TypeTime]) -> None:
        """Take in what a worker has measured."""
        for time in times:
            mean = self._means.get(time.type)
            average = time.seconds / max(1, time.count)
            if mean is None:
                if len(self._means) < _TYPES_MAX:
                    self._means[time.type] = average
            else:
                self._means[time.type] = average + (mean - average) * _KEPT_PER_TASK**time.count

    def mean(self, type_name: str) -> float | None:
        """Return how long an attempt of the type takes, None while none was measured."""
        return self._means.get(type_name)

    def cost(self, type_name: str) -> float:
        """Return what an attempt adds to the load of its worker; a type not measured yet fills it."""
        mean = self._means.get(type_name)
        return PREFETCH_SECONDS if mean is None else mean + _OVERHEAD_SECONDS
