"""Headrace: a distributed task queue. This package is what users import and run."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headrace.tasks import (
        Backoff,
        ErrorKind,
        Limits,
        PermanentError,
        SoftTimeoutError,
        TaskCancelled,
        TaskContext,
        TransientError,
        task,
    )

__version__ = "0.1.0"

__all__ = [
    "Backoff",
    "ErrorKind",
    "Limits",
    "PermanentError",
    "SoftTimeoutError",
    "TaskCancelled",
    "TaskContext",
    "TransientError",
    "task",
]


def __getattr__(name: str) -> Any:
    # Loaded on first use: `import headrace` alone stays cheap, since every process and the CLI begin with it.
    if name in __all__:
        from headrace import tasks

        return getattr(tasks, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
