"""Loggers whose events go to a function: what `TaskContext.log` is made of, in workers and in tests."""

import logging
from collections.abc import Callable, MutableMapping
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

# Gets the level, the event and its fields.
TakeEvent = Callable[[str, str, dict[str, Any]], None]


def event_logger(take: TakeEvent) -> "FilteringBoundLogger":
    """Return a logger that gives every event from `info` on to `take`. structlog is loaded now, not before."""
    import structlog

    def give(_logger: object, level: str, fields: MutableMapping[str, Any]) -> NoReturn:
        event = str(fields.pop("event", ""))
        take(level, event, dict(fields))
        raise structlog.DropEvent

    logger: FilteringBoundLogger = structlog.wrap_logger(
        None,
        processors=[structlog.contextvars.merge_contextvars, structlog.processors.format_exc_info, give],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        context_class=dict,
    )
    return logger
