"""Runs other programs with a deadline, and says in one line why one failed."""

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from deploy.errors import DeployError

_LINES_OF_ERROR = 5


def start(
    argv: Sequence[str],
    *,
    stdin: IO[bytes] | int = subprocess.DEVNULL,
    folder: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Start a program that writes into pipes. Whoever starts it sees to it that it ends, with `end`."""
    try:
        return subprocess.Popen(
            argv,
            cwd=folder,
            env=env,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            process_group=0,
        )
    except FileNotFoundError:
        raise DeployError(f"`{argv[0]}` is not on the PATH") from None


def finish(call: subprocess.Popen[bytes], *, name: str, timeout: float, stdin: bytes | None = None) -> str:
    """Feed `stdin` to a program, wait for its end, and return what it printed.

    Raises DeployError with the last lines of its stderr where it fails, and where it takes longer than `timeout`; it
    has ended by then.
    """
    with call:
        try:
            output, errors = call.communicate(stdin, timeout=timeout)
        except subprocess.TimeoutExpired:
            raise DeployError(f"`{name}` took longer than {timeout:g} s") from None
        finally:
            end(call)
    if call.returncode != 0:
        raise DeployError(f"`{name}` failed: {reason_in(errors) or f'exit status {call.returncode}'}")
    return output.decode(errors="replace")


def end(call: subprocess.Popen[bytes]) -> None:
    """Kill what still runs of a program: `docker` leaves the work to a plugin, a process of the same group."""
    if call.poll() is None:
        os.killpg(call.pid, signal.SIGKILL)


def reason_in(errors: bytes) -> str:
    """The last lines of what a program said on stderr, as one line."""
    lines = [line.strip() for line in errors.decode(errors="replace").splitlines()]
    return "; ".join([line for line in lines if line][-_LINES_OF_ERROR:])
