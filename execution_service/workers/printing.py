"""Standard output of a worker that runs many attempts at once: each line is led to the attempt that printed it."""

import io
from collections.abc import Callable
from contextvars import ContextVar
from typing import TextIO

LINE_CHARACTERS_MAX = 8000

Sink = Callable[[str], None]

# Set in the context of a handler; what it starts on the loop inherits it.
printing: ContextVar["LineSink | None"] = ContextVar("printing", default=None)


class LineSink:
    """Collects what one attempt prints into lines."""

    def __init__(self, take_line: Sink) -> None:
        self._take_line = take_line
        self._rest = ""

    def write(self, text: str) -> None:
        """Take text; whole lines are passed on."""
        *lines, rest = (self._rest + text).split("\n")
        for line in lines:
            self._take_line(line[:LINE_CHARACTERS_MAX])
        self._rest = rest[:LINE_CHARACTERS_MAX]

    def close(self) -> None:
        """Pass on a last line without an end."""
        if self._rest:
            self._take_line(self._rest)
            self._rest = ""


class RoutedStream(io.TextIOBase):
    """Stands for sys.stdout or sys.stderr. What no attempt prints goes to the stream behind it."""

    def __init__(self, behind: TextIO) -> None:
        self._behind = behind

    def write(self, text: str) -> int:
        sink = printing.get()
        if sink is None:
            return self._behind.write(text)
        sink.write(text)
        return len(text)

    def flush(self) -> None:
        self._behind.flush()

    def fileno(self) -> int:
        return self._behind.fileno()

    def writable(self) -> bool:
        return True

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._behind.encoding

    @property
    def errors(self) -> str | None:  # type: ignore[override]
        return self._behind.errors
