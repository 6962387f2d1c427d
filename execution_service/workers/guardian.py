"""A small process beside the pool that kills the pool's workers, with all they started, should the pool be killed.

The kernel kills each worker with its parent (PR_SET_PDEATHSIG), but not the processes that a handler has started. Run
as a plain script without site packages; standard input brings lines `+PID` and `-PID` (leaders of process groups). At
its end the groups still named are killed.
"""

import contextlib
import os
import signal
import sys


def main() -> None:
    """Follow the pool until it is gone."""
    # A Ctrl-C or a SIGTERM for the whole group is for the pool, which drains; this process ends after it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    groups: set[int] = set()
    for line in sys.stdin.buffer:
        pid = int(line[1:])
        if line[:1] == b"+":
            groups.add(pid)
        else:
            groups.discard(pid)
    for pid in groups:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
