"""Watchers of one replica."""

from itertools import pairwise

import pytest

from execution_service.live_source import ReplicaSource
from execution_service.workers.outcomes import Outcome, ProgressItem
from headrace.v1 import task_pb2
from servicekit.errors import NotFound
from servicekit.live.filters import Filter
from servicekit.live.mailbox import Mailbox, next_updates
from tests.unit.execution.factories import assignment, finished
from tests.unit.execution.world import World


def watch(world: World, *task_ids: int) -> Mailbox:
    return world.hub.add(Filter(task_ids=frozenset(task_ids))).mailbox


def progress(number: int) -> ProgressItem:
    return ProgressItem(1, 1, "word_count", number, number / 100, "", 3.0)


async def test_a_watcher_sees_the_start_the_progress_and_the_outcome_of_an_attempt() -> None:
    world = World()
    stream = world.attach()
    watcher = watch(world, 1)
    world.assign(stream, assignment(1), assignment(2))
    world.replica.outcomes.progressed([ProgressItem(1, 1, "word_count", 1, 0.5, "half", 3.0)])
    world.replica.outcomes.finished([finished(1), finished(2)])
    await world.replica.outcomes.writer.run_once()
    updates = await next_updates(watcher, at_most=10)
    assert {update.task_id for update in updates} == {1}
    assert [update.status for update in updates] == [
        task_pb2.TASK_STATUS_PROCESSING,
        task_pb2.TASK_STATUS_PROCESSING,
        task_pb2.TASK_STATUS_COMPLETED,
    ]
    assert (updates[1].progress.n, updates[1].progress.fraction) == (1, 0.5)
    assert updates[2].result == b'{"words":1}'


async def test_an_outcome_without_a_result_carries_its_error() -> None:
    world = World()
    stream = world.attach()
    watcher = watch(world)
    world.assign(stream, assignment(1))
    world.replica.outcomes.finished([finished(1, outcome=Outcome.FAILED_FOR_GOOD)])
    last = (await next_updates(watcher, at_most=10))[-1]
    assert (last.status, last.error.code) == (task_pb2.TASK_STATUS_FAILED, "handler_error")


async def test_progress_waits_for_a_stream_and_only_the_latest_is_sent() -> None:
    world = World()
    stream = world.attach()
    world.assign(stream, assignment(1))
    world.replica.detach(stream, reason="test")
    for number in (1, 2, 3):
        world.replica.outcomes.progressed([ProgressItem(1, 1, "word_count", number, number / 10, "", 3.0)])
    other = world.attach("m2")
    world.live(1.0, other)
    assert [item.progress.n for item in (await world.heard(other)).progress] == [3]


async def test_progress_of_an_attempt_that_was_let_go_is_dropped() -> None:
    world = World()
    stream = world.attach()
    world.assign(stream, assignment(1))
    world.replica.outcomes.progressed([ProgressItem(1, 2, "word_count", 1, 0.1, "", 3.0)])
    world.replica.outcomes.progressed([ProgressItem(9, 1, "word_count", 1, 0.1, "", 3.0)])
    assert not (await world.heard(stream)).progress


async def test_progress_is_passed_on_five_times_a_second_and_the_latest_wins() -> None:
    world = World()
    stream = world.attach()
    watcher = watch(world)
    world.assign(stream, assignment(1))
    await next_updates(watcher, at_most=10)
    heard = []
    for number in range(1, 101):  # one every 10 ms, for a second
        world.replica.outcomes.progressed([progress(number)])
        heard += [item.progress.n for item in (await world.heard(stream)).progress]
        world.clock.seconds += 0.01
    assert heard[0] == 1
    assert len(heard) == 5
    assert all(after - before >= 20 for before, after in pairwise(heard))
    assert [update.progress.n for update in await next_updates(watcher, at_most=10)] == heard


async def test_the_last_progress_waits_for_nothing_but_its_turn() -> None:
    world = World()
    stream = world.attach()
    world.assign(stream, assignment(1))
    world.replica.outcomes.progressed([progress(1)])
    world.replica.outcomes.progressed([progress(2), progress(3)])
    assert [item.progress.n for item in (await world.heard(stream)).progress] == [1]
    world.clock.seconds += 0.25
    world.replica.tick()
    assert [item.progress.n for item in (await world.heard(stream)).progress] == [3]


async def test_the_last_progress_before_the_end_comes_before_it() -> None:
    world = World()
    stream = world.attach()
    watcher = watch(world)
    world.assign(stream, assignment(1))
    world.replica.outcomes.progressed([progress(1), progress(2), progress(3)])
    world.replica.outcomes.finished([finished(1, outcome=Outcome.FAILED)])
    message = await world.heard(stream)
    assert [item.progress.n for item in message.progress] == [3]
    assert [report.task_id for report in message.reports] == [1]
    updates = await next_updates(watcher, at_most=10)
    assert [update.progress.n for update in updates] == [0, 1, 3, 0]
    assert updates[-1].status == task_pb2.TASK_STATUS_RETRYING


async def test_a_snapshot_of_a_replica_is_what_it_runs() -> None:
    world = World()
    stream = world.attach()
    source = ReplicaSource(world.replica.table)
    world.assign(stream, assignment(1), assignment(2), assignment(3))
    world.replica.outcomes.finished([finished(2, outcome=Outcome.FAILED)])
    everything = await source.snapshot(Filter())
    assert [(update.task_id, update.attempt, update.revision) for update in everything.updates] == [
        (1, 1, 0),
        (3, 1, 0),
    ]
    named = await source.snapshot(Filter(task_ids=frozenset((2, 3))))
    assert [update.task_id for update in named.updates] == [3]
    assert named.missing == [2]
    assert not (await source.snapshot(Filter(types=frozenset(("other",))))).updates
    with pytest.raises(NotFound):
        await source.snapshot(Filter(task_ids=frozenset((2,))))
