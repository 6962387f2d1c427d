"""The page that parent and workers share, from which a worker reads whether it may start an attempt.

An attempt may start only while its own session is known to be alive: the newest heartbeat of that session which a
manager has echoed was sent less than `START_LIMIT_SECONDS` ago. The parent writes the page with each echo, the worker
reads it right before the handler, so that neither a slow parent nor a full socket can let a stale attempt start.
"""

import mmap
import os
import time

START_LIMIT_SECONDS = 2.5

_PAGE_BYTES = 4096
_READS_MAX = 1000


class LeasePage:
    """(session, send time of its newest echoed heartbeat), guarded by a sequence number that is odd during a write.

    Send times are seconds of CLOCK_BOOTTIME, which goes on while the machine sleeps.
    """

    def __init__(self, fd: int) -> None:
        """Map the page behind `fd`, which the page owns from now on."""
        self.fd = fd
        self._map = mmap.mmap(fd, _PAGE_BYTES)
        view = memoryview(self._map)
        self._words = view[:16].cast("q")
        self._times = view[16:24].cast("d")

    @classmethod
    def create(cls) -> "LeasePage":
        """Return a new page that belongs to no session: nothing may start yet."""
        fd = os.memfd_create("headrace-lease", os.MFD_CLOEXEC)
        os.ftruncate(fd, _PAGE_BYTES)
        return cls(fd)

    def write(self, session_id: int, sent_at: float) -> None:
        """Say that a heartbeat of `session_id`, sent at `sent_at`, was echoed. Called by the parent alone."""
        self._words[0] += 1
        self._words[1] = session_id
        self._times[0] = sent_at
        self._words[0] += 1

    def may_start(self, session_id: int, now: float) -> bool:
        """Return whether an attempt of `session_id` may be started at `now` (seconds of CLOCK_BOOTTIME)."""
        words = self._words
        for _ in range(_READS_MAX):
            before = words[0]
            session, sent_at = words[1], self._times[0]
            if words[0] == before and not before & 1:
                return session == session_id and before > 0 and now - sent_at < START_LIMIT_SECONDS
        # The writer stopped in the middle of a write: without a whole entry nothing may start.
        return False

    def close(self) -> None:
        """Unmap the page and close its descriptor."""
        self._words.release()
        self._times.release()
        self._map.close()
        os.close(self.fd)


def boottime() -> float:
    """Return the seconds since boot, counted also while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
