"""A context for handlers under test: it records what they say, and the test decides what they see."""

import shutil
import tempfile
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from headrace.event_logger import event_logger
from headrace.tasks import TaskContext

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger


class Report(NamedTuple):
    """One progress report, clamped and cut as watchers would see it."""

    fraction: float
    message: str


class LogLine(NamedTuple):
    """One event that a handler logged, with the fields that it gave."""

    level: str
    event: str
    fields: Mapping[str, Any]


class FakeContext(TaskContext):
    """Pass it to a handler that you call directly; `attempt`, `deadline` and the other attributes may be set.

    `reports` and `logs` hold what the handler said. Events below `info` are dropped, as in a worker.
    """

    def __init__(
        self,
        *,
        task_id: int = 1,
        attempt: int = 1,
        type: str = "",  # noqa: A002 - the name that TaskContext gives it
        deadline: float | None = None,
        soft_deadline: float | None = None,
        cancelled: bool | Callable[[], bool] = False,
        scratch: Path | None = None,
    ) -> None:
        """Begin an attempt. A function as `cancelled` is asked whenever the handler looks; it may raise TaskCancelled.

        `scratch` is a directory that stays. Without it one is made on first use, and removed by `close`, or when the
        context or the process goes away.
        """
        super().__init__(
            task_id=task_id,
            attempt=attempt,
            type=type,
            deadline=deadline,
            soft_deadline=soft_deadline,
            on_progress=self._take_report,
            is_cancelled=self._look,
            open_scratch=self._scratch_path,
            open_logger=self._logger_of_events,
        )
        self.reports: list[Report] = []
        self.logs: list[LogLine] = []
        self._cancelled = cancelled
        self._directory = scratch
        self._removal: weakref.finalize[..., FakeContext] | None = None

    def cancel(self) -> None:
        """Ask the handler to stop: from now on `cancelled` is true."""
        self._cancelled = True

    def close(self) -> None:
        """Remove the scratch directory, unless it was given. Closing twice does nothing."""
        if self._removal is not None:
            self._removal()

    def _take_report(self, fraction: float, message: str) -> None:
        self.reports.append(Report(fraction, message))

    def _look(self) -> bool:
        return self._cancelled() if callable(self._cancelled) else self._cancelled

    def _scratch_path(self) -> Path:
        if self._directory is None:
            self._directory = Path(tempfile.mkdtemp(prefix="headrace-scratch-"))
            self._removal = weakref.finalize(self, shutil.rmtree, self._directory, ignore_errors=True)
        return self._directory

    def _logger_of_events(self) -> "FilteringBoundLogger":
        return event_logger(self._take_event)

    def _take_event(self, level: str, event: str, fields: dict[str, Any]) -> None:
        if fields.get("type") == self.type:
            del fields["type"]  # bound by the context, not by the handler
        self.logs.append(LogLine(level, event, fields))
