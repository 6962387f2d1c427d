"""What handlers print: read from a worker's pipe, written to the replica's log within limits, and kept per attempt."""

import os
import time

import structlog

from execution_service.workers.attempt_logs import LOG_BYTES_MAX
from execution_service.workers.marks import MARK_END, mark_beginning
from execution_service.workers.rate_limit import RateLimit
from execution_service.workers.slots_page import SlotsPage

LINE_BYTES_MAX = 2000
LINES_PER_SECOND = 50
# So much of the end is kept as evidence for the case that the worker dies.
_TAIL_BYTES = 2000
_READ_BYTES = 64 * 1024
_READS_PER_TURN = 16
_MARK_DIGITS_MAX = 20

log = structlog.get_logger(__name__)


class WorkerOutput:
    """The read end of the pipe behind a worker's standard output and error."""

    def __init__(self, worker_id: str, fd: int, *, page: SlotsPage, secret: str) -> None:
        os.set_blocking(fd, False)
        self.fd = fd
        self._worker_id = worker_id
        self._page = page
        self._mark = mark_beginning(secret)
        self._limit = RateLimit(LINES_PER_SECOND)
        self._rest = b""
        # What was read and may be the beginning of a mark whose end is still in the pipe.
        self._unclear = b""
        self._section = b""
        self._sections: dict[int, bytes] = {}

    def read(self) -> bool:
        """Read what is there, up to 1 MiB; return False at the end of the pipe."""
        for _ in range(_READS_PER_TURN):
            chunk = self._read_chunk()
            if not chunk:
                return chunk is None
        return True

    def section(self, seq: int) -> bytes:
        """Return the end of what attempt `seq` printed; its mark was written before this call."""
        while seq not in self._sections and self._read_chunk():
            pass
        return self._sections.pop(seq, b"")

    def rest(self) -> bytes:
        """Return the end of what was printed after the last mark."""
        return self._section

    def tail(self) -> str:
        """Return the last words of the worker."""
        return self._section[-_TAIL_BYTES:].decode("utf-8", "replace").strip()

    def close(self) -> None:
        """Close the pipe."""
        os.close(self.fd)

    def _read_chunk(self) -> bytes | None:
        """Take in what one read brings; return it, None if there is nothing now, and no bytes at the end."""
        self._page.unmarked = True
        try:
            chunk = os.read(self.fd, _READ_BYTES)
        except BlockingIOError:
            chunk = None
        if chunk:
            self._take(chunk)
        self._page.unmarked = bool(self._section or self._unclear)
        return chunk

    def _take(self, chunk: bytes) -> None:
        data = self._unclear + chunk
        while (start := data.find(self._mark)) >= 0:
            end = data.find(MARK_END, start + len(self._mark))
            if end < 0:
                break
            self._add(data[:start])
            number = data[start + len(self._mark) : end]
            if number.isdigit():
                self._sections[int(number)] = self._section
            self._section = b""
            if self._rest:
                self._log(b"\n")
            data = data[end + len(MARK_END) :]
        # A mark is written in one piece, but a read may end inside it.
        start = self._unclear_from(data, start)
        self._unclear = data[start:]
        self._add(data[:start])

    def _unclear_from(self, data: bytes, start: int) -> int:
        """Return where a mark may begin that does not end in `data`; `start` is where one certainly does, or -1."""
        if start >= 0:
            return start if len(data) - start <= len(self._mark) + _MARK_DIGITS_MAX else len(data)
        last = data.rfind(self._mark[:1])
        return last if last >= 0 and self._mark.startswith(data[last:]) else len(data)

    def _add(self, data: bytes) -> None:
        if data:
            self._section = (self._section + data)[-LOG_BYTES_MAX:]
            self._log(data)

    def _log(self, data: bytes) -> None:
        # Only the lines that may pass are cut out: a flood costs a count per chunk.
        lines = data.count(b"\n")
        dropped_before = self._limit.take_dropped()
        granted = self._limit.grant(lines, time.monotonic())
        if not granted:
            self._limit.dropped += dropped_before
        parts = (self._rest + data).split(b"\n", granted)
        for line in parts[:granted]:
            more = {"lines_dropped_before": dropped_before} if dropped_before else {}
            dropped_before = 0
            text = line[:LINE_BYTES_MAX].decode("utf-8", "replace").rstrip("\r")
            log.info("worker_output", worker=self._worker_id, line=text, **more)
        # A line without an end is cut, so that it cannot grow without bound.
        self._rest = parts[-1].rpartition(b"\n")[2][:LINE_BYTES_MAX]
