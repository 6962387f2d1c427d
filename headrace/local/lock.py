"""Makes sure that one data directory belongs to one cluster at a time."""

import fcntl
import os
import time
from pathlib import Path

from headrace.local.errors import LocalClusterError

CHILDREN_LOCK = "children.lock"
# A killed cluster's services get the longest grace of any service to end; longer than this means that one hangs.
ENDING_SECONDS = 20.0
POLL_SECONDS = 0.05


class DataDirLock:
    """Two locks: one lives with `headrace up`, the other with any process of the cluster.

    The kernel drops a lock with its last holder, so nothing stale remains after a crash. The second is inherited by
    every child, and tells the next start that a predecessor's processes, whose parent was killed, are still ending.
    """

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._own: int | None = None
        self._shared: int | None = None

    @property
    def inherited_descriptor(self) -> int:
        """The descriptor that every child keeps open."""
        assert self._shared is not None, "the lock is not held"
        return self._shared

    def acquire(self) -> None:
        """Take both locks. Raises LocalClusterError if another cluster lives here."""
        self._own = self._open("lock")
        if not _try_lock(self._own):
            self.release()
            raise LocalClusterError(
                f"A cluster already runs in {self._data_dir}. Stop it, or choose another directory with --data-dir."
            )
        self._shared = self._open(CHILDREN_LOCK)
        deadline = time.monotonic() + ENDING_SECONDS
        while not _try_lock(self._shared):
            if time.monotonic() > deadline:
                self.release()
                raise LocalClusterError(
                    f"Processes of an earlier cluster in {self._data_dir} do not end. "
                    f"`headrace ps --data-dir {self._data_dir}` lists them; end them, then try again."
                )
            time.sleep(POLL_SECONDS)

    def release(self) -> None:
        for descriptor in (self._own, self._shared):
            if descriptor is not None:
                os.close(descriptor)
        self._own = self._shared = None

    def _open(self, name: str) -> int:
        return os.open(self._data_dir / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
