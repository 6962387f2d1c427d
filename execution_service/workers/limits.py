"""The kernel's limits of a worker process, set to those of the task type that runs next; see setrlimit(2).

Only the soft limits are moved, so that the next type can have larger ones. A handler that exceeds them gets MemoryError
or OSError; one that exceeds its processor time is ended by SIGXCPU, and its worker with it.
"""

import math
import resource
import time
from collections.abc import Iterable

from headrace.tasks import Limits, TaskDefinition

_MIB = 1024 * 1024
# The limit of processor time counts from the start of the process: it is set anew when it is older than this.
_ARMED_SECONDS_MAX = 1.0


class AttemptLimits:
    """Keeps the limits of this process."""

    def __init__(self) -> None:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        self._limits: Limits | None = None
        self._cpu_seconds = 0
        self._armed_at = 0.0

    def apply(self, definition: TaskDefinition, now: float) -> None:
        """Set the limits for an attempt that starts at `now` (monotonic). Costs nothing while they stay the same."""
        if definition.limits is not self._limits:
            self._limits = definition.limits
            set_sizes(definition.limits)
        if definition.cpu_seconds != self._cpu_seconds or now - self._armed_at > _ARMED_SECONDS_MAX:
            self._cpu_seconds, self._armed_at = definition.cpu_seconds, now
            _set(resource.RLIMIT_CPU, math.ceil(time.process_time() + _ARMED_SECONDS_MAX) + definition.cpu_seconds)


def set_sizes(limits: Limits) -> None:
    """Set the limits of memory, files and descriptors."""
    _set(resource.RLIMIT_DATA, limits.memory_mib * _MIB)
    _set(resource.RLIMIT_FSIZE, limits.file_mib * _MIB)
    _set(resource.RLIMIT_NOFILE, limits.open_files)


def set_shared_sizes(definitions: Iterable[TaskDefinition], slots: int) -> None:
    """Set the limits of a process that runs `slots` attempts at once, of any of the types.

    The kernel counts per process: each limit is the largest that one type has, descriptors that for every slot.
    Processor time cannot be told apart there; timeouts bound it.
    """
    limits = [definition.limits for definition in definitions]
    if limits:
        set_sizes(
            Limits(
                memory_mib=max(limit.memory_mib for limit in limits),
                file_mib=max(limit.file_mib for limit in limits),
                open_files=min(max(limit.open_files for limit in limits) * slots, 1024 * 1024),
            )
        )


def _set(kind: int, wanted: int) -> None:
    _, hard = resource.getrlimit(kind)
    soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(kind, (soft, hard))
