"""Time as an argument: what decides by time is given a clock, so that tests can move it."""

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    def monotonic(self) -> float:
        """Seconds that never go backwards; they may stand still while the machine sleeps."""
        ...

    def boottime(self) -> float:
        """Seconds since the machine started, its sleep included; the same in every process of the machine."""
        ...

    def now(self) -> datetime:
        """The wall clock in UTC: for display, never for a decision."""
        ...


class SystemClock:
    def monotonic(self) -> float:
        return time.monotonic()

    def boottime(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def now(self) -> datetime:
        return datetime.now(UTC)
