import itertools
from collections import defaultdict
from dataclasses import dataclass

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from headrace.v1.task_pb2 import Progress, TaskStatus, TaskUpdate
from management_service.publishing import entries_of
from servicekit.live.cursors import Cursor
from servicekit.live.events import LiveEvent
from servicekit.live.sequencer import GAP_MS, GAP_UNKNOWN_MS, Sequencer

QUEUED = TaskStatus.TASK_STATUS_QUEUED
PROCESSING = TaskStatus.TASK_STATUS_PROCESSING
COMPLETED = TaskStatus.TASK_STATUS_COMPLETED


def change(task_id: int, revision: int, status: TaskStatus.ValueType = PROCESSING, *, attempt: int = 1) -> TaskUpdate:
    return TaskUpdate(task_id=task_id, status=status, attempt=attempt, revision=revision)


def progress(task_id: int, number: int, *, attempt: int = 1) -> TaskUpdate:
    return TaskUpdate(task_id=task_id, status=PROCESSING, attempt=attempt, progress=Progress(n=number, fraction=0.5))


@dataclass
class Stream:
    """What managers have added, and a clock."""

    ms: int = 1_000

    def __post_init__(self) -> None:
        self.sequencer = Sequencer((self.ms, 0))
        self.told: list[LiveEvent] = []

    def add(self, *updates: TaskUpdate, after_ms: int = 1) -> list[tuple[int, int]]:
        """Add one entry; return (task id, revision) of what was told for it."""
        self.ms += after_ms
        [(_, message)] = entries_of(updates)
        return self.note(self.sequencer.take((self.ms, 0), message, now=self.ms / 1000))

    def note(self, told: list[tuple[int, LiveEvent]]) -> list[tuple[int, int]]:
        self.told += [event for _, event in told]
        return [(task_id, event.update.revision) for task_id, event in told]


def test_what_comes_in_order_is_told_at_once() -> None:
    stream = Stream()
    assert stream.add(change(1, 1), change(2, 1)) == [(1, 1), (2, 1)]
    assert stream.add(change(1, 2)) == [(1, 2)]


def test_what_was_told_is_not_told_again() -> None:
    stream = Stream()
    stream.add(change(1, 1), change(1, 2))
    assert stream.add(change(1, 1), change(1, 2), change(1, 3)) == [(1, 3)]


def test_an_update_before_its_predecessor_waits_and_so_does_what_follows() -> None:
    stream = Stream()
    stream.add(change(1, 1))
    assert stream.add(change(1, 3, COMPLETED), change(2, 1)) == []
    assert stream.add(change(1, 2), change(3, 1)) == [(1, 2), (1, 3), (2, 1), (3, 1)]
    assert [str(event.cursor) for event in stream.told[1:]] == ["1002-0.0.0", "1002-0.0.1", "1002-0.1.0", "1003-0.1.0"]


def test_a_missing_update_is_waited_for_by_the_clock_of_the_stream() -> None:
    stream = Stream()
    stream.add(change(1, 1))
    stream.add(change(1, 3))
    assert stream.add(change(2, 1), after_ms=GAP_MS) == []
    assert stream.add(change(2, 2)) == [(1, 3), (2, 1), (2, 2)]
    assert stream.add(change(1, 2)) == []


def test_an_old_task_is_waited_for_a_moment_only() -> None:
    stream = Stream()
    assert stream.add(change(1, 7)) == []
    assert stream.add(change(2, 1), after_ms=GAP_UNKNOWN_MS + 1) == [(1, 7), (2, 1)]
    assert stream.add(change(1, 8)) == [(1, 8)]


def test_where_nothing_else_comes_our_own_clock_ends_the_wait() -> None:
    stream = Stream()
    stream.add(change(1, 2))
    now = stream.ms / 1000
    seconds = stream.sequencer.seconds_to_look(now=now)
    assert seconds is not None
    assert stream.note(stream.sequencer.look(now=now + seconds / 2)) == []
    assert stream.note(stream.sequencer.look(now=now + seconds)) == [(1, 2)]
    assert stream.sequencer.seconds_to_look(now=now + seconds) is None


def test_several_revisions_that_are_late_are_told_in_their_order() -> None:
    stream = Stream()
    stream.add(change(1, 5))
    stream.add(change(1, 4))
    assert stream.add(change(1, 2), after_ms=GAP_UNKNOWN_MS + 1) == [(1, 2)]
    assert stream.add(change(1, 3)) == [(1, 3), (1, 4), (1, 5)]


def test_progress_goes_by_attempt_and_number() -> None:
    stream = Stream()
    stream.add(change(1, 1))
    assert stream.add(progress(1, 1), progress(1, 3), progress(1, 2)) == [(1, 0), (1, 0)]
    assert stream.add(progress(1, 3), progress(1, 9, attempt=0)) == []
    assert stream.add(change(1, 2, COMPLETED), progress(1, 4)) == [(1, 2)]


def test_what_is_no_batch_changes_nothing() -> None:
    stream = Stream()
    for noise in (b"\xff" * 100, b"garbage"):
        with pytest.raises((DecodeError, ValueError)):
            stream.sequencer.take((2_000, 0), noise, now=2.0)
    assert stream.add(change(1, 1)) == [(1, 1)]


def test_a_place_that_nobody_has_been_at_is_not_known() -> None:
    stream = Stream()
    stream.add(change(1, 1))
    after = stream.sequencer.window.after
    assert after(Cursor(999, 0, 0)) is None
    assert after(Cursor(5_000, 0, 0)) is None
    assert [event.update.revision for event in after(Cursor(1_000, 0, 0)) or ()] == [1]
    assert after(Cursor(1_001, 0, 0)) == []


@st.composite
def scrambled(draw: st.DrawFn) -> list[tuple[int, list[TaskUpdate]]]:
    """Entries as several managers add them: each task's updates some places early, some of them twice."""
    lengths = draw(st.lists(st.integers(1, 6), min_size=1, max_size=6))
    queue = [
        (place, change(task, revision))
        for task, n in enumerate(lengths, 1)
        for place, revision in enumerate(range(1, n + 1))
    ]
    copies = draw(st.lists(st.sampled_from(queue), max_size=5))
    jitter = [(place * 3 + draw(st.integers(0, 8)), number) for number, (place, _) in enumerate(queue + copies)]
    ordered = [(queue + copies)[number][1] for _, number in sorted(jitter)]
    entries = []
    while ordered:
        size = draw(st.integers(1, 4))
        entries.append((draw(st.integers(1, 20)), ordered[:size]))
        ordered = ordered[size:]
    return entries


@given(scrambled())
def test_each_task_is_told_from_its_first_revision_on_without_gap_or_repeat(
    entries: list[tuple[int, list[TaskUpdate]]],
) -> None:
    stream = Stream()
    for after_ms, updates in entries:
        stream.add(*updates, after_ms=min(after_ms, GAP_UNKNOWN_MS // (len(entries) + 1)) or 1)
    told: dict[int, list[int]] = defaultdict(list)
    for event in stream.told:
        told[event.update.task_id].append(event.update.revision)
    last = {update.task_id: 0 for _, updates in entries for update in updates}
    for _, updates in entries:
        for update in updates:
            last[update.task_id] = max(last[update.task_id], update.revision)
    assert told == {task_id: list(range(1, revision + 1)) for task_id, revision in last.items()}
    cursors = [event.cursor for event in stream.told]
    assert all(one < two for one, two in itertools.pairwise(cursors) if one and two)


@given(scrambled(), st.data())
def test_a_cursor_of_one_gateway_is_good_at_another(
    entries: list[tuple[int, list[TaskUpdate]]], data: st.DataObject
) -> None:
    here, there = Stream(), Stream()
    for after_ms, updates in entries:
        here.add(*updates, after_ms=after_ms)
        there.add(*updates, after_ms=after_ms)
    event = data.draw(st.sampled_from(here.told))
    assert event.cursor is not None
    rest = there.sequencer.window.after(event.cursor)
    expected = here.told[here.told.index(event) + 1 :]
    assert rest is not None
    assert [one.update for one in rest] == [one.update for one in expected]
