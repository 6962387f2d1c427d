import asyncio

import pytest

from servicekit.errors import Overloaded, Unavailable
from servicekit.live.events import LiveEvent
from servicekit.live.mailbox import EVENTS_MAX, MERGED_MAX, Mailbox, Signal, next_updates
from tests.unit.live.factories import COMPLETED, events, progress, update


class Cut:
    def __init__(self) -> None:
        self.count = 0
        self.mailbox = Mailbox(self.cut)

    def cut(self) -> None:
        self.count += 1


@pytest.fixture
async def cut() -> Cut:
    return Cut()


def put(mailbox: Mailbox, *given: LiveEvent) -> None:
    for event in given:
        mailbox.put(event)


def taken(mailbox: Mailbox) -> list[LiveEvent | Signal]:
    found = []
    while (heard := mailbox.take()) is not None:
        found.append(heard)
        if heard in (Signal.TOO_SLOW, Signal.CLOSED):
            break
    return found


def told(mailbox: Mailbox) -> list[tuple[int, int, int]]:
    """(task, revision, number of the progress) of all that waits."""
    return [
        (heard.update.task_id, heard.update.revision, heard.update.progress.n)
        for heard in taken(mailbox)
        if isinstance(heard, LiveEvent)
    ]


def filled(mailbox: Mailbox) -> list[LiveEvent]:
    given = events(*(update(1, revision) for revision in range(1, EVENTS_MAX + 1)))
    put(mailbox, *given)
    return given


async def test_what_a_quick_reader_takes_is_what_came(cut: Cut) -> None:
    given = filled(cut.mailbox)
    assert taken(cut.mailbox) == given
    assert cut.mailbox.take() is None


async def test_a_slow_reader_gets_the_latest_of_each_task(cut: Cut) -> None:
    filled(cut.mailbox)
    put(cut.mailbox, *events(update(2, 1), progress(2, 1), update(3, 1), progress(2, 2), update(2, 2), update(3, 2)))
    assert told(cut.mailbox)[EVENTS_MAX:] == [(2, 2, 0), (3, 2, 0)]


async def test_progress_after_a_change_is_kept_beside_it(cut: Cut) -> None:
    filled(cut.mailbox)
    put(cut.mailbox, *events(update(2, 1), progress(2, 1), progress(2, 2)))
    assert told(cut.mailbox)[EVENTS_MAX:] == [(2, 1, 0), (2, 0, 2)]


async def test_merging_ends_when_all_was_taken(cut: Cut) -> None:
    filled(cut.mailbox)
    put(cut.mailbox, *events(update(2, 1)))
    taken(cut.mailbox)
    put(cut.mailbox, *events(update(2, 2), update(2, 3)))
    assert told(cut.mailbox) == [(2, 2, 0), (2, 3, 0)]


async def test_a_reader_that_leaves_too_much_is_cut_off_once(cut: Cut) -> None:
    filled(cut.mailbox)
    put(cut.mailbox, *events(*(update(task_id, 1) for task_id in range(2, MERGED_MAX + 4))))
    assert cut.count == 1
    assert taken(cut.mailbox) == [Signal.TOO_SLOW]
    assert cut.mailbox.take() is Signal.TOO_SLOW


async def test_a_reset_voids_what_waits_and_more_follows(cut: Cut) -> None:
    put(cut.mailbox, *events(update(1, 1)))
    cut.mailbox.signal(Signal.RESET)
    put(cut.mailbox, *events(update(1, 2)))
    heard = taken(cut.mailbox)
    assert heard[0] is Signal.RESET
    assert [event.update.revision for event in heard[1:] if isinstance(event, LiveEvent)] == [2]


async def test_after_the_end_nothing_comes(cut: Cut) -> None:
    cut.mailbox.signal(Signal.CLOSED)
    cut.mailbox.signal(Signal.RESET)
    put(cut.mailbox, *events(update(1, 1)))
    assert taken(cut.mailbox) == [Signal.CLOSED]


async def test_news_end_a_wait_and_silence_is_noticed(cut: Cut) -> None:
    waiting = asyncio.create_task(cut.mailbox.is_idle(30))
    await asyncio.sleep(0)
    put(cut.mailbox, *events(update(1, 1)))
    assert await waiting is False
    taken(cut.mailbox)
    assert await cut.mailbox.is_idle(0.01) is True
    nudged = asyncio.create_task(cut.mailbox.is_idle(30))
    await asyncio.sleep(0)
    cut.mailbox.nudge()
    assert await nudged is False


async def test_updates_are_handed_on_in_batches(cut: Cut) -> None:
    put(cut.mailbox, *events(update(1, 1), update(1, 2), update(1, 3, COMPLETED)))
    assert [each.revision for each in await next_updates(cut.mailbox, at_most=2)] == [1, 2]
    assert [each.revision for each in await next_updates(cut.mailbox, at_most=2)] == [3]
    waiting = asyncio.create_task(next_updates(cut.mailbox, at_most=2))
    await asyncio.sleep(0)
    put(cut.mailbox, *events(update(1, 4)))
    assert [each.revision for each in await waiting] == [4]


@pytest.mark.parametrize(("signal", "error"), [(Signal.TOO_SLOW, Overloaded), (Signal.CLOSED, Unavailable)])
async def test_batches_end_with_an_error(cut: Cut, signal: Signal, error: type[Exception]) -> None:
    cut.mailbox.signal(signal)
    with pytest.raises(error):
        await next_updates(cut.mailbox, at_most=2)
