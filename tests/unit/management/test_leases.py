"""A session is ended after counted silence, and only if we were listening all the time."""

from management_service.domain.leases import LeaseCounter


def scan_until(counter: LeaseCounter, *, start: float, end: float, beat: int = 5, gone: bool = False) -> float | None:
    """Scan every 0.5 s with an unchanged beat; return when the session lapsed."""
    now = start
    while now <= end:
        if counter.scan({1: beat}, gone=[1] if gone else [], now=now):
            return now
        now += 0.5
    return None


def test_a_silent_session_lapses_after_4_s_and_a_gone_one_after_3() -> None:
    assert scan_until(LeaseCounter(), start=10, end=30) == 14
    assert scan_until(LeaseCounter(), start=10, end=30, gone=True) == 13


def test_a_beat_that_moves_starts_the_count_again() -> None:
    counter = LeaseCounter()
    assert scan_until(counter, start=0, end=3.5) is None
    assert scan_until(counter, start=4, end=30, beat=6) == 8


def test_hearing_the_session_on_a_stream_starts_the_count_again() -> None:
    counter = LeaseCounter()
    assert scan_until(counter, start=0, end=3.5) is None
    counter.heard(1, now=3.7)
    assert scan_until(counter, start=4, end=30) == 8


def test_a_scan_that_failed_starts_the_count_again() -> None:
    counter = LeaseCounter()
    assert scan_until(counter, start=0, end=3.5) is None
    counter.scan_failed()
    assert scan_until(counter, start=4, end=30) == 8


def test_a_frozen_manager_starts_the_count_again_when_it_thaws() -> None:
    counter = LeaseCounter()
    assert scan_until(counter, start=0, end=1) is None
    assert scan_until(counter, start=20, end=40) == 24


def test_a_session_that_is_gone_from_the_table_is_forgotten() -> None:
    counter = LeaseCounter()
    assert scan_until(counter, start=0, end=3.5) is None
    assert counter.scan({}, gone=[], now=4) == []
    assert scan_until(counter, start=4.5, end=30) == 8.5
