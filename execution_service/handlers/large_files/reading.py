"""Reads a file of records from its first to its last byte and sums it up."""

from collections.abc import Callable

from execution_service.handlers.large_files.blocks import BLOCK_BYTES, BlockReader
from execution_service.handlers.large_files.columns import ColumnTotals
from execution_service.handlers.large_files.csv_rows import CsvRows
from execution_service.handlers.large_files.json_rows import JsonRows
from execution_service.handlers.large_files.line_errors import LineErrors
from execution_service.handlers.large_files.models import Delimiter, FileFormat, LargeFileResult


def summarise(
    read: Callable[[int], bytes],
    *,
    file_format: FileFormat,
    delimiter: Delimiter = Delimiter.AUTO,
    header: bool = True,
    on_progress: Callable[[int, int], None],
    block_bytes: int = BLOCK_BYTES,
) -> LargeFileResult:
    """Return the summary of what `read` returns until it returns nothing.

    `on_progress` is told after each block how many bytes were read, and how many rows. Raises the PermanentErrors of
    BlockReader and CsvRows, and what `read` and `on_progress` raise.
    """
    blocks = BlockReader(read, block_bytes=block_bytes)
    errors = LineErrors()
    reader: CsvRows | JsonRows
    if file_format is FileFormat.CSV:
        reader = CsvRows(iter(blocks), errors, delimiter=delimiter, header=header)
    else:
        reader = JsonRows(iter(blocks), errors)
    totals = ColumnTotals()
    rows = 0
    for batch in reader:
        rows += batch.rows
        totals.add(batch.cells, len(reader.names))
        on_progress(blocks.bytes, rows)
    return LargeFileResult(
        bytes=blocks.bytes,
        lines=blocks.lines,
        rows=rows,
        delimiter=reader.delimiter if reader.names else None,
        columns=totals.summaries(reader.names, rows),
        error_count=errors.count,
        errors=errors.first,
    )
