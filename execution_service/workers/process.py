"""A worker process as the pool sees it: started, fed with frames, read, killed, and told of its end."""

import asyncio
import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import structlog

from execution_service.workers.autopsy import Death
from execution_service.workers.descendants import Relatives
from execution_service.workers.frames import Assign, Control, FrameError, FrameToPool, encode_frame, pool_reader
from execution_service.workers.held import Held
from execution_service.workers.output import WorkerOutput
from execution_service.workers.slots_page import SlotsPage

_RECEIVE_BYTES = 256 * 1024
_SOCKET_BUFFER_BYTES = 1024 * 1024
START_SECONDS_MAX = 60.0
CLOSED_SECONDS_MAX = 0.2
# How long the end of a worker is held back for processes that were killed with it, and how often they are looked at.
_RELATIVES_SECONDS_MAX = 0.25
_RELATIVES_LOOK_SECONDS = 0.01

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Launch:
    """What all workers of a pool are started with."""

    modules: tuple[str, ...]
    lease_fd: int
    # Bytes; see MemoryWatch.
    memory_max: int
    scratch_dir: Path
    environment: Mapping[str, str]


class WorkerProcess:
    """One worker process. It never blocks the event loop: what its socket does not take at once waits here.

    `on_messages` gets what the worker sends, in order; `on_death` is called once, after the last message.
    """

    def __init__(
        self,
        *,
        worker_id: str,
        pool: str,
        slots: int,
        launch: Launch,
        on_messages: Callable[["WorkerProcess", list[FrameToPool]], None],
        on_death: Callable[["WorkerProcess", Death], None],
    ) -> None:
        self.worker_id = worker_id
        self.pool = pool
        self.slots = slots
        self.started_at = time.time()
        self.began = time.monotonic()
        self.ready = False
        # The attempts inside the worker by their numbers, oldest first, and how long they should take in all.
        self.entries: dict[int, Held] = {}
        self.load = 0.0
        self.load_bytes = 0
        self.tasks_done = 0
        # Goes on until there is a successor.
        self.worn = False
        # Gets no more attempts; ends when it has none.
        self.retiring = False
        # Started for this one attempt, and ends after it.
        self.reserved_for: Held | None = None
        # Killed by the pool, for whatever reason; it is on its way out.
        self.killed = False
        # Since when it has held attempts that it may start, and started none (monotonic seconds).
        self.stalled_since: float | None = None
        self.stalled_seq = 0
        # The attempt that the last scans found running, and how many did in a row.
        self.seen_running: int | None = None
        self.seen_scans = 0
        # Where many attempts run at once: those that the last scan found running, and how many scans in a row did.
        self.seen: dict[int, int] = {}
        # Attempts that were taken back from it; what it may still say of them is not wanted.
        self.recalled: set[tuple[int, int]] = set()
        # When it closed its connection (monotonic seconds).
        self.closed_at: float | None = None
        self._relatives = Relatives()
        self.page = SlotsPage.create(slots)
        self._on_messages = on_messages
        self._on_death = on_death
        self._reason = ""
        self._next_seq = 1
        self._generation = 0
        self._unsent = bytearray()
        self._reader = pool_reader()
        self._readable = True
        self._loop = asyncio.get_running_loop()
        self._start(launch)

    @property
    def pid(self) -> int:
        return self._process.pid

    def assign(self, batch: Sequence[Held]) -> None:
        """Send attempts to the worker, to be run in this order."""
        first = self._next_seq
        self._next_seq += len(batch)
        for seq, held in enumerate(batch, first):
            held.seq = seq
            held.worker = self
            self.entries[seq] = held
        self._send(encode_frame(Assign(first, [held.attempt for held in batch])))

    def control(self, *, cancel: Sequence[int] = (), release: bool = False) -> None:
        """Stop attempts by their numbers; with `release`, have all that was not started given back."""
        self._generation += 1
        self._send(encode_frame(Control(self._generation, list(cancel), release)))
        # Written after the frame, so that the worker finds the frame when it sees the number.
        self.page.generation = self._generation

    def terminate(self) -> None:
        """Send SIGTERM for the attempt that was told to stop.

        The worker passes it on to the attempt's processes, as it alone knows whether that attempt still runs.
        """
        if self._process.returncode is not None:
            return
        # Should the worker die of it, they have nobody any more who knows of them.
        self._relatives.look(self._process.pid)
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kill the process group, for the sake of the pool and not for anything that the worker did."""
        self.killed = True
        self._kill_all()

    def condemn(self, reason: str) -> None:
        """Kill the process group for what the worker did: it counts as having died by itself."""
        if not self._reason:
            self._reason = reason
            log.warning("worker_condemned", worker=self.worker_id, pid=self.pid, reason=reason)
        self._stop_reading()
        self._kill_all()

    def check(self, now: float) -> None:
        """Kill the worker if it lives on without a connection, or does not become ready."""
        if self._process.returncode is not None:
            return
        if self.closed_at is not None and now - self.closed_at > CLOSED_SECONDS_MAX:
            self.condemn("The worker closed its connection to the pool.")
        elif not self.ready and now - self.began > START_SECONDS_MAX:
            self.condemn(f"The worker was not ready after {START_SECONDS_MAX:g} s.")

    def _start(self, launch: Launch) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BUFFER_BYTES)
        ours.setblocking(False)
        read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
        secret = secrets.token_hex(8)
        config = {
            "worker_id": self.worker_id,
            "secret": secret,
            "parent_pid": os.getpid(),
            "socket_fd": theirs.fileno(),
            "lease_fd": launch.lease_fd,
            "page_fd": self.page.fd,
            "slots": self.slots,
            "memory_max": launch.memory_max,
            "pool": self.pool,
            "modules": launch.modules,
            "scratch_dir": str(launch.scratch_dir / self.worker_id),
        }
        with theirs:
            # Started from the thread of the event loop: the kernel ends a worker with the thread that started it.
            self._process = subprocess.Popen(
                [sys.executable, "-m", "execution_service.workers.worker", msgspec.json.encode(config).decode()],
                stdin=subprocess.DEVNULL,
                stdout=write_fd,
                stderr=write_fd,
                pass_fds=(theirs.fileno(), launch.lease_fd, self.page.fd),
                env=dict(launch.environment),
                start_new_session=True,
            )
        os.close(write_fd)
        self._connection = ours
        self.output = WorkerOutput(self.worker_id, read_fd, page=self.page, secret=secret)
        self._pidfd = os.pidfd_open(self._process.pid)
        self._loop.add_reader(self._pidfd, self._on_exit)
        self._loop.add_reader(ours.fileno(), self._on_readable)
        self._loop.add_reader(read_fd, self._on_output)

    def _send(self, frame: bytearray) -> None:
        if self._unsent:
            self._unsent += frame
            return
        try:
            sent = self._connection.send(frame)
        except BlockingIOError:
            sent = 0
        except OSError:
            return  # the worker has closed its end; what it holds is judged when it is dead
        if sent < len(frame):
            self._unsent += memoryview(frame)[sent:]
            self._loop.add_writer(self._connection.fileno(), self._on_writable)

    def _on_writable(self) -> None:
        try:
            del self._unsent[: self._connection.send(self._unsent)]
        except BlockingIOError:
            return
        except OSError:
            self._unsent.clear()
        if not self._unsent:
            self._loop.remove_writer(self._connection.fileno())

    def _on_readable(self) -> None:
        self._receive()

    def _receive(self) -> bool:
        """Take in what the worker has sent; return whether there may be more."""
        try:
            size = self._connection.recv_into(_chunk)
        except BlockingIOError:
            return False
        except OSError:
            size = 0
        if size == 0:
            # Most likely it is just ending; one that lives on in spite of this is dealt with by `check`.
            self.closed_at = time.monotonic()
            self._stop_reading()
            return False
        try:
            messages = self._reader.feed(_chunk_view[:size])
        except FrameError as error:
            self.condemn(f"The worker broke the protocol: {error}.")
            return False
        if messages:
            self._on_messages(self, messages)
        return True

    def _stop_reading(self) -> None:
        if self._readable:
            self._readable = False
            self._loop.remove_reader(self._connection.fileno())

    def _on_output(self) -> None:
        if not self.output.read():
            self._loop.remove_reader(self.output.fd)

    def _on_exit(self) -> None:
        self._loop.remove_reader(self._pidfd)
        # Before the process is reaped its group's number cannot be anybody else's.
        self._signal(signal.SIGKILL)
        _, status, usage = os.wait4(self._process.pid, 0)
        self._process.returncode = os.waitstatus_to_exitcode(status)
        self._relatives.end_held()
        self._bury(usage.ru_maxrss, time.monotonic() + _RELATIVES_SECONDS_MAX)

    def _bury(self, peak_kib: int, deadline: float) -> None:
        """Tell of the end, once what was killed with the worker is gone as well."""
        if self._relatives.may_end and time.monotonic() < deadline:
            self._loop.call_later(_RELATIVES_LOOK_SECONDS, self._bury, peak_kib, deadline)
            return
        # What the worker had sent before it ended still counts.
        while self._readable and self._receive():
            pass
        self._on_output()
        code = self._process.returncode or 0
        death = Death(
            killed=self.killed,
            signal=-code if code < 0 else 0,
            exit_code=max(code, 0),
            peak_kib=peak_kib,
            reason=self._reason,
            output=self.output.tail(),
            processes_gone=self._relatives.gone,
        )
        self._on_death(self, death)
        self._close()

    def _close(self) -> None:
        self._stop_reading()
        self._loop.remove_writer(self._connection.fileno())
        self._loop.remove_reader(self.output.fd)
        self._relatives.close()
        self._connection.close()
        self.output.close()
        self.page.close()
        os.close(self._pidfd)

    def _kill_all(self) -> None:
        if self._process.returncode is None and self.ready:
            self._relatives.end(self._process.pid)
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        if self._process.returncode is not None:
            return
        try:
            os.killpg(self._process.pid, number)
        except ProcessLookupError:
            # Between its start and setsid there is no such group yet.
            self._process.send_signal(number)


# Shared by all workers of the process: filled and emptied within one call.
_chunk = bytearray(_RECEIVE_BYTES)
_chunk_view = memoryview(_chunk)
