import asyncio
from collections.abc import AsyncGenerator

import pytest

from servicekit.errors import NotFound, Overloaded, Unavailable
from servicekit.live.cursors import Cursor
from servicekit.live.filters import Filter
from servicekit.live.mailbox import EVENTS_MAX, MERGED_MAX
from servicekit.live.session import EventFrame, Frame, LiveSession, SnapshotFrame, StreamClosed, tells_end
from servicekit.live.sources import Snapshot
from tests.support.waiting import wait_until
from tests.unit.live.factories import COMPLETED, QUEUED, ScriptedSource, progress, update, wanted

ALL = wanted()


class Reader:
    """Reads one session, frame by frame."""

    def __init__(self, source: ScriptedSource, fits: Filter = ALL, cursor: Cursor | None = None) -> None:
        self.frames: AsyncGenerator[Frame | None, None] = LiveSession(source.hub, source, fits, cursor).frames()

    async def next(self) -> Frame | None:
        async with asyncio.timeout(5):
            return await anext(self.frames)

    async def frame(self) -> Frame:
        """The next frame that says something."""
        while (frame := await self.next()) is None:
            pass
        return frame

    async def snapshot(self, *, reset: bool = False) -> list[tuple[int, int]]:
        """(task, revision) of the tasks of a snapshot, which comes next."""
        frame = await self.frame()
        assert isinstance(frame, SnapshotFrame), frame
        assert frame.reset == reset
        return [(each.task_id, each.revision) for each in frame.snapshot.updates]

    async def event(self) -> tuple[int, int, bool]:
        """(task, revision, whether it is placed) of an event, which comes next; of progress its number."""
        frame = await self.frame()
        assert isinstance(frame, EventFrame), frame
        told = frame.event.update
        return told.task_id, told.progress.n if frame.event.is_progress else told.revision, frame.placed

    async def is_silent(self, source: ScriptedSource) -> bool:
        """Whether nothing waits: what is published now is told next."""
        source.publish(source.change(update(999, 1)))
        return (await self.event())[0] == 999


@pytest.fixture
async def source() -> ScriptedSource:
    return ScriptedSource()


async def test_a_snapshot_comes_first_and_then_what_follows_it(source: ScriptedSource) -> None:
    source.publish(source.change(update(1, 1, QUEUED)))
    reader = Reader(source)
    assert await reader.snapshot() == [(1, 1)]
    source.publish(source.change(update(1, 2)), source.change(update(1, 3, COMPLETED)))
    assert await reader.event() == (1, 2, True)
    assert await reader.event() == (1, 3, True)


async def test_what_the_snapshot_has_already_is_not_told_again(source: ScriptedSource) -> None:
    first = source.change(update(1, 1, QUEUED))
    second = source.change(update(1, 2))
    reader = Reader(source)
    assert await reader.snapshot() == [(1, 2)]
    source.publish(first, second, source.change(update(1, 3)))
    assert await reader.event() == (1, 3, True)


async def test_a_snapshot_ahead_of_the_log_holds_cursors_back_until_the_log_has_caught_up(
    source: ScriptedSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader that resumed between would be told the change of task 1 again."""
    late = source.change(update(1, 5))
    source.publish(source.change(update(2, 1)))
    reader = Reader(source)
    await reader.snapshot()
    source.publish(source.change(update(2, 2)))
    assert await reader.event() == (2, 2, False)
    source.publish(late, source.change(update(2, 3)))
    assert await reader.event() == (2, 3, True)


async def test_what_is_never_published_holds_cursors_back_for_a_while_only(
    source: ScriptedSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("servicekit.live.session.SETTLE_SECONDS", 0.0)
    source.change(update(1, 5))
    reader = Reader(source)
    await reader.snapshot()
    source.publish(source.change(update(2, 1)))
    assert await reader.event() == (2, 1, True)


async def test_progress_is_told_unless_it_is_of_the_past(source: ScriptedSource) -> None:
    source.publish(source.change(update(1, 4, attempt=2)), source.change(update(2, 3, COMPLETED)))
    reader = Reader(source)
    await reader.snapshot()
    source.publish(progress(1, 7, attempt=1), progress(2, 9), progress(1, 1, attempt=2))
    assert await reader.event() == (1, 1, True)


async def test_an_update_without_a_revision_is_always_news(source: ScriptedSource) -> None:
    source.change(update(1, 0))
    reader = Reader(source)
    assert await reader.snapshot() == [(1, 0)]
    source.publish(update(1, 0, COMPLETED))
    assert (await reader.event())[:2] == (1, 0)


async def test_a_resumed_reader_hears_what_came_after_and_nothing_else(source: ScriptedSource) -> None:
    source.publish(*(source.change(update(1, revision)) for revision in (1, 2, 3)), source.change(update(2, 1)))
    reader = Reader(source, wanted(1), Cursor(1, 0, 0))
    assert await reader.next() is None
    assert [await reader.event() for _ in range(2)] == [(1, 2, True), (1, 3, True)]
    source.publish(source.change(update(1, 4)))
    assert await reader.event() == (1, 4, True)
    assert source.reads == 0


async def test_a_cursor_that_is_not_known_leads_to_a_reset(source: ScriptedSource) -> None:
    source.publish(source.change(update(1, 1)))
    source.kept_from = 1
    reader = Reader(source, ALL, Cursor(0, 0, 0))
    assert await reader.snapshot(reset=True) == [(1, 1)]


async def test_after_a_hole_a_snapshot_stands_for_what_was_missed(source: ScriptedSource) -> None:
    source.publish(source.change(update(1, 1)))
    reader = Reader(source)
    await reader.snapshot()
    source.change(update(1, 2))
    source.hub.reset()
    source.publish(source.change(update(1, 3)))
    assert await reader.snapshot(reset=True) == [(1, 3)]
    assert await reader.is_silent(source)


async def test_between_a_hole_and_its_snapshot_nothing_is_told(
    source: ScriptedSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An event with a cursor would let the reader resume behind the hole."""
    monkeypatch.setattr("servicekit.live.session.LOOK_SECONDS", 0.05)
    source.publish(source.change(update(1, 1)))
    reader = Reader(source)
    await reader.snapshot()
    source.error = Unavailable("no database")
    source.hub.reset()
    heard = asyncio.create_task(reader.frame())
    await wait_until(lambda: source.reads >= 2)
    source.publish(source.change(update(1, 3)))
    reads = source.reads
    await wait_until(lambda: source.reads > reads)
    assert not heard.done()
    source.error = None
    frame = await heard
    assert isinstance(frame, SnapshotFrame)
    assert frame.reset
    assert await reader.is_silent(source)


async def test_while_the_source_is_deaf_changes_are_told_by_looks(
    source: ScriptedSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("servicekit.live.session.LOOK_SECONDS", 0.02)
    source.publish(source.change(update(1, 1)), source.change(update(2, 1)))
    reader = Reader(source, wanted(1, 2))
    await reader.snapshot()
    source.is_deaf = True
    source.hub.nudge()
    source.change(update(1, 2))
    assert await reader.event() == (1, 2, False)
    source.change(update(2, 2, COMPLETED))
    assert await reader.event() == (2, 2, False)
    # What comes late is not told again.
    source.is_deaf = False
    source.publish(update(1, 2), update(2, 2, COMPLETED), source.change(update(1, 3)))
    assert await reader.event() == (1, 3, True)


async def test_what_is_published_during_a_look_is_told_all_the_same(
    source: ScriptedSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("servicekit.live.session.LOOK_SECONDS", 0.02)
    source.publish(source.change(update(1, 1)))
    reader = Reader(source)
    await reader.snapshot()
    read = source.snapshot

    async def publish_and_read(fits: Filter) -> Snapshot:
        source.is_deaf = False
        source.publish(source.change(update(1, 2, COMPLETED)))
        return await read(fits)

    monkeypatch.setattr(source, "snapshot", publish_and_read)
    source.is_deaf = True
    source.hub.nudge()
    assert await reader.event() == (1, 2, True)


async def test_named_tasks_are_looked_at_however_silent_the_source_is(
    source: ScriptedSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("servicekit.live.session.IDLE_SECONDS", 0.02)
    source.publish(source.change(update(1, 1)))
    reader = Reader(source, wanted(1))
    await reader.snapshot()
    source.change(update(1, 2, COMPLETED))
    assert await reader.event() == (1, 2, False)


async def test_a_change_that_is_on_its_way_is_left_to_the_stream(
    source: ScriptedSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("servicekit.live.session.IDLE_SECONDS", 0.5)
    source.publish(source.change(update(1, 1)))
    reader = Reader(source, wanted(1))
    await reader.snapshot()
    source.change(update(1, 3, COMPLETED))
    heard = asyncio.create_task(reader.event())
    await wait_until(lambda: source.reads == 2)
    source.publish(update(1, 2), update(1, 3, COMPLETED))
    assert (await heard)[:2] == (1, 2)
    assert (await reader.event())[:2] == (1, 3)


async def test_a_look_that_fails_is_made_up_for(source: ScriptedSource, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("servicekit.live.session.IDLE_SECONDS", 0.02)
    source.change(update(1, 1))
    reader = Reader(source, wanted(1))
    await reader.snapshot()
    source.error = Unavailable("no database")
    heard = asyncio.create_task(reader.frame())
    await wait_until(lambda: source.reads >= 3)
    source.error = None
    source.change(update(1, 2))
    frame = await heard
    assert isinstance(frame, EventFrame)
    source.error = NotFound("removed")
    with pytest.raises(NotFound):
        await reader.frame()


async def test_silence_is_told(source: ScriptedSource, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("servicekit.live.session.IDLE_SECONDS", 0.01)
    reader = Reader(source)
    await reader.snapshot()
    assert await reader.next() is None
    assert await reader.next() is None


async def test_a_first_snapshot_that_cannot_be_had_is_an_error(source: ScriptedSource) -> None:
    source.error = Unavailable("no database")
    with pytest.raises(Unavailable):
        await Reader(source).next()
    assert len(source.hub) == 0


async def test_a_slow_reader_is_cut_off_and_leaves_nothing_behind(source: ScriptedSource) -> None:
    reader = Reader(source)
    await reader.snapshot()
    source.publish(*(update(task_id, 1) for task_id in range(1, EVENTS_MAX + MERGED_MAX + 2)))
    with pytest.raises(Overloaded) as caught:
        await reader.frame()
    assert caught.value.code == "too_slow"
    assert len(source.hub) == 0


async def test_a_stop_ends_readers_and_refuses_those_that_come(source: ScriptedSource) -> None:
    reader = Reader(source)
    await reader.snapshot()
    source.hub.close()
    with pytest.raises(StreamClosed):
        await reader.frame()
    with pytest.raises(StreamClosed):
        await Reader(source).next()


async def test_a_reader_that_leaves_leaves_nothing_behind(source: ScriptedSource) -> None:
    reader = Reader(source)
    await reader.snapshot()
    assert len(source.hub) == 1
    await reader.frames.aclose()
    assert len(source.hub) == 0


async def test_the_end_of_a_task_is_told_by_an_event_or_a_snapshot(source: ScriptedSource) -> None:
    source.publish(source.change(update(1, 1)))
    reader = Reader(source, wanted(1))
    assert not tells_end(await reader.frame())
    source.publish(progress(1, 1), source.change(update(1, 2, COMPLETED)))
    assert not tells_end(await reader.frame())
    assert tells_end(await reader.frame())
    assert tells_end(await Reader(source, wanted(1)).frame())
