"""Task type `simulate_backup`: archives a set of files and proves that the archive can be restored.

The files come with the data or are generated from a seed. Each is written to the attempt's scratch directory and added
to a tar.gz archive with its SHA-256; in the end the archive is unpacked into another folder and every file compared.
Nothing of it depends on time or place: another attempt makes the same archive, byte for byte. With `step_delay` it
takes as long as a large backup would.
"""

import gzip
import hashlib
import tarfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Self

from pydantic import ConfigDict, Field, model_validator

from execution_service.handlers.archives import ArchiveLimits, UnpackedFile, unpack
from execution_service.handlers.paths import NAME_BYTES_MAX, UNSAFE_PATH, check_names
from execution_service.handlers.schema import HandlerModel
from execution_service.handlers.storage import STORAGE_FULL, naming_full_storage, new_file
from headrace.tasks import ErrorKind, Limits, PermanentError, TaskContext, task

FILES_MAX = 1000
FILE_BYTES_MAX = 16 * 1024 * 1024
TOTAL_BYTES_MAX = 64 * 1024 * 1024
TOTAL_DELAY_MAX = 500.0
_ARCHIVED_FRACTION = 0.8
_LOOK_SECONDS = 0.1
_COMPRESSION = 6
# A file of one letter may come from the client, and deflate makes a 1032nd of it.
_RATIO_MAX = 1100


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


class BackupData(HandlerModel):
    # Says in the schema what the validator checks, so that a client hears of it when it submits.
    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": ["files"]}, {"required": ["generate"]}]})

    files: list[BackupFile] | None = Field(
        default=None,
        min_length=1,
        max_length=FILES_MAX,
        description="The files to be archived.",
        examples=[[{"name": "notes/today.txt", "content": "Oil the wheel."}]],
    )
    generate: Generated | None = Field(
        default=None, description="Or: generate the files.", examples=[{"files": 5, "bytes_each": 4096, "seed": 7}]
    )
    step_delay: float = Field(
        default=0, ge=0, le=60, allow_inf_nan=False, description="Seconds to wait after each file.", examples=[0.2]
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.files is None) == (self.generate is None):
            raise ValueError("exactly one of `files` and `generate` is needed")
        return self


class ArchivedFile(HandlerModel):
    name: str = Field(description="As it was given.", examples=["notes/today.txt"])
    bytes: int = Field(ge=0, description="Its size.", examples=[14])
    sha256: str = Field(description="Of the file's content, hexadecimal.", examples=[hashlib.sha256().hexdigest()])


class BackupResult(HandlerModel):
    files: list[ArchivedFile] = Field(max_length=FILES_MAX, description="What the archive holds, in its order.")
    total_bytes: int = Field(ge=0, description="All files together, before compression.", examples=[20])
    archive_bytes: int = Field(ge=0, description="Size of the compressed archive.", examples=[160])
    archive_sha256: str = Field(
        description="Of the compressed archive, hexadecimal.", examples=[hashlib.sha256().hexdigest()]
    )
    verified: bool = Field(
        description="The archive was unpacked and every file in it was as it had been.", examples=[True]
    )


class BackupBrokenError(Exception):
    """The archive does not hold what was put into it."""


class BackupStoppedError(Exception):
    """The attempt was cancelled."""


_EXAMPLES = (
    {"files": [{"name": "notes/today.txt", "content": "Oil the wheel."}, {"name": "readme.md", "content": "# Mill"}]},
    {"generate": {"files": 5, "bytes_each": 4096, "seed": 7}, "step_delay": 0.05},
)
_ERRORS = (
    ErrorKind(
        UNSAFE_PATH,
        retry=False,
        description="A name leads out of a folder, is not the same everywhere, or clashes with another.",
    ),
    ErrorKind("too_large", retry=False, description=f"All files together have more than {TOTAL_BYTES_MAX} bytes."),
    ErrorKind(
        "cost_too_high",
        retry=False,
        description=f"files times bytes_each is above {TOTAL_BYTES_MAX}, or files times step_delay above "
        f"{TOTAL_DELAY_MAX:g} s.",
    ),
    STORAGE_FULL,
)


@task(
    "simulate_backup",
    timeout=600,
    examples=_EXAMPLES,
    limits=Limits(memory_mib=256, file_mib=2 * TOTAL_BYTES_MAX // 2**20),
    errors=_ERRORS,
)
def simulate_backup(data: BackupData, context: TaskContext) -> BackupResult:
    """Archive a set of files in steps, with progress, and check that the archive can be restored."""
    check_cost(data)
    sources = list(source_files(data))

    def step(done: int, phase: str, name: str) -> None:
        share = done / len(sources)
        archived = phase == "archived"
        fraction = share * _ARCHIVED_FRACTION if archived else _ARCHIVED_FRACTION + share * (1 - _ARCHIVED_FRACTION)
        context.progress(fraction, f"{phase} {name} ({done} of {len(sources)})")
        pause(data.step_delay if archived else 0, context)

    archive = context.scratch / "backup.tar.gz"
    archived = write_archive(archive, sources, context.scratch / "files", step)
    verify_archive(archive, archived, context.scratch / "restored", step)
    return BackupResult(
        files=archived,
        total_bytes=sum(file.bytes for file in archived),
        archive_bytes=archive.stat().st_size,
        archive_sha256=_file_sha256(archive),
        verified=True,
    )


Source = tuple[str, Callable[[], bytes]]
Step = Callable[[int, str, str], None]


def check_cost(data: BackupData) -> None:
    """Raise PermanentError `cost_too_high` for sizes that are within bounds one by one, but not together."""
    made = data.generate
    if made is not None and made.files * made.bytes_each > TOTAL_BYTES_MAX:
        raise PermanentError("cost_too_high", f"files times bytes_each may be at most {TOTAL_BYTES_MAX} bytes.")
    count = made.files if made is not None else len(data.files or ())
    if count * data.step_delay > TOTAL_DELAY_MAX:
        raise PermanentError("cost_too_high", f"step_delay times the number of files may be {TOTAL_DELAY_MAX:g} s.")


def source_files(data: BackupData) -> Iterator[Source]:
    """Return the names of the files to be archived, and for each a function that returns its content."""
    if data.generate is not None:
        made = data.generate
        for number in range(1, made.files + 1):
            yield f"generated/file-{number:04d}.bin", partial(generate_content, made.seed, number, made.bytes_each)
    files = data.files or []
    check_names(file.name for file in files)
    contents = [file.content.encode() for file in files]
    if sum(map(len, contents)) > TOTAL_BYTES_MAX:
        raise PermanentError("too_large", f"All files together may have {TOTAL_BYTES_MAX} bytes.")
    for file, content in zip(files, contents, strict=True):
        yield file.name, partial(bytes, content)


def write_archive(archive: Path, sources: Sequence[Source], folder: Path, step: Step) -> list[ArchivedFile]:
    """Write the files and the archive of them; `step` is called after each file.

    TransientError `storage_full` if there is no room; of the archive nothing is left then.
    """
    archived = []
    with (
        new_file(archive) as raw,
        # No name and no time in the header: the same files make the same archive.
        gzip.GzipFile(filename="", mode="wb", fileobj=raw, compresslevel=_COMPRESSION, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for done, (name, read) in enumerate(sources, 1):
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            content = read()
            with new_file(path) as file:
                file.write(content)
            member = tarfile.TarInfo(name)
            member.size = len(content)
            member.mode = 0o644
            with path.open("rb") as written:
                tar.addfile(member, written)
            archived.append(ArchivedFile(name=name, bytes=len(content), sha256=hashlib.sha256(content).hexdigest()))
            step(done, "archived", name)
    return archived


def verify_archive(archive: Path, expected: Sequence[ArchivedFile], folder: Path, step: Step) -> None:
    """Unpack the archive into a new folder and compare every file. Raises BackupBrokenError for any difference."""
    found = 0

    def compare(file: UnpackedFile) -> None:
        nonlocal found
        wanted = expected[found]
        if (file.name, file.bytes, file.sha256) != (wanted.name, wanted.bytes, wanted.sha256):
            raise BackupBrokenError(f"{wanted.name} was restored as {file!r}")
        found += 1
        step(found, "verified", file.name)

    limits = ArchiveLimits(len(expected), sum(file.bytes for file in expected), _RATIO_MAX)
    with naming_full_storage():
        folder.mkdir()
    try:
        unpack(archive, folder, limits, compare)
    except PermanentError as error:
        # We wrote the archive ourselves: another attempt may write a better one.
        raise BackupBrokenError(str(error)) from error
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
        return hashlib.file_digest(file, "sha256").hexdigest()
