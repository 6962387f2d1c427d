"""Tells what a value is by the way it is written, and gives it a hash."""

import hashlib
from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from execution_service.handlers.large_files import numbers
from execution_service.handlers.large_files.cells import Cells
from execution_service.handlers.large_files.packed import (
    MULTIPLIER,
    WORD,
    Buffer,
    Floats,
    Indices,
    Mask,
    Words,
    mix,
    repeated,
    word_of,
    words_at,
)


class Kind(IntEnum):
    """What a value is; the names are those of the result's fields."""

    TEXT = 0
    INTEGER = 1
    DECIMAL = 2
    BOOLEAN = 3
    DATE = 4
    NESTED = 5


class Kinds(NamedTuple):
    """The kind of each cell; `numbers` are the positions of those that are numbers, `values` their values."""

    kinds: NDArray[np.uint8]
    numbers: Indices
    values: Floats


# Forms of ISO 8601 and RFC 3339 dates, alone or with a time; every 0 is any digit.
_TIMES = ("00:00", "00:00:00", "00:00:00Z", "00:00:00.000", "00:00:00.000Z", "00:00:00.000000", "00:00:00+00:00")
_DATES = ("0000-00-00", *(f"0000-00-00{gap}{time}" for time in _TIMES for gap in "T "))
_NUMBER_STARTS = np.isin(np.arange(256), list(b"0123456789.+-"))
_SMALL = repeated(0x20)
_HIGH_BITS = repeated(0x80)
_TRUE = word_of(b"true") | _SMALL
_FALSE = word_of(b"false") | _SMALL
# Longer values are hashed one by one, which costs less than a step over all for each of their words.
_PACKED_BYTES_MAX = 64
_32 = np.uint64(32)


def kinds_of(cells: Cells) -> Kinds:
    """Return the kind of each cell."""
    buffer, starts, lengths = cells.buffer, cells.starts, cells.lengths
    kinds = np.full(len(starts), Kind.TEXT, np.uint8)
    bare = np.ones(len(starts), np.bool_) if cells.quoted is None else ~cells.quoted
    first = buffer[starts]
    dashed = np.flatnonzero((lengths >= len(_DATES[0])) & (buffer[starts + 4] == ord("-")))
    for form in _DATES:
        which = dashed[lengths[dashed] == len(form)]
        if len(which):
            kinds[which[_has_form(buffer, starts[which], form)]] = Kind.DATE
    for word, size in ((_TRUE, 4), (_FALSE, 5)):
        which = np.flatnonzero((lengths == size) & bare)
        kinds[which[words_at(buffer, starts[which], lengths[which]) | _SMALL == word]] = Kind.BOOLEAN
    if cells.quoted is not None:
        kinds[bare & ((first == ord("[")) | (first == ord("{")))] = Kind.NESTED
    which = np.flatnonzero(_NUMBER_STARTS[first] & bare & (kinds == Kind.TEXT) & (lengths <= numbers.NUMBER_BYTES_MAX))
    found, values, whole = numbers.parse(buffer, starts[which], lengths[which])
    kinds[which[found]] = np.where(whole[found], np.uint8(Kind.INTEGER), np.uint8(Kind.DECIMAL))
    return Kinds(kinds, which[found], values[found])


def hashes_of(cells: Cells) -> Words:
    """Return a 64-bit hash of each cell: the same on any machine, different for text and what only looks like it."""
    lengths = cells.lengths
    hashes = lengths.astype(np.uint64) * MULTIPLIER
    if cells.quoted is not None:
        hashes ^= cells.quoted
    hashes = _absorb(hashes, words_at(cells.buffer, cells.starts, lengths))
    which = np.flatnonzero((lengths > WORD) & (lengths <= _PACKED_BYTES_MAX))
    for offset in range(WORD, _PACKED_BYTES_MAX, WORD):
        which = which[lengths[which] > offset]
        words = words_at(cells.buffer, cells.starts[which] + offset, lengths[which] - offset)
        hashes[which] = _absorb(hashes[which], words)
    for index in np.flatnonzero(lengths > _PACKED_BYTES_MAX).tolist():
        piece = cells.buffer[cells.starts[index] : cells.starts[index] + lengths[index]]
        hashes[index] ^= word_of(hashlib.blake2b(piece.tobytes(), digest_size=WORD).digest())
    return mix(hashes)


def _absorb(hashes: Words, words: Words) -> Words:
    mixed = (hashes ^ words) * MULTIPLIER
    return mixed ^ mixed >> _32


def _has_form(buffer: Buffer, starts: Indices, form: str) -> Mask:
    """Return which pieces, all as long as the form, have its signs, and digits where it has a 0."""
    matching = np.ones(len(starts), np.bool_)
    for offset in range(0, len(form), WORD):
        part = form[offset : offset + WORD].encode()
        differences = words_at(buffer, starts + offset, np.full(len(starts), len(part))) ^ word_of(part)
        # A difference of up to 9 from a 0 is a digit; from another sign there may be none.
        limits = word_of(bytes(0x80 - (10 if sign == ord("0") else 1) for sign in part))
        matching &= ((differences + limits | differences) & _HIGH_BITS) == 0
    return matching
