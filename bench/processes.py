"""CPU time and memory of a cluster by role, with the children of each process."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import psutil

from headrace.local.cluster_file import ProcessEntry

WORKERS = "execution workers"


@dataclass(frozen=True, slots=True)
class Memory:
    """In MiB. `pss` shares what is shared among those who share it, so it may be added up."""

    pss: float
    rss: float
    processes: int


def cpu_seconds(entries: Sequence[ProcessEntry]) -> dict[str, float]:
    """User and system time by role so far."""
    seconds: dict[str, float] = defaultdict(float)
    for role, process in _by_role(entries):
        times = process.cpu_times()
        seconds[role] += times.user + times.system
    return dict(seconds)


def memory(entries: Sequence[ProcessEntry]) -> dict[str, Memory]:
    """Memory by role now."""
    sums: dict[str, Memory] = {}
    for role, process in _by_role(entries):
        before, rss = sums.get(role, Memory(0, 0, 0)), process.memory_info().rss
        sums[role] = Memory(before.pss + proportional(process) / 2**20, before.rss + rss / 2**20, before.processes + 1)
    return sums


def proportional(process: psutil.Process) -> int:
    """Resident bytes of a process with its part of what it shares.

    Of an execution replica, which hides its memory from all but root, what it does not share with files.
    """
    try:
        return int(process.memory_full_info().pss)
    except psutil.AccessDenied:
        info = process.memory_info()
        return int(info.rss - info.shared)


def _by_role(entries: Sequence[ProcessEntry]) -> Iterator[tuple[str, psutil.Process]]:
    for entry in entries:
        process = psutil.Process(entry.pid)
        yield entry.role, process
        for child in process.children(recursive=True):
            yield (WORKERS if entry.role == "execution" else entry.role), child
