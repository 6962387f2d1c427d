"""What handlers print: read from a worker's pipe and written to the replica's log, within limits."""

import os
import time

import structlog

LINE_BYTES_MAX = 2000
LINES_PER_SECOND = 50
# So much of the end is kept as evidence for the case that the worker dies.
_TAIL_BYTES = 2000
_READ_BYTES = 64 * 1024
_READS_PER_TURN = 16

log = structlog.get_logger(__name__)


class RateLimit:
    """Lets a number of events through per second and counts the others."""

    def __init__(self, per_second: int) -> None:
        self._per_second = per_second
        self._window = float("-inf")
        self._passed = 0
        self.dropped = 0

    def grant(self, wanted: int, now: float) -> int:
        """Return how many of the `wanted` events may pass at `now`."""
        if now - self._window >= 1:
            self._window, self._passed = now, 0
        granted = min(wanted, self._per_second - self._passed)
        self._passed += granted
        self.dropped += wanted - granted
        return granted

    def take_dropped(self) -> int:
        """Return how many events were not let through since the last call."""
        dropped, self.dropped = self.dropped, 0
        return dropped


class WorkerOutput:
    """The read end of the pipe behind a worker's standard output and error."""

    def __init__(self, worker_id: str, fd: int) -> None:
        os.set_blocking(fd, False)
        self.fd = fd
        self._worker_id = worker_id
        self._limit = RateLimit(LINES_PER_SECOND)
        self._rest = b""
        self._tail = b""

    def read(self) -> bool:
        """Read what is there, up to 1 MiB; return False at the end of the pipe."""
        for _ in range(_READS_PER_TURN):
            try:
                chunk = os.read(self.fd, _READ_BYTES)
            except BlockingIOError:
                return True
            if not chunk:
                return False
            self._tail = (self._tail + chunk)[-_TAIL_BYTES:]
            self._take(chunk)
        return True

    def tail(self) -> str:
        """Return the end of what the worker printed."""
        return self._tail.decode("utf-8", "replace").strip()

    def close(self) -> None:
        """Close the pipe."""
        os.close(self.fd)

    def _take(self, chunk: bytes) -> None:
        # Only the lines that may pass are cut out: a flood costs a count per chunk.
        lines = chunk.count(b"\n")
        dropped_before = self._limit.take_dropped()
        granted = self._limit.grant(lines, time.monotonic())
        if not granted:
            self._limit.dropped += dropped_before
        parts = (self._rest + chunk).split(b"\n", granted)
        for line in parts[:granted]:
            more = {"lines_dropped_before": dropped_before} if dropped_before else {}
            dropped_before = 0
            text = line[:LINE_BYTES_MAX].decode("utf-8", "replace").rstrip("\r")
            log.info("worker_output", worker=self._worker_id, line=text, **more)
        # A line without an end is cut, so that it cannot grow without bound.
        self._rest = parts[-1].rpartition(b"\n")[2][:LINE_BYTES_MAX]
