"""Scratch directories: one per attempt, below one per worker, below one per pool; none outlives its owner.

Paths are `<root>/pool-<random>/<worker id>/<task id>-<attempt>`. The pool holds a lock on its own directory, by which
the next pool on the same root tells what was left behind by one that was killed.
"""

import fcntl
import os
import shutil
import tempfile
from pathlib import Path

_PREFIX = "pool-"


class PoolScratch:
    """The directory of one pool. Making it clears away what pools before it left."""

    def __init__(self, root: Path) -> None:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=root))
        self._lock_fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for other in root.glob(f"{_PREFIX}*"):
            if other != self.path:
                _remove_if_unlocked(other)

    def has(self, worker_id: str) -> bool:
        """Return whether a worker left a directory."""
        return (self.path / worker_id).exists()

    def remove(self, worker_id: str) -> None:
        """Remove what a worker that has ended left behind."""
        shutil.rmtree(self.path / worker_id, ignore_errors=True)

    def close(self) -> None:
        """Remove everything."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock_fd)


class WorkerScratch:
    """Makes and removes the directories of one worker's attempts."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._open: set[tuple[int, int]] = set()

    def open(self, task_id: int, attempt: int) -> Path:
        """Return the directory of the attempt; the first call makes it."""
        path = self._path(task_id, attempt)
        if (task_id, attempt) not in self._open:
            self._root.mkdir(mode=0o700, exist_ok=True)
            path.mkdir(mode=0o700)
            self._open.add((task_id, attempt))
        return path

    def remove(self, task_id: int, attempt: int) -> None:
        """Remove the directory of the attempt, if it was made."""
        if (task_id, attempt) in self._open:
            self._open.discard((task_id, attempt))
            shutil.rmtree(self._path(task_id, attempt), ignore_errors=True)

    def _path(self, task_id: int, attempt: int) -> Path:
        return self._root / f"{task_id}-{attempt}"


def _remove_if_unlocked(path: Path) -> None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(path, ignore_errors=True)
    except BlockingIOError:
        pass  # another pool lives there
    finally:
        os.close(fd)
