"""Takes a block of CSV apart with numpy, all of it at once, if its quotes are where RFC 4180 has them."""

from typing import NamedTuple

import numpy as np

from execution_service.handlers.large_files.packed import MARGIN, Buffer, Indices, Mask, buffer_of

_NEWLINE, _RETURN, _QUOTE = b'\n\r"'


class Records(NamedTuple):
    """The values of some records as pieces of one buffer, one after the other, without their quotes.

    For each record: how many values it has, on which line it begins (counted from 0), and whether it is a blank line.
    """

    buffer: Buffer
    starts: Indices
    lengths: Indices
    counts: Indices
    lines: Indices
    blank: Mask


def split(data: bytes, delimiter: str) -> Records | None:
    """Return the records of a block that begins with a record; None if that takes a closer look.

    It does where a record goes on behind the block, a quote stands inside of a value that is not quoted, something
    follows a closing quote, or a CR alone ends a line.
    """
    buffer = buffer_of(data if data.endswith(b"\n") else data + b"\n")
    is_newline, is_quote = buffer == _NEWLINE, buffer == _QUOTE
    returns = b"\r" in data
    if returns and np.any((buffer[:-1] == _RETURN) & ~is_newline[1:]):
        return None
    separates = (buffer == ord(delimiter)) | is_newline
    # Quotes inside of a quoted value are doubled: a value that closes, and opens again at once.
    quotes = np.flatnonzero(is_quote)
    opening, closing = quotes[::2], quotes[1::2]
    if len(quotes):
        before = separates | is_quote
        before[: len(MARGIN)] = True
        after = before | (buffer == _RETURN)
        if len(opening) != len(closing) or not before[opening - 1].all() or not after[closing + 1].all():
            return None
        separates &= np.cumsum(is_quote, dtype=np.uint8) % 2 == 0

    ends = np.flatnonzero(separates)
    starts = np.concatenate(([len(MARGIN)], ends[:-1] + 1))
    lasts = np.flatnonzero(is_newline[ends])
    if returns:
        ends[lasts] -= buffer[ends[lasts] - 1] == _RETURN
    counts = np.diff(lasts, prepend=-1)
    firsts = lasts - counts + 1
    blank = (counts == 1) & (starts[lasts] == ends[lasts])
    lines = np.arange(len(counts))
    if len(quotes):
        lines = np.searchsorted(np.flatnonzero(is_newline), starts[firsts])
        quoted = is_quote[starts]
        starts += quoted
        ends -= quoted
        buffer = _drop(buffer, opening[is_quote[opening - 1]], starts, ends)
    return Records(buffer, starts, ends - starts, counts, lines, blank)


def _drop(buffer: Buffer, dropped: Indices, starts: Indices, ends: Indices) -> Buffer:
    """Return the buffer without the bytes at some positions; starts and ends are moved in place."""
    if not len(dropped):
        return buffer
    kept = np.ones(len(buffer), np.bool_)
    kept[dropped] = False
    before = np.cumsum(~kept, dtype=np.intp)
    starts -= before[starts - 1]
    ends -= before[ends - 1]
    return buffer[kept]
