"""Shows how the tasks come on: as bars that move on a terminal, as plain lines anywhere else."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

FINAL = frozenset(("completed", "failed", "cancelled"))
_WIDTH_ELSEWHERE = 120


class Display(Protocol):
    """What is shown of each task is its latest step: a status, or how far it is and what it does."""

    def show(self, name: str, step: str, *, fraction: float | None = None) -> None:
        """Show a step of the task `name`; `fraction` from 0 to 1 where it is known."""


class _Bars:
    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._bars: dict[str, TaskID] = {}

    def show(self, name: str, step: str, *, fraction: float | None = None) -> None:
        if name not in self._bars:
            self._bars[name] = self._progress.add_task(name, total=1.0, step=step)
        bar = self._bars[name]
        self._progress.update(bar, step=step, completed=1.0 if step == "completed" else fraction)
        if step in FINAL:
            self._progress.stop_task(bar)


class _Lines:
    def __init__(self, console: Console) -> None:
        self._console = console
        self._began = time.monotonic()
        self._latest: dict[str, str] = {}

    def show(self, name: str, step: str, *, fraction: float | None = None) -> None:
        line = step if fraction is None else f"{fraction:4.0%}  {step}"
        if self._latest.get(name) == line:
            return
        self._latest[name] = line
        self._console.print(f"{time.monotonic() - self._began:7.2f} s  {name:<22}{line}", markup=False, highlight=False)


def open_console() -> Console:
    """Give the console of stdout. What is no terminal has no width of its own, so that tables take what they need."""
    return Console() if sys.stdout.isatty() else Console(width=_WIDTH_ELSEWHERE)


@contextmanager
def open_display(console: Console) -> Iterator[Display]:
    """Give the display that fits where the output goes."""
    if not console.is_terminal:
        yield _Lines(console)
        return
    columns = (
        TextColumn("  {task.description:<22}"),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[step]}", markup=False),
    )
    with Progress(*columns, console=console) as progress:
        yield _Bars(progress)
