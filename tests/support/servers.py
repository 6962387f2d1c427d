"""Start a database server of the local cluster inside a test run, kill it, start it again."""

import signal
import subprocess
import time
from pathlib import Path
from typing import Protocol

from headrace.local.process import Command, spawn_argv, spawn_options

START_SECONDS = 30.0
STOP_SECONDS = 15.0


class Server(Protocol):
    """What PostgresServer and RedisServer have in common."""

    def command(self) -> Command: ...
    def ready(self) -> bool: ...
    def close(self) -> None: ...


class RunningServer:
    """A server process that belongs to the tests. Everything here blocks; it is over within seconds."""

    def __init__(self, server: Server, *, log: Path) -> None:
        self._server = server
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None, "the server was not started"
        return self._process.pid

    def start(self) -> None:
        """Start the server and return when it answers."""
        command = self._server.command()
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(spawn_argv(command), **spawn_options(command, output=log.fileno()))
        deadline = time.monotonic() + START_SECONDS
        while not self._server.ready():
            assert self._process.poll() is None, f"the server ended: {self._log.read_text()}"
            assert time.monotonic() < deadline, f"the server does not answer: {self._log.read_text()}"
            time.sleep(0.01)

    def kill(self) -> None:
        """End it the hard way, as a crash of the machine would."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it cleanly. Stopping a stopped server does nothing."""
        if self._process is not None:
            self._end(self._server.command().stop_signal)

    def close(self) -> None:
        self.stop()
        self._server.close()

    def _end(self, signal_number: signal.Signals) -> None:
        assert self._process is not None, "the server was not started"
        self._process.send_signal(signal_number)
        self._process.wait(STOP_SECONDS)
        self._process = None
