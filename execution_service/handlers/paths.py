"""Names of files that come from outside: which are safe, and how they are opened below a folder.

A safe name is a relative path with `/` between its parts that means the same on any file system. Opening goes from
part to part, each relative to the descriptor of the one before it and never through a link: nothing that is swapped
between a check and the opening can lead out of the folder.
"""

import contextlib
import errno
import os
import re
import stat
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from headrace.tasks import PermanentError

NAME_BYTES_MAX = 200
NAME_DEPTH_MAX = 8
UNSAFE_PATH = "unsafe_path"

_RESERVED = re.compile(r"(?:con|prn|aux|nul|com\d|lpt\d)(?:\..*)?", re.IGNORECASE)
# Control characters, what some file system gives a meaning, what breaks lines or turns the direction of text.
_FORBIDDEN = re.compile(r'[\x00-\x1f\x7f-\x9f\\:*?"<>|\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]')
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# A named pipe without a writer must not hold the worker.
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class NameSet:
    """Names that can all be files of one folder, also where case or the way in which accents are written is lost."""

    def __init__(self) -> None:
        self._files: set[str] = set()
        self._folders: set[str] = set()

    def add(self, name: str) -> None:
        """Raise PermanentError `unsafe_path` for a name that is unsafe, or in the way of one that was added before."""
        if reason := unsafe_reason(name):
            raise _unsafe(name, reason)
        folded = unicodedata.normalize("NFD", unicodedata.normalize("NFD", name).casefold())
        parents = [folded[:index] for index, letter in enumerate(folded) if letter == "/"]
        if folded in self._files:
            raise _unsafe(name, "is there twice, or differs from another in case or accents alone")
        if folded in self._folders or not self._files.isdisjoint(parents):
            raise _unsafe(name, "is a file and a folder, or lies below a file")
        self._files.add(folded)
        self._folders.update(parents)


def check_names(names: Iterable[str]) -> None:
    """Raise PermanentError `unsafe_path` unless each name is safe and all fit into one folder."""
    taken = NameSet()
    for name in names:
        taken.add(name)


def unsafe_reason(name: str) -> str | None:
    """Return what makes a name unsafe, None if nothing does."""
    parts = name.split("/")
    if name.startswith(("/", "~")):
        return "is not relative"
    if any(part in ("", ".", "..") for part in parts):
        return "has an empty or a dot part"
    if _FORBIDDEN.search(name) or "%2e" in name.lower() or "%2f" in name.lower():
        return "has a character that is not allowed"
    if any(part[-1] in ". " or part[0] == " " or _RESERVED.fullmatch(part) for part in parts):
        return "has a part that some systems change or reserve"
    if len(name.encode()) > NAME_BYTES_MAX or len(parts) > NAME_DEPTH_MAX:
        return "is too long or too deep"
    return None


def open_below(folder: Path, name: str) -> int:
    """Return a descriptor, for reading, of the regular file `name` below the folder.

    PermanentError: `unsafe_path` for unsafe names, links of both kinds, other file systems and all that is no regular
    file; `file_not_found`; `file_not_readable`. The folder itself may be reached through links; OSError if it cannot.
    """
    if reason := unsafe_reason(name):
        raise _unsafe(name, reason)
    root = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fd = _descend_and_open(root, name)
    except OSError as error:
        raise _open_error(name, error) from error
    finally:
        os.close(root)
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
        os.close(fd)
        raise _unsafe(name, "is not a regular file of one name")
    return fd


def create_below(root: int, name: str) -> int:
    """Return a descriptor, for writing, of the new file `name` below the folder open as `root`.

    Folders on the way are made. PermanentError `unsafe_path` for unsafe names; OSError for anything in the way.
    """
    if reason := unsafe_reason(name):
        raise _unsafe(name, reason)
    *parents, last = name.split("/")
    current = os.dup(root)
    try:
        for part in parents:
            # Made for another file it may be there already. Anything but a folder fails to open.
            with contextlib.suppress(FileExistsError):
                os.mkdir(part, 0o700, dir_fd=current)
            current = _step(current, part)
        return os.open(last, _CREATE, 0o600, dir_fd=current)
    finally:
        os.close(current)


def _descend_and_open(root: int, name: str) -> int:
    device = os.fstat(root).st_dev
    *parents, last = name.split("/")
    current = os.dup(root)
    try:
        for part in parents:
            current = _step(current, part)
        fd = os.open(last, _READ, dir_fd=current)
    finally:
        os.close(current)
    if os.fstat(fd).st_dev != device:
        os.close(fd)
        raise OSError(errno.EXDEV, "is on another file system")
    return fd


def _step(folder: int, part: str) -> int:
    """Return the folder `part` of `folder`, which is closed; if that fails it stays open."""
    below = os.open(part, _FOLDER, dir_fd=folder)
    os.close(folder)
    return below


def _open_error(name: str, error: OSError) -> PermanentError:
    if error.errno == errno.ENOENT:
        return PermanentError("file_not_found", f"There is no file {_shown(name)} in the input folder.")
    if error.errno in (errno.EACCES, errno.EPERM):
        return PermanentError("file_not_readable", f"The worker may not read {_shown(name)}.")
    if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.ENXIO, errno.EXDEV):
        return _unsafe(name, "leads through a link, to another file system, or to no regular file")
    raise error


def _unsafe(name: str, reason: str) -> PermanentError:
    return PermanentError(UNSAFE_PATH, f"The name {_shown(name)} {reason}.")


def _shown(name: str) -> str:
    return repr(name[:100])
