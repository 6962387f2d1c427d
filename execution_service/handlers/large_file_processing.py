"""Task type `large_file_processing`: reads a file of records from its first to its last byte and describes its columns.

The file comes with the data, is generated from a seed, or lies below the worker's input folder. It is read in blocks
of whole lines and never held as a whole, so that its size costs time and not memory. Lines that cannot be read are
left out, counted, and the first 100 listed with their numbers.

Files are in UTF-8, with or without a byte order mark; a mark of UTF-16 or UTF-32 ends the task with
`unsupported_encoding`, while a line that is not UTF-8 is an error of that line alone.
"""

from execution_service.handlers.large_files.models import (
    COLUMN_NAME_MAX,
    COLUMNS_MAX,
    GENERATED_BYTES_MAX,
    LargeFileData,
    LargeFileResult,
)
from execution_service.handlers.paths import UNSAFE_PATH
from execution_service.handlers.settings import handler_settings
from execution_service.handlers.storage import STORAGE_FULL
from headrace.tasks import ErrorKind, Limits, TaskContext, task

_WRITTEN_FRACTION = 0.25
_MIB = 1024 * 1024


class ReadingStoppedError(Exception):
    """The attempt was cancelled."""


_EXAMPLES = (
    {"content": "name,price,sold\nWheel,120.50,4\nSack,4.25,\nMillstone,one\nRye,3.75,19\n"},
    {"content": '{"name": "Wheel", "price": 120.5}\n{"name": "Rye", "sold": true}\n', "format": "jsonl"},
    {"generate": {"rows": 20_000, "seed": 7, "missing": 0.02}},
)
_ERRORS = (
    ErrorKind("no_input_folder", retry=False, description="The worker has no input folder, or cannot open it."),
    ErrorKind(
        UNSAFE_PATH,
        retry=False,
        description="The path leads out of the input folder, through a link, to another file system or to something "
        "else than a regular file with a single name.",
    ),
    ErrorKind("file_not_found", retry=False, description="There is no such file in the input folder."),
    ErrorKind("file_not_readable", retry=False, description="The worker lacks the permission to read the file."),
    ErrorKind("file_changed", retry=True, description="The file was changed, moved or removed while it was read."),
    ErrorKind("unsupported_encoding", retry=False, description="The file begins with a mark of UTF-16 or UTF-32."),
    ErrorKind("too_many_columns", retry=False, description=f"The first line has more than {COLUMNS_MAX} columns."),
    ErrorKind(
        "invalid_header",
        retry=False,
        description=f"The first line cannot be read, or a name has more than {COLUMN_NAME_MAX} characters.",
    ),
    ErrorKind(
        "cost_too_high",
        retry=False,
        description=f"The generated file could have more than {GENERATED_BYTES_MAX} bytes.",
    ),
    STORAGE_FULL,
)


@task(
    "large_file_processing",
    timeout=1800,
    examples=_EXAMPLES,
    limits=Limits(memory_mib=512, file_mib=2048),
    errors=_ERRORS,
)
def large_file_processing(data: LargeFileData, context: TaskContext) -> LargeFileResult:
    """Read a CSV or JSON lines file of any size and describe its columns: types, distinct values, numbers, errors."""
    # These load numpy, which a worker should not pay for before the first file.
    from execution_service.handlers.large_files.reading import summarise
    from execution_service.handlers.large_files.sources import open_source

    written_fraction = _WRITTEN_FRACTION if data.generate is not None else 0.0

    def report(fraction: float, message: str) -> None:
        if context.cancelled:
            raise ReadingStoppedError("the reading was cancelled")
        context.progress(fraction, message)

    with open_source(
        data,
        input_folder=handler_settings().input_dir,
        scratch=lambda: context.scratch,
        on_written=lambda fraction, size: report(fraction * written_fraction, f"generated {size / _MIB:,.1f} MiB"),
    ) as source:

        def on_progress(done: int, rows: int) -> None:
            fraction = written_fraction + (1 - written_fraction) * done / max(source.size, 1)
            report(fraction, f"read {done / _MIB:,.1f} of {source.size / _MIB:,.1f} MiB, {rows:,} rows")

        return summarise(
            source.read,
            file_format=data.format,
            delimiter=data.delimiter,
            header=data.header,
            on_progress=on_progress,
        )
