"""How much processor time is free, of what this process may use."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_CGROUPS = Path("/sys/fs/cgroup")
# Columns of a processor in /proc/stat, behind its name.
_IDLE, _IO_WAIT = 3, 4


class CoreMeter:
    """Measures from one look to the next: processors left idle, but no more than the quota of our control groups."""

    def __init__(self, now: float) -> None:
        self._groups = list(_own_groups())
        self._looked_at = now
        self._idle = _idle_seconds()
        self._used = [_used_seconds(group) for group in self._groups]

    def free(self, now: float) -> float:
        """Return how many processors were free on average since the last look, 0 where no time has passed."""
        seconds = now - self._looked_at
        if seconds <= 0:
            return 0.0
        idle, used = _idle_seconds(), [_used_seconds(group) for group in self._groups]
        free = [(idle - self._idle) / seconds]
        for group, before, after in zip(self._groups, self._used, used, strict=True):
            if (quota := _quota(group)) is not None:
                free.append(quota - (after - before) / seconds)
        self._looked_at, self._idle, self._used = now, idle, used
        return max(0.0, min(free))


def _idle_seconds() -> float:
    """How long the processors that we may run on have been idle, in all."""
    ours = {f"cpu{number}" for number in os.sched_getaffinity(0)}
    ticks = 0
    with open("/proc/stat", encoding="ascii") as stat:
        for line in stat:
            name, *columns = line.split(maxsplit=6)
            if not name.startswith("cpu"):
                break
            if name in ours:
                ticks += int(columns[_IDLE]) + int(columns[_IO_WAIT])
    return ticks / _TICKS_PER_SECOND


def _own_groups() -> Iterator[Path]:
    """Our control group (version 2) and those around it."""
    path = ""
    with contextlib.suppress(OSError):
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
        path = next((line.removeprefix("0::/") for line in lines if line.startswith("0::/")), "")
    group = _CGROUPS / path
    yield group
    while group != _CGROUPS and _CGROUPS in group.parents:
        group = group.parent
        yield group


def _quota(group: Path) -> float | None:
    """How many processors a control group may use; None without a limit."""
    try:
        quota, period = (group / "cpu.max").read_text(encoding="ascii").split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        return None


def _used_seconds(group: Path) -> float:
    try:
        lines = (group / "cpu.stat").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("usage_usec ")) / 1e6
    except (OSError, ValueError, StopIteration):
        return 0.0
