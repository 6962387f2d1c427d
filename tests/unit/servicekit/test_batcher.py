"""The batcher: what gathers, what is split, who gets which result, and what is refused."""

import asyncio
from collections.abc import Sequence

import pytest

from servicekit.batcher import Batcher
from servicekit.errors import Overloaded, Unavailable


class Sink:
    """A flush that stands at a gate until it is opened, fails once with `error`, and answers with the negative."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.error: Exception | None = None

    async def flush(self, items: list[int]) -> Sequence[int]:
        self.batches.append(items)
        await self.gate.wait()
        if self.error:
            error, self.error = self.error, None
            raise error
        return [-item for item in items]

    def batcher(self, *, max_items: int = 4, max_bytes: int = 1000, max_waiting_batches: int = 16) -> Batcher[int, int]:
        return Batcher(
            self.flush,
            max_items=max_items,
            max_bytes=max_bytes,
            size_of=lambda item: item,
            max_waiting_batches=max_waiting_batches,
        )


@pytest.fixture
def sink() -> Sink:
    return Sink()


async def turn() -> None:
    """Let every task that can run do so."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_each_caller_gets_the_results_of_its_own_items(sink: Sink) -> None:
    batcher = sink.batcher()
    answers = await asyncio.gather(batcher.submit([1, 2]), batcher.submit([]), batcher.submit([3]))
    assert [list(answer) for answer in answers] == [[-1, -2], [], [-3]]
    assert sink.batches == [[1, 2, 3]]


async def test_what_arrives_during_a_flush_becomes_the_next_batch(sink: Sink) -> None:
    batcher = sink.batcher()
    sink.gate.clear()
    first = asyncio.create_task(batcher.submit([1]))
    await turn()
    rest = [asyncio.create_task(batcher.submit([n])) for n in (2, 3)]
    await turn()
    assert (sink.batches, batcher.waiting_items) == ([[1]], 2)
    sink.gate.set()
    assert await asyncio.gather(first, *rest) == [[-1], [-2], [-3]]
    assert sink.batches == [[1], [2, 3]]
    assert batcher.waiting_items == 0


async def test_a_list_longer_than_a_batch_is_split_and_comes_back_whole(sink: Sink) -> None:
    batcher = sink.batcher()
    long, short = await asyncio.gather(batcher.submit(list(range(10))), batcher.submit([10]))
    assert (long, short) == ([-n for n in range(10)], [-10])
    assert sink.batches == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10]]


async def test_a_batch_ends_before_it_has_too_many_bytes(sink: Sink) -> None:
    batcher = sink.batcher(max_bytes=100, max_items=100)
    await asyncio.gather(batcher.submit([60, 40]), batcher.submit([1]), batcher.submit([70]), batcher.submit([30]))
    assert sink.batches == [[60, 40], [1, 70], [30]]


async def test_an_item_larger_than_a_batch_goes_alone(sink: Sink) -> None:
    batcher = sink.batcher(max_bytes=100)
    await asyncio.gather(batcher.submit([1]), batcher.submit([500]), batcher.submit([2]))
    assert sink.batches == [[1], [500], [2]]


async def test_an_error_reaches_everybody_in_the_batch_and_nobody_else(sink: Sink) -> None:
    batcher = sink.batcher(max_items=2)
    sink.error = Unavailable("away")
    sink.gate.clear()
    failing = [asyncio.create_task(batcher.submit([n])) for n in (1, 2)]
    await turn()
    later = asyncio.create_task(batcher.submit([3]))
    sink.gate.set()
    assert [type(error) for error in await asyncio.gather(*failing, return_exceptions=True)] == [Unavailable] * 2
    assert await later == [-3]


async def test_a_list_of_which_a_part_failed_is_not_carried_on(sink: Sink) -> None:
    batcher = sink.batcher(max_items=2)
    sink.error = Unavailable("away")
    with pytest.raises(Unavailable):
        await batcher.submit([1, 2, 3, 4, 5])
    await batcher.close()
    assert sink.batches == [[1, 2]]
    assert batcher.waiting_items == 0


async def test_a_flush_with_too_few_results_is_an_error_for_its_callers() -> None:
    async def flush(items: list[int]) -> list[int]:
        return items[1:]

    batcher = Batcher(flush, max_items=10, max_bytes=10, size_of=lambda item: 1)
    with pytest.raises(RuntimeError, match="0 results for 1 items"):
        await batcher.submit([1])


async def test_a_caller_that_goes_away_takes_its_items_back(sink: Sink) -> None:
    batcher = sink.batcher()
    sink.gate.clear()
    first = asyncio.create_task(batcher.submit([1]))
    await turn()
    gone, stays = asyncio.create_task(batcher.submit([2])), asyncio.create_task(batcher.submit([3]))
    await turn()
    gone.cancel()
    first.cancel()
    await turn()
    sink.gate.set()
    assert await stays == [-3]
    assert sink.batches == [[1], [3]]


async def test_what_waits_is_bounded_in_items_and_in_bytes(sink: Sink) -> None:
    for batcher, item in (
        (sink.batcher(max_waiting_batches=1), 1),
        (sink.batcher(max_waiting_batches=1, max_items=9), 400),
    ):
        sink.gate.clear()
        in_flight = asyncio.create_task(batcher.submit([item]))
        await turn()
        waiting = asyncio.create_task(batcher.submit([item] * 2))
        await turn()
        with pytest.raises(Overloaded):
            await batcher.submit([item] * 3)
        sink.gate.set()
        await asyncio.gather(in_flight, waiting)
        assert await batcher.submit([item] * 3)


async def test_a_list_above_the_bound_is_taken_when_nothing_waits(sink: Sink) -> None:
    batcher = sink.batcher(max_items=2, max_waiting_batches=1)
    assert len(await batcher.submit([1] * 9)) == 9


async def test_closing_finishes_what_was_submitted_and_takes_nothing_more(sink: Sink) -> None:
    batcher = sink.batcher()
    sink.gate.clear()
    submitted = [asyncio.create_task(batcher.submit([n])) for n in range(6)]
    await turn()
    closing = asyncio.create_task(batcher.close())
    await turn()
    with pytest.raises(Unavailable):
        await batcher.submit([9])
    assert not closing.done()
    sink.gate.set()
    await closing
    assert [task.result() for task in submitted] == [[-n] for n in range(6)]


async def test_closing_an_idle_batcher_returns(sink: Sink) -> None:
    await sink.batcher().close()


async def test_a_flush_that_is_cancelled_leaves_no_caller_behind() -> None:
    async def flush(items: list[int]) -> list[int]:
        raise asyncio.CancelledError

    batcher = Batcher(flush, max_items=1, max_bytes=10, size_of=lambda item: 1)
    answers = await asyncio.gather(batcher.submit([1]), batcher.submit([2]), return_exceptions=True)
    assert [type(answer) for answer in answers] == [asyncio.CancelledError] * 2
