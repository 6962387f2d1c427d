"""Task type `simulate_backup`: archives a set of files and proves that the archive can be restored.

The files come with the data or are generated from a seed. Each is written to the attempt's scratch directory, added to
a tar.gz archive with its SHA-256, and in the end the archive is read back and every file compared. Nothing of it
depends on time or place: another attempt makes the same archive, byte for byte. With `step_delay` it takes as long as
a large backup would.
"""

import gzip
import hashlib
import re
import tarfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Self

from pydantic import ConfigDict, Field, model_validator

from execution_service.handlers.schema import HandlerModel
from headrace.tasks import PermanentError, TaskContext, task

FILES_MAX = 1000
FILE_BYTES_MAX = 16 * 1024 * 1024
TOTAL_BYTES_MAX = 64 * 1024 * 1024
TOTAL_DELAY_MAX = 500.0
NAME_BYTES_MAX = 200
NAME_DEPTH_MAX = 8
_ARCHIVED_FRACTION = 0.8
_LOOK_SECONDS = 0.1
_READ_BYTES = 256 * 1024
_COMPRESSION = 6

_RESERVED = re.compile(r"(?:con|prn|aux|nul|com\d|lpt\d)(?:\..*)?", re.IGNORECASE)
# Control characters, what some file system gives a meaning, and what turns the direction of text.
_FORBIDDEN = re.compile(r'[\x00-\x1f\x7f-\x9f\\:*?"<>|\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]')


class BackupFile(HandlerModel):
    name: str = Field(
        min_length=1,
        max_length=NAME_BYTES_MAX,
        description="A relative path with `/` between its parts. Unsafe ones end the task with `unsafe_path`.",
        examples=["notes/today.txt"],
    )
    content: str = Field(max_length=FILE_BYTES_MAX, description="The text in the file.", examples=["Oil the wheel."])


class Generated(HandlerModel):
    files: int = Field(ge=1, le=FILES_MAX, description="How many files.", examples=[5])
    bytes_each: int = Field(ge=0, le=FILE_BYTES_MAX, description="The size of each.", examples=[4096])
    seed: int = Field(default=0, ge=0, le=2**53, description="The same seed makes the same content.", examples=[7])

    @model_validator(mode="after")
    def _within_total(self) -> Self:
        if self.files * self.bytes_each > TOTAL_BYTES_MAX:
            raise ValueError(f"files times bytes_each must be at most {TOTAL_BYTES_MAX} bytes")
        return self


class BackupData(HandlerModel):
    # Says in the schema what the validator checks, so that a client hears of it when it submits.
    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": ["files"]}, {"required": ["generate"]}]})

    files: list[BackupFile] | None = Field(
        default=None, min_length=1, max_length=FILES_MAX, description="The files to be archived."
    )
    generate: Generated | None = Field(default=None, description="Or: generate the files.")
    step_delay: float = Field(
        default=0, ge=0, le=60, allow_inf_nan=False, description="Seconds to wait after each file.", examples=[0.2]
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.files is None) == (self.generate is None):
            raise ValueError("exactly one of `files` and `generate` is needed")
        count = len(self.files) if self.files is not None else self.generate.files if self.generate else 0
        if count * self.step_delay > TOTAL_DELAY_MAX:
            raise ValueError(f"step_delay times the number of files must be at most {TOTAL_DELAY_MAX:g} s")
        return self


class ArchivedFile(HandlerModel):
    name: str = Field(examples=["notes/today.txt"])
    bytes: int = Field(ge=0, examples=[14])
    sha256: str = Field(description="Of the file's content, hexadecimal.")


class BackupResult(HandlerModel):
    files: list[ArchivedFile] = Field(description="What the archive holds, in its order.")
    total_bytes: int = Field(ge=0, description="All files together, before compression.")
    archive_bytes: int = Field(ge=0, description="Size of the compressed archive.")
    archive_sha256: str = Field(description="Of the compressed archive, hexadecimal.")
    verified: bool = Field(description="The archive was read back and every file in it was as it had been.")


class BackupBrokenError(Exception):
    """The archive does not hold what was put into it."""


class BackupStoppedError(Exception):
    """The attempt was cancelled."""


_EXAMPLES = (
    {"files": [{"name": "notes/today.txt", "content": "Oil the wheel."}, {"name": "readme.md", "content": "# Mill"}]},
    {"generate": {"files": 5, "bytes_each": 4096, "seed": 7}, "step_delay": 0.05},
)


@task("simulate_backup", timeout=600, examples=_EXAMPLES)
def simulate_backup(data: BackupData, context: TaskContext) -> BackupResult:
    """Archive a set of files in steps, with progress, and check that the archive can be restored."""
    sources = list(source_files(data))

    def step(done: int, phase: str, name: str) -> None:
        share = done / len(sources)
        archived = phase == "archived"
        fraction = share * _ARCHIVED_FRACTION if archived else _ARCHIVED_FRACTION + share * (1 - _ARCHIVED_FRACTION)
        context.progress(fraction, f"{phase} {name} ({done} of {len(sources)})")
        pause(data.step_delay if archived else 0, context)

    archive = context.scratch / "backup.tar.gz"
    archived = write_archive(archive, sources, context.scratch / "files", step)
    verify_archive(archive, archived, step)
    return BackupResult(
        files=archived,
        total_bytes=sum(file.bytes for file in archived),
        archive_bytes=archive.stat().st_size,
        archive_sha256=_file_sha256(archive),
        verified=True,
    )


Source = tuple[str, Callable[[], bytes]]
Step = Callable[[int, str, str], None]


def source_files(data: BackupData) -> Iterator[Source]:
    """Return the names of the files to be archived, and for each a function that returns its content."""
    if data.generate is not None:
        made = data.generate
        for number in range(1, made.files + 1):
            yield f"generated/file-{number:04d}.bin", partial(generate_content, made.seed, number, made.bytes_each)
    files = data.files or []
    check_names([file.name for file in files])
    contents = [file.content.encode() for file in files]
    if sum(map(len, contents)) > TOTAL_BYTES_MAX:
        raise PermanentError("too_large", f"All files together may have {TOTAL_BYTES_MAX} bytes.")
    for file, content in zip(files, contents, strict=True):
        yield file.name, partial(bytes, content)


def check_names(names: Sequence[str]) -> None:
    """Raise PermanentError `unsafe_path` unless each name is a safe relative path and all are different.

    Safe on any file system that an archive may be unpacked on: different also where case does not count, and no file
    is a folder for another.
    """
    folded = [name.casefold() for name in names]
    taken = set(folded)
    if len(taken) < len(names):
        raise PermanentError("unsafe_path", "Two files have the same name, or differ in case alone.")
    for name in names:
        if reason := unsafe_reason(name):
            raise PermanentError("unsafe_path", f"The name {name[:NAME_BYTES_MAX]!r} {reason}.")
        parents = name.casefold().split("/")[:-1]
        if any("/".join(parents[: depth + 1]) in taken for depth in range(len(parents))):
            raise PermanentError("unsafe_path", f"The name {name!r} lies below another file.")


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


def write_archive(archive: Path, sources: Sequence[Source], folder: Path, step: Step) -> list[ArchivedFile]:
    """Write the files and the archive of them; `step` is called after each file."""
    archived = []
    unfinished = archive.with_suffix(".partial")
    with (
        unfinished.open("xb") as raw,
        # No name and no time in the header: the same files make the same archive.
        gzip.GzipFile(filename="", mode="wb", fileobj=raw, compresslevel=_COMPRESSION, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for done, (name, read) in enumerate(sources, 1):
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            content = read()
            path.write_bytes(content)
            member = tarfile.TarInfo(name)
            member.size = len(content)
            member.mode = 0o644
            with path.open("rb") as file:
                tar.addfile(member, file)
            archived.append(ArchivedFile(name=name, bytes=len(content), sha256=hashlib.sha256(content).hexdigest()))
            step(done, "archived", name)
    unfinished.rename(archive)
    return archived


def verify_archive(archive: Path, expected: Sequence[ArchivedFile], step: Step) -> None:
    """Read the archive back and compare every file in it. Raises BackupBrokenError for any difference."""
    found = 0
    with tarfile.open(archive, "r:gz") as tar:
        for member in tar:
            content = tar.extractfile(member) if member.isreg() else None
            if content is None or found >= len(expected):
                raise BackupBrokenError(f"{member.name} does not belong into the archive")
            wanted = expected[found]
            restored = ArchivedFile(name=member.name, bytes=member.size, sha256=_sha256(content))
            if restored != wanted:
                raise BackupBrokenError(f"{wanted.name} was restored as {restored!r}")
            found += 1
            step(found, "verified", member.name)
    if found != len(expected):
        raise BackupBrokenError(f"{len(expected) - found} files are missing from the archive")


def generate_content(seed: int, number: int, size: int) -> bytes:
    """Return the content of a generated file: the same for the same arguments, on any machine."""
    return hashlib.shake_256(f"{seed}/{number}".encode()).digest(size)


def pause(seconds: float, context: TaskContext) -> None:
    """Wait, but not on after a cancel. Raises BackupStoppedError."""
    end = time.monotonic() + seconds
    while True:
        if context.cancelled:
            raise BackupStoppedError("the backup was cancelled")
        left = end - time.monotonic()
        if left <= 0:
            return
        time.sleep(min(left, _LOOK_SECONDS))


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return _sha256(file)


def _sha256(file: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while chunk := file.read(_READ_BYTES):
        digest.update(chunk)
    return digest.hexdigest()
