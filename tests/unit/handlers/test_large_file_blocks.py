"""Blocks are whole lines; joined they are the file, wherever the stream or the blocks are cut."""

import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from execution_service.handlers.large_files.blocks import LINE_BYTES_MAX, Block, BlockReader, LongLine, count_lines
from headrace.tasks import PermanentError

_texts = st.lists(st.sampled_from([b"a", b"bc", b"\n", b"\r", b"\r\n"])).map(b"".join)
_LINE = re.compile(rb"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")


class _Dripping:
    """A stream that gives only some of what it is asked for."""

    def __init__(self, content: bytes, sizes: list[int]) -> None:
        self._stream = io.BytesIO(content)
        self._sizes = iter(sizes * len(content))

    def read(self, size: int) -> bytes:
        return self._stream.read(min(size, next(self._sizes, size)))


@given(_texts, st.integers(1, 12))
def test_blocks_are_whole_lines_with_the_numbers_of_their_first(text: bytes, block_bytes: int) -> None:
    reader = BlockReader(io.BytesIO(text).read, block_bytes=block_bytes)
    lines = 0
    joined = b""
    for block in reader:
        assert isinstance(block, Block)
        assert block.first_line == lines + 1
        lines += len(_LINE.findall(block.data))
        joined += block.data
        assert block.data.endswith((b"\r", b"\n")) or joined == text
    assert joined == text
    assert (reader.bytes, reader.lines) == (len(text), len(_LINE.findall(text)))


@given(_texts, st.integers(1, 12), st.lists(st.integers(1, 5), min_size=1))
def test_the_way_in_which_the_stream_gives_its_bytes_makes_no_difference(
    text: bytes, block_bytes: int, sizes: list[int]
) -> None:
    whole = list(BlockReader(io.BytesIO(text).read, block_bytes=block_bytes))
    assert list(BlockReader(_Dripping(text, sizes).read, block_bytes=block_bytes)) == whole


@given(_texts.filter(bool))
def test_lines_are_counted_as_they_are_split(text: bytes) -> None:
    assert count_lines(text) == len(text.splitlines())


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"], ids=["LF", "CRLF", "CR"])
@pytest.mark.parametrize("block_bytes", [10_000, 500_000])
def test_t57_a_long_line_is_skipped_and_the_next_is_not(end: bytes, block_bytes: int) -> None:
    longest, too_long = b"a" * LINE_BYTES_MAX, b"b" * (LINE_BYTES_MAX + 1)
    lines = [b"1", longest, too_long, b"4", b"c" * 3_000_000, b"", b"7", too_long]
    reader = BlockReader(io.BytesIO(end.join(lines)).read, block_bytes=block_bytes)
    blocks = list(reader)
    assert [item.number for item in blocks if isinstance(item, LongLine)] == [3, 5, 8]
    assert reader.lines == 8
    kept = b"".join(item.data for item in blocks if isinstance(item, Block))
    assert kept == end.join([b"1", longest, b"4", b"", b"7", b""])
    assert {item.first_line for item in blocks if isinstance(item, Block)} <= {1, 2, 4, 6, 7}


def test_a_byte_order_mark_of_utf8_belongs_to_no_line() -> None:
    assert list(BlockReader(io.BytesIO(b"\xef\xbb\xbfa\n").read)) == [Block(1, b"a\n")]
    assert list(BlockReader(io.BytesIO(b"\xef\xbb\xbf").read)) == []


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-32", "utf-32-be"])
def test_a_byte_order_mark_of_another_encoding_ends_the_task(encoding: str) -> None:
    content = ("a,b\n" if encoding in ("utf-16", "utf-32") else "\ufeffa,b\n").encode(encoding)
    with pytest.raises(PermanentError) as refused:
        list(BlockReader(io.BytesIO(content).read))
    assert refused.value.code == "unsupported_encoding"
