"""How a child process of the local cluster is described and started."""

import atexit
import os
import random
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict

from headrace.local import trampoline
from headrace.local.errors import LocalClusterError
from headrace.local.privileges import ServerUser

LOOPBACK = "127.0.0.1"
LOWEST_PORT = 20000
PROBE_SECONDS = 0.5
# Far more than a cluster has; a process that starts many lets go of the oldest.
HELD_PORTS_MAX = 500

_held_ports: deque[socket.socket] = deque()


@atexit.register
def _let_go_of_ports() -> None:
    while _held_ports:
        _held_ports.popleft().close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A program with everything it needs, ready to be started any number of times.

    `stop_signal` asks it to end cleanly; it also gets that signal when its parent dies.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    stop_signal: signal.Signals = signal.SIGTERM
    user: ServerUser | None = None
    kept_descriptors: tuple[int, ...] = ()


class SpawnOptions(TypedDict):
    """Keyword arguments for subprocess.Popen and asyncio.create_subprocess_exec alike."""

    env: dict[str, str]
    cwd: str
    stdin: int
    stdout: int
    stderr: int
    pass_fds: tuple[int, ...]
    start_new_session: bool
    umask: int


def spawn_argv(command: Command) -> list[str]:
    """Return the argument list that starts `command` as a child of this very process.

    Call it and start the process in the main thread: the kernel sends the parent-death signal when the *thread* ends.
    """
    user = command.user
    identity = [trampoline.NO_USER] * 2 if user is None else [str(user.uid), str(user.gid)]
    script = str(Path(trampoline.__file__).resolve())
    parent, death_signal = str(os.getpid()), str(int(command.stop_signal))
    return [sys.executable, "-I", "-S", script, parent, death_signal, *identity, *command.argv]


def spawn_options(command: Command, *, output: int) -> SpawnOptions:
    """Return how to start it: in a session of its own, so Ctrl-C reaches the parent alone, which stops in order."""
    return SpawnOptions(
        env=dict(command.env),
        cwd="/" if command.user is not None else os.getcwd(),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        pass_fds=command.kept_descriptors,
        start_new_session=True,
        umask=0o077 if command.user is not None else -1,
    )


def port_of(address: str) -> int:
    """Return the port of `host:port`."""
    return int(address.rpartition(":")[2])


def accepts_connections(port: int) -> bool:
    """Tell whether something listens on this loopback port."""
    try:
        socket.create_connection((LOOPBACK, port), timeout=PROBE_SECONDS).close()
    except OSError:
        return False
    return True


def free_port() -> int:
    """Return a TCP port that nothing listens on now and that no outgoing connection will be given.

    A service keeps its port over a restart. While it is down, a port that the kernel gives to outgoing connections
    could go to one, even to a client that dials this very port and would then be connected with itself. So the search
    is below that range; port 0 is the way out where it has no room.

    This process keeps the port bound, without listening: nobody else is given it, in another cluster that starts at
    the same time, and the server that it is for can listen there all the same (both allow the reuse of the address).
    """
    candidates = range(LOWEST_PORT, max(_first_outgoing_port(), LOWEST_PORT))
    for port in (*random.sample(candidates, min(len(candidates), 100)), 0):
        holder = socket.socket()
        try:
            holder.bind((LOOPBACK, port))
        except OSError:
            holder.close()
            continue
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        _held_ports.append(holder)
        if len(_held_ports) > HELD_PORTS_MAX:
            _held_ports.popleft().close()
        chosen: int = holder.getsockname()[1]
        return chosen
    raise LocalClusterError(f"no free port on {LOOPBACK}")


def _first_outgoing_port() -> int:
    try:
        return int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except FileNotFoundError:
        return 49152  # what other systems use
