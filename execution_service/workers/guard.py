"""The pool's side of the guardian process: starts it, tells it of workers, starts it again should it die."""

import asyncio
import contextlib
import os
import subprocess
import sys
from pathlib import Path

import structlog

log = structlog.get_logger(__name__)

_PROGRAM = Path(__file__).with_name("guardian.py")
_STOP_SECONDS_MAX = 2.0


class Guard:
    """Keeps a guardian that knows the process groups of all workers."""

    def __init__(self) -> None:
        self._groups: set[int] = set()
        self._start()

    def add(self, pid: int) -> None:
        """Tell the guardian of a worker."""
        self._groups.add(pid)
        self._tell(b"+", pid)

    def remove(self, pid: int) -> None:
        """Tell the guardian that a worker and its group are gone."""
        self._groups.discard(pid)
        self._tell(b"-", pid)

    async def stop(self) -> None:
        """End the guardian; groups that it still knows are killed."""
        os.close(self._pipe)
        try:
            await asyncio.to_thread(self._process.wait, _STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _start(self) -> None:
        read_fd, self._pipe = os.pipe2(os.O_CLOEXEC)
        # Isolated and without site packages: it starts in 10 ms and takes a few MiB.
        command = [sys.executable, "-I", "-S", str(_PROGRAM)]
        self._process = subprocess.Popen(command, stdin=read_fd, start_new_session=True)
        os.close(read_fd)
        os.set_blocking(self._pipe, False)

    def _tell(self, sign: bytes, pid: int) -> None:
        try:
            os.write(self._pipe, b"%s%d\n" % (sign, pid))
        except OSError as error:
            log.warning("guardian_lost", pid=self._process.pid, error=str(error))
            os.close(self._pipe)
            with contextlib.suppress(OSError):
                self._process.kill()
            self._process.wait()
            self._start()
            for group in self._groups:
                os.write(self._pipe, b"+%d\n" % group)
