"""Files that appear whole or not at all, and a full disk told by its name."""

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from headrace.tasks import ErrorKind, TransientError

STORAGE_FULL = ErrorKind(
    "storage_full", retry=True, description="The worker's disk, its quota or the largest size of a file was used up."
)
# No space left, quota used up, file larger than RLIMIT_FSIZE.
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextlib.contextmanager
def naming_full_storage() -> Iterator[None]:
    """Turn the OSErrors of a full disk into the TransientError `storage_full`."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise TransientError(STORAGE_FULL.code, f"There is no room to write on: {error.strerror}.") from error


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a file that gets its name when the block has ended; if the block fails, nothing of it is left.

    TransientError `storage_full` if there is no room for it.
    """
    partial = path.with_name(path.name + ".partial")
    with naming_full_storage():
        try:
            with partial.open("xb") as file:
                yield file
            partial.rename(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
