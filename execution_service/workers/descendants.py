"""Processes that a handler has started: found by the kernel's lists of children, and ended with their attempt."""

import contextlib
import os
import signal
from pathlib import Path

# Killed children leave orphans, which become children in turn; a family that outlives so many rounds has to wait for
# the end of the whole process group.
_ROUNDS_MAX = 100


class UnendingChildrenError(Exception):
    """Processes cannot be found, or keep coming faster than they can be killed."""


def children_of(pid: int) -> list[int]:
    """Return the children of a process, started by any of its threads; none if there is no such process."""
    children: list[int] = []
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return children
    for thread in threads:
        with contextlib.suppress(OSError):
            children += map(int, Path(f"/proc/{pid}/task/{thread}/children").read_text().split())
    return children


def descendants_of(pid: int) -> list[int]:
    """Return all that a process has started, and what those have started."""
    found = children_of(pid)
    for child in found:
        found.extend(children_of(child))
    return found


def end_own_children() -> bool:
    """Kill and reap every descendant of this process, which has to be their adopter; return whether there was any.

    Raises UnendingChildrenError.
    """
    for round_number in range(_ROUNDS_MAX):
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return round_number > 0
        if pid == 0:
            descendants = descendants_of(os.getpid())
            if not descendants:
                break  # the kernel does not list them
            for child in descendants:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(child, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(-1, 0)
        while pid:
            try:
                pid, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
    raise UnendingChildrenError


def end_detached(leader: int) -> None:
    """Kill the descendants of a process, also those that have left its process group.

    The process is stopped meanwhile, so that it starts no more and stays their adopter; its end is up to the caller.
    """
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(leader, signal.SIGSTOP)
    killed: set[int] = set()
    for _ in range(_ROUNDS_MAX):
        found = set(descendants_of(leader)) - killed
        if not found:
            return
        for pid in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        killed |= found
