"""Live updates of the attempts that run here, for whoever watches this replica."""

import asyncio
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

from headrace.v1 import task_pb2
from servicekit.errors import Overloaded

# What a watcher may leave unread before its stream is ended.
UNREAD_MAX = 10_000
UPDATES_PER_MESSAGE = 500
WATCHERS_MAX = 1_000


class Subscription:
    """One watcher's updates, in order, bounded."""

    def __init__(self, task_ids: Collection[int]) -> None:
        self._task_ids = frozenset(task_ids)
        self._unread: deque[task_pb2.TaskUpdate] = deque()
        self._too_slow = False
        self._wake = asyncio.Event()

    def put(self, updates: Sequence[task_pb2.TaskUpdate]) -> None:
        wanted = [update for update in updates if not self._task_ids or update.task_id in self._task_ids]
        if len(self._unread) + len(wanted) > UNREAD_MAX:
            self._too_slow = True
        elif wanted:
            self._unread.extend(wanted)
        else:
            return
        self._wake.set()

    async def next(self) -> list[task_pb2.TaskUpdate]:
        """Wait for updates. Raises Overloaded when the watcher has left too many unread."""
        while not self._unread and not self._too_slow:
            self._wake.clear()
            await self._wake.wait()
        if self._too_slow:
            raise Overloaded(f"more than {UNREAD_MAX} updates were not read", code="reader_too_slow")
        return [self._unread.popleft() for _ in range(min(len(self._unread), UPDATES_PER_MESSAGE))]


class UpdateFeed:
    """Hands updates to all watchers. Nobody builds an update while nobody watches."""

    def __init__(self) -> None:
        self._subscriptions: set[Subscription] = set()

    @property
    def is_watched(self) -> bool:
        return bool(self._subscriptions)

    def publish(self, updates: Sequence[task_pb2.TaskUpdate]) -> None:
        for subscription in self._subscriptions:
            subscription.put(updates)

    @contextmanager
    def subscribe(self, task_ids: Collection[int]) -> Iterator[Subscription]:
        if len(self._subscriptions) >= WATCHERS_MAX:
            raise Overloaded("too many watchers", code="too_many_watchers")
        subscription = Subscription(task_ids)
        self._subscriptions.add(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)
