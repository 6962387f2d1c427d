"""Which attempt goes to which worker, with workers that are only pretended."""

from collections.abc import Sequence
from typing import Any, cast

import pytest

from execution_service.workers.autopsy import Death
from execution_service.workers.durations import Durations
from execution_service.workers.frames import TypeTime
from execution_service.workers.held import Held
from execution_service.workers.lane import (
    ATTEMPTS_PER_WORKER_MAX,
    WAIT_SECONDS_MAX,
    WAIT_SECONDS_MIN,
    WORKERS_MAX,
    Lane,
)
from execution_service.workers.outcomes import Attempt, LaneLoad, PoolSize
from execution_service.workers.process import WorkerProcess
from servicekit.errors import Conflict, Overloaded

_KILLED = Death(killed=True, signal=9, exit_code=0, peak_kib=0, reason="", output="")
_CRASH = Death(killed=False, signal=11, exit_code=0, peak_kib=0, reason="", output="")


class PretendedWorker:
    """What a lane looks at of a worker, without a process."""

    def __init__(self, slots: int, began: float) -> None:
        self.slots = slots
        self.began = began
        self.ready = True
        self.killed = self.retiring = self.worn = False
        self.reserved_for: Held | None = None
        self.closed_at: float | None = None
        self.seen_scans = 0
        self.seen: dict[int, int] = {}
        self.load = 0.0
        self.load_bytes = 0
        self.entries: dict[int, Held] = {}

    def assign(self, batch: Sequence[Held]) -> None:
        for held in batch:
            held.seq = len(self.entries) + 1
            self.entries[held.seq] = held
            held.worker = cast("WorkerProcess", self)

    def kill(self) -> None:
        self.killed = True


class World:
    def __init__(self, processes: int, slots: int = 1) -> None:
        self.now = 100.0
        self.starts_ready = True
        self.durations = Durations()
        self.lane = Lane("cpu", PoolSize(processes, slots), self.durations, self._start)
        self.lane.keep_size(self.now)

    def _start(self, lane: Lane) -> WorkerProcess:
        worker = PretendedWorker(lane.slots_per_process, self.now)
        worker.ready = self.starts_ready
        return cast("WorkerProcess", worker)

    @property
    def held_counts(self) -> list[int]:
        return [len(worker.entries) for worker in self.lane.workers]

    def add(self, count: int, **changes: Any) -> list[Held]:
        items = [_held(number, **changes) for number in range(1, count + 1)]
        for held in items:
            self.lane.add(held)
        self.lane.pump()
        return items

    def settle(self) -> None:
        """What the pool's scan does, and the end of those that were killed."""
        self.lane.keep_size(self.now)
        for worker in [worker for worker in self.lane.workers if worker.killed]:
            self.lane.note_death(worker, _KILLED, self.now)

    def die(self, index: int = 0, *, after: float = 0.1) -> None:
        self.now += after
        worker = self.lane.workers[index]
        self.lane.note_death(worker, _CRASH, self.now)
        self.lane.keep_size(self.now)


def _held(task_id: int, *, kind: str = "t", size: int = 2, isolated: bool = False) -> Held:
    return Held(Attempt(task_id, 1, 1, kind, b"x" * size, "cpu", 30.0, isolated, 3))


def _known(world: World, kind: str, seconds: float) -> None:
    world.durations.note([TypeTime(kind, 1, seconds)])


def test_a_worker_gets_one_attempt_of_a_type_not_measured_yet() -> None:
    world = World(2)
    world.add(10)
    assert world.held_counts == [1, 1]


@pytest.mark.parametrize(("seconds", "count"), [(0.06, 1), (0.03, 1), (0.02, 2), (0.005, 9), (0.0, 2000)])
def test_about_fifty_milliseconds_of_work_are_prefetched(seconds: float, count: int) -> None:
    world = World(1)
    _known(world, "t", seconds)
    world.add(5000)
    assert world.held_counts == [min(count, ATTEMPTS_PER_WORKER_MAX)]


def test_short_work_is_shared_evenly() -> None:
    world = World(3)
    _known(world, "t", 0.0001)
    world.add(30)
    assert world.held_counts == [10, 10, 10]


def test_slots_are_filled_before_anything_is_prefetched() -> None:
    world = World(1, slots=8)
    _known(world, "t", 1.0)
    world.add(20)
    assert world.held_counts == [8]


def test_a_worker_holds_four_mebibytes_or_one_attempt() -> None:
    world = World(1)
    _known(world, "t", 0.0)
    world.add(10, size=1024 * 1024)
    assert world.held_counts == [4]
    large = World(1)
    _known(large, "t", 0.0)
    large.add(3, size=8 * 1024 * 1024)
    assert large.held_counts == [1]


def test_a_worker_that_is_stuck_gets_nothing_more() -> None:
    world = World(1)
    _known(world, "t", 0.0001)
    world.add(1)
    world.lane.workers[0].seen_scans = 3
    world.add(5)
    assert world.held_counts == [1]


def test_attempts_that_come_back_go_first_and_in_order() -> None:
    world = World(1)
    world.lane.workers[0].ready = False
    waiting = world.add(2)
    back = [_held(11), _held(12)]
    world.lane.put_back(back)
    assert world.lane.take_all() == [*back, *waiting]


def test_an_isolated_attempt_gets_a_worker_of_its_own() -> None:
    world = World(1)
    (held,) = world.add(1, isolated=True)
    world.lane.keep_size(world.now)
    first, second = world.lane.workers
    assert (first.entries, second.reserved_for) == ({}, held)
    world.lane.serve_reserved(second)
    assert list(second.entries.values()) == [held]
    assert world.lane.slots == 1


def test_workers_that_keep_dying_at_their_start_are_replaced_more_slowly() -> None:
    world = World(1)
    world.lane.workers[0].ready = False
    world.die()
    assert len(world.lane.workers) == 1
    delays = []
    for _ in range(8):
        world.lane.workers[0].ready = False
        world.die()
        begin = world.now
        while not world.lane.workers:
            world.now += 0.05
            world.lane.keep_size(world.now)
        delays.append(world.now - begin)
    assert delays == sorted(delays)
    assert delays[0] == pytest.approx(0.1, abs=0.06)
    assert delays[-1] == pytest.approx(5.0, abs=0.06)


def test_a_worker_that_lived_is_replaced_at_once() -> None:
    world = World(1)
    for _ in range(5):
        world.die(after=1.5)
        assert len(world.lane.workers) == 1


def test_a_worn_worker_goes_on_until_its_successor_is_ready() -> None:
    world = World(1)
    world.starts_ready = False
    (worn,) = world.lane.workers
    worn.worn = True
    world.settle()
    world.settle()
    _, successor = world.lane.workers
    world.add(1)
    assert (len(worn.entries), len(successor.entries)) == (1, 0)
    successor.ready = True
    world.settle()
    world.add(1)
    assert (worn.retiring, worn.killed) == (True, False)
    assert (len(worn.entries), len(successor.entries)) == (1, 1)


def test_worn_workers_are_replaced_one_at_a_time_and_demand_stays_as_it_is() -> None:
    world = World(3)
    first = list(world.lane.workers)
    for worker in first:
        worker.worn = True
    world.starts_ready = False
    for _ in range(3):
        assert world.lane.slots == 3
        world.settle()
        assert world.lane.slots == 3
        (starting,) = (worker for worker in world.lane.workers if not worker.ready)
        starting.ready = True
        world.settle()
    assert not set(first) & set(world.lane.workers)
    world.settle()
    assert len(world.lane.workers) == 3


def test_no_more_workers_drain_than_there_are_to_be() -> None:
    world = World(1)
    _known(world, "t", 60.0)
    for _ in range(5):
        world.add(1)
        world.lane.workers[-1].worn = True
        world.settle()
        world.settle()
    draining, worn = world.lane.workers
    assert (draining.retiring, worn.retiring, world.lane.slots) == (True, False, 1)
    draining.entries.clear()
    draining.kill()
    for _ in range(3):
        world.settle()
    assert worn.retiring


def test_a_worn_worker_goes_on_while_successors_die_at_their_start() -> None:
    world = World(1)
    world.starts_ready = False
    (worn,) = world.lane.workers
    worn.worn = True
    world.settle()
    for _ in range(5):
        world.die(index=-1)
        assert world.lane.workers[0] is worn
        assert not worn.retiring
        world.now += 10


def test_of_a_worn_worker_and_its_successor_one_stays_when_another_worker_is_taken_out() -> None:
    world = World(2)
    worn, other = world.lane.workers
    worn.worn = True
    world.starts_ready = False
    world.settle()
    world.lane.shrink(other, force=False)
    world.settle()
    successor = world.lane.workers[-1]
    assert (worn.retiring, successor.killed) == (False, False)
    successor.ready = True
    world.settle()
    assert world.lane.workers == [successor]


def test_the_successor_of_a_worn_worker_that_is_taken_out_is_not_one_too_many() -> None:
    world = World(2)
    worn, _ = world.lane.workers
    worn.worn = True
    world.starts_ready = False
    world.settle()
    world.lane.shrink(worn, force=False)
    world.settle()
    _, successor = world.lane.workers
    successor.ready = True
    world.settle()
    assert len(world.lane.workers) == world.lane.slots == 1


def test_a_pool_grows_up_to_its_bound_and_draining_workers_count_for_it() -> None:
    world = World(WORKERS_MAX - 1)
    world.add(WORKERS_MAX - 1)
    world.lane.grow()
    with pytest.raises(Overloaded) as caught:
        world.lane.grow()
    assert caught.value.code == "too_many_workers"
    world.lane.shrink(world.lane.workers[0], force=False)
    with pytest.raises(Overloaded):
        world.lane.grow()
    world.lane.workers[0].entries.clear()
    world.lane.workers[0].kill()
    world.settle()
    world.lane.grow()
    assert world.lane.target == len(world.lane.workers) == WORKERS_MAX


@pytest.mark.parametrize("force", [False, True])
def test_the_last_worker_of_a_pool_stays(force: bool) -> None:
    world = World(2)
    first, second = world.lane.workers
    world.lane.shrink(first, force=force)
    world.lane.shrink(first, force=force)
    with pytest.raises(Conflict) as caught:
        world.lane.shrink(second, force=force)
    assert caught.value.code == "last_worker"
    world.settle()
    assert world.lane.workers == [second]
    assert (world.lane.slots, second.retiring) == (1, False)


def test_a_worker_that_was_started_for_one_attempt_is_not_counted_when_it_is_taken_out() -> None:
    world = World(1)
    (held,) = world.add(1, isolated=True)
    world.lane.keep_size(world.now)
    world.lane.shrink(world.lane.workers[1], force=True)
    world.settle()
    regular, fresh = world.lane.workers
    assert (world.lane.target, regular.killed) == (1, False)
    # Not started yet, the attempt is not lost with it.
    assert fresh.reserved_for is held


def test_a_long_attempt_takes_the_last_free_worker_after_the_short_ones() -> None:
    world = World(2)
    _known(world, "short", 0.02)
    _known(world, "long", 30.0)
    first, second = world.add(2, kind="long")[:1], world.lane.workers[1]
    assert world.held_counts == [1, 1]
    assert first[0].worker is not None
    second.entries.clear()
    second.load = 0.0
    (long,) = world.add(1, kind="long")
    assert long.worker is second, "nothing short waits"
    second.entries.clear()
    second.load = 0.0
    second.ready = False
    (late,) = world.add(1, kind="long")
    short = world.add(3, kind="short")
    second.ready = True
    world.lane.pump()
    assert [held.worker is second for held in (*short, late)] == [True, True, False, False]


def test_a_long_attempt_goes_first_where_another_worker_is_left_to_short_ones() -> None:
    world = World(2)
    _known(world, "short", 0.02)
    for worker in world.lane.workers:
        worker.ready = False
    (long,) = world.add(1, kind="long")
    world.add(10, kind="short")
    for worker in world.lane.workers:
        worker.ready = True
    world.lane.pump()
    assert long.worker is not None
    assert sorted(world.held_counts) == [1, 2]


@pytest.mark.parametrize(("seconds", "kept"), [(0.02, 9), (0.001, 30), (30.0, 2), (None, 30)])
def test_what_would_wait_for_too_long_is_let_go(seconds: float | None, kept: int) -> None:
    world = World(2)
    if seconds is not None:
        _known(world, "t", seconds)
    for worker in world.lane.workers:
        worker.ready = False
    waiting = world.add(30)
    assert world.lane.take_excess(world.now) == waiting[kept:]
    assert world.lane.take_all() == waiting[:kept]


@pytest.mark.parametrize("seconds", [0.001, 30.0, None])
def test_nothing_waits_while_every_worker_is_in_a_long_attempt(seconds: float | None) -> None:
    world = World(2)
    world.add(2, kind="unknown")
    if seconds is not None:
        _known(world, "t", seconds)
    waiting = world.add(5)
    for worker in world.lane.workers:
        worker.seen_scans = 3
    assert world.lane.take_excess(world.now) == waiting
    world.lane.look()
    assert world.lane.stuck == 0
    _known(world, "unknown", 0.001)
    world.lane.look()
    assert world.lane.stuck == 2


def test_slots_of_a_worker_that_runs_many_at_once_are_told_apart() -> None:
    world = World(1, slots=4)
    _known(world, "t", 0.02)
    world.add(4, kind="unknown")
    (worker,) = world.lane.workers
    worker.seen = dict.fromkeys((1, 2, 3), 4)
    waiting = world.add(30)
    excess = world.lane.take_excess(world.now)
    assert excess == waiting[-len(excess) :]
    assert len(waiting) - len(excess) == pytest.approx(WAIT_SECONDS_MAX / 0.02, abs=1), "one slot is free of long ones"
    worker.seen[4] = 4
    assert world.lane.take_excess(world.now) == waiting[: -len(excess)]


def test_nothing_is_let_go_that_has_just_come() -> None:
    world = World(1)
    world.add(1, kind="unknown")
    (worker,) = world.lane.workers
    worker.seen_scans = 3
    held = Held(_held(7).attempt, since=world.now)
    world.lane.add(held)
    assert world.lane.take_excess(world.now + WAIT_SECONDS_MIN / 2) == []
    assert world.lane.take_excess(world.now + 2 * WAIT_SECONDS_MIN) == [held]


def test_a_lane_that_grows_asks_for_more_when_the_new_workers_are_ready() -> None:
    world = World(2)
    world.settle()
    world.starts_ready = False
    assert world.lane.resize(2)
    world.settle()
    assert (len(world.lane.workers), world.lane.slots) == (4, 2)
    world.lane.workers[-1].ready = True
    assert world.lane.slots == 3
    world.settle()
    world.die(after=2.0)
    assert world.lane.slots == 3, "the successor of one that died counts from the beginning"


def test_only_idle_workers_are_retired_when_a_lane_shrinks() -> None:
    world = World(3)
    world.add(2)
    busy = [worker for worker in world.lane.workers if worker.entries]
    assert world.lane.resize(-2)
    world.settle()
    assert world.lane.workers == busy
    assert not any(worker.killed or worker.retiring for worker in busy)
    assert not world.lane.resize(-1)
    assert (world.lane.target, world.lane.base, world.lane.extra) == (2, 3, -1)


def test_a_lane_does_not_grow_beyond_what_a_replica_may_have() -> None:
    world = World(WORKERS_MAX - 1)
    assert world.lane.resize(5)
    assert not world.lane.resize(1)
    assert world.lane.target == WORKERS_MAX


def test_the_load_of_a_lane_is_the_mean_since_the_last_look() -> None:
    world = World(2)
    world.lane.look()
    world.add(4)
    world.lane.look()
    assert world.lane.load() == LaneLoad(base=2, extra=0, busy=1.0, waiting=2)
    world.lane.look()
    assert world.lane.load().busy == 2.0


def test_a_stall_is_no_reason_to_let_short_attempts_go() -> None:
    world = World(1)
    for _ in range(20):
        world.durations.note([TypeTime("t", 100, 0.002)])
    world.add(1500)
    assert world.lane.take_excess(world.now) == []
    world.durations.note([TypeTime("t", 100, 0.06)])
    assert world.lane.take_excess(world.now) == []
    for _ in range(20):
        world.durations.note([TypeTime("t", 1, 0.02)])
    assert world.lane.take_excess(world.now)
