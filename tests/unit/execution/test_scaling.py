"""A pool is looked at, changed within its bounds, and every change is logged with its reason."""

from typing import Any

import pytest
from structlog.testing import capture_logs

from execution_service.scaling import WorkerScaling
from execution_service.workers.cores import CoreMeter
from execution_service.workers.outcomes import LaneLoad
from tests.unit.execution.world import ManualClock


class PretendedPool:
    """Has a size, and takes any change unless nobody is idle."""

    def __init__(self) -> None:
        self.base, self.extra = 2, 0
        self.busy = 0.0
        self.none_is_idle = False

    def load(self, pool: str) -> LaneLoad:
        assert pool == "cpu"
        return LaneLoad(self.base, self.extra, self.busy * (self.base + self.extra), 0)

    def resize(self, pool: str, change: int) -> bool:
        if change < 0 and self.none_is_idle:
            return False
        self.extra += change
        return True


class Course:
    """A pool of two workers that may have one to four, in virtual time with one free processor."""

    def __init__(self) -> None:
        self.pool, self.clock = PretendedPool(), ManualClock()
        self.waiting = self.changes = 0
        self.scaling = WorkerScaling(
            self.pool,
            pool="cpu",
            least=-1,
            most=2,
            idle_seconds=10.0,
            waiting=lambda pool: self.waiting,
            on_change=self._changed,
            clock=self.clock,
        )

    def _changed(self) -> None:
        self.changes += 1

    async def run(self, seconds: float) -> list[dict[str, Any]]:
        with capture_logs() as logs:
            for _ in range(round(seconds * 2)):
                self.clock.seconds += 0.5
                await self.scaling.run_once()
        return [dict(entry) for entry in logs]


@pytest.fixture
def course(monkeypatch: pytest.MonkeyPatch) -> Course:
    monkeypatch.setattr(CoreMeter, "free", lambda self, now: 1.0)
    return Course()


async def test_the_pool_follows_the_load_and_says_why(course: Course) -> None:
    course.pool.busy, course.waiting = 1.0, 50
    grown = await course.run(30)
    assert course.pool.extra == 2
    assert [(log["event"], log["reason"]) for log in grown] == [
        ("workers_scaled", "tasks_wait"),
        ("workers_scaled", "tasks_wait"),
        ("workers_not_scaled", "at_maximum"),
    ]
    assert (grown[0]["workers"], grown[0]["waiting"], grown[0]["free_cores"]) == (3, 50, 1.0)
    course.pool.busy, course.waiting = 0.0, 0
    shrunk = await course.run(60)
    assert course.pool.extra == -1
    assert {(log["event"], log["reason"], log["change"]) for log in shrunk} == {("workers_scaled", "idle", -1)}
    assert course.changes == 5


async def test_what_people_add_comes_on_top(course: Course) -> None:
    course.pool.base += 3
    course.pool.busy, course.waiting = 1.0, 50
    await course.run(60)
    assert course.pool.extra == 2
    course.pool.busy, course.waiting = 0.0, 0
    await course.run(100)
    assert course.pool.extra == -1


async def test_one_worker_is_left_whatever_people_take_away(course: Course) -> None:
    course.pool.base = 1
    await course.run(60)
    assert course.pool.extra == 0


async def test_a_pool_in_which_nobody_is_idle_is_asked_again(course: Course) -> None:
    course.pool.none_is_idle = True
    assert await course.run(20) == []
    course.pool.none_is_idle = False
    await course.run(1)
    assert (course.pool.extra, course.changes) == (-1, 1)
