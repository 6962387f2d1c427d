"""Makes files of records out of a seed: the same bytes for the same seed, on any machine, whatever numpy's version.

All random choices are hashes of the seed, the column and the row. A block of rows is one array of characters, in which
each value has the room of the longest; the room that is left is then taken out.
"""

import functools
import json
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from itertools import count
from typing import NamedTuple

import numpy as np

from execution_service.handlers.large_files.models import (
    GENERATED_BYTES_MAX,
    FileFormat,
    GeneratedFile,
    GeneratedKind,
)
from execution_service.handlers.large_files.packed import MULTIPLIER, Buffer, Words, mix
from headrace.tasks import PermanentError

_BLOCK_ROWS = 8192
# More than there may be columns.
_SEEDS_APART = 64
_CHOICE_BITS = 40

_WORDS = ("bucket", "dam", "flour", "gear", "grain", "mill", "millstone", "pond", "race", "rye", "sack", "wheel")
_PHRASES = ('the "old" wheel, repaired', "rye, wheat and oats", 'called "the race"', "left, then right")
_FIRST_DATE = date(2000, 1, 1)
_DATES = 10_000


class Part(NamedTuple):
    """Some bytes of the file, and how much of it is made with them, from 0 to 1."""

    text: bytes
    fraction: float


def generate(wanted: GeneratedFile, file_format: FileFormat) -> Iterator[Part]:
    """Yield the file in parts. PermanentError `cost_too_high` before the first, if it could become too large."""
    rows_max = wanted.rows if wanted.rows is not None else GENERATED_BYTES_MAX
    bytes_max = wanted.bytes if wanted.bytes is not None else GENERATED_BYTES_MAX
    width = _rows(wanted, file_format, 0, 1).shape[1]
    if wanted.rows is not None and wanted.rows * width > GENERATED_BYTES_MAX:
        raise PermanentError(
            "cost_too_high",
            f"{wanted.rows} rows of up to {width} bytes are more than {GENERATED_BYTES_MAX} bytes.",
        )
    made = 0
    for first in count(0, _BLOCK_ROWS):
        block = _rows(wanted, file_format, first, min(first + _BLOCK_ROWS, rows_max)).ravel()
        text = block[block != 0].tobytes()
        if first == 0 and file_format is FileFormat.CSV:
            text = ",".join(_names(wanted)).encode() + b"\n" + text
        if made + len(text) > bytes_max:
            yield Part(text[: text.rfind(b"\n", 0, bytes_max - made) + 1], 1.0)
            return
        made += len(text)
        yield Part(text, max(min(first + _BLOCK_ROWS, rows_max) / rows_max, made / bytes_max))
        if first + _BLOCK_ROWS >= rows_max:
            return


def _names(wanted: GeneratedFile) -> list[str]:
    return [f"{kind}_{number}" for number, kind in enumerate(wanted.columns, 1)]


def _rows(wanted: GeneratedFile, file_format: FileFormat, first: int, end: int) -> Buffer:
    """Return rows as an array of characters, zero where there is none."""
    numbers = np.arange(first, end, dtype=np.uint64)
    is_json = file_format is FileFormat.JSON_LINES
    parts = []
    for column, (name, kind) in enumerate(zip(_names(wanted), wanted.columns, strict=True)):
        key = mix(np.array([wanted.seed * _SEEDS_APART + column], np.uint64))
        random = mix(numbers * MULTIPLIER ^ key)
        values = _values(kind, random % 2**_CHOICE_BITS, file_format)
        empty = random >> _CHOICE_BITS < int(wanted.missing * 2 ** (64 - _CHOICE_BITS))
        values[empty] = _row("null" if is_json else "", values.shape[1])
        before = f'{"," if column else "{"}"{name}":' if is_json else "," if column else ""
        parts += [_repeated(before, len(numbers)), values]
    parts.append(_repeated("}\n" if is_json else "\n", len(numbers)))
    return np.concatenate(parts, axis=1)


def _values(kind: GeneratedKind, random: Words, file_format: FileFormat) -> Buffer:
    if kind is GeneratedKind.INTEGER:
        # The last digit stays also if it is the only one and 0.
        return _six_digits(random % 10**6, kept_from=5)
    if kind is GeneratedKind.DECIMAL:
        return np.insert(_six_digits(random % 10**6, kept_from=3), 4, ord("."), axis=1)
    table = _table(kind, file_format)
    return table[random % len(table)]


def _six_digits(values: Words, *, kept_from: int) -> Buffer:
    """Return numbers below a million as six characters, leading zeros taken out up to the digit `kept_from`."""
    groups = _digit_groups()
    digits = np.concatenate((groups[values // 1000], groups[values % 1000]), axis=1)
    smallest = np.array([10 ** (5 - place) if place < kept_from else 0 for place in range(6)], np.uint64)
    digits[values[:, np.newaxis] < smallest] = 0
    return digits


@functools.cache
def _digit_groups() -> Buffer:
    return _matrix([f"{number:03d}" for number in range(1000)])


@functools.cache
def _table(kind: GeneratedKind, file_format: FileFormat) -> Buffer:
    """Return the values that a column of that kind chooses from, as they are written in the format."""
    if kind is GeneratedKind.BOOLEAN:
        return _matrix(["true", "false"])
    values: dict[GeneratedKind, Callable[[], list[str]]] = {
        GeneratedKind.WORD: lambda: list(_WORDS),
        GeneratedKind.PHRASE: lambda: list(_PHRASES),
        GeneratedKind.DATE: lambda: [(_FIRST_DATE + timedelta(days)).isoformat() for days in range(_DATES)],
    }
    texts = values[kind]()
    if file_format is FileFormat.JSON_LINES:
        return _matrix([json.dumps(text) for text in texts])
    return _matrix(['"' + text.replace('"', '""') + '"' if "," in text or '"' in text else text for text in texts])


def _matrix(texts: list[str]) -> Buffer:
    width = max(map(len, texts))
    return np.stack([_row(text, width) for text in texts])


def _row(text: str, width: int) -> Buffer:
    return np.frombuffer(text.encode().ljust(width, b"\0"), np.uint8)


def _repeated(text: str, times: int) -> Buffer:
    return np.broadcast_to(_row(text, len(text)), (times, len(text)))
