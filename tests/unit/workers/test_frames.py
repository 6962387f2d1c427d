"""Frames survive any cutting of the stream, and nothing else is taken for one."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from execution_service.workers import frames
from execution_service.workers.frames import (
    Assign,
    Control,
    FrameError,
    FrameReader,
    Outcomes,
    ProgressReport,
    Ready,
    TypeTime,
    encode_frame,
    pool_reader,
    worker_reader,
)
from execution_service.workers.outcomes import Attempt, AttemptError, Finished, Outcome, ProgressItem

_ATTEMPT = Attempt(1, 2, 3, "noop", b'{"a":1}', "cpu", 30.0, False, 3)
_ERROR = AttemptError("handler_error", "text", "ValueError")
_FINISHED = Finished(1, 2, Outcome.FAILED, None, _ERROR, True, "w", 1.5, 2.5)
_MESSAGES: list[Ready | Outcomes | ProgressReport] = [
    Ready(7),
    Outcomes([_FINISHED, _FINISHED], [TypeTime("noop", 2, 0.5)], [4]),
    ProgressReport([ProgressItem(1, 2, "noop", 1, 0.5, "half", 3.5)]),
]


@given(st.lists(st.integers(1, 40), max_size=60))
def test_messages_come_out_however_the_stream_is_cut(cuts: list[int]) -> None:
    stream = b"".join(encode_frame(message) for message in _MESSAGES)
    reader, position, received = pool_reader(), 0, []
    for cut in [*cuts, len(stream)]:
        received += reader.feed(memoryview(stream)[position : position + cut])
        position += cut
    assert received == _MESSAGES


def test_what_the_pool_sends_is_read_by_the_worker() -> None:
    messages: list[Assign | Control] = [Assign(5, [_ATTEMPT, _ATTEMPT]), Control(1, [5, 6], release=True)]
    reader = worker_reader()
    assert [reader.feed(memoryview(encode_frame(message)))[0] for message in messages] == messages


@given(st.binary(min_size=1, max_size=64))
def test_garbage_is_never_taken_for_a_message(body: bytes) -> None:
    frame = len(body).to_bytes(4, "little") + body
    try:
        messages = pool_reader().feed(memoryview(frame))
    except FrameError:
        return
    assert all(isinstance(message, Ready | Outcomes | ProgressReport | frames.LogReport) for message in messages)


def test_a_frame_above_the_limit_is_refused_at_its_announcement() -> None:
    with pytest.raises(FrameError, match="1073741824"):
        pool_reader().feed(memoryview((2**30).to_bytes(4, "little")))


def test_a_frame_above_the_limit_is_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "FRAME_BYTES_MAX", 10)
    with pytest.raises(FrameError):
        encode_frame(Assign(1, [_ATTEMPT]))


def test_half_a_frame_is_no_message_yet() -> None:
    reader = FrameReader(msgspec.msgpack.Decoder(Ready))
    frame = memoryview(encode_frame(Ready(1)))
    assert reader.feed(frame[:3]) == []
    assert reader.feed(frame[3:-1]) == []
    assert reader.feed(frame[-1:]) == [Ready(1)]
