"""`manifest.json` of a backup: what was dumped, and how to tell that it is still whole.

It is written last, so a folder without it is no backup.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from deploy.errors import DeployError
from deploy.stores import STORES, Store

MANIFEST = "manifest.json"
FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class DumpFile:
    """One dump, and what is in it."""

    file: str
    bytes: int
    sha256: str
    # Of PostgreSQL, such as `17.5`.
    server_version: str
    schema: Mapping[str, int]
    rows: Mapping[str, int]

    @property
    def server_major(self) -> int:
        return int(self.server_version.split(".")[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """A whole backup."""

    taken_at: str
    headrace_version: str
    # By the title of their store.
    dumps: Mapping[str, DumpFile]
    # Tasks that were removed about when the backup was begun: their rows may be in it, and their results not.
    removed: Sequence[int]

    def dump_of(self, store: Store) -> DumpFile:
        return self.dumps[store.title]

    def write(self, folder: Path) -> None:
        content = json.dumps({"format": FORMAT, **asdict(self)}, indent=2)
        with (folder / MANIFEST).open("x") as file:
            file.write(content + "\n")
            file.flush()
            os.fsync(file.fileno())

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Raises DeployError where there is none, or none that can be used."""
        path = folder / MANIFEST
        try:
            content = json.loads(path.read_text())
        except (FileNotFoundError, NotADirectoryError):
            raise DeployError(f"{folder} is no backup, or was not finished: it has no {MANIFEST}") from None
        except ValueError as error:
            raise DeployError(f"{path} is damaged: {error}") from None
        return cls._parse(content, path)

    @classmethod
    def _parse(cls, content: Any, path: Path) -> Self:
        try:
            if content["format"] != FORMAT:
                raise DeployError(f"{path} has format {content['format']}; this version of Headrace reads {FORMAT}")
            return cls(
                taken_at=str(content["taken_at"]),
                headrace_version=str(content["headrace_version"]),
                dumps={store.title: DumpFile(**content["dumps"][store.title]) for store in STORES},
                removed=[int(task_id) for task_id in content["removed"]],
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DeployError(f"{path} is damaged: {type(error).__name__}: {error}") from None


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def problem_of_file(folder: Path, dump: DumpFile) -> str:
    """What is wrong with the file of a dump; empty where nothing is."""
    path = folder / dump.file
    try:
        size = path.stat().st_size
        if size != dump.bytes:
            return f"it has {size} bytes, and had {dump.bytes} when it was written"
        if sha256_of(path) != dump.sha256:
            return "its SHA-256 is another"
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    return ""
