"""The frames that pool and worker exchange over their socket pair.

A frame is its body's length in four little-endian bytes and a body: the MessagePack of one tagged struct. Bodies are
bounded; a peer that announces more, or sends anything else, has broken the protocol and its connection is not read on.
"""

from typing import Generic, TypeVar

import msgspec

from execution_service.workers.outcomes import Attempt, Finished, ProgressItem

FRAME_BYTES_MAX = 40 * 1024 * 1024
# Batches are cut here, so that one frame stays far below the limit whatever its last item adds.
BATCH_BYTES = 4 * 1024 * 1024
_LENGTH_BYTES = 4

Message = TypeVar("Message")


class FrameError(Exception):
    """The peer sent something that is not a frame of ours."""


class Assign(msgspec.Struct, frozen=True, array_like=True, tag="assign", gc=False):
    """Pool to worker: run these in order; they are numbered from `first_seq` on, per worker."""

    first_seq: int
    attempts: list[Attempt]


class Control(msgspec.Struct, frozen=True, array_like=True, tag="control", gc=False):
    """Pool to worker: stop the numbered attempts; with `release`, give back everything that has not been started.

    `generation` is also written to the shared page, so that a worker knows before each start whether one is under way.
    """

    generation: int
    cancel: list[int]
    release: bool = False


class Ready(msgspec.Struct, frozen=True, array_like=True, tag="ready", gc=False):
    """Worker to pool, once: the task modules are loaded."""

    pid: int


class TypeTime(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """How long handlers of one type took, summed over the attempts of one frame."""

    type: str
    count: int
    seconds: float


class Outcomes(msgspec.Struct, frozen=True, array_like=True, tag="outcomes", gc=False):
    """Worker to pool: attempts that have ended, and the numbers of those whose output ends with a mark."""

    finished: list[Finished]
    times: list[TypeTime]
    printed: list[int]


class ProgressReport(msgspec.Struct, frozen=True, array_like=True, tag="progress", gc=False):
    """Worker to pool: how far running attempts have come."""

    items: list[ProgressItem]


# The level of a line that a handler printed.
OUTPUT_LEVEL = "output"


class LogLine(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One structured event that a handler logged at `at` (unix seconds); `fields` is a JSON object.

    At `OUTPUT_LEVEL` it is a line that the handler printed.
    """

    task_id: int
    attempt: int
    at: float
    level: str
    event: str
    fields: str


class LogReport(msgspec.Struct, frozen=True, array_like=True, tag="log", gc=False):
    """Worker to pool: what handlers logged. `dropped` lines came faster than they could be kept."""

    lines: list[LogLine]
    dropped: int


class Leaving(msgspec.Struct, frozen=True, array_like=True, tag="leaving", gc=False):
    """Worker to pool, once and last: it starts nothing more and is to be replaced."""

    reason: str


class Worn(msgspec.Struct, frozen=True, array_like=True, tag="worn", gc=False):
    """Worker to pool, once: it is to be replaced, and goes on until its successor is there."""

    reason: str


FrameToWorker = Assign | Control
FrameToPool = Ready | Outcomes | ProgressReport | LogReport | Leaving | Worn

_encode = msgspec.msgpack.Encoder().encode_into


def encode_frame(message: FrameToWorker | FrameToPool) -> bytearray:
    """Return the message as one frame. Raises FrameError when it is above the limit."""
    frame = bytearray(_LENGTH_BYTES)
    _encode(message, frame, _LENGTH_BYTES)
    body_bytes = len(frame) - _LENGTH_BYTES
    if body_bytes > FRAME_BYTES_MAX:
        raise FrameError(f"a frame of {body_bytes} bytes is above the limit of {FRAME_BYTES_MAX}")
    frame[:_LENGTH_BYTES] = body_bytes.to_bytes(_LENGTH_BYTES, "little")
    return frame


class FrameReader(Generic[Message]):
    """Cuts what comes in from a socket into messages; keeps the part of a frame that is not complete yet."""

    def __init__(self, decoder: msgspec.msgpack.Decoder[Message], *, frame_bytes_max: int = FRAME_BYTES_MAX) -> None:
        self._decode = decoder.decode
        self._rest = bytearray()
        self._frame_bytes_max = frame_bytes_max

    def feed(self, chunk: memoryview) -> list[Message]:
        """Return the messages that `chunk` completes. Raises FrameError; the reader is of no use after that."""
        if not self._rest:
            messages, used = self._cut(chunk)
            self._rest += chunk[used:]
            return messages
        self._rest += chunk
        with memoryview(self._rest) as joined:
            messages, used = self._cut(joined)
        del self._rest[:used]
        return messages

    def _cut(self, data: memoryview) -> tuple[list[Message], int]:
        messages: list[Message] = []
        start, end = 0, len(data)
        while end - start >= _LENGTH_BYTES:
            length = int.from_bytes(data[start : start + _LENGTH_BYTES], "little")
            if length > self._frame_bytes_max:
                raise FrameError(f"the peer announced a frame of {length} bytes")
            stop = start + _LENGTH_BYTES + length
            if stop > end:
                break
            try:
                messages.append(self._decode(data[start + _LENGTH_BYTES : stop]))
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                raise FrameError(f"the peer sent a frame that cannot be read: {error}") from error
            start = stop
        return messages, start


def worker_reader() -> FrameReader[FrameToWorker]:
    """Return a reader for what the pool sends to a worker."""
    return FrameReader(msgspec.msgpack.Decoder(FrameToWorker))


def pool_reader() -> FrameReader[FrameToPool]:
    """Return a reader for what a worker sends to the pool."""
    return FrameReader(msgspec.msgpack.Decoder(FrameToPool))
