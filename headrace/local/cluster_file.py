"""`cluster.json`: what runs in a data directory and how to reach it, for people, tests and other programs."""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from headrace.local.lock import CHILDREN_LOCK
from headrace.local.privileges import write_private_file

FILE_NAME = "cluster.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessEntry:
    """One process of the cluster; `pid` is that of its latest start."""

    role: str
    id: str
    pid: int
    address: str
    log: str
    # Where an execution replica serves live streams.
    http_address: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterFile:
    """The whole content. It holds passwords, so the file is for its owner alone."""

    processes: Sequence[ProcessEntry]
    postgres_dsn: str
    results_dsn: str
    redis_url: str
    consul_url: str

    def write(self, data_dir: Path) -> None:
        write_private_file(data_dir / FILE_NAME, json.dumps(asdict(self), indent=2) + "\n")


def read_cluster_file(data_dir: Path) -> ClusterFile:
    """Read what the last cluster in `data_dir` wrote. Raises FileNotFoundError if there never was one."""
    content = json.loads((data_dir / FILE_NAME).read_text())
    processes = [ProcessEntry(**entry) for entry in content.pop("processes")]
    return ClusterFile(processes=processes, **content)


def is_alive(entry: ProcessEntry, data_dir: Path) -> bool:
    """Tell whether the process still runs. Another program that got the same pid since does not count."""
    try:
        os.kill(entry.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it exists, as another user
    if not Path("/proc/self").exists():
        return True
    # Every process of the cluster keeps this file open, and a dead one that nobody has waited for keeps none.
    lock = str(data_dir.resolve() / CHILDREN_LOCK)
    try:
        return any(os.readlink(descriptor) == lock for descriptor in Path(f"/proc/{entry.pid}/fd").iterdir())
    except FileNotFoundError:
        return False
    except PermissionError:
        # Execution replicas hide what they have open from others of their user; their command line has to do.
        return b"execution_service" in _command_line(entry.pid)


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
