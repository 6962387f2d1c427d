"""When a pool grows and when it shrinks: decisions over any course of load."""

from dataclasses import replace

import hypothesis.strategies as st
import pytest
from hypothesis import given

from execution_service.workers.autoscaling import (
    FREE_CORES_MIN,
    GROW_AGAIN_SECONDS,
    PRESSED_SECONDS,
    SHRINK_AGAIN_PART,
    Bounds,
    Decision,
    Load,
    LoadHistory,
    Reason,
    Times,
    decide,
)

BOUNDS = Bounds(1, 8, idle_seconds=30.0)
PRESSED = Load(workers=2, busy=2.0, waiting=10, free_cores=3.9)
IDLE = Load(workers=4, busy=0.0, waiting=0, free_cores=4.0)
LONG_AGO = Times(pressed=100.0, spare=100.0, since_change=100.0)


def test_a_pool_grows_by_as_many_as_processors_are_free_where_tasks_wait() -> None:
    assert decide(PRESSED, LONG_AGO, BOUNDS) == Decision(3, Reason.TASKS_WAIT)
    assert decide(replace(PRESSED, waiting=1), LONG_AGO, BOUNDS).change == 1
    assert decide(replace(PRESSED, free_cores=FREE_CORES_MIN), LONG_AGO, BOUNDS).change == 1
    assert decide(replace(PRESSED, workers=7, busy=7.0), LONG_AGO, BOUNDS).change == 1


def test_a_pool_does_not_grow_without_need_or_room() -> None:
    def reason(load: Load, times: Times = LONG_AGO) -> Reason:
        decision = decide(load, times, BOUNDS)
        assert decision.change <= 0
        return decision.reason

    assert reason(replace(PRESSED, waiting=0)) is Reason.STEADY
    assert reason(replace(PRESSED, busy=1.4)) is Reason.STEADY
    assert reason(replace(PRESSED, free_cores=0.4)) is Reason.NO_FREE_CORES
    assert reason(replace(PRESSED, workers=8, busy=8.0)) is Reason.AT_MAXIMUM
    assert reason(PRESSED, replace(LONG_AGO, pressed=PRESSED_SECONDS / 2)) is Reason.TOO_SOON
    assert reason(PRESSED, replace(LONG_AGO, since_change=GROW_AGAIN_SECONDS / 2)) is Reason.TOO_SOON


def test_a_pool_shrinks_by_one_when_one_was_not_needed_for_long() -> None:
    assert decide(IDLE, LONG_AGO, BOUNDS) == Decision(-1, Reason.IDLE)
    assert decide(replace(IDLE, busy=2.4), LONG_AGO, BOUNDS).change == -1
    assert decide(replace(IDLE, busy=2.5), LONG_AGO, BOUNDS) == Decision(0, Reason.STEADY)
    assert decide(replace(IDLE, waiting=1), LONG_AGO, BOUNDS) == Decision(0, Reason.STEADY)
    assert decide(replace(IDLE, workers=1), LONG_AGO, BOUNDS) == Decision(0, Reason.STEADY)
    assert decide(IDLE, replace(LONG_AGO, spare=29.9), BOUNDS) == Decision(0, Reason.TOO_SOON)
    assert decide(IDLE, replace(LONG_AGO, since_change=5.9), BOUNDS) == Decision(0, Reason.TOO_SOON)


STEPS = st.lists(
    st.tuples(
        st.floats(0.05, 40.0),  # seconds since the last look
        st.floats(0.0, 1.0),  # part of the workers that was busy
        st.integers(0, 200),
        st.floats(0.0, 64.0),
    ),
    max_size=60,
)


@given(least=st.integers(1, 4), room=st.integers(0, 12), idle=st.floats(1.0, 60.0), steps=STEPS)
def test_over_any_course_of_load_the_size_keeps_its_bounds_and_does_not_swing(
    least: int, room: int, idle: float, steps: list[tuple[float, float, int, float]]
) -> None:
    bounds = Bounds(least, least + room, idle)
    workers, now = least, 1000.0
    history = LoadHistory(now)
    grown_at = shrunk_at = float("-inf")
    for seconds, part, waiting, free_cores in steps:
        now += seconds
        load = Load(workers=workers, busy=part * workers, waiting=waiting, free_cores=free_cores)
        decision = decide(load, history.note(load, now), bounds)
        workers += decision.change
        assert bounds.least <= workers <= bounds.most
        if decision.change > 0:
            assert decision.reason is Reason.TASKS_WAIT
            assert waiting > 0
            assert free_cores >= FREE_CORES_MIN
            assert decision.change <= max(1, free_cores)
            assert now - max(grown_at, shrunk_at) >= GROW_AGAIN_SECONDS
            grown_at = now
        elif decision.change < 0:
            assert decision == Decision(-1, Reason.IDLE)
            assert waiting == 0
            assert part * load.workers <= load.workers - 1
            assert now - grown_at >= idle, "what has just grown does not shrink"
            assert now - shrunk_at >= idle * SHRINK_AGAIN_PART
            shrunk_at = now
        else:
            assert decision.reason not in (Reason.TASKS_WAIT, Reason.IDLE)
        if decision.change:
            history.note_change(now)


@pytest.mark.parametrize(("waiting", "busy_part", "size"), [(50, 1.0, 8), (0, 0.0, 1)])
def test_under_a_load_that_lasts_the_pool_reaches_its_bound_and_stays_there(
    waiting: int, busy_part: float, size: int
) -> None:
    workers, now = 3, 0.0
    history = LoadHistory(now)
    sizes = []
    for _ in range(400):
        now += 0.5
        load = Load(workers=workers, busy=busy_part * workers, waiting=waiting, free_cores=1.0)
        decision = decide(load, history.note(load, now), BOUNDS)
        workers += decision.change
        if decision.change:
            history.note_change(now)
        sizes.append(workers)
    assert sizes[-1] == size
    assert sizes in (sorted(sizes), sorted(sizes, reverse=True))
