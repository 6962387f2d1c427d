"""Text as numpy sees it here: many short pieces of one buffer, read eight bytes at a time.

A *word* is eight bytes of the buffer as one number, the first byte its lowest; what does not belong to the piece is
zero. With it a few operations on numbers do for all pieces what a loop over characters would do for one.
"""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Buffer: TypeAlias = NDArray[np.uint8]
Words: TypeAlias = NDArray[np.uint64]
Indices: TypeAlias = NDArray[np.intp]
Mask: TypeAlias = NDArray[np.bool_]
Floats: TypeAlias = NDArray[np.float64]

WORD = 8
# Zeros before and after the text of a buffer, so that up to four words may reach beyond its ends.
MARGIN = bytes(4 * WORD)
# 2^64 divided by the golden ratio.
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.array([2 ** (8 * count) - 1 for count in range(WORD + 1)], np.uint64)
_LAST = _FIRST[-1] ^ _FIRST[::-1]


def buffer_of(text: bytes) -> Buffer:
    """Return a buffer with the text between its margins."""
    return np.frombuffer(b"".join((MARGIN, text, MARGIN)), np.uint8)


def words_at(buffer: Buffer, starts: Indices, lengths: Indices) -> Words:
    """Return the word that begins with each piece."""
    return _words(buffer)[starts] & _FIRST[np.minimum(lengths, WORD)]


def words_before(buffer: Buffer, ends: Indices, lengths: Indices, *, flip: np.uint64) -> Words:
    """Return the word that ends with each piece, its bits in `flip` turned over; of pieces below 1 byte nothing."""
    words: Words = (_words(buffer)[ends - WORD] ^ flip) & _LAST[np.clip(lengths, 0, WORD)]
    return words


def word_of(text: bytes) -> np.uint64:
    """Return the word of one text of up to eight bytes."""
    return np.uint64(int.from_bytes(text, "little"))


def repeated(byte: int) -> np.uint64:
    """Return the word of eight times that byte."""
    return word_of(bytes([byte]) * WORD)


def mix(words: Words) -> Words:
    """Return words of which each bit depends on all bits (the finaliser of G. L. Steele, D. Lea and C. H. Flood, "Fast
    Splittable Pseudorandom Number Generators", OOPSLA 2014)."""
    words = (words ^ words >> _30) * _MIX_1
    words = (words ^ words >> _27) * _MIX_2
    return words ^ words >> _31


_30, _27, _31 = np.uint64(30), np.uint64(27), np.uint64(31)
_MIX_1, _MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def _words(buffer: Buffer) -> Words:
    """Return the words at all positions of the buffer: a view, whose items overlap."""
    return np.ndarray((len(buffer) - WORD + 1,), "<u8", buffer, strides=(1,))
