"""How tasks are ended for sure."""

import asyncio
from typing import Any

_AGAIN_SECONDS = 0.5


async def cancel_and_wait(*tasks: "asyncio.Task[Any]") -> None:
    """Cancel tasks and return when they have ended, however.

    Asked more than once: Python 3.11's wait_for, by which redis-py sends, can swallow a cancellation.
    """
    pending = {task for task in tasks if not task.done()}
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=_AGAIN_SECONDS)
