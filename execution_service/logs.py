"""The way of attempts' logs to the result DB, beside that of the results: nothing waits for it.

While the result DB is away, logs wait in a bounded queue; the oldest are dropped for new ones.
"""

from collections import deque
from collections.abc import Sequence
from itertools import islice
from typing import Protocol

import psycopg
import structlog

from execution_service.workers.outcomes import Finished
from result_store.model import NewLog
from servicekit.loops import BackgroundLoop

log = structlog.stdlib.get_logger(__name__)

BATCH_ROWS = 64
# In characters; of four bytes each at most.
WAITING_MAX = 16 * 1024 * 1024


class LogDb(Protocol):
    """What this module needs of the result store. Raises while the result DB is away, and is safe to repeat."""

    async def insert_logs(self, logs: Sequence[NewLog], /) -> None: ...


class LogWriter:
    """Stores the logs of attempts in batches, each of what gathered while the last one was being stored."""

    def __init__(self, store: LogDb) -> None:
        self._store = store
        self._waiting: deque[NewLog] = deque()
        self._characters = 0
        self._dropped = 0
        self._loop = BackgroundLoop("store_logs", self.run_once, interval=1.0)

    def start(self) -> None:
        self._loop.start()

    async def stop(self) -> None:
        await self._loop.stop()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, finished: Finished) -> None:
        """Take the log of an attempt that has ended."""
        self._waiting.append(NewLog(finished.task_id, finished.attempt, finished.log))
        self._characters += len(finished.log)
        while self._characters > WAITING_MAX:
            self._forget(1)
            self._dropped += 1
        self._loop.wake()

    async def run_once(self) -> None:
        """Store all that waits. Raises when the result DB does not answer; what is not stored then still waits."""
        while self._waiting:
            batch = list(islice(self._waiting, BATCH_ROWS))
            try:
                await self._store.insert_logs(batch)
            except (psycopg.DataError, psycopg.IntegrityError) as error:
                # The text was made storable before; whatever this is, results are not to wait behind it.
                log.warning("logs_unstorable", logs=len(batch), error=str(error))
            # Some may have been dropped for new ones while they were being stored.
            while self._waiting and self._waiting[0] in batch:
                self._forget(1)
        if self._dropped:
            log.warning("logs_dropped", logs=self._dropped)
            self._dropped = 0

    def _forget(self, count: int) -> None:
        for _ in range(count):
            self._characters -= len(self._waiting.popleft().log)
