"""A whole cluster for a test, a benchmark or a demo: started on entry, stopped on exit."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, TypedDict, Unpack

from headrace.local.cluster_file import FILE_NAME, ClusterFile, ProcessEntry, read_cluster_file
from headrace.local.errors import LocalClusterError
from headrace.local.http_probe import answers_ok
from headrace.local.process import Command, accepts_connections, port_of, spawn_argv, spawn_options

START_SECONDS = 120.0
STOP_SECONDS = 20.0
POLL_SECONDS = 0.05


class ClusterArguments(TypedDict, total=False):
    """What may differ from the defaults of `headrace up`, and the port, which is a free one here.

    `env` is for all processes; `role_env` is for the services of a role: `{"execution": {"HEADRACE_…": "…"}}`.
    """

    port: int
    managers: int
    executors: int
    workers: int
    postgres_dsn: str
    results_dsn: str
    redis_url: str
    consul_url: str
    env: Mapping[str, str]
    role_env: Mapping[str, Mapping[str, str]]


class LocalCluster:
    """`headrace up` in a process of its own, bound to the life of this one.

    A stopped or killed cluster can be started again on its data. Start it in the main thread.
    """

    def __init__(self, data_dir: Path, **arguments: Unpack[ClusterArguments]) -> None:
        self.data_dir = data_dir
        self._env = {**os.environ, **arguments.get("env", {})}
        self._arguments = ["--data-dir", str(data_dir), "--port", str(arguments.get("port", 0))]
        for option in ("managers", "executors", "workers", "postgres_dsn", "results_dsn", "redis_url", "consul_url"):
            if option in arguments:
                self._arguments += [f"--{option.replace('_', '-')}", str(arguments[option])]
        for role, settings in arguments.get("role_env", {}).items():
            for name, value in settings.items():
                self._arguments += ["--env", f"{role}:{name}={value}"]
        self._process: subprocess.Popen[bytes] | None = None

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def pid(self) -> int:
        """The process id of `headrace up`."""
        assert self._process is not None, "the cluster was not started"
        return self._process.pid

    @property
    def output(self) -> Path:
        """What `headrace up` printed."""
        return self.data_dir / "up.log"

    @property
    def file(self) -> ClusterFile:
        """What `cluster.json` says now."""
        return read_cluster_file(self.data_dir)

    @property
    def processes(self) -> Sequence[ProcessEntry]:
        return self.file.processes

    @property
    def gateway_url(self) -> str:
        return f"http://{self.process('gateway').address}"

    def process(self, role: str, number: int = 0) -> ProcessEntry:
        """Return the process as it runs now; after a restart it has another pid."""
        return next(entry for entry in self.processes if entry.id == f"{role}-{number}")

    async def start(self) -> None:
        """Start the cluster and return when its gateway is ready. Raises LocalClusterError if it does not come up."""
        self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        before = self._file_content()
        self._process = self._spawn()
        deadline = time.monotonic() + START_SECONDS
        while self._file_content() in (before, b"") or not self._is_ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise LocalClusterError(f"the cluster does not start:\n{self.output.read_text()}")
            await asyncio.sleep(POLL_SECONDS)

    async def stop(self) -> None:
        """Stop everything as Ctrl-C does. Stopping what does not run does nothing."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            await self._wait_for_end()
        finally:
            self._process.kill()
            self._process.wait()
            self._process = None

    async def kill_supervisor(self) -> None:
        """End `headrace up` with SIGKILL; its children then end by themselves."""
        assert self._process is not None, "the cluster was not started"
        self._process.kill()
        await self._wait_for_end()
        self._process = None

    def kill(self, process: ProcessEntry, signal_number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to one process of the cluster. One that has just ended is no error."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal_number)

    def _spawn(self) -> subprocess.Popen[bytes]:
        command = Command(argv=(sys.executable, "-m", "headrace.cli", "up", *self._arguments), env=self._env)
        with self.output.open("ab") as output:
            return subprocess.Popen(spawn_argv(command), **spawn_options(command, output=output.fileno()))

    async def _wait_for_end(self) -> None:
        assert self._process is not None, "the cluster was not started"
        with contextlib.suppress(subprocess.TimeoutExpired):
            await asyncio.to_thread(self._process.wait, STOP_SECONDS)

    def _is_ready(self) -> bool:
        ports = {entry.role: port_of(entry.address) for entry in self.processes}
        answering = all(accepts_connections(port_of(entry.address)) for entry in self.processes)
        return "gateway" in ports and answering and answers_ok(ports["gateway"], "/readyz")

    def _file_content(self) -> bytes:
        try:
            return (self.data_dir / FILE_NAME).read_bytes()
        except FileNotFoundError:
            return b""
