"""Cuts a stream of bytes into blocks of whole lines. Where they are cut depends on the bytes alone, not on the way in
which the stream hands them out. Lines end with LF, CR LF or CR, also mixed."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from headrace.tasks import PermanentError

BLOCK_BYTES = 512 * 1024
LINE_BYTES_MAX = 1024 * 1024

_UTF8_MARK = b"\xef\xbb\xbf"
# UTF-16 in both orders, the first of which begins like UTF-32, and UTF-32 in the other.
_OTHER_MARKS = (b"\xff\xfe", b"\xfe\xff", b"\0\0\xfe\xff")
_LONGEST_MARK = 4


@dataclass(frozen=True, slots=True)
class Block:
    """Whole lines; the last of the file may lack its end."""

    first_line: int
    data: bytes


@dataclass(frozen=True, slots=True)
class LongLine:
    """A line of more than LINE_BYTES_MAX bytes that was skipped."""

    number: int


class BlockReader:
    """Reads a stream in blocks, in memory that its lines do not change.

    PermanentError `unsupported_encoding` for the byte order mark of another encoding than UTF-8.
    """

    def __init__(self, read: Callable[[int], bytes], *, block_bytes: int = BLOCK_BYTES) -> None:
        """`read` returns up to as many bytes as it is asked for, and none at the end of the stream alone."""
        # Only the first line of a block can then be a long one.
        assert 0 < block_bytes < LINE_BYTES_MAX
        self._read = read
        self._block_bytes = block_bytes
        self.bytes = 0
        self.lines = 0

    def __iter__(self) -> Iterator[Block | LongLine]:
        rest = self._read_start()
        skipping = False
        at_end = False
        while not at_end:
            chunk = self._read_fully(self._block_bytes)
            at_end = len(chunk) < self._block_bytes
            data = rest + chunk
            # A CR may be the first half of a CR LF.
            held = b"\r" if data.endswith(b"\r") and not at_end else b""
            data = data[: len(data) - len(held)]
            if skipping or _first_line_bytes(data) > LINE_BYTES_MAX:
                if not skipping:
                    self.lines += 1
                    yield LongLine(self.lines)
                after = _after_first_line(data)
                skipping = after == 0 and not at_end
                data = data[after:] if after else b""
            cut = len(data) if at_end else max(data.rfind(b"\n"), data.rfind(b"\r")) + 1
            rest = data[cut:] + held
            if cut:
                block = Block(self.lines + 1, data[:cut])
                self.lines += count_lines(block.data)
                yield block

    def _read_start(self) -> bytes:
        start = self._read_fully(_LONGEST_MARK)
        if start.startswith(_OTHER_MARKS):
            raise PermanentError("unsupported_encoding", "The file is in UTF-16 or UTF-32. Only UTF-8 is read.")
        return start.removeprefix(_UTF8_MARK)

    def _read_fully(self, size: int) -> bytes:
        parts = []
        while size and (part := self._read(size)):
            parts.append(part)
            size -= len(part)
            self.bytes += len(part)
        return b"".join(parts)


def count_lines(data: bytes) -> int:
    """Return how many lines there are; the last one counts also without its end."""
    ends = int(np.count_nonzero(np.frombuffer(data, np.uint8) == ord("\n")))
    if b"\r" in data:
        ends += data.count(b"\r") - data.count(b"\r\n")
    return ends + (not data.endswith((b"\n", b"\r")))


def is_utf8(data: bytes) -> bool:
    """Return whether the bytes are UTF-8."""
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _first_line_bytes(data: bytes) -> int:
    newline = data.find(b"\n")
    end = newline if newline >= 0 else len(data)
    carriage_return = data.find(b"\r", 0, end)
    return carriage_return if carriage_return >= 0 else end


def _after_first_line(data: bytes) -> int:
    """Return where the second line begins; 0 if there is no end of the first."""
    end = _first_line_bytes(data)
    return 0 if end == len(data) else end + (2 if data.startswith(b"\r\n", end) else 1)
