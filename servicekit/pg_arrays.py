"""Whole columns as single parameters: a Python sequence becomes one array in PostgreSQL's binary format.

    conn.execute("INSERT … SELECT * FROM unnest(%(ids)s, %(results)s)", {"ids": int8_array(ids), …})

psycopg dumps a list item by item; here one `struct.pack` does it. For 1,000 items that is 5 to 50 times faster than a
list behind `%s` and 2 to 10 times faster than one behind `%b` (datetimes excepted: they cost most before they are
packed). The parameter carries its type, so SQL needs no cast.
"""

import struct
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import ClassVar

import psycopg
from psycopg.adapt import Dumper
from psycopg.pq import Format

# Dimensions, whether NULLs may occur, type of the items, number of items, index of the first.
_HEADER = struct.Struct("!iiIii")
_LENGTH = struct.Struct("!i")
_NULL = _LENGTH.pack(-1)
_LENGTHS = [_LENGTH.pack(length) for length in range(8192)]
_TRUE, _FALSE = _LENGTH.pack(1) + b"\x01", _LENGTH.pack(1) + b"\x00"
# PostgreSQL counts from the year 2000.
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_EPOCH_UNIX_MICROS = 946_684_800_000_000
_MICROSECOND = timedelta(microseconds=1)


class PgArray(bytes):
    """An array in binary format, ready to be sent. Each subclass is one type of array."""

    item_oid: ClassVar[int]
    array_oid: ClassVar[int]


class Int2Array(PgArray):
    item_oid, array_oid = 21, 1005


class Int4Array(PgArray):
    item_oid, array_oid = 23, 1007


class Int8Array(PgArray):
    item_oid, array_oid = 20, 1016


class BoolArray(PgArray):
    item_oid, array_oid = 16, 1000


class ByteaArray(PgArray):
    item_oid, array_oid = 17, 1001


class TextArray(PgArray):
    item_oid, array_oid = 25, 1009


class TimestamptzArray(PgArray):
    item_oid, array_oid = 1184, 1185


def int2_array(values: Sequence[int | None]) -> Int2Array:
    return Int2Array(_integers(values, Int2Array.item_oid, "h", 2))


def int4_array(values: Sequence[int | None]) -> Int4Array:
    return Int4Array(_integers(values, Int4Array.item_oid, "i", 4))


def int8_array(values: Sequence[int | None]) -> Int8Array:
    return Int8Array(_integers(values, Int8Array.item_oid, "q", 8))


def bool_array(values: Sequence[bool | None]) -> BoolArray:
    items = [_NULL if value is None else _TRUE if value else _FALSE for value in values]
    return BoolArray(_header(BoolArray.item_oid, len(values)) + b"".join(items))


def bytea_array(values: Sequence[bytes | None]) -> ByteaArray:
    return ByteaArray(_header(ByteaArray.item_oid, len(values)) + _variable(values))


def text_array(values: Sequence[str | None]) -> TextArray:
    """Made for columns that repeat a few values, such as types and pools; others cost twice as much."""
    header = _header(TextArray.item_oid, len(values))
    distinct = set(values)
    if len(distinct) * 4 > len(values):
        return TextArray(header + _variable([None if value is None else value.encode() for value in values]))
    items = {value: _NULL if value is None else _item(value.encode()) for value in distinct}
    return TextArray(header + b"".join(map(items.__getitem__, values)))


def timestamptz_array(values: Sequence[datetime | None]) -> TimestamptzArray:
    """From aware datetimes."""
    micros = [None if value is None else (value - _EPOCH) // _MICROSECOND for value in values]
    return TimestamptzArray(_integers(micros, TimestamptzArray.item_oid, "q", 8))


def timestamptz_array_of_micros(values: Sequence[int | None]) -> TimestamptzArray:
    """From microseconds since 1970, as protobuf timestamps give them: four times cheaper than by way of datetimes."""
    micros = [None if value is None else value - _EPOCH_UNIX_MICROS for value in values]
    return TimestamptzArray(_integers(micros, TimestamptzArray.item_oid, "q", 8))


def _header(item_oid: int, count: int) -> bytes:
    """The start of an array; PostgreSQL lets the flag for NULLs be set where there are none."""
    return _HEADER.pack(1, 1, item_oid, count, 1)


def _integers(values: Sequence[int | None], item_oid: int, kind: str, size: int) -> bytes:
    """Pack all values at once, then spread their bytes to every (4 + size)th place, beside their lengths."""
    try:
        packed = struct.pack(f"!{len(values)}{kind}", *values)
    except struct.error:
        return _header(item_oid, len(values)) + _integers_one_by_one(values, kind, size)
    step = 4 + size
    items = bytearray(step * len(values))
    items[3::step] = bytes((size,)) * len(values)
    for place in range(size):
        items[4 + place :: step] = packed[place::size]
    return _header(item_oid, len(values)) + items


def _integers_one_by_one(values: Iterable[int | None], kind: str, size: int) -> bytes:
    """With NULLs among them; a value that is out of range fails here."""
    pack = struct.Struct(f"!i{kind}").pack
    return b"".join([_NULL if value is None else pack(size, value) for value in values])


def _variable(values: Sequence[bytes | None]) -> bytes:
    try:
        lengths: Iterable[bytes] = list(map(_LENGTHS.__getitem__, map(len, values)))  # type: ignore[arg-type]
    except (TypeError, IndexError):  # a NULL, or an item that is longer than the table
        return b"".join([_NULL if value is None else _item(value) for value in values])
    parts: list[bytes | None] = [None] * (2 * len(values))
    parts[0::2] = lengths
    parts[1::2] = values
    return b"".join(parts)  # type: ignore[arg-type]


def _item(value: bytes) -> bytes:
    return _LENGTH.pack(len(value)) + value


def _register(array: type[PgArray]) -> None:
    class ArrayDumper(Dumper):
        format = Format.BINARY
        oid = array.array_oid

        def dump(self, obj: PgArray) -> bytes:
            return obj

    psycopg.adapters.register_dumper(array, ArrayDumper)


for _array in (Int2Array, Int4Array, Int8Array, BoolArray, ByteaArray, TextArray, TimestamptzArray):
    _register(_array)
