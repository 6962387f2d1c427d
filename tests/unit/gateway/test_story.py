import asyncio
from typing import Any

import msgspec
import pytest

from gateway.reads import TaskReader
from gateway.story import FeedEnded, TaskStory
from headrace.v1.task_pb2 import Progress, Task, TaskError, TaskStatus, TaskUpdate, UpdateBatch
from servicekit.errors import HeadraceError, NotFound, Overloaded, Unavailable
from servicekit.updates import FeedSignal, UpdateFeed
from tests.support.waiting import wait_until

QUEUED = TaskStatus.TASK_STATUS_QUEUED
PROCESSING = TaskStatus.TASK_STATUS_PROCESSING
RETRYING = TaskStatus.TASK_STATUS_RETRYING
COMPLETED = TaskStatus.TASK_STATUS_COMPLETED
FAILED = TaskStatus.TASK_STATUS_FAILED


class ScriptedReader(TaskReader):
    """Answers every read with the present `task`."""

    def __init__(self) -> None:
        self.task = Task(task_id=7, type="noop", status=QUEUED, revision=1)
        self.error: HeadraceError | None = None
        self.reads = 0

    async def read(self, task_id: int) -> Task:
        self.reads += 1
        if self.error is not None:
            raise self.error
        return self.task


class Listener:
    """A client: hears the story and notes (status, revision) of each event."""

    def __init__(self) -> None:
        self.reader = ScriptedReader()
        self.feed = UpdateFeed("redis://127.0.0.1:1/0", queue_max=4)
        self.feed.connected = True
        self.events = TaskStory(7, self.reader, self.feed).events()

    async def next(self) -> tuple[str, int]:
        data = await self.data()
        return data["status"], data["revision"]

    async def data(self) -> dict[str, Any]:
        async with asyncio.timeout(5):
            event = msgspec.json.decode(await anext(self.events))
        assert event["event"] == "task_update"
        data: dict[str, Any] = event["data"]
        return data

    async def ends(self) -> bool:
        async with asyncio.timeout(5):
            return await anext(self.events, None) is None

    def publish(self, *updates: TaskUpdate) -> None:
        batch = UpdateBatch(task_ids=[7 for _ in updates], updates=[each.SerializeToString() for each in updates])
        self.feed.dispatch(batch.SerializeToString())


def update(status: TaskStatus.ValueType, revision: int, **fields: object) -> TaskUpdate:
    return TaskUpdate(task_id=7, type="noop", status=status, revision=revision, attempt=1, **fields)  # type: ignore[arg-type]


@pytest.fixture
async def listener() -> Listener:
    return Listener()


async def test_the_story_begins_with_a_snapshot_and_goes_on_in_order(listener: Listener) -> None:
    assert await listener.next() == ("queued", 1)
    listener.publish(update(PROCESSING, 2), update(COMPLETED, 3, result=b'{"n": 1}'))
    assert await listener.next() == ("processing", 2)
    final = await listener.data()
    assert (final["status"], final["result"]) == ("completed", {"n": 1})
    assert await listener.ends()


async def test_updates_that_the_snapshot_has_already_are_dropped(listener: Listener) -> None:
    listener.reader.task = Task(task_id=7, status=PROCESSING, revision=2)
    assert await listener.next() == ("processing", 2)
    listener.publish(update(QUEUED, 1), update(PROCESSING, 2), update(RETRYING, 3))
    assert await listener.next() == ("retrying", 3)


async def test_the_story_of_a_finished_task_is_one_event(listener: Listener) -> None:
    listener.reader.task = Task(task_id=7, status=COMPLETED, revision=5, result=b"[]")
    assert await listener.next() == ("completed", 5)
    assert await listener.ends()
    assert listener.feed.listeners == 0


async def test_a_gap_that_closes_is_told_in_order(listener: Listener) -> None:
    await listener.next()
    listener.publish(update(RETRYING, 3))
    listener.publish(update(PROCESSING, 2))
    assert [await listener.next(), await listener.next()] == [("processing", 2), ("retrying", 3)]
    assert listener.reader.reads == 1


async def test_a_gap_that_stays_ends_in_a_snapshot(listener: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.story._GAP_SECONDS", 0.05)
    await listener.next()
    listener.publish(update(RETRYING, 4))
    listener.reader.task = Task(task_id=7, status=PROCESSING, revision=3)
    assert [await listener.next(), await listener.next()] == [("processing", 3), ("retrying", 4)]


async def test_a_final_update_ends_the_story_at_once_over_a_gap(listener: Listener) -> None:
    await listener.next()
    listener.publish(update(FAILED, 9, error=TaskError(code="timeout", message="too slow")))
    final = await listener.data()
    assert (final["status"], final["revision"]) == ("failed", 9)
    assert await listener.ends()


async def test_a_final_update_without_its_result_is_read(listener: Listener) -> None:
    await listener.next()
    listener.reader.task = Task(task_id=7, status=COMPLETED, revision=3, result=b'"large"')
    listener.publish(update(COMPLETED, 3))
    assert (await listener.data())["result"] == "large"
    assert await listener.ends()


async def test_progress_goes_by_attempt_and_number(listener: Listener) -> None:
    await listener.next()
    listener.publish(update(PROCESSING, 2))
    await listener.next()
    for n, fraction in ((1, 0.1), (3, 0.3), (2, 0.2)):
        listener.publish(update(PROCESSING, 0, progress=Progress(n=n, fraction=fraction)))
    listener.publish(update(RETRYING, 3))
    told = [await listener.data() for _ in range(3)]
    assert [each["progress"] and each["progress"]["n"] for each in told] == [1, 3, None]


async def test_after_a_resync_a_fresh_snapshot_is_told(listener: Listener) -> None:
    await listener.next()
    listener.reader.task = Task(task_id=7, status=RETRYING, revision=3)
    for subscription in list(listener.feed._subscriptions()):
        subscription.signal(FeedSignal.RESYNC)
    assert await listener.next() == ("retrying", 3)


async def test_a_deaf_feed_is_made_up_for_by_reading(listener: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.story._LOOK_SECONDS_DEAF", 0.02)
    listener.feed.connected = False
    await listener.next()
    listener.reader.error = Unavailable("away")
    listener.reader.task = Task(task_id=7, status=COMPLETED, revision=3)
    listening = asyncio.create_task(listener.next())
    await wait_until(lambda: listener.reader.reads >= 3)
    listener.reader.error = None
    assert await listening == ("completed", 3)


async def test_a_reader_that_is_too_slow_is_cut_off(listener: Listener) -> None:
    await listener.next()
    listener.publish(*(update(PROCESSING, revision) for revision in range(2, 9)))
    with pytest.raises(Overloaded):
        await listener.next()


async def test_the_story_ends_when_the_feed_stops(listener: Listener) -> None:
    await listener.next()
    await listener.feed.stop()
    with pytest.raises(FeedEnded):
        await listener.next()


async def test_there_is_no_story_of_an_unknown_task(listener: Listener) -> None:
    listener.reader.error = NotFound("no task 7", code="task_not_found")
    with pytest.raises(NotFound):
        await listener.next()
    assert listener.feed.listeners == 0
