"""How long work hears of a cancel."""

from headrace.tasks import TaskContext


class FindingStoppedError(Exception):
    """The attempt was cancelled."""


def stop_if_cancelled(context: TaskContext) -> None:
    """Raise FindingStoppedError once the attempt is to stop."""
    if context.cancelled:
        raise FindingStoppedError("the search for patterns was cancelled")
