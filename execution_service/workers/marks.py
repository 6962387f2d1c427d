"""Marks in a worker's output that say where the output of an attempt ends.

Whatever a handler or a program that it runs prints goes into one pipe, which the pool reads. The mark tells the pool
what belonged to which attempt; it is written only where there is something to tell apart. The pool announces on the
shared page, before it reads, that it may hold output without a mark.
"""

import contextlib
import fcntl
import os
import sys
import termios

from execution_service.workers.slots_page import SlotsPage

_BEGINNING = b"\x1eheadrace:%s:"
_END = b"\x1e\n"
_NOTHING = bytes(4)


def mark_beginning(secret: str) -> bytes:
    """Return how the marks of a worker begin; a number and `MARK_END` follow."""
    return _BEGINNING % secret.encode()


MARK_END = _END


def _flush_each() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()


class OutputMarks:
    """The worker's side: writes the marks."""

    def __init__(self, page: SlotsPage, secret: str) -> None:
        self._page = page
        self._beginning = mark_beginning(secret)
        # A descriptor of its own, so that a handler may close or replace the usual ones.
        self._fd = os.dup(2)
        self._waiting = bytearray(_NOTHING)

    def end(self, seq: int) -> bool:
        """Attempt `seq` has ended: write a mark if it may have printed something; return whether one was written."""
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        except Exception:  # noqa: BLE001 - a handler may have put anything there
            _flush_each()
        # In this order: what is not in the pipe any more was announced before it was read.
        fcntl.ioctl(self._fd, termios.FIONREAD, self._waiting)
        if self._waiting == _NOTHING and not self._page.unmarked:
            return False
        os.write(self._fd, b"%s%d%s" % (self._beginning, seq, _END))
        return True
