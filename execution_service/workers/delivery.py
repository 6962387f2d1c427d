"""Hands what has come in to the pool's user, in batches, once per turn of the event loop."""

import asyncio
from collections.abc import Callable, Iterable

import structlog

from execution_service.workers.outcomes import Finished, ProgressItem

log = structlog.get_logger(__name__)


class Delivery:
    """Collects outcomes and progress; calls back from the loop, never from within a call of the user's."""

    def __init__(
        self,
        *,
        on_finished: Callable[[list[Finished]], None],
        on_progress: Callable[[list[ProgressItem]], None],
    ) -> None:
        self._on_finished = on_finished
        self._on_progress = on_progress
        self._finished: list[Finished] = []
        self._progress: list[ProgressItem] = []
        self._scheduled = False

    def finish(self, items: Iterable[Finished]) -> None:
        """Take outcomes."""
        self._finished.extend(items)
        self._schedule()

    def advance(self, items: Iterable[ProgressItem]) -> None:
        """Take progress."""
        self._progress.extend(items)
        self._schedule()

    def flush(self) -> None:
        """Call back now. Progress goes first: it was made before the outcomes."""
        self._scheduled = False
        progress, self._progress = self._progress, []
        finished, self._finished = self._finished, []
        try:
            if progress:
                self._on_progress(progress)
            if finished:
                self._on_finished(finished)
        except Exception:
            log.exception("delivery_failed", finished=len(finished), progress=len(progress))

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self.flush)
