"""Collects what many callers submit into batches: whatever arrives while one batch is in flight becomes the next.

There are no timers, so an idle system adds no wait and a busy one makes large batches by itself.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from itertools import islice
from typing import Generic, TypeVar

from servicekit.errors import Overloaded, Unavailable

Item = TypeVar("Item")
Result = TypeVar("Result")


class _Submission(Generic[Item, Result]):
    """The items of one caller, and what became of them so far."""

    __slots__ = ("done", "items", "results", "sizes", "taken")

    def __init__(self, items: Sequence[Item], sizes: list[int]) -> None:
        self.items = items
        self.sizes = sizes
        self.done: asyncio.Future[list[Result]] = asyncio.get_running_loop().create_future()
        self.taken = 0
        self.results: list[Result] = []

    def take(self, count: int) -> Sequence[Item]:
        taken = self.items[self.taken : self.taken + count]
        self.taken += count
        return taken

    def give(self, results: Sequence[Result]) -> None:
        self.results.extend(results)
        if len(self.results) == len(self.items) and not self.done.done():
            self.done.set_result(self.results)

    def fail(self, error: Exception) -> None:
        if not self.done.done():
            self.done.set_exception(error)


# A part of a batch: whose items they are, and how many.
_Share = tuple[_Submission[Item, Result], int]


class Batcher(Generic[Item, Result]):
    """Gives each caller of `submit` the results of its own items; `flush` sees them in batches.

    `flush` gets at most `max_items` items of at most `max_bytes` together (one item if that alone is larger) and
    returns one result for each, in order. It never runs twice at the same time. When it fails, every caller with an
    item in that batch gets its error, though the batch may have taken effect.
    """

    def __init__(
        self,
        flush: Callable[[list[Item]], Awaitable[Sequence[Result]]],
        *,
        max_items: int,
        max_bytes: int,
        size_of: Callable[[Item], int],
        max_waiting_batches: int = 16,
    ) -> None:
        self._flush = flush
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._size_of = size_of
        self._waiting_items_max = max_items * max_waiting_batches
        self._waiting_bytes_max = max_bytes * max_waiting_batches
        self._waiting: deque[_Submission[Item, Result]] = deque()
        self._waiting_items = 0
        self._waiting_bytes = 0
        self._runner: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def waiting_items(self) -> int:
        """Items that no flush has taken yet."""
        return self._waiting_items

    async def submit(self, items: Sequence[Item]) -> list[Result]:
        """Return the results of `items` in order. Raises Overloaded when too much waits already.

        A caller that is cancelled takes back what no flush has begun with.
        """
        if self._closed:
            raise Unavailable("this replica is stopping", code="stopping")
        if not items:
            return []
        sizes = list(map(self._size_of, items))
        self._admit(len(items), sum(sizes))
        submission = _Submission[Item, Result](items, sizes)
        self._waiting.append(submission)
        if self._runner is None:
            self._runner = asyncio.create_task(self._run())
        return await submission.done

    async def close(self) -> None:
        """Take nothing more, and return when all that was submitted has its results."""
        self._closed = True
        if self._runner is not None:
            await asyncio.wait([self._runner])

    def _admit(self, count: int, size: int) -> None:
        full = (
            self._waiting_items + count > self._waiting_items_max
            or self._waiting_bytes + size > self._waiting_bytes_max
        )
        if full and self._waiting:
            raise Overloaded("too many requests wait for their batch", retry_after=1.0)
        self._waiting_items += count
        self._waiting_bytes += size

    async def _run(self) -> None:
        try:
            while self._waiting:
                batch, shares = self._take_batch()
                if batch:
                    await self._flush_batch(batch, shares)
        except asyncio.CancelledError:
            for submission in self._waiting:
                submission.done.cancel()
            raise
        finally:
            self._runner = None

    def _take_batch(self) -> tuple[list[Item], list[_Share[Item, Result]]]:
        batch: list[Item] = []
        shares: list[_Share[Item, Result]] = []
        room = self._max_bytes
        while self._waiting and len(batch) < self._max_items:
            submission = self._waiting[0]
            if submission.done.done():  # its caller went away, or an earlier part of it failed
                self._release(len(submission.items) - submission.taken, sum(submission.sizes[submission.taken :]))
                self._waiting.popleft()
                continue
            count, size = self._fitting(submission, len(batch), room)
            if count == 0:
                break
            batch.extend(submission.take(count))
            shares.append((submission, count))
            self._release(count, size)
            room -= size
            if submission.taken == len(submission.items):
                self._waiting.popleft()
        return batch, shares

    def _fitting(self, submission: _Submission[Item, Result], taken: int, room: int) -> tuple[int, int]:
        """How many of the items go into a batch that has `taken` items and `room` bytes left, and their bytes."""
        count = size = 0
        for item_size in islice(submission.sizes, submission.taken, submission.taken + self._max_items - taken):
            if size + item_size > room and (taken or count):
                break
            count += 1
            size += item_size
        return count, size

    def _release(self, count: int, size: int) -> None:
        self._waiting_items -= count
        self._waiting_bytes -= size

    async def _flush_batch(self, batch: list[Item], shares: list[_Share[Item, Result]]) -> None:
        try:
            results = await self._flush(batch)
            if len(results) != len(batch):
                raise RuntimeError(f"{len(results)} results for {len(batch)} items")
        except asyncio.CancelledError:
            for submission, _ in shares:
                submission.done.cancel()
            raise
        except Exception as error:  # noqa: BLE001 - handed to those who wait for it
            for submission, _ in shares:
                submission.fail(error)
            return
        start = 0
        for submission, count in shares:
            submission.give(results[start : start + count])
            start += count
