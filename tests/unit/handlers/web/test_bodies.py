"""Answers are taken in whole, or not at all, and never beyond the limit."""

import gzip
import itertools
import tracemalloc
from collections.abc import AsyncIterator, Sequence
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from execution_service.handlers.web.bodies import BODY_BYTES_MAX, Headers, read_body, read_model, reason_in
from headrace.tasks import CodedError

_GZIP = [(b"Content-Encoding", b"gzip")]


async def _in_chunks(chunks: Sequence[bytes]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def _code(headers: Headers, chunks: Sequence[bytes]) -> str:
    with pytest.raises(CodedError) as refused:
        await read_body(headers, _in_chunks(chunks))
    return refused.value.code


@given(st.binary(max_size=2000), st.lists(st.integers(0, 2000), max_size=6), st.booleans())
async def test_it_does_not_matter_how_an_answer_is_cut(content: bytes, cuts: list[int], packed: bool) -> None:
    sent = gzip.compress(content) if packed else content
    ends = [0, *sorted(min(cut, len(sent)) for cut in cuts), len(sent)]
    chunks = [sent[start:end] for start, end in itertools.pairwise(ends)]
    assert await read_body(_GZIP if packed else [], _in_chunks(chunks)) == content


@pytest.mark.parametrize("packed", [False, True])
async def test_the_limit_is_exact(packed: bool) -> None:
    content = bytes(BODY_BYTES_MAX)
    headers = _GZIP if packed else []
    sent, beyond = ((gzip.compress(text) if packed else text) for text in (content, content + b"\0"))
    assert await read_body(headers, _in_chunks([sent])) == content
    assert await _code(headers, [beyond]) == "response_too_large"


async def test_an_announced_length_beyond_the_limit_is_refused_before_anything_is_read() -> None:
    async def never() -> AsyncIterator[bytes]:
        raise AssertionError("it was read")
        yield b""

    with pytest.raises(CodedError, match="more than"):
        await read_body([(b"Content-Length", b"2097153")], never())


async def test_a_bomb_is_not_unpacked() -> None:
    bomb = gzip.compress(bytes(64 * 1024 * 1024), 1)
    assert len(bomb) < BODY_BYTES_MAX
    tracemalloc.start()
    assert await _code(_GZIP, [bomb]) == "response_too_large"
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * BODY_BYTES_MAX


async def test_packed_bytes_count_as_well() -> None:
    # Nothing comes out of what follows the end, but it must not be read for ever.
    endless = [gzip.compress(b"{}"), *[bytes(64 * 1024)] * 40]
    assert await _code(_GZIP, endless) == "response_too_large"


@pytest.mark.parametrize("coding", [b"br", b"deflate", b"zstd", b"gzip, gzip", b"gzip, identity", b"x"])
async def test_only_gzip_is_unpacked_and_only_once(coding: bytes) -> None:
    assert await _code([(b"content-encoding", coding)], [gzip.compress(b"{}")]) == "malformed_response"


class _Number(BaseModel):
    number: Decimal


def test_numbers_come_as_they_were_written() -> None:
    found = read_model(_Number, b'{"number": 1.10000000000000000000000000001}').number
    assert str(found) == "1.10000000000000000000000000001"


def test_what_is_wrong_is_named_but_not_quoted() -> None:
    with pytest.raises(CodedError) as refused:
        read_model(_Number, b'{"number": "secret"}')
    assert str(refused.value).endswith("It is wrong at /number.")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'{"error":true,"reason":"Latitude must be in range."}', "Latitude must be in range"),
        (b'{"message":"not found"}', "not found"),
        (b'{"message":"a\\nb\\u0000c\\ud800"}', "abc"),
        (b'{"message":"' + b"x" * 500 + b'"}', "x" * 100),
        (b'{"message":5}', ""),
        (b"[]", ""),
        (b"<html>", ""),
        (b"\xff", ""),
        (b"[" * 100_000, ""),
    ],
)
def test_the_reason_of_a_refusal_is_passed_on_if_it_is_text(body: bytes, reason: str) -> None:
    assert reason_in(body) == reason
