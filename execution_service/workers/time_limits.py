"""The limits of time for coroutines, kept by their event loop."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from execution_service.workers.interrupts import soft_timeout_text
from execution_service.workers.outcomes import Attempt
from headrace.tasks import SoftTimeoutError

# Event loops count in milliseconds and may ring early; who is told that the soft timeout has passed is to see it so.
_EARLY_SECONDS = 0.003


class TimedOutError(Exception):
    """Our own limit has ended the handler; a TimeoutError would be the handler's."""


async def within_limits(work: Coroutine[Any, Any, Any], attempt: Attempt) -> Any:
    """Await the handler, which is cancelled when its soft timeout has passed, and again at its timeout.

    Raises TimedOutError or SoftTimeoutError; a handler that returns in spite of either has completed.
    """
    hard = asyncio.timeout(attempt.timeout)
    soft = asyncio.timeout(attempt.soft_timeout + _EARLY_SECONDS if attempt.soft_timeout else None)
    try:
        async with hard, soft:
            return await work
    except TimeoutError as error:
        if hard.expired():
            raise TimedOutError from None
        if soft.expired():
            raise SoftTimeoutError(soft_timeout_text(attempt.soft_timeout)) from error
        raise
