"""The soft timeout of a `def` handler under test: raised in it by a timer, as in a worker."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from headrace.tasks import SoftTimeoutError


@contextmanager
def soft_limit(seconds: float | None, message: str) -> Iterator[None]:
    """Raise SoftTimeoutError in the block once it has run for `seconds`. Does nothing outside the main thread.

    A timer that somebody else has set (a test's own time limit, say) waits meanwhile, and goes on afterwards.
    """
    if seconds is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    armed = True

    def expire(_number: int, _frame: FrameType | None) -> None:
        nonlocal armed
        if armed:
            armed = False
            raise SoftTimeoutError(message)

    began = time.monotonic()
    handler = signal.signal(signal.SIGALRM, expire)
    others_delay, others_interval = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        armed = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler if handler is not None else signal.SIG_DFL)
        if others_delay:
            left = others_delay - (time.monotonic() - began)
            signal.setitimer(signal.ITIMER_REAL, max(left, 0.001), others_interval)
