"""Writes what handlers logged through their context to the replica's log, within limits."""

import json
import time

import structlog

from execution_service.workers.frames import LogReport
from execution_service.workers.output import RateLimit

LINES_PER_SECOND = 100
_LEVELS = frozenset({"info", "warning", "error", "critical"})
# Names that the line itself carries.
_OWN_FIELDS = frozenset({"event", "level", "worker", "timestamp", "logger"})

log = structlog.get_logger("headrace.task")


class HandlerLog:
    """The lines of all workers of a pool."""

    def __init__(self) -> None:
        self._limit = RateLimit(LINES_PER_SECOND)

    def write(self, worker_id: str, report: LogReport) -> None:
        """Log the lines of a report, and how many were left out before them."""
        dropped = self._limit.take_dropped() + report.dropped
        granted = self._limit.grant(len(report.lines), time.monotonic())
        if not granted:
            self._limit.dropped += dropped
            return
        for line in report.lines[:granted]:
            fields = _fields(line.fields)
            if dropped:
                fields["lines_dropped_before"] = dropped
                dropped = 0
            write = getattr(log, line.level if line.level in _LEVELS else "info")
            write(line.event, worker=worker_id, **fields)


def _fields(text: str) -> dict[str, object]:
    try:
        fields = json.loads(text)
    except ValueError:
        return {"fields": text}
    return {str(name): value for name, value in fields.items() if name not in _OWN_FIELDS}
