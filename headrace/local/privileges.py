"""Which user the database servers run as, and what that user can reach.

PostgreSQL refuses to run as root, and Redis should not. Started as root (a container, mostly), both run as `nobody`.
"""

import os
import pwd
import stat
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ServerUser:
    """An unprivileged user that a server is switched to before it is executed."""

    uid: int
    gid: int


def server_user() -> ServerUser | None:
    """Return the user for the servers, or None when this process is unprivileged and they run as it does."""
    if os.geteuid() != 0:
        return None
    nobody = pwd.getpwnam("nobody")
    return ServerUser(uid=nobody.pw_uid, gid=nobody.pw_gid)


def can_reach(path: Path, user: ServerUser | None) -> bool:
    """Tell whether `user` may walk down to `path` and, if it is a program, execute it."""
    resolved = path.resolve()
    if user is None:
        return os.access(resolved, os.X_OK)
    return all(_may_enter(step.stat(), user) for step in (resolved, *resolved.parents))


def _may_enter(found: os.stat_result, user: ServerUser) -> bool:
    if found.st_uid == user.uid:
        return bool(found.st_mode & stat.S_IXUSR)
    if found.st_gid == user.gid:
        return bool(found.st_mode & stat.S_IXGRP)
    return bool(found.st_mode & stat.S_IXOTH)


def make_private_folder(path: Path, user: ServerUser | None) -> None:
    """Create `path` (its parents too) for the server alone; an existing one is handed over with all its content."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if user is not None and path.stat().st_uid != user.uid:
        for folder, _, files in os.walk(path, topdown=False):
            for name in files:
                os.chown(os.path.join(folder, name), user.uid, user.gid, follow_symlinks=False)
            os.chown(folder, user.uid, user.gid)


def write_private_file(path: Path, content: str, user: ServerUser | None = None) -> None:
    """Write a file that nobody but its owner can read. Readers see the old content or the new, never a part."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(content)
        if user is not None:
            os.fchown(file.fileno(), user.uid, user.gid)
    draft.replace(path)


class ServerFolder:
    """A folder that belongs to a server, with a name by which that server can always open it.

    Below a private home (`/root`, a temporary folder of a test run) the unprivileged server cannot walk down to its own
    folder. It then gets an open descriptor, and the name of that descriptor instead of the path.
    """

    def __init__(self, path: Path, user: ServerUser | None) -> None:
        make_private_folder(path, user)
        self.path = path
        self._descriptor = None if can_reach(path, user) else os.open(path, os.O_RDONLY | os.O_DIRECTORY)

    @property
    def name_for_server(self) -> str:
        return str(self.path.resolve()) if self._descriptor is None else f"/proc/self/fd/{self._descriptor}"

    @property
    def kept_descriptors(self) -> tuple[int, ...]:
        """Descriptors that must stay open in the server."""
        return () if self._descriptor is None else (self._descriptor,)

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
