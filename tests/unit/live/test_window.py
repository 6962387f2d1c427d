import pytest

from headrace.v1.task_pb2 import TaskUpdate
from servicekit.live.cursors import Cursor
from servicekit.live.events import LiveEvent
from servicekit.live.window import AGE_MS_MAX, EventWindow


def add(window: EventWindow, ms: int, *, size: int = 0) -> list[int]:
    """Add an event, and return the tasks of those that were dropped for it."""
    update = TaskUpdate(task_id=ms, result=b"x" * size or None)
    return [event.update.task_id for event in window.append(LiveEvent(update.SerializeToString()), Cursor(ms, 0, 0))]


def test_what_was_dropped_cannot_be_resumed_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("servicekit.live.window.EVENTS_MAX", 3)
    window = EventWindow(Cursor(0, 0, 0))
    assert [add(window, ms) for ms in (1, 2, 3)] == [[], [], []]
    assert [event.update.task_id for event in window.after(Cursor(0, 0, 0)) or ()] == [1, 2, 3]
    assert (add(window, 4), add(window, 5)) == ([1], [2])
    assert window.after(Cursor(1, 0, 0)) is None
    assert [event.update.task_id for event in window.after(Cursor(2, 0, 0)) or ()] == [3, 4, 5]


def test_one_large_event_pushes_out_as_many_small_ones_as_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("servicekit.live.window.BYTES_MAX", 1_000)
    window = EventWindow(Cursor(0, 0, 0))
    for ms in range(1, 11):
        add(window, ms, size=50)
    assert len(add(window, 11, size=700)) >= 5
    assert add(window, 12, size=5_000)[-1] == 11
    assert len(window) == 1


def test_old_events_go_by_the_clock_of_the_stream() -> None:
    window = EventWindow(Cursor(0, 0, 0))
    add(window, 1)
    add(window, 2)
    assert add(window, AGE_MS_MAX + 2) == [1]


def test_dropped_places_are_removed_from_memory_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("servicekit.live.window.EVENTS_MAX", 10)
    monkeypatch.setattr("servicekit.live.window._COMPACT_AT", 4)
    window = EventWindow(Cursor(0, 0, 0))
    for ms in range(1, 100):
        add(window, ms)
        assert len(window) <= 10
        assert [event.update.task_id for event in window.after(window.newest) or ()] == []
    assert [event.update.task_id for event in window.after(Cursor(95, 0, 0)) or ()] == [96, 97, 98, 99]
