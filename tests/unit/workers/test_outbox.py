"""What leaves a worker, and when."""

import socket
import threading
from collections.abc import Iterator

import pytest

from execution_service.workers.frames import FrameToPool, LogReport, Outcomes, ProgressReport, pool_reader
from execution_service.workers.outbox import Outbox
from execution_service.workers.outcomes import Finished, Outcome


class Pair:
    """An outbox and the pool's end of its socket."""

    def __init__(self) -> None:
        self.pool, self._worker = socket.socketpair()
        self.pool.settimeout(5)
        self.gone = threading.Event()
        self.outbox = Outbox(self._worker, on_gone=self.gone.set)
        self._reader = pool_reader()
        self._messages: list[FrameToPool] = []

    def next(self) -> FrameToPool:
        while not self._messages:
            self._messages += self._reader.feed(memoryview(self.pool.recv(65536)))
        return self._messages.pop(0)

    def close(self) -> None:
        self.pool.close()
        assert self.gone.wait(5)
        self._worker.close()


@pytest.fixture
def pair() -> Iterator[Pair]:
    made = Pair()
    made.outbox.start()
    yield made
    made.close()


def _finished(task_id: int) -> Finished:
    return Finished(task_id, 1, Outcome.COMPLETED, b"1", None, True, "w", 1.0, 2.0)


def test_outcomes_share_a_frame_with_the_times_of_their_types(pair: Pair) -> None:
    for task_id in (1, 2, 3):
        pair.outbox.add(_finished(task_id), "a", 0.5)
    pair.outbox.add(_finished(4), "b", -1)
    pair.outbox.flush()
    message = pair.next()
    assert isinstance(message, Outcomes)
    assert [item.task_id for item in message.finished] == [1, 2, 3, 4]
    assert [(item.type, item.count, item.seconds) for item in message.times] == [("a", 3, 1.5)]


def test_an_outcome_does_not_wait_for_the_next_handler(pair: Pair) -> None:
    pair.outbox.flush()
    pair.outbox.add(_finished(1), "a", 0.1)
    # The last flush was just now, so it may wait; the main thread never comes back, and it leaves all the same.
    pair.outbox.flush_if_due(0.0)
    assert isinstance(pair.next(), Outcomes)


def test_the_first_progress_leaves_at_once_and_the_latest_one_later(pair: Pair) -> None:
    for step in range(1, 101):
        pair.outbox.progress(1, 1, "t", step / 100, f"step {step}")
    first, second = pair.next(), pair.next()
    assert isinstance(first, ProgressReport)
    assert isinstance(second, ProgressReport)
    assert [(item.n, item.message) for item in first.items] == [(1, "step 1")]
    assert [(item.n, item.fraction, item.message) for item in second.items] == [(2, 1.0, "step 100")]


def test_no_progress_follows_the_outcome(pair: Pair) -> None:
    pair.outbox.progress(1, 1, "t", 0.1, "first")
    pair.outbox.progress(1, 1, "t", 0.2, "second")
    pair.outbox.add(_finished(1), "t", 0.1)
    pair.outbox.flush()
    pair.outbox.progress(2, 1, "t", 0.1, "other")
    kinds = [pair.next(), pair.next(), pair.next()]
    assert isinstance(kinds[0], ProgressReport)
    assert isinstance(kinds[1], Outcomes)
    assert isinstance(kinds[2], ProgressReport)
    assert kinds[2].items[0].task_id == 2


def test_log_lines_are_bounded_and_the_rest_is_counted(pair: Pair) -> None:
    lines = dropped = 0
    for number in range(5000):
        pair.outbox.log((1, 1), "info", "event", {"number": number, "odd": object()})
    while lines + dropped < 5000:
        message = pair.next()
        assert isinstance(message, LogReport)
        assert len(message.lines) <= 200
        lines += len(message.lines)
        dropped += message.dropped
    assert lines + dropped == 5000


def test_the_end_of_the_pool_is_noticed_while_nothing_is_sent(pair: Pair) -> None:
    pair.pool.close()
    assert pair.gone.wait(5)
