"""A loop that repeats one piece of work until it is told to stop, and survives the loss of what it talks to."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable

import structlog

from servicekit.cancelling import cancel_and_wait
from servicekit.errors import HeadraceError

log = structlog.stdlib.get_logger(__name__)

_BACK_OFF_SECONDS_MIN = 0.1
_BACK_OFF_SECONDS_MAX = 2.0
_LOG_AGAIN_SECONDS = 30.0


class BackgroundLoop:
    """Runs `run_once` every `interval` seconds, or sooner when woken.

    A run that fails is logged and repeated after a growing pause, which a wake-up does not shorten. Starting twice,
    stopping twice and stopping unstarted are safe.
    """

    def __init__(
        self, name: str, run_once: Callable[[], Awaitable[object]], *, interval: float, jitter: float = 0.1
    ) -> None:
        self.name = name
        # Monotonic time of the end of the last run that did not fail.
        self.last_success: float | None = None
        self._run_once = run_once
        self._interval = interval
        self._jitter = jitter
        self._wake = asyncio.Event()
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._failures = 0
        self._logged_at = 0.0

    def start(self) -> None:
        if self._task is None or self._task.done():
            self._stopping.clear()
            self._task = asyncio.create_task(self._run(), name=self.name)

    def wake(self) -> None:
        """Run again at once, or right after the run in progress. Many wake-ups in between are one."""
        self._wake.set()

    async def stop(self, *, grace: float = 5.0) -> None:
        """Let the run in progress end, cancel it after `grace` seconds, and return when the loop has ended."""
        self._stopping.set()
        self._wake.set()
        if self._task is None:
            return
        _, pending = await asyncio.wait([self._task], timeout=grace)
        if pending:
            await cancel_and_wait(self._task)
        self._task = None

    def problem(self, *, within: float) -> str | None:
        """A check for readiness: None when a run has succeeded in the last `within` seconds."""
        if self.last_success is None:
            return f"{self.name} has not succeeded yet"
        silent = time.monotonic() - self.last_success
        return f"{self.name} has not succeeded for {silent:.1f} s" if silent > within else None

    async def _run(self) -> None:
        while not self._stopping.is_set():
            self._wake.clear()
            try:
                await self._run_once()
            except Exception as error:  # noqa: BLE001 - the loop outlives what it talks to
                self._note_failure(error)
                await _wait(self._stopping, self._back_off())
            else:
                self._note_success()
                await _wait(self._wake, self._interval * random.uniform(1 - self._jitter, 1 + self._jitter))

    def _note_success(self) -> None:
        self.last_success = time.monotonic()
        if self._failures:
            log.info("loop_recovered", loop=self.name, failures=self._failures)
            self._failures = 0

    def _note_failure(self, error: Exception) -> None:
        self._failures += 1
        if self._failures > 1 and time.monotonic() - self._logged_at < _LOG_AGAIN_SECONDS:
            return
        self._logged_at = time.monotonic()
        if isinstance(error, HeadraceError):  # expected to happen: the code says all
            log.warning("loop_failed", loop=self.name, code=error.code, reason=error.message, failures=self._failures)
        else:
            log.error("loop_failed", loop=self.name, failures=self._failures, exc_info=error)

    def _back_off(self) -> float:
        longest = max(self._interval, _BACK_OFF_SECONDS_MAX)
        pause = max(self._interval, _BACK_OFF_SECONDS_MIN) * 2.0 ** min(self._failures - 1, 16)
        return min(pause, longest) * random.uniform(0.5, 1.0)


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass
