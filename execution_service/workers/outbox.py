"""What a worker sends to its pool, gathered into few frames.

Outcomes leave at once when nothing else waits, else every 2 ms, so that a single task is not delayed and many short
ones share a frame. A thread of its own sends what is due while the main thread is inside a handler, keeps progress to
five reports per second and attempt, and ends the process group when the pool is gone.
"""

import json
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from execution_service.workers.failures import clean_text
from execution_service.workers.frames import (
    BATCH_BYTES,
    OUTPUT_LEVEL,
    FrameToPool,
    LogLine,
    LogReport,
    Outcomes,
    ProgressReport,
    TypeTime,
    encode_frame,
)
from execution_service.workers.outcomes import Finished, ProgressItem

FLUSH_SECONDS = 0.002
PROGRESS_SECONDS = 0.2
_TICK_MILLISECONDS = 5
# The thread goes to sleep when there was nothing to do for so many ticks.
_IDLE_TICKS = 20
_LOG_LINES_MAX = 200
_LOG_TEXT_MAX = 8192
_GONE = select.POLLHUP | select.POLLERR | select.POLLNVAL | select.POLLRDHUP


class _Track:
    """The progress of one attempt: what was sent last, and what is to be sent when its time has come."""

    __slots__ = ("latest", "n", "sent_at")

    def __init__(self) -> None:
        self.n = 0
        self.sent_at = float("-inf")
        self.latest: tuple[str, float, str, float] | None = None


class Outbox:
    """Everything that goes from the worker to the pool. Safe to use from any thread."""

    def __init__(self, connection: socket.socket, *, on_gone: Callable[[], None]) -> None:
        """`on_gone` is called, from any thread, when the pool does not listen any more."""
        self._connection = connection
        self._on_gone = on_gone
        self._lock = threading.Lock()
        self._sending = threading.Lock()
        self._finished: list[Finished] = []
        self._finished_bytes = 0
        self._times: dict[str, tuple[int, float]] = {}
        self._printed: list[int] = []
        self._flushed_at = 0.0
        self._tracks: dict[tuple[int, int], _Track] = {}
        self._log_lines: list[LogLine] = []
        self._log_dropped = 0
        self._awake = False
        self._wake_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def start(self) -> None:
        """Start the thread that sends what is due and watches the connection."""
        threading.Thread(target=self._attend, name="outbox", daemon=True).start()

    def add(self, finished: Finished, type_name: str, seconds: float, printed: int | None = None) -> None:
        """Take an outcome, and the time that its handler took (below 0: no handler ran).

        `printed` is the attempt's number if its output ends with a mark.
        """
        with self._lock:
            self._finished.append(finished)
            if printed is not None:
                self._printed.append(printed)
            if finished.result is not None:
                self._finished_bytes += len(finished.result)
            if seconds >= 0:
                count, total = self._times.get(type_name, (0, 0.0))
                self._times[type_name] = (count + 1, total + seconds)
            if self._tracks:
                self._tracks.pop((finished.task_id, finished.attempt), None)

    def flush_if_due(self, now: float) -> None:
        """Send the outcomes if the last ones left 2 ms ago; else see to it that they do not wait for long."""
        if now - self._flushed_at >= FLUSH_SECONDS or self._finished_bytes >= BATCH_BYTES:
            self.flush()
        elif not self._awake:
            self._wake()

    def flush(self) -> None:
        """Send all outcomes that wait."""
        # Swapped and sent under one lock, so that frames leave in the order in which attempts ended.
        with self._sending:
            with self._lock:
                finished, self._finished = self._finished, []
                times, self._times = self._times, {}
                printed, self._printed = self._printed, []
                self._finished_bytes = 0
            self._flushed_at = time.monotonic()
            # What an attempt logged arrives before its end, which closes its log.
            self._send_log_lines()
            if finished:
                self._send(Outcomes(finished, [TypeTime(name, *value) for name, value in times.items()], printed))

    def send(self, message: FrameToPool) -> None:
        """Send a message now."""
        with self._sending:
            self._send(message)

    def progress(self, task_id: int, attempt: int, type_name: str, fraction: float, message: str) -> None:
        """Take the latest progress of an attempt; it replaces what was not sent yet."""
        text = clean_text(message, 4000)
        with self._lock:
            track = self._tracks.setdefault((task_id, attempt), _Track())
            track.latest = (type_name, fraction, text, time.time())
            due = time.monotonic() - track.sent_at >= PROGRESS_SECONDS
        if due:
            self._send_progress()
        elif not self._awake:
            self._wake()

    def log(self, key: tuple[int, int], level: str, event: str, fields: Mapping[str, Any]) -> None:
        """Take an event that a handler logged; dropped, and counted, when more wait than can be kept.

        What a handler printed is not dropped: it waits until there is room, as it would for a pipe.
        """
        if level == OUTPUT_LEVEL and len(self._log_lines) >= _LOG_LINES_MAX:
            self._send_log()
        text = json.dumps(fields, default=repr)
        if len(text) > _LOG_TEXT_MAX:
            text = json.dumps({"fields": text[:_LOG_TEXT_MAX]})
        line = LogLine(*key, time.time(), level, clean_text(event, _LOG_TEXT_MAX), text)
        with self._lock:
            if len(self._log_lines) >= _LOG_LINES_MAX:
                self._log_dropped += 1
            else:
                self._log_lines.append(line)
        if not self._awake:
            self._wake()

    def _wake(self) -> None:
        self._awake = True
        os.eventfd_write(self._wake_fd, 1)

    def _send(self, message: FrameToPool) -> None:
        try:
            self._connection.sendall(encode_frame(message))
        except OSError:
            self._on_gone()

    def _send_progress(self) -> bool:
        """Send the progress whose time has come; return whether any still waits."""
        items = []
        with self._sending:
            now = time.monotonic()
            with self._lock:
                for (task_id, attempt), track in self._tracks.items():
                    if track.latest is not None and now - track.sent_at >= PROGRESS_SECONDS:
                        type_name, fraction, message, at = track.latest
                        track.n, track.sent_at, track.latest = track.n + 1, now, None
                        items.append(ProgressItem(task_id, attempt, type_name, track.n, fraction, message, at))
                waits = any(track.latest is not None for track in self._tracks.values())
            if items:
                self._send(ProgressReport(items))
        return waits

    def _send_log(self) -> None:
        with self._sending:
            self._send_log_lines()

    def _send_log_lines(self) -> None:
        if not self._log_lines:
            return
        with self._lock:
            lines, self._log_lines = self._log_lines, []
            dropped, self._log_dropped = self._log_dropped, 0
        self._send(LogReport(lines, dropped))

    def _attend(self) -> None:
        poller = select.poll()
        poller.register(self._wake_fd, select.POLLIN)
        # Only the end of the connection is watched for here: the main thread reads what comes in.
        poller.register(self._connection.fileno(), select.POLLRDHUP)
        idle_ticks = 0
        while True:
            for fd, events in poller.poll(_TICK_MILLISECONDS if self._awake else None):
                if fd == self._wake_fd:
                    os.eventfd_read(fd)
                elif events & _GONE:
                    self._on_gone()
                    return
            if self._send_what_is_due():
                idle_ticks = 0
                continue
            idle_ticks += 1
            if idle_ticks >= _IDLE_TICKS:
                idle_ticks = 0
                self._fall_asleep()

    def _send_what_is_due(self) -> bool:
        """Send outcomes, progress and log lines that are due; return whether there was or is anything to do."""
        if not (self._finished or self._tracks or self._log_lines):
            return False
        busy = bool(self._finished or self._log_lines)
        if self._finished and time.monotonic() - self._flushed_at >= FLUSH_SECONDS:
            self.flush()
        self._send_log()
        return self._send_progress() or busy

    def _fall_asleep(self) -> None:
        self._awake = False
        # Somebody may have seen `_awake` just before and left the waking to us.
        if self._finished or self._log_lines or any(track.latest is not None for track in self._tracks.copy().values()):
            self._wake()
