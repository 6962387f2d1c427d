"""Opens what is to be read: text from the data, a file made for the purpose, or a file of the input folder."""

import contextlib
import io
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from execution_service.handlers.large_files.generator import generate
from execution_service.handlers.large_files.models import FileFormat, GeneratedFile, LargeFileData
from execution_service.handlers.paths import open_below
from execution_service.handlers.storage import new_file
from headrace.tasks import PermanentError, TransientError


@dataclass(frozen=True, slots=True)
class Source:
    """Bytes to be read, and how many they are."""

    read: Callable[[int], bytes]
    size: int


@contextlib.contextmanager
def open_text(text: str) -> Iterator[Source]:
    """Open text that came with the data."""
    content = text.encode()
    yield Source(io.BytesIO(content).read, len(content))


@contextlib.contextmanager
def open_generated(
    wanted: GeneratedFile, file_format: FileFormat, folder: Path, on_written: Callable[[float, int], None]
) -> Iterator[Source]:
    """Write the file that is wanted into the folder, and open it.

    `on_written` is told after each part which fraction of the file is made, and how many bytes.
    PermanentError `cost_too_high` before anything is written; TransientError `storage_full`.
    """
    path = folder / f"generated.{file_format}"
    with new_file(path) as file:
        for text, fraction in generate(wanted, file_format):
            file.write(text)
            on_written(fraction, file.tell())
    with path.open("rb", buffering=0) as written:
        yield Source(written.read, path.stat().st_size)


@contextlib.contextmanager
def open_input(folder: Path | None, name: str) -> Iterator[Source]:
    """Open a file below the input folder, as long as it was when it was opened.

    PermanentError `no_input_folder` and those of `open_below`; TransientError `file_changed` in the end if the file is
    not what it was, also in place of an error that came of that.
    """
    if folder is None:
        raise PermanentError("no_input_folder", "This worker has no input folder (HEADRACE_INPUT_DIR).")
    try:
        fd = open_below(folder, name)
    except OSError as error:
        raise PermanentError("no_input_folder", f"The input folder cannot be opened: {error.strerror}.") from error
    with open(fd, "rb", buffering=0) as file:
        before = os.fstat(fd)
        left = before.st_size

        def read(size: int) -> bytes:
            nonlocal left
            content = file.read(min(size, left))
            left -= len(content)
            return content

        try:
            yield Source(read, before.st_size)
        finally:
            if _version(os.fstat(fd)) != _version(before):
                raise TransientError("file_changed", "The file was changed, moved or removed while it was read.")


def open_source(
    data: LargeFileData,
    *,
    input_folder: Path | None,
    scratch: Callable[[], Path],
    on_written: Callable[[float, int], None],
) -> contextlib.AbstractContextManager[Source]:
    """Open what the data name."""
    if data.content is not None:
        return open_text(data.content)
    if data.generate is not None:
        return open_generated(data.generate, data.format, scratch(), on_written)
    assert data.path is not None
    return open_input(input_folder, data.path)


def _version(status: os.stat_result) -> tuple[int, ...]:
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_nlink
