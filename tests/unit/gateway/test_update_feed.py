import asyncio

import pytest

from headrace.v1.task_pb2 import TaskUpdate, UpdateBatch
from servicekit.updates import FeedSignal, UpdateFeed


@pytest.fixture
async def feed() -> UpdateFeed:
    return UpdateFeed("redis://127.0.0.1:1/0", queue_max=2)


def message(*task_ids: int) -> bytes:
    updates = [TaskUpdate(task_id=task_id, revision=1).SerializeToString() for task_id in task_ids]
    return UpdateBatch(task_ids=task_ids, updates=updates).SerializeToString()


async def test_a_listener_hears_of_its_task_alone(feed: UpdateFeed) -> None:
    with feed.subscribe(7) as subscription:
        feed.dispatch(message(6, 7, 8))
        update = await subscription.next(timeout=1)
        assert isinstance(update, TaskUpdate)
        assert update.task_id == 7
        assert await subscription.next(timeout=0) is None


async def test_an_update_ends_a_wait(feed: UpdateFeed) -> None:
    with feed.subscribe(7) as subscription:
        waiting = asyncio.create_task(subscription.next(timeout=5))
        await asyncio.sleep(0)
        feed.dispatch(message(7))
        assert isinstance(await waiting, TaskUpdate)


async def test_updates_that_nobody_wants_are_not_decoded(feed: UpdateFeed) -> None:
    with feed.subscribe(7):
        feed.dispatch(UpdateBatch(task_ids=[8], updates=[b"\xff not an update"]).SerializeToString())


async def test_a_full_queue_cuts_the_listener_off(feed: UpdateFeed) -> None:
    subscription = feed.subscribe(7)
    feed.dispatch(message(7, 7, 7))
    assert await subscription.next(timeout=1) is FeedSignal.OVERFLOW
    assert await subscription.next(timeout=1) is FeedSignal.OVERFLOW
    assert feed.listeners == 0


async def test_a_slow_listener_does_not_harm_its_neighbour(feed: UpdateFeed) -> None:
    slow, quick = feed.subscribe(7), feed.subscribe(7)
    for _ in range(4):
        feed.dispatch(message(7))
        assert isinstance(await quick.next(timeout=1), TaskUpdate)
    assert await slow.next(timeout=1) is FeedSignal.OVERFLOW


async def test_a_resync_comes_first_and_more_follows(feed: UpdateFeed) -> None:
    subscription = feed.subscribe(7)
    feed.dispatch(message(7))
    subscription.signal(FeedSignal.RESYNC)
    assert await subscription.next(timeout=1) is FeedSignal.RESYNC
    assert isinstance(await subscription.next(timeout=1), TaskUpdate)


async def test_a_stopped_feed_ends_its_listeners_and_those_who_come_later(feed: UpdateFeed) -> None:
    before = feed.subscribe(7)
    await feed.stop()
    assert await before.next(timeout=1) is FeedSignal.CLOSED
    assert await feed.subscribe(8).next(timeout=1) is FeedSignal.CLOSED
    assert feed.listeners == 0


async def test_closing_twice_is_safe(feed: UpdateFeed) -> None:
    subscription = feed.subscribe(7)
    subscription.close()
    subscription.close()
    feed.dispatch(message(7))
    assert feed.listeners == 0
