"""Watchers of one replica."""

import pytest

from execution_service.updates import UNREAD_MAX, UPDATES_PER_MESSAGE, UpdateFeed
from execution_service.workers.outcomes import Outcome, ProgressItem
from headrace.v1 import task_pb2
from servicekit.errors import Overloaded
from tests.unit.execution.factories import assignment, finished
from tests.unit.execution.world import World


async def test_a_watcher_sees_the_start_the_progress_and_the_outcome_of_an_attempt() -> None:
    world = World()
    stream = world.attach()
    with world.feed.subscribe([1]) as watcher:
        world.assign(stream, assignment(1), assignment(2))
        world.replica.outcomes.progressed([ProgressItem(1, 1, "word_count", 1, 0.5, "half", 3.0)])
        world.replica.outcomes.finished([finished(1), finished(2)])
        await world.replica.outcomes.writer.run_once()
        updates = await watcher.next()
    assert {update.task_id for update in updates} == {1}
    assert [update.status for update in updates] == [
        task_pb2.TASK_STATUS_PROCESSING,
        task_pb2.TASK_STATUS_PROCESSING,
        task_pb2.TASK_STATUS_COMPLETED,
    ]
    assert (updates[1].progress.n, updates[1].progress.fraction) == (1, 0.5)
    assert updates[2].result == b'{"words":1}'
    assert not world.feed.is_watched


async def test_an_outcome_without_a_result_carries_its_error() -> None:
    world = World()
    stream = world.attach()
    with world.feed.subscribe([]) as watcher:
        world.assign(stream, assignment(1))
        world.replica.outcomes.finished([finished(1, outcome=Outcome.FAILED_FOR_GOOD)])
        last = (await watcher.next())[-1]
    assert (last.status, last.error.code) == (task_pb2.TASK_STATUS_FAILED, "handler_error")


async def test_a_watcher_that_does_not_read_is_ended() -> None:
    feed = UpdateFeed()
    with feed.subscribe([]) as watcher:
        feed.publish([task_pb2.TaskUpdate(task_id=1)] * UNREAD_MAX)
        assert len(await watcher.next()) == UPDATES_PER_MESSAGE
        feed.publish([task_pb2.TaskUpdate(task_id=1)] * UNREAD_MAX)
        with pytest.raises(Overloaded):
            await watcher.next()


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
