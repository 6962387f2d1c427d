"""What handlers leave behind in a worker that runs one attempt at a time, and how the next one is spared it.

Processes that a handler started are killed when its attempt ends. Changes of the process (working directory,
environment, umask, locale, recursion limit, signals, timers, standard output) are undone. A thread that still runs
cannot be ended: the worker then asks to be replaced.

A look at all of this takes about 20 us. After a handler that took less than a millisecond it is taken only if an audit
hook (PEP 578) has seen something that would matter, or a thread was started. So a handler as short as that can change
what no hook reports (signals, timers, umask, locale, recursion limit), and be found out only after a later one.
"""

import contextlib
import locale
import os
import signal
import sys
import threading
from typing import TextIO

from execution_service.workers.descendants import UnendingChildrenError, end_own_children

_QUICK_SECONDS = 0.001
_AUDITED = frozenset(
    {
        "os.chdir",
        "os.fork",
        "os.forkpty",
        "os.posix_spawn",
        "os.putenv",
        "os.spawn",
        "os.system",
        "os.unsetenv",
        "subprocess.Popen",
    }
)
_ENVIRONMENT_EVENTS = frozenset({"os.putenv", "os.unsetenv"})
_DESCRIPTORS = {"stdout": 1, "stderr": 2}
_SIGNALS = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGPIPE,
    signal.SIGTERM,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGALRM,
    signal.SIGCHLD,
)


def open_stream(fd: int) -> TextIO:
    """Return a stream for what handlers print: what cannot be encoded is escaped, and its end closes nothing."""
    return open(fd, "w", buffering=1, errors="backslashreplace", closefd=False)


class Aftermath:
    """Remembers the state of the process before the first handler. Make it in the main thread, once per process."""

    def __init__(self) -> None:
        # The last look found processes that could not be ended.
        self.processes_left = False
        self._heard: set[str] = set()
        self._folder = os.getcwd()
        self._environment = dict(os.environ)
        self._umask = os.umask(0o077)
        os.umask(self._umask)
        self._recursion_limit = sys.getrecursionlimit()
        self._locale = locale.setlocale(locale.LC_ALL)
        self._handlers = {number: signal.getsignal(number) for number in _SIGNALS}
        self._streams = {name: getattr(sys, name) for name in _DESCRIPTORS}
        # Copies that handlers do not know of.
        self._descriptors = {fd: os.dup(fd) for fd in _DESCRIPTORS.values()}
        self._inodes = {fd: os.fstat(fd).st_ino for fd in _DESCRIPTORS.values()}
        self._threads = set(threading.enumerate())
        sys.addaudithook(self._hear)

    def clear(self, seconds: float) -> str | None:
        """Clear up after a handler that ran for `seconds`. Return why this process should be replaced, if it should."""
        if seconds < _QUICK_SECONDS and not self._heard and threading.active_count() <= len(self._threads):
            return None
        try:
            end_own_children()
        except UnendingChildrenError:
            self.processes_left = True
            return "its handler left processes behind"
        if self._heard & _ENVIRONMENT_EVENTS:
            os.environ.clear()
            os.environ.update(self._environment)
        self._restore_process()
        self._restore_signals()
        self._restore_output()
        # Last: what is put back is heard as well.
        self._heard.clear()
        return self._threads_left()

    def _hear(self, event: str, _args: object) -> None:
        if event in _AUDITED:
            self._heard.add(event)

    def _restore_process(self) -> None:
        try:
            moved = os.getcwd() != self._folder
        except OSError:
            moved = True  # the folder that the handler had chosen is gone
        if moved:
            with contextlib.suppress(OSError):
                os.chdir(self._folder)
        os.umask(self._umask)
        if sys.getrecursionlimit() != self._recursion_limit:
            sys.setrecursionlimit(self._recursion_limit)
        if locale.setlocale(locale.LC_ALL) != self._locale:
            locale.setlocale(locale.LC_ALL, self._locale)

    def _restore_signals(self) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        for number, handler in self._handlers.items():
            if signal.getsignal(number) is not handler:
                # None: it was set by C code, before us; what is left to say is the default.
                signal.signal(number, handler if handler is not None else signal.SIG_DFL)

    def _restore_output(self) -> None:
        for fd, inode in self._inodes.items():
            try:
                replaced = os.fstat(fd).st_ino != inode
            except OSError:
                replaced = True
            if replaced:
                os.dup2(self._descriptors[fd], fd)
        for name, stream in self._streams.items():
            if getattr(sys, name) is not stream or stream.closed:
                self._streams[name] = open_stream(_DESCRIPTORS[name])
                setattr(sys, name, self._streams[name])

    def _threads_left(self) -> str | None:
        left = [thread.name for thread in threading.enumerate() if thread not in self._threads and not thread.daemon]
        return f"its handler left threads behind: {', '.join(left)[:200]}" if left else None
