"""Bounds what the bodies of all requests in progress hold in memory together."""

from types import TracebackType
from typing import Self

from servicekit.errors import Overloaded


class BodyBudget:
    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.bytes_held = 0

    def hold(self) -> "BodyHold":
        """What one request holds; given back when its context ends."""
        return BodyHold(self)


class BodyHold:
    def __init__(self, budget: BodyBudget) -> None:
        self._budget = budget
        self._bytes = 0

    def add(self, count: int) -> None:
        """Raises Overloaded when all requests together would hold too much."""
        if self._budget.bytes_held + count > self._budget.bytes_max:
            raise Overloaded("Too many large requests are in progress; try again soon.", retry_after=1.0)
        self._budget.bytes_held += count
        self._bytes += count

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._budget.bytes_held -= self._bytes
        self._bytes = 0
