"""Logging: one JSON object a line on stdout, for our events and for what libraries log."""

import logging
import sys
from collections.abc import MutableMapping
from typing import Any, Literal

import structlog

# Libraries that log each request at `info`, or every step of an outage that our own events already tell.
_QUIET = ("httpx", "httpcore", "asyncio", "grpc", "psycopg")


def configure_logging(service: str, replica: str, level: str, format: Literal["json", "console"]) -> None:  # noqa: A002
    """Send every event of this process to stdout, each with the names of the service and its replica."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _bind(service=service, replica=replica),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder()],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_renderers(format)],
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)


def _renderers(format: Literal["json", "console"]) -> list[structlog.typing.Processor]:  # noqa: A002
    if format == "console":
        return [structlog.dev.ConsoleRenderer()]
    return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(default=repr, ensure_ascii=False)]


def _bind(**fields: str) -> structlog.typing.Processor:
    def add_fields(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        for name, value in fields.items():
            event.setdefault(name, value)
        return event

    return add_fields
