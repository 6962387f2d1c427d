"""Finds the values in JSON lines: an object on each line, whose members are the columns.

Values are kept as they are written; only strings with escapes are decoded. A member that is null is missing.
"""

from collections.abc import Iterator
from itertools import chain

import msgspec
import numpy as np

from execution_service.handlers.large_files.blocks import Block, LongLine, is_utf8
from execution_service.handlers.large_files.cells import Batch, Cells, pack
from execution_service.handlers.large_files.line_errors import LineErrors
from execution_service.handlers.large_files.models import COLUMN_NAME_MAX, COLUMNS_MAX, LineErrorCode
from execution_service.handlers.large_files.packed import word_of, words_at

# Checks that all is JSON, and leaves each value as it is written.
_decode_record = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_string = msgspec.json.Decoder(str).decode
_NULL = word_of(b"null")


class JsonRows:
    """Iterates over batches of rows. `names` grows with the members that are met for the first time."""

    delimiter = None

    def __init__(self, blocks: Iterator[Block | LongLine], errors: LineErrors) -> None:
        self._columns: dict[str, list[msgspec.Raw]] = {}
        self._blocks = blocks
        self._errors = errors

    @property
    def names(self) -> list[str]:
        return list(self._columns)

    def __iter__(self) -> Iterator[Batch]:
        for block in self._blocks:
            if isinstance(block, LongLine):
                self._errors.add_long_line(block.number)
            else:
                rows = self._collect(block)
                yield Batch(rows, self._take_cells())

    def _collect(self, block: Block) -> int:
        """Put the values of a block into lists, one for each column; return the number of records."""
        rows = 0
        columns = self._columns
        suspect = not is_utf8(block.data)
        for number, line in enumerate(block.data.splitlines(), block.first_line):
            if suspect and not is_utf8(line):
                self._errors.add(number, LineErrorCode.INVALID_UTF8, "the line is not in UTF-8")
            elif line and not line.isspace():
                try:
                    record = _decode_record(line)
                except (ValueError, RecursionError) as error:
                    self._errors.add(number, LineErrorCode.INVALID_JSON, f"the line is no JSON object: {error}")
                    continue
                if record.keys() <= columns.keys() or self._learn(record, number):
                    rows += 1
                    for name, value in record.items():
                        columns[name].append(value)
        return rows

    def _learn(self, record: dict[str, msgspec.Raw], line: int) -> bool:
        """Add the columns that a record brings; return False if they cannot be added."""
        new = [name for name in record if name not in self._columns]
        if any(len(name) > COLUMN_NAME_MAX or "\0" in name for name in new):
            message = f"a name has more than {COLUMN_NAME_MAX} characters, or a NUL character"
            self._errors.add(line, LineErrorCode.INVALID_NAME, message)
            return False
        if len(self._columns) + len(new) > COLUMNS_MAX:
            message = f"with this record there would be more than {COLUMNS_MAX} columns"
            self._errors.add(line, LineErrorCode.TOO_MANY_COLUMNS, message)
            return False
        self._columns |= {name: [] for name in new}
        return True

    def _take_cells(self) -> Cells:
        """Pack the values that were collected, and empty the lists."""
        counts = [len(values) for values in self._columns.values()]
        texts = list(map(bytes, chain.from_iterable(self._columns.values())))
        for values in self._columns.values():
            values.clear()
        buffer, starts, lengths = pack(texts)
        if (buffer == ord("\\")).any():
            buffer, starts, lengths = pack(list(map(_without_escapes, texts)))
        quoted = buffer[starts] == ord('"')
        cells = Cells(buffer, starts + quoted, lengths - 2 * quoted, np.repeat(np.arange(len(counts)), counts), quoted)
        null = ~quoted & (lengths == 4) & (words_at(buffer, starts, lengths) == _NULL)
        return cells.where(~null)


def _without_escapes(text: bytes) -> bytes:
    """Return a string without its escapes, still between quotes; anything else as it is."""
    return b'"%b"' % _decode_string(text).encode() if text.startswith(b'"') and b"\\" in text else text
