"""Processes that a handler has started: found by the kernel's lists of children, and ended with their attempt."""

import contextlib
import os
import select
import signal
from pathlib import Path

# Killed children leave orphans, which become children in turn; a family that outlives so many rounds has to wait for
# the end of the whole process group.
_ROUNDS_MAX = 100
# Of how many processes of one worker it is watched that they end.
_HELD_MAX = 200


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


def _are_listed(pid: int) -> bool:
    """Return whether the kernel lists the children of the process, as not every kernel does."""
    return Path(f"/proc/{pid}/task/{pid}/children").exists()


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


class Relatives:
    """The descendants of a process, held by descriptors: a number that is used again is not mistaken for them."""

    def __init__(self) -> None:
        self._descriptors: dict[int, int] = {}
        self._looked = False
        self._untold = False

    def look(self, leader: int) -> None:
        """Take note of the descendants that the process has now."""
        self._looked = _are_listed(leader)
        self._hold(set(descendants_of(leader)))

    def end(self, leader: int) -> None:
        """Kill the descendants of a process, also those that have left its process group.

        The process is stopped meanwhile, so that it starts no more and stays their adopter; its end is up to the
        caller.
        """
        self._looked = _are_listed(leader)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(leader, signal.SIGSTOP)
        killed: set[int] = set()
        for _ in range(_ROUNDS_MAX):
            found = set(descendants_of(leader)) - killed
            if not found:
                return
            self._hold(found)
            for pid in found:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            killed |= found
        self._untold = True

    def end_held(self) -> None:
        """Kill all that were found, which may have no leader any more."""
        for descriptor in self._descriptors.values():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)

    @property
    def gone(self) -> bool:
        """Whether it is certain that none of them runs any more."""
        return self._looked and not self._untold and not self.may_end

    @property
    def may_end(self) -> bool:
        """Whether one of those that were found still runs."""
        poller = select.poll()
        for descriptor in self._descriptors.values():
            poller.register(descriptor, select.POLLIN)
        return len(poller.poll(0)) < len(self._descriptors)

    def close(self) -> None:
        """Close the descriptors."""
        for descriptor in self._descriptors.values():
            os.close(descriptor)
        self._descriptors.clear()

    def _hold(self, pids: set[int]) -> None:
        for pid in pids - self._descriptors.keys():
            if len(self._descriptors) >= _HELD_MAX:
                self._untold = True
                return
            with contextlib.suppress(ProcessLookupError):
                self._descriptors[pid] = os.pidfd_open(pid)
