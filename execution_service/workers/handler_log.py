"""Writes what handlers logged through their context to the replica's log, within limits."""

import json
import time

import structlog

from execution_service.workers.frames import OUTPUT_LEVEL, LogLine, LogReport
from execution_service.workers.rate_limit import RateLimit

LINES_PER_SECOND = 100
_LEVELS = frozenset({"info", "warning", "error", "critical"})
# Names that the line itself carries.
_OWN_FIELDS = frozenset({"event", "level", "worker", "task_id", "attempt", "timestamp", "logger"})

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
            fields = fields_of(line)
            if dropped:
                fields["lines_dropped_before"] = dropped
                dropped = 0
            if line.level == OUTPUT_LEVEL:
                log.info("worker_output", worker=worker_id, task_id=line.task_id, line=line.event, **fields)
                continue
            write = getattr(log, line.level if line.level in _LEVELS else "info")
            write(line.event, worker=worker_id, task_id=line.task_id, attempt=line.attempt, **fields)


def fields_of(line: LogLine) -> dict[str, object]:
    """Return the fields of a line, whatever the worker sent for them."""
    try:
        fields = dict(json.loads(line.fields))
    except (ValueError, TypeError):
        return {"fields": line.fields}
    return {str(name): value for name, value in fields.items() if name not in _OWN_FIELDS}
