"""Wait for a condition instead of sleeping."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable


async def wait_until(condition: Callable[[], object | Awaitable[object]], *, timeout: float = 10.0) -> None:
    """Return once `condition` is true; raise AssertionError when it is not within `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if await value if inspect.isawaitable(value) else value:
            return
        assert time.monotonic() < deadline, f"not within {timeout} s: {inspect.getsource(condition).strip()}"
        await asyncio.sleep(0.01)
