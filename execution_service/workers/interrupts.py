"""What breaks into a `def` handler from outside: its soft timeout, and the SIGTERM that follows a cancel.

Both are signals whose Python handlers raise in the main thread, where the handler runs, so they also end a system call
that blocks. C code that does not come back to the interpreter is not interrupted; the pool kills it in the end.

CPython looks for signals where it calls and where it jumps back. So nothing can come between assignments that follow
each other, which is what keeps an interrupt from breaking into what the worker does after the handler.
"""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import ParamSpec, TypeVar

from execution_service.workers.descendants import descendants_of
from headrace.tasks import SoftTimeoutError, TaskCancelled

P = ParamSpec("P")
Result = TypeVar("Result")


def _never() -> bool:
    return False


def soft_timeout_text(seconds: float) -> str:
    """Return what people read of an attempt that was ended by its soft timeout."""
    return f"The attempt took longer than its soft timeout of {seconds:g} s."


def survive_sigterm() -> None:
    """Let this process outlive SIGTERM, but not what it forks or runs."""

    def take(_number: int, _frame: FrameType | None) -> None:
        return

    # With SIG_IGN programs that are run here would be deaf as well.
    signal.signal(signal.SIGTERM, take)
    _keep_from_forks(take)


class Interrupts:
    """Takes the signals of a worker that runs one attempt at a time. Make it in the main thread, once per process."""

    def __init__(self) -> None:
        self._thread = threading.get_ident()
        self._is_cancelled: Callable[[], bool] = _never
        self._soft_timeout = 0.0
        self._soft_at = 0.0
        # Each may be raised once per handler, and only while it runs.
        self._soft_open = False
        self._cancel_open = False
        self._shields = 0
        self._due: BaseException | None = None
        self._raises_cancel = True
        # SIGTERM came for the attempt that runs, or ran last.
        self.terminated = False
        signal.signal(signal.SIGALRM, self._on_alarm)
        on_sigterm = self._on_sigterm
        signal.signal(signal.SIGTERM, on_sigterm)
        _keep_from_forks(on_sigterm)

    def call(
        self,
        work: Callable[[], Result],
        *,
        soft_timeout: float = 0.0,
        is_cancelled: Callable[[], bool] = _never,
        raises_cancel: bool = True,
    ) -> Result:
        """Run `work`; nothing breaks in any more once this has returned or raised.

        `soft_timeout` is in seconds, 0 for none. Without `raises_cancel` SIGTERM goes to the attempt's processes alone.
        """
        self._is_cancelled, self._raises_cancel = is_cancelled, raises_cancel
        self.terminated, self._shields, self._due = False, 0, None
        if soft_timeout:
            self._soft_timeout, self._soft_at = soft_timeout, time.monotonic() + soft_timeout
            signal.setitimer(signal.ITIMER_REAL, soft_timeout)
        try:
            self._soft_open, self._cancel_open = soft_timeout > 0, True
            return work()
        finally:
            self._soft_open = self._cancel_open = False
            if soft_timeout:
                signal.setitimer(signal.ITIMER_REAL, 0)

    def shield(self, function: Callable[P, Result]) -> Callable[P, Result]:
        """Return the function as handlers may be given it: an interrupt waits until it has come to its end.

        Half a frame on the way to the pool, say, would be the end of the worker.
        """
        return partial(self._shielded, function)

    def _shielded(self, function: Callable[P, Result], /, *args: P.args, **kwargs: P.kwargs) -> Result:
        if threading.get_ident() != self._thread:
            return function(*args, **kwargs)
        try:
            self._shields += 1
            return function(*args, **kwargs)
        finally:
            self._shields -= 1
            due = self._due
            if due is not None and not self._shields:
                self._due = None
                raise due

    def _on_alarm(self, _number: int, _frame: FrameType | None) -> None:
        # A timer that the handler has set itself may ring before.
        if self._soft_open and time.monotonic() >= self._soft_at:
            self._soft_open = False
            self._break_in(SoftTimeoutError(soft_timeout_text(self._soft_timeout)))

    def _on_sigterm(self, _number: int, _frame: FrameType | None) -> None:
        # Whoever else may have sent it: only a cancel ends an attempt, and nothing of the kind the worker.
        if self._cancel_open and self._is_cancelled():
            self._cancel_open = False
            self.terminated = True
            for pid in descendants_of(os.getpid()):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGTERM)
            if self._raises_cancel:
                self._break_in(TaskCancelled("A cancel was asked for."))

    def _break_in(self, error: BaseException) -> None:
        if self._shields:
            self._due = error
        else:
            raise error


def _keep_from_forks(handler: Callable[[int, FrameType | None], None]) -> None:
    """Let processes that are forked from this one end by SIGTERM, as others do: the handler is not for them."""
    masks = threading.local()

    # Blocked meanwhile: what comes to the new process before it is rid of the handler is not to be lost.
    def block() -> None:
        masks.before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

    def unblock() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, masks.before)

    def reset() -> None:
        if signal.getsignal(signal.SIGTERM) is handler:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        unblock()

    os.register_at_fork(before=block, after_in_parent=unblock, after_in_child=reset)
