"""Finds the values in CSV: records of RFC 4180, with any of the delimiters, line ends mixed, blank lines skipped.

Blocks are taken apart by numpy where that can be done; in the others Python's `csv` knows the rules. It gets them line
by line, and may draw lines out of the next block for a record that goes on there. Formulas (`=cmd()`) are text.
"""

import csv
import io
from collections.abc import Iterator
from itertools import islice

import numpy as np

from execution_service.handlers.large_files.blocks import LINE_BYTES_MAX, Block, LongLine, is_utf8
from execution_service.handlers.large_files.cells import Batch, batch_of_rows, pack
from execution_service.handlers.large_files.csv_split import Records, split
from execution_service.handlers.large_files.line_errors import LineErrors
from execution_service.handlers.large_files.models import COLUMN_NAME_MAX, COLUMNS_MAX, Delimiter, LineErrorCode
from headrace.tasks import PermanentError

_SNIFFED_LINES = 20


class LongRecordError(Exception):
    """A record goes on over more lines than are allowed."""


class CsvRows:
    """Iterates over batches of rows. `names` and `delimiter` are known with the first of them.

    PermanentError `too_many_columns`, or `invalid_header` if the first line cannot be read.
    """

    def __init__(
        self, blocks: Iterator[Block | LongLine], errors: LineErrors, *, delimiter: Delimiter, header: bool
    ) -> None:
        self.names: list[str] = []
        self.delimiter = delimiter
        self._header = header
        self._blocks = blocks
        self._errors = errors

    def __iter__(self) -> Iterator[Batch]:
        # A line is never longer than this, and so no value of a line is: the limit of `csv` would only be a second one.
        limit = csv.field_size_limit(LINE_BYTES_MAX)
        try:
            yield from self._batches()
        finally:
            csv.field_size_limit(limit)

    def _batches(self) -> Iterator[Batch]:
        lines = _Lines(self._blocks)
        for block in self._blocks:
            if isinstance(block, LongLine):
                self._refuse_without_names(f"it has more than {LINE_BYTES_MAX} bytes")
                self._errors.add_long_line(block.number)
                continue
            records = split(block.data, self.delimiter) if self.names and _is_clean(block.data) else None
            if records is None:
                lines.load(block)
                yield self._parse(lines)
            else:
                yield self._batch(records, block.first_line)

    def _batch(self, records: Records, first_line: int) -> Batch:
        """Take the values of the records that have as many as there are columns."""
        good = (records.counts == len(self.names)) & ~records.blank
        bad = np.flatnonzero(~good & ~records.blank)
        for line, count in zip(records.lines[bad].tolist(), records.counts[bad].tolist(), strict=True):
            self._refuse_count(first_line + line, count)
        starts, lengths = records.starts, records.lengths
        if not good.all():
            kept = np.repeat(good, records.counts)
            starts, lengths = starts[kept], lengths[kept]
        return batch_of_rows(records.buffer, starts, lengths, len(self.names))

    def _parse(self, lines: "_Lines") -> Batch:
        """Read whole records until one ends where a block ends."""
        if self.delimiter is Delimiter.AUTO:
            self.delimiter = sniff(lines.loaded)
        reader = csv.reader(lines, delimiter=self.delimiter, strict=True)
        texts: list[bytes] = []
        while lines.more:
            first_line = lines.begin_record()
            try:
                row = next(reader)
                values = [value.encode() for value in row]
            except csv.Error as error:
                self._refuse(first_line, LineErrorCode.BAD_QUOTES, f"{error}")
            except UnicodeEncodeError:
                self._refuse(first_line, LineErrorCode.INVALID_UTF8, "the record is not in UTF-8")
            except LongRecordError:
                message = f"the record has more than {LINE_BYTES_MAX} characters; a quote may be missing"
                self._refuse(first_line, LineErrorCode.RECORD_TOO_LONG, message)
            else:
                if lines.nul_seen and any(b"\0" in value for value in values):
                    self._refuse(first_line, LineErrorCode.NUL_CHARACTER, "the record holds a NUL character")
                elif not self.names and values and self._take_names(row):
                    continue
                elif len(values) == len(self.names):
                    texts += values
                elif values:
                    self._refuse_count(first_line, len(values))
        return batch_of_rows(*pack(texts), len(self.names) or 1)

    def _take_names(self, row: list[str]) -> bool:
        """Name the columns by the first row; return whether it was a header."""
        if len(row) > COLUMNS_MAX:
            raise PermanentError("too_many_columns", f"The first line has {len(row)} columns, above {COLUMNS_MAX}.")
        if self._header and max(map(len, row)) > COLUMN_NAME_MAX:
            self._refuse_without_names(f"a name has more than {COLUMN_NAME_MAX} characters")
        names = row if self._header else [""] * len(row)
        self.names = [name or f"column_{number}" for number, name in enumerate(names, 1)]
        return self._header

    def _refuse_count(self, line: int, count: int) -> None:
        message = f"{count} instead of {len(self.names)} values"
        self._errors.add(line, LineErrorCode.WRONG_COLUMN_COUNT, message)

    def _refuse(self, line: int, code: LineErrorCode, message: str) -> None:
        self._refuse_without_names(message)
        self._errors.add(line, code, message)

    def _refuse_without_names(self, reason: str) -> None:
        if not self.names:
            raise PermanentError("invalid_header", f"The first line cannot be read: {reason}.")


class _Lines:
    """Hands lines to `csv`, which draws as many as a record has."""

    def __init__(self, blocks: Iterator[Block | LongLine]) -> None:
        self._blocks = blocks
        self._characters_left = 0
        self._line = 0
        self._next = 0
        self.loaded: list[str] = []
        self.nul_seen = False

    def load(self, block: Block) -> None:
        """Take the lines of a block."""
        # What is not UTF-8 stays within its record: it becomes surrogates, which no UTF-8 has.
        text = block.data.decode("utf-8", "surrogateescape")
        self.loaded = list(io.StringIO(text, newline=""))
        self.nul_seen = self.nul_seen or b"\0" in block.data
        self._next = 0
        self._line = block.first_line

    @property
    def more(self) -> bool:
        """Whether there are lines left of what was loaded."""
        return self._next < len(self.loaded)

    def begin_record(self) -> int:
        """Return the number of the line on which the next record begins."""
        self._characters_left = LINE_BYTES_MAX
        return self._line + self._next

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        if not self.more:
            block = next(self._blocks)
            if isinstance(block, LongLine):
                raise LongRecordError
            self.load(block)
        line = self.loaded[self._next]
        if len(line) > self._characters_left:
            raise LongRecordError
        self._characters_left -= len(line)
        self._next += 1
        return line


def sniff(lines: list[str]) -> Delimiter:
    """Return the delimiter for which most of the first lines have as many values as the very first, and more than one;
    then the one that makes most values; a comma if none makes any."""

    def fit(delimiter: Delimiter) -> tuple[int, int]:
        rows = filter(None, csv.reader(lines, delimiter=delimiter))
        counts = list(map(len, islice(rows, _SNIFFED_LINES)))
        return (counts.count(counts[0]), counts[0]) if counts and counts[0] > 1 else (0, 0)

    return max((Delimiter.COMMA, Delimiter.SEMICOLON, Delimiter.TAB, Delimiter.BAR), key=fit)


def _is_clean(data: bytes) -> bool:
    return b"\0" not in data and is_utf8(data)
