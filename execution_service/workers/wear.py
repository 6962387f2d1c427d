"""When a worker process is replaced although it has done nothing wrong: after many tasks, or when it has grown.

The pool counts the tasks; the worker itself looks at its memory, right behind a handler, when what the handler needed
is free again. Either way it goes on until its successor is ready.
"""

import os
from dataclasses import dataclass

_MIB = 1024 * 1024
# A look takes about 10 us, which is as much as a short task. A handler that runs for longer than this is always
# followed by one.
LOOK_SECONDS = 0.1
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class WearLimits:
    """After how many tasks, and above how many bytes of memory, a worker is replaced; 0: never."""

    tasks: int = 0
    memory: int = 0


NO_LIMITS = WearLimits()


class MemoryWatch:
    """Worker: tells once that the process has grown beyond the limit. Make it when the task modules are loaded."""

    def __init__(self, limit: int) -> None:
        # A successor would be no smaller than this process is at its start, and be replaced for ever.
        watches = 0 < resident_bytes() < limit
        self._limit = limit
        self._look_at = float("-inf") if watches else float("inf")

    def outgrown(self, now: float) -> str | None:
        """Return why the process should be replaced, if it should; `now` is monotonic. Costs nothing between looks."""
        if now < self._look_at:
            return None
        self._look_at = now + LOOK_SECONDS
        size = resident_bytes()
        if size <= self._limit:
            return None
        self._look_at = float("inf")
        return f"its memory has grown to {size // _MIB} MiB"


def resident_bytes(pid: int | None = None) -> int:
    """Return how much memory of the machine a process takes, this one without `pid`; 0 when that cannot be read."""
    try:
        with open(f"/proc/{'self' if pid is None else pid}/statm", "rb", buffering=0) as file:
            return int(file.read(256).split()[1]) * _PAGE_BYTES
    except (OSError, IndexError):  # it is gone, or going; or the handler has used up all descriptors
        return 0
