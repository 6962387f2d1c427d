"""Sends what handlers log through their context to the pool, which writes it to the replica's log."""

import logging
from collections.abc import MutableMapping
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from execution_service.workers.outbox import Outbox

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger


class LogBridge:
    """Makes loggers whose events go to the pool. structlog is loaded by the first one, not before."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox

    def open(self, task_id: int, attempt: int) -> "FilteringBoundLogger":
        """Return a logger for one attempt."""
        import structlog

        logger: FilteringBoundLogger = structlog.wrap_logger(
            None,
            processors=[
                structlog.contextvars.merge_contextvars,
                structlog.processors.format_exc_info,
                partial(self._send, (task_id, attempt)),
            ],
            wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
            context_class=dict,
        )
        return logger

    def _send(self, key: tuple[int, int], _logger: object, level: str, fields: MutableMapping[str, Any]) -> NoReturn:
        import structlog

        event = str(fields.pop("event", ""))
        self._outbox.log(key, level, event, fields)
        raise structlog.DropEvent
