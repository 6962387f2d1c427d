"""Keeps programs running: starts them, restarts those that end, stops all of them in order and in time."""

import asyncio
import contextlib
import os
import signal
import time
from asyncio.subprocess import Process
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from headrace.local.errors import LocalClusterError
from headrace.local.process import Command, spawn_argv, spawn_options

LOG_BYTES_MAX = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """One program of a cluster. `prepare` is called before every start."""

    role: str
    program_id: str
    command: Command
    address: str
    # Where it speaks HTTP, where that is not the address.
    http_address: str = ""
    log: Path
    prepare: Callable[[], None] = lambda: None


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartPolicy:
    """How long to wait before a program that ended is started again. Times are seconds."""

    first_wait: float = 0.25
    longest_wait: float = 5.0
    healthy_life: float = 30.0

    def count(self, restarts: int, *, lived: float) -> int:
        """Return how many restarts in a row this one is; a healthy life begins a new row."""
        return 1 if lived >= self.healthy_life else restarts + 1

    def wait(self, restarts: int) -> float:
        """Return the wait before the given restart in a row: none before the first, then doubling."""
        if restarts <= 1:
            return 0.0
        # The exponent is bounded, or a program that never starts would make this an enormous number.
        return min(self.first_wait * float(1 << min(restarts - 2, 30)), self.longest_wait)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A program ended although nobody asked for it, and will be started again after `wait` seconds."""

    program: Program
    reason: str
    restarts: int
    wait: float


class SupervisedProcess:
    """One program that is kept running until `stop`."""

    def __init__(
        self,
        program: Program,
        *,
        policy: RestartPolicy,
        on_start: Callable[[], None],
        on_end: Callable[[Ended], None],
    ) -> None:
        self.program = program
        self.pid = 0
        self.restarts = 0
        # Of the last end that nobody asked for.
        self.exit_code: int | None = None
        self._policy = policy
        self._on_start = on_start
        self._on_end = on_end
        self._stop = asyncio.Event()
        self._stop_deadline = 0.0
        self._started: asyncio.Future[None] | None = None
        self._keeper: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Return when the program was started once; whether it works is for others to see."""
        self._started = asyncio.get_running_loop().create_future()
        self._keeper = asyncio.create_task(self._keep_running(self._started))
        await self._started

    async def stop(self, *, deadline: float) -> None:
        """Ask the program to end; kill it at `deadline` (monotonic). Stopping what was never started does nothing."""
        self._stop_deadline = deadline
        self._stop.set()
        if self._keeper is not None:
            await self._keeper

    async def _keep_running(self, started: asyncio.Future[None]) -> None:
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                process = await self._spawn()
            except (OSError, LocalClusterError) as error:
                reason: str | None = f"cannot be started: {error}"
            else:
                if not started.done():
                    started.set_result(None)
                reason = await self._wait_for_end(process)
            if reason is None:
                return
            if not started.done():
                started.set_exception(LocalClusterError(f"{self.program.program_id} {reason}"))
                return
            self.restarts = self._policy.count(self.restarts, lived=time.monotonic() - began)
            wait = self._policy.wait(self.restarts)
            self._on_end(Ended(program=self.program, reason=reason, restarts=self.restarts, wait=wait))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), wait)

    async def _spawn(self) -> Process:
        self.program.prepare()
        command = self.program.command
        log = _open_log(self.program.log)
        try:
            process = await asyncio.create_subprocess_exec(*spawn_argv(command), **spawn_options(command, output=log))
        finally:
            os.close(log)
        self.pid = process.pid
        self._on_start()
        return process

    async def _wait_for_end(self, process: Process) -> str | None:
        """Return how a program ended by itself, None for one that was stopped."""
        ended = asyncio.create_task(process.wait())
        stopped = asyncio.create_task(self._stop.wait())
        await asyncio.wait((ended, stopped), return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if ended.done() and not self._stop.is_set():
            self.exit_code = ended.result()
            return _reason(self.exit_code)
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(self.program.command.stop_signal)
        await asyncio.wait((ended,), timeout=max(self._stop_deadline - time.monotonic(), 0.0))
        # The program leads its process group: what it left behind ends with it.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        await ended
        return None


class Supervisor:
    """A set of programs. `on_change` is called after every start and restart, `on_end` for every unexpected end."""

    def __init__(
        self,
        *,
        on_change: Callable[[], None],
        on_end: Callable[[Ended], None],
        policy: RestartPolicy | None = None,
    ) -> None:
        self._on_change = on_change
        self._on_end = on_end
        self._policy = policy or RestartPolicy()
        self._processes: list[SupervisedProcess] = []

    @property
    def processes(self) -> Sequence[SupervisedProcess]:
        return self._processes

    async def start(self, *programs: Program) -> None:
        """Start programs beside those that run already."""
        for program in programs:
            process = SupervisedProcess(program, policy=self._policy, on_start=self._on_change, on_end=self._on_end)
            self._processes.append(process)
            await process.start()

    async def stop(self, roles_with_seconds: Sequence[tuple[str, float]]) -> None:
        """Stop role after role. The seconds count from now: a role that has not ended by then is killed."""
        began = time.monotonic()
        for role, seconds in roles_with_seconds:
            ending = [process for process in self._processes if process.program.role == role]
            await asyncio.gather(*(process.stop(deadline=began + seconds) for process in ending))


def _reason(code: int) -> str:
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with {code}"


def _open_log(path: Path) -> int:
    """Open a log for appending; one that has grown large makes room for a new one and is kept as `.old`."""
    with contextlib.suppress(FileNotFoundError):
        if path.stat().st_size > LOG_BYTES_MAX:
            path.replace(path.with_suffix(".old"))
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
