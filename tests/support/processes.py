"""Processes for tests about processes."""

import contextlib
import os
import pickle
import subprocess
import sys
from pathlib import Path

from headrace.local.process import Command, spawn_options

_PARENT = """
import pickle, subprocess, sys
from headrace.local.process import spawn_argv, spawn_options
command = pickle.load(sys.stdin.buffer)
process = subprocess.Popen(spawn_argv(command), **spawn_options(command, output=subprocess.DEVNULL))
print(process.pid, flush=True)
process.wait()
"""


def start_under_a_parent(command: Command) -> tuple[subprocess.Popen[bytes], int]:
    """Start a process that starts `command`; return that parent, for the test to kill, and the pid of the child."""
    options = spawn_options(command, output=subprocess.PIPE)
    options["stdin"] = subprocess.PIPE
    options["stderr"] = 2
    options["umask"] = -1
    options["env"] = {}
    parent = subprocess.Popen([sys.executable, "-c", _PARENT], **options)
    assert parent.stdin is not None
    assert parent.stdout is not None
    with parent.stdin as stdin, parent.stdout as stdout:
        pickle.dump(command, stdin)
        stdin.close()
        return parent, int(stdout.readline())


def has_ended(pid: int) -> bool:
    """Tell whether a process of any parent has ended; one that nobody has waited for counts as ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def local_ports(pid: int) -> set[int]:
    """The local ports of the TCP sockets that a process has open, over IPv4 or IPv6."""
    inodes = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            inodes.add(os.readlink(entry).removeprefix("socket:[").removesuffix("]"))
    rows = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
    return {int(row[1].rpartition(":")[2], 16) for row in rows if row[9] in inodes}
