"""The clock of the system."""

from datetime import UTC, datetime, timedelta

from servicekit.clock import SystemClock


def test_the_system_clock_goes_forward_and_knows_its_zone() -> None:
    clock = SystemClock()
    assert clock.monotonic() <= clock.monotonic()
    assert 0 < clock.boottime() <= clock.boottime()
    assert clock.now().tzinfo is UTC
    assert abs(clock.now() - datetime.now(UTC)) < timedelta(seconds=10)
