"""Unpacks tar.gz archives that may be hostile: regular files only, within limits that are counted while writing.

Python's `tarfile` follows what an archive says: links, devices, owners, sizes, and whatever the next vulnerability in
its filters is about (CVE-2007-4559, CVE-2025-4517). This reader knows only what a plain archive needs: POSIX.1-1988
ustar headers of regular files, each perhaps after a POSIX.1-2001 pax header with its path. Everything else is refused,
so there is no member that it could misunderstand.
"""

import gzip
import hashlib
import os
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from execution_service.handlers.paths import NameSet, create_below
from execution_service.handlers.storage import naming_full_storage
from headrace.tasks import PermanentError

_BLOCK = 512
_COPY_BYTES = 256 * 1024
_PAX_BYTES_MAX = 4096
_PADDING_BYTES_MAX = 64 * 1024
# The end of a tiny archive is padded with zeros, at a ratio that says nothing.
_RATIO_COUNTS_FROM = 1024 * 1024
_OCTAL = re.compile(rb" *([0-7]+)[ \0]*")
_PAX_PATH = re.compile(rb"(\d{1,4}) path=([^\0\n]+)\n")
_KINDS = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a device",
    b"4": "a device",
    b"5": "a folder",
    b"6": "a named pipe",
    b"S": "a sparse file",
    b"V": "a volume label",
    b"M": "the rest of a file on another volume",
}


@dataclass(frozen=True, slots=True)
class ArchiveLimits:
    """What an archive may unpack to. `ratio` is of what comes out to the size of the archive."""

    files: int
    total_bytes: int
    ratio: float


@dataclass(frozen=True, slots=True)
class UnpackedFile:
    """A file that was written; `sha256` is of its content, hexadecimal."""

    name: str
    bytes: int
    sha256: str


def unpack(archive: Path, folder: Path, limits: ArchiveLimits, on_file: Callable[[UnpackedFile], None]) -> None:
    """Write the files of a tar.gz archive below the folder, which must be there and empty.

    `on_file` is called after each. PermanentError: `unsafe_path` for a name, `unsafe_archive` for a member that is no
    regular file or goes beyond the limits, `invalid_archive` for what is broken. TransientError `storage_full`.
    After an error the folder may hold files that were whole, but nothing of the one that failed.
    """
    root = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        with archive.open("rb") as packed, gzip.GzipFile(fileobj=packed, mode="rb") as unpacked:
            unpacked_max = max(_RATIO_COUNTS_FROM, int(limits.ratio * archive.stat().st_size))
            _unpack(_Stream(unpacked, unpacked_max), root, limits, on_file)
    finally:
        os.close(root)


class _Stream:
    """Reads exactly what it is asked for, and counts."""

    def __init__(self, stream: gzip.GzipFile, bytes_max: int) -> None:
        self._stream = stream
        self._left = bytes_max

    def read(self, size: int) -> bytes:
        """Return the next `size` bytes; fewer at the end of the stream alone."""
        try:
            content = self._stream.read(size)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise _invalid(f"it cannot be decompressed: {error}") from error
        self._left -= len(content)
        if self._left < 0:
            raise _unsafe("it unpacks to more than its size allows")
        return content

    def read_whole(self, size: int) -> bytes:
        content = self.read(size)
        if len(content) < size:
            raise _invalid("it ends too early")
        return content


def _unpack(stream: _Stream, root: int, limits: ArchiveLimits, on_file: Callable[[UnpackedFile], None]) -> None:
    names = NameSet()
    files = total = 0
    while (member := _next_member(stream)) is not None:
        name, size = member
        files += 1
        total += size
        if files > limits.files:
            raise _unsafe(f"it holds more than {limits.files} files")
        if total > limits.total_bytes:
            raise _unsafe(f"its files have more than {limits.total_bytes} bytes")
        names.add(name)
        on_file(UnpackedFile(name, size, _write(stream, root, name, size)))


def _write(stream: _Stream, root: int, name: str, size: int) -> str:
    """Write a file and return its SHA-256; on any failure the file is removed."""
    digest = hashlib.sha256()
    left = size
    with naming_full_storage():
        fd = create_below(root, name)
        try:
            with open(fd, "wb") as file:
                while left:
                    content = stream.read_whole(min(left, _COPY_BYTES))
                    digest.update(content)
                    file.write(content)
                    left -= len(content)
            if any(stream.read_whole(-size % _BLOCK)):
                raise _invalid("a file is not followed by zeros")
        except BaseException:
            os.unlink(name, dir_fd=root)
            raise
    return digest.hexdigest()


def _next_member(stream: _Stream) -> tuple[str, int] | None:
    """Return name and size of the next file, None after the last one, when the rest was read and found empty."""
    header = stream.read_whole(_BLOCK)
    if not any(header):
        _read_end(stream)
        return None
    path = None
    if _kind(header) == b"x":
        path = _pax_path(stream, _number(header, 124, 12))
        header = stream.read_whole(_BLOCK)
    kind = _kind(header)
    if kind not in (b"0", b"\0"):
        raise _unsafe(f"it holds {_KINDS.get(kind, 'a member of an unknown kind')}")
    return path or _path(header), _number(header, 124, 12)


def _read_end(stream: _Stream) -> None:
    # To the very end: only there gzip's checksum is compared.
    padding = 0
    while content := stream.read(_BLOCK):
        padding += len(content)
        if any(content) or padding > _PADDING_BYTES_MAX:
            raise _invalid("something follows its end")
    if padding < _BLOCK:
        raise _invalid("it has no proper end")


def _kind(header: bytes) -> bytes:
    """Return the kind of a member, after the header was found to be what its checksum says."""
    if header[257:263] != b"ustar\0" or sum(header) - sum(header[148:156]) + 8 * 0x20 != _number(header, 148, 8):
        raise _invalid("a header is broken")
    return header[156:157]


def _number(header: bytes, start: int, size: int) -> int:
    """Return a number of the header. The binary form, of GNU's, is refused: no size that is allowed needs it."""
    found = _OCTAL.fullmatch(header, start, start + size)
    if found is None:
        raise _invalid("a number in a header is broken")
    return int(found[1], 8)


def _path(header: bytes) -> str:
    name, prefix = (header[start : start + size].partition(b"\0")[0] for start, size in ((0, 100), (345, 155)))
    return _text(prefix + b"/" + name if prefix else name)


def _pax_path(stream: _Stream, size: int) -> str:
    if size > _PAX_BYTES_MAX:
        raise _unsafe(f"a header has more than {_PAX_BYTES_MAX} bytes")
    record = stream.read_whole(size)
    stream.read_whole(-size % _BLOCK)
    found = _PAX_PATH.fullmatch(record)
    if found is None or int(found[1]) != size:
        raise _unsafe("a header says more than the path of a file")
    return _text(found[2])


def _text(name: bytes) -> str:
    try:
        return name.decode()
    except UnicodeDecodeError as error:
        raise _invalid("a name is not UTF-8") from error


def _unsafe(reason: str) -> PermanentError:
    return PermanentError("unsafe_archive", f"The archive was not unpacked further: {reason}.")


def _invalid(reason: str) -> PermanentError:
    return PermanentError("invalid_archive", f"The archive is damaged: {reason}.")
