import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import cast

import pytest
import redis.asyncio

from headrace.v1.task_pb2 import TaskStatus, TaskUpdate, UpdateBatch
from management_service.publishing import Publisher
from servicekit import redis_keys
from servicekit.live.cursors import Cursor
from servicekit.live.event_log import EventLog
from servicekit.live.events import LiveEvent
from servicekit.live.filters import Filter
from servicekit.live.hub import Hub, Listener
from servicekit.live.mailbox import Signal
from servicekit.update_reader import EntryId, UpdateReader
from servicekit.updates import UpdateFeed
from tests.support.servers import RunningServer
from tests.support.updates import publish_message, publish_update
from tests.support.waiting import wait_until

PROCESSING = TaskStatus.TASK_STATUS_PROCESSING


def change(task_id: int, revision: int) -> TaskUpdate:
    return TaskUpdate(task_id=task_id, type="noop", status=PROCESSING, attempt=1, revision=revision)


@dataclass
class Heard:
    """A follower of a reader."""

    entries: list[tuple[EntryId, bytes]] = field(default_factory=list)
    lost: int = 0

    def take(self, entry_id: EntryId, message: bytes) -> None:
        self.entries.append((entry_id, message))

    def lose_track(self) -> None:
        self.lost += 1

    def change_hearing(self) -> None:
        pass

    @property
    def messages(self) -> list[bytes]:
        return [message for _, message in self.entries]


@pytest.fixture
async def store(redis_url: str) -> AsyncIterator[redis.asyncio.Redis]:
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        yield client


async def test_a_reader_starts_at_the_end_and_misses_nothing_then(redis_url: str, store: redis.asyncio.Redis) -> None:
    await publish_message(store, b"before")
    heard = Heard()
    reader = UpdateReader(redis_url, heard)
    reader.start()
    await wait_until(lambda: reader.connected)
    for number in range(200):
        await publish_message(store, b"%d" % number)
    await wait_until(lambda: len(heard.entries) >= 200)
    assert heard.messages == [b"%d" % number for number in range(200)]
    assert heard.lost == 1
    await reader.stop()


async def reader_of_a_killed_server(server: RunningServer, url: str, heard: Heard) -> UpdateReader:
    """A reader that has heard one entry, and whose server is gone."""
    reader = UpdateReader(url, heard)
    reader.start()
    await wait_until(lambda: reader.connected)
    async with redis.asyncio.Redis.from_url(url) as client:
        await publish_message(client, b"one")
        await wait_until(lambda: heard.messages == [b"one"])
    await asyncio.to_thread(server.kill)
    await wait_until(lambda: not reader.connected)
    return reader


async def test_a_restart_of_redis_costs_a_reader_no_entry(own_redis: tuple[RunningServer, str]) -> None:
    server, url = own_redis
    heard = Heard()
    reader = await reader_of_a_killed_server(server, url, heard)
    await asyncio.to_thread(server.start)
    async with redis.asyncio.Redis.from_url(url) as client:
        # As soon as Redis is there, most likely before the reader is.
        await publish_message(client, b"two")
        await wait_until(lambda: heard.messages == [b"one", b"two"])
    assert heard.lost == 1
    await reader.stop()


async def test_a_reader_whose_place_was_cut_off_says_so(own_redis: tuple[RunningServer, str]) -> None:
    server, url = own_redis
    heard = Heard()
    reader = await reader_of_a_killed_server(server, url, heard)
    await reader.stop()
    await asyncio.to_thread(server.start)
    async with redis.asyncio.Redis.from_url(url) as client:
        await publish_message(client, b"two")
        await publish_message(client, b"three")
        await client.xtrim(redis_keys.UPDATES, maxlen=1, approximate=False)
        reader.start()
        await wait_until(lambda: heard.lost == 2)
        await wait_until(lambda: reader.connected)
        await publish_message(client, b"four")
        await wait_until(lambda: heard.messages == [b"one", b"four"])
    await reader.stop()


@dataclass
class Live:
    """An event log with one reader."""

    hub: Hub
    feed: UpdateFeed
    log: EventLog

    async def listen(self) -> Listener:
        await self.log.ready()
        return self.hub.add(Filter())


@pytest.fixture
async def live(redis_url: str) -> AsyncIterator[Live]:
    hub, feed = Hub(), UpdateFeed(redis_url)
    log = EventLog(hub, feed)
    feed.start()
    await wait_until(lambda: feed.connected)
    yield Live(hub, feed, log)
    await log.stop()
    await feed.stop()


async def next_told(listener: Listener) -> tuple[int, int]:
    """(task id, revision) of the next event."""
    assert not await listener.mailbox.is_idle(5)
    event = listener.mailbox.take()
    assert isinstance(event, LiveEvent)
    return event.update.task_id, event.update.revision


async def test_a_reader_gets_what_was_kept_before_the_first_of_them_came(
    live: Live, store: redis.asyncio.Redis
) -> None:
    for task_id in range(1, 151):
        await publish_update(store, change(task_id, 1))
    await live.log.ready()
    listener = live.hub.add(Filter())
    await publish_update(store, change(7, 2))
    assert await next_told(listener) == (7, 2)
    [(first, _)] = await store.xrange(redis_keys.UPDATES, count=1) or []
    place = live.log.replay(cursor_of(first))
    assert place is not None
    assert [event.update.task_id for event in place] == [*range(2, 151), 7]
    assert live.log.revision_of(7) == 2


def cursor_of(entry_id: bytes | str | None) -> Cursor:
    ms, _, seq = (entry_id.decode() if isinstance(entry_id, bytes) else str(entry_id)).partition("-")
    return Cursor(int(ms), int(seq), 0)


async def test_readers_start_anew_where_entries_were_missed(live: Live, store: redis.asyncio.Redis) -> None:
    listener = await live.listen()
    live.feed.lose_track()
    await wait_until(lambda: listener.mailbox.take() is Signal.RESET)
    assert not live.log.is_deaf
    await publish_update(store, change(1, 1))
    assert await next_told(listener) == (1, 1)


async def test_a_log_without_redis_is_deaf_and_ready_at_once(own_redis: tuple[RunningServer, str]) -> None:
    server, url = own_redis
    await asyncio.to_thread(server.kill)
    hub, feed = Hub(), UpdateFeed(url)
    log = EventLog(hub, feed)
    feed.start()
    async with asyncio.timeout(5):
        await log.ready()
    assert log.is_deaf
    assert log.replay(Cursor(1, 0, 0)) is None
    listener = hub.add(Filter())
    await asyncio.to_thread(server.start)
    await wait_until(lambda: listener.mailbox.take() is Signal.RESET)
    assert not log.is_deaf
    await log.stop()
    await feed.stop()


async def test_what_a_manager_publishes_is_kept_within_bounds(
    redis_url: str, store: redis.asyncio.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("management_service.update_window.UPDATES_MAX", 20_000)
    publisher = Publisher(store)
    for start in range(0, 60_000, 1_000):
        await publisher.publish_now([change(task_id, 1) for task_id in range(start, start + 1_000)])
    length = await store.xlen(redis_keys.UPDATES)
    assert 20 <= length < 60
    assert await store.hget(redis_keys.UPDATES_ADDED, redis_keys.UPDATES_ADDED_UPDATES) == b"60000"


async def test_what_redis_did_not_take_is_published_when_it_is_back(own_redis: tuple[RunningServer, str]) -> None:
    server, url = own_redis
    async with redis.asyncio.Redis.from_url(url) as client:
        publisher = Publisher(client)
        running = asyncio.create_task(publisher.run())
        await asyncio.to_thread(server.kill)
        publisher.put([change(1, 1)], outbox_ids=[5])
        await asyncio.to_thread(server.start)
        await wait_until(lambda: publisher.take_cleared() == [5])
        assert await client.xlen(redis_keys.UPDATES) >= 1
        running.cancel()
        await asyncio.wait([running])


async def test_a_reader_that_comes_while_the_feed_finds_its_place_is_served(
    redis_url: str, store: redis.asyncio.Redis
) -> None:
    hub, feed = Hub(), UpdateFeed(redis_url)
    log = EventLog(hub, feed)
    becoming_ready = asyncio.create_task(log.ready())
    await asyncio.sleep(0)
    feed.lose_track()
    await becoming_ready
    assert log.position is not None
    await log.stop()


async def test_a_reader_starts_anew_where_too_much_came_while_the_kept_was_read(
    live: Live, store: redis.asyncio.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("servicekit.live.event_log._ARRIVED_MAX", 2)
    await publish_update(store, change(1, 1))
    becoming_ready = asyncio.create_task(live.log.ready())
    await asyncio.sleep(0)
    for number in range(3):
        live.log.take((10**13, number), b"")
    await becoming_ready
    listener = live.hub.add(Filter())
    assert live.log.revision_of(1) == 1
    await publish_update(store, change(1, 2))
    assert await next_told(listener) == (1, 2)


async def test_a_long_queue_goes_out_in_parts_and_in_order(
    redis_url: str, store: redis.asyncio.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("management_service.publishing._FLUSH_MAX", 10)
    publisher = Publisher(store)
    for number in range(1, 31):
        publisher.put([change(number, 1), change(number, 2), change(number, 3)], outbox_ids=[number])
    publisher.put_ready(["cpu"])
    async with store.pubsub() as channel:
        await channel.subscribe(redis_keys.READY_CHANNEL)
        await publisher.settle()
        await wait_until(lambda: channel.get_message(ignore_subscribe_messages=True, timeout=1))
    assert publisher.take_cleared() == list(range(1, 31))
    entries = await store.xrange(redis_keys.UPDATES) or []
    batches = [
        UpdateBatch.FromString(cast("bytes", value)) for _, fields in entries for value in (fields or {}).values()
    ]
    assert len(batches) == 10
    told = [task_id for batch in batches for task_id in batch.task_ids]
    assert told == [number for number in range(1, 31) for _ in range(3)]
