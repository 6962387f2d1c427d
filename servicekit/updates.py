"""The live update feed: one reader of the stream of updates, from which any number of listeners hear of their tasks.

A listener subscribes first and takes a snapshot then; it takes another when told to with `FeedSignal.RESYNC`.
"""

import asyncio
from collections import deque
from collections.abc import Iterable
from enum import Enum, auto
from types import TracebackType
from typing import Self

import structlog
from google.protobuf.message import DecodeError

from headrace.v1.task_pb2 import TaskUpdate, UpdateBatch
from servicekit.update_reader import EntryId, Listener, UpdateReader

log = structlog.stdlib.get_logger(__name__)


class FeedSignal(Enum):
    # Updates may have been missed: take a fresh snapshot and go on.
    RESYNC = auto()
    # The listener was too slow and hears nothing more.
    OVERFLOW = auto()
    # The feed has stopped.
    CLOSED = auto()


class Subscription:
    """What one listener has not heard yet. Close it, or use it as a context manager."""

    def __init__(self, feed: "UpdateFeed", task_id: int | None, queue_max: int) -> None:
        self.task_id = task_id
        self._feed = feed
        self._queue_max = queue_max
        self._updates: deque[TaskUpdate] = deque()
        self._signal: FeedSignal | None = None
        self._arrival: asyncio.Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._feed.forget(self)

    async def next(self, *, timeout: float) -> TaskUpdate | FeedSignal | None:
        """Return the next update or signal, or nothing when there was none for `timeout` seconds."""
        if self._signal is None and not self._updates and timeout > 0:
            self._arrival = asyncio.get_running_loop().create_future()
            try:
                async with asyncio.timeout(timeout):
                    await self._arrival
            except TimeoutError:
                pass
            finally:
                self._arrival = None
        if self._signal is not None:
            return self._take_signal()
        return self._updates.popleft() if self._updates else None

    def push(self, update: TaskUpdate) -> None:
        if len(self._updates) >= self._queue_max:
            self.signal(FeedSignal.OVERFLOW)
            return
        self._updates.append(update)
        self._wake()

    def signal(self, signal: FeedSignal) -> None:
        """Tell the listener before anything else. Only RESYNC is followed by more."""
        if self._signal in (None, FeedSignal.RESYNC):
            self._signal = signal
        if signal is not FeedSignal.RESYNC:
            self._updates.clear()
            self._feed.forget(self)
        self._wake()

    def _take_signal(self) -> FeedSignal | None:
        signal = self._signal
        if signal is FeedSignal.RESYNC:
            self._signal = None
        return signal

    def _wake(self) -> None:
        if self._arrival is not None and not self._arrival.done():
            self._arrival.set_result(None)


class UpdateFeed:
    """Goes on by itself after every loss of the connection."""

    def __init__(self, redis_url: str, *, queue_max: int = 256) -> None:
        self._queue_max = queue_max
        self._by_task: dict[int, list[Subscription]] = {}
        self._of_all: list[Subscription] = []
        self.reader = UpdateReader(redis_url, self)
        self._followers: list[Listener] = []
        self._closed = False

    @property
    def connected(self) -> bool:
        return self.reader.connected

    def start(self) -> None:
        self.reader.start()

    def add_follower(self, follower: Listener) -> None:
        """Have somebody hear all that is read, as it comes."""
        self._followers.append(follower)

    async def stop(self) -> None:
        """End all subscriptions and the connection."""
        self._closed = True
        for subscription in self._subscriptions():
            subscription.signal(FeedSignal.CLOSED)
        await self.reader.stop()

    def subscribe(self, task_id: int) -> Subscription:
        """Hear of one task from now on."""
        subscription = Subscription(self, task_id, self._queue_max)
        self._by_task.setdefault(task_id, []).append(subscription)
        return self._begun(subscription)

    def subscribe_all(self) -> Subscription:
        """Hear of every task from now on."""
        subscription = Subscription(self, None, self._queue_max)
        self._of_all.append(subscription)
        return self._begun(subscription)

    def forget(self, subscription: Subscription) -> None:
        """End a subscription; safe to repeat."""
        task_id = subscription.task_id
        listeners = self._of_all if task_id is None else self._by_task.get(task_id, [])
        if subscription in listeners:
            listeners.remove(subscription)
        if task_id is not None and not listeners:
            self._by_task.pop(task_id, None)

    @property
    def listeners(self) -> int:
        return len(self._of_all) + sum(map(len, self._by_task.values()))

    def take(self, entry_id: EntryId, message: bytes) -> None:
        for follower in self._followers:
            follower.take(entry_id, message)
        try:
            self.dispatch(message)
        except (DecodeError, ValueError) as error:
            log.error("update_batch_unreadable", bytes=len(message), reason=str(error)[:200])

    def lose_track(self) -> None:
        for follower in self._followers:
            follower.lose_track()
        for subscription in self._subscriptions():
            subscription.signal(FeedSignal.RESYNC)

    def change_hearing(self) -> None:
        for follower in self._followers:
            follower.change_hearing()

    def dispatch(self, message: bytes) -> None:
        """Hand a serialized UpdateBatch to those who listen; decodes no update that nobody wants."""
        if not self._by_task and not self._of_all:
            return
        batch = UpdateBatch.FromString(message)
        watched = None if self._of_all else self._by_task.keys() & set(batch.task_ids)
        if watched is not None and not watched:
            return
        for task_id, encoded in zip(batch.task_ids, batch.updates, strict=True):
            if watched is None or task_id in watched:
                self._deliver(task_id, TaskUpdate.FromString(encoded))

    def _begun(self, subscription: Subscription) -> Subscription:
        if self._closed:
            subscription.signal(FeedSignal.CLOSED)
        return subscription

    def _deliver(self, task_id: int, update: TaskUpdate) -> None:
        # Copies, since a listener that overflows takes itself off the list.
        for subscription in [*self._by_task.get(task_id, ()), *self._of_all]:
            subscription.push(update)

    def _subscriptions(self) -> Iterable[Subscription]:
        return [*self._of_all, *(one for listeners in self._by_task.values() for one in listeners)]
