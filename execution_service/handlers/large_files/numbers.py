"""Reads decimal numbers out of text, many at once.

Up to 16 characters without an exponent are two words, of which all bytes are worked on at a time (L. Lamport,
"Multiple Byte Processing with Full-Word Instructions", CACM 18, 1975): three multiplications each make digits a
number. If it is at most 2^53, one division by a power of ten rounds correctly (W. D. Clinger, "How to Read Floating
Point Numbers Accurately", PLDI 1990). Everything else is left to numpy's and Python's `float`.
"""

import math
from typing import NamedTuple

import numpy as np

from execution_service.handlers.large_files.packed import (
    MARGIN,
    WORD,
    Buffer,
    Floats,
    Indices,
    Mask,
    Words,
    repeated,
    words_at,
    words_before,
)

# What is longer than this is text.
NUMBER_BYTES_MAX = len(MARGIN)
# The squares of numbers up to this can be summed up, however many there are. Larger ones are text.
MAGNITUDE_MAX = 1e140

# By these `float` is held to the form that is described below; zero is what fills the text up.
_IN_NUMBERS = np.isin(np.arange(256), list(b"\0+-.0123456789Ee"))
_IN_FRACTIONS = np.isin(np.arange(256), list(b".Ee"))
_EXACT_MAX = 2**53
_TEN_TO_EIGHT = np.uint64(10**8)
_TENS = 10.0 ** np.arange(2 * WORD)

# Turned over by the bits of "0", digits are their values, and a word of nothing is one of zeros.
_ZERO = repeated(ord("0"))
_POINT = repeated(ord(".") ^ ord("0"))
_SMALL = repeated(0x20)
_EXPONENT = repeated((ord("e") ^ ord("0")) | 0x20)
_ALL = repeated(0xFF)
_NONE = np.uint64(0)
_1, _8, _16, _32, _56 = map(np.uint64, (1, 8, 16, 32, 56))
_LOW_BITS = repeated(0x7F)
_HIGH_BITS = repeated(0x80)
_TEN_TO_HIGH_BIT = repeated(0x80 - 10)


class Numbers(NamedTuple):
    """For each piece of text: whether it is a number, its value then, and whether it is written with digits alone."""

    found: Mask
    values: Floats
    whole: Mask


def parse(buffer: Buffer, starts: Indices, lengths: Indices) -> Numbers:
    """Read pieces of text as numbers: a sign, digits with a point before, in or after them, an exponent."""
    ends = starts + lengths
    first = buffer[starts]
    negative = first == ord("-")
    unsigned = lengths - (negative | (first == ord("+")))
    high = words_before(buffer, ends - WORD, unsigned - WORD, flip=_ZERO)
    low = words_before(buffer, ends, unsigned, flip=_ZERO)
    others = (lengths > 2 * WORD) | _has_exponent(high) | _has_exponent(low)

    high, low, points, decimals = _without_point(high, low)
    found = _are_digits(high) & _are_digits(low) & (points <= 1) & (unsigned > points) & ~others
    mantissas = _eight_digits(high) * _TEN_TO_EIGHT + _eight_digits(low)
    values = mantissas / _TENS[decimals]
    values[negative] *= -1
    numbers = Numbers(found, values, points == 0)
    others |= found & (mantissas > _EXACT_MAX)
    if others.any():
        _parse_others(numbers, buffer, starts, lengths, np.flatnonzero(others))
    return numbers


def _without_point(high: Words, low: Words) -> tuple[Words, Words, Indices, Indices]:
    """Close the gap that the point leaves between digits; return how many points there were and digits after it."""
    in_high, in_low = _zero_bytes(high ^ _POINT), _zero_bytes(low ^ _POINT)
    after_low = np.where(in_low, np.negative(in_low << _1), _ALL)
    after_high = np.where(in_low, _NONE, np.where(in_high, np.negative(in_high << _1), _ALL))
    moved = low << _8 | high >> _56
    points = np.bitwise_count(in_high).astype(np.intp) + np.bitwise_count(in_low)
    # Without a point all 16 bytes are after it.
    decimals = (np.bitwise_count(after_high).astype(np.intp) + np.bitwise_count(after_low)) // 8 % (2 * WORD)
    return high & after_high | high << _8 & ~after_high, low & after_low | moved & ~after_low, points, decimals


def _has_exponent(words: Words) -> Mask:
    found: Mask = _zero_bytes((words | _SMALL) ^ _EXPONENT) != _NONE
    return found


def _are_digits(words: Words) -> Mask:
    found: Mask = ((words + _TEN_TO_HIGH_BIT | words) & _HIGH_BITS) == _NONE
    return found


def _zero_bytes(words: Words) -> Words:
    """Return words with the highest bit set in every byte that is zero, and no other bit."""
    return ~((words & _LOW_BITS) + _LOW_BITS | words | _LOW_BITS)


def _eight_digits(words: Words) -> Words:
    """Return the number that eight digits are: neighbours are joined to pairs, these to fours, these to eight."""
    pairs = words * _JOIN_DIGITS >> _8 & _PAIRS
    fours = pairs * _JOIN_PAIRS >> _16 & _FOURS
    return fours * _JOIN_FOURS >> _32


_JOIN_DIGITS, _PAIRS = np.uint64(10 * 2**8 + 1), np.uint64(0x00FF00FF00FF00FF)
_JOIN_PAIRS, _FOURS = np.uint64(100 * 2**16 + 1), np.uint64(0x0000FFFF0000FFFF)
_JOIN_FOURS = np.uint64(10_000 * 2**32 + 1)


def _parse_others(numbers: Numbers, buffer: Buffer, starts: Indices, lengths: Indices, which: Indices) -> None:
    which = which[lengths[which] <= NUMBER_BYTES_MAX]
    starts, lengths = starts[which], lengths[which]
    offsets = range(0, NUMBER_BYTES_MAX, WORD)
    words = [words_at(buffer, starts + offset, np.maximum(lengths - offset, 0)) for offset in offsets]
    # The words of a piece in a row are its text again, filled up with zeros.
    texts = np.stack(words, axis=1).view(f"S{NUMBER_BYTES_MAX}").ravel()
    characters = texts.view(np.uint8).reshape(len(texts), NUMBER_BYTES_MAX)
    possible = _IN_NUMBERS[characters].all(axis=1)
    which, texts, characters = which[possible], texts[possible], characters[possible]
    try:
        values = texts.astype(np.float64)
    except ValueError:
        values = np.array([_float(text) for text in texts.tolist()])
    numbers.values[which] = values
    numbers.found[which] = np.abs(values) <= MAGNITUDE_MAX
    numbers.whole[which] = ~_IN_FRACTIONS[characters].any(axis=1)


def _float(text: bytes) -> float:
    try:
        return float(text)
    except ValueError:
        return math.inf
