"""The way to the result DB: results are stored in batches before they are reported, and found again for later attempts.

While the result DB is away, what has finished waits in a bounded spool and is stored when it is back: nothing is run
again for it. Each batch is what gathered while the last one was being stored.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence, Sized
from datetime import timedelta
from typing import Protocol

import psycopg
import structlog

from execution_service.attempts import Held, Phase
from execution_service.logs import LogDb
from execution_service.workers.outcomes import Finished
from result_store.model import Copied, CopyRequest, NewResult
from result_store.store import ResultStore
from servicekit import failpoints
from servicekit.loops import BackgroundLoop

log = structlog.stdlib.get_logger(__name__)

BATCH_ROWS = 2_000
BATCH_BYTES = 4 * 1024 * 1024
# Memory that a waiting result takes beside its bytes.
ROW_BYTES = 400
# SQLSTATE classes that blame the data: data exception, integrity constraint violation, program limit exceeded.
DATA_ERRORS = ("22", "23", "54")

# What one result counts in the mean of their sizes.
_MEAN_WEIGHT = 0.1

SWEEP_ROWS = 1_000
SWEEP_BATCHES = 20


class ResultDb(LogDb, Protocol):
    """What this module needs of the result store. All raise while the result DB is away, and are safe to repeat."""

    async def insert(self, results: Sequence[NewResult], /) -> None: ...
    async def copy_to_attempt(self, items: Sequence[CopyRequest], /) -> Sequence[Copied]: ...


class ResultWriter:
    """Stores results, in order, and says which are stored and which cannot be."""

    def __init__(
        self,
        store: ResultDb,
        *,
        spool_bytes_max: int,
        on_stored: Callable[[list[Finished]], None],
        on_refused: Callable[[Finished, str], None],
    ) -> None:
        self._store = store
        self._spool_bytes_max = spool_bytes_max
        self._on_stored = on_stored
        self._on_refused = on_refused
        self._waiting: deque[Finished] = deque()
        self._bytes = 0
        # Of late, by a running mean; 0 before the first.
        self._mean_bytes = 0.0
        self._rows_max = BATCH_ROWS
        self._moved_at = 0.0
        self._loop = BackgroundLoop("store_results", self.run_once, interval=1.0)

    def start(self) -> None:
        self._loop.start()

    async def stop(self) -> None:
        await self._loop.stop()

    @property
    def full(self) -> bool:
        """The spool has reached its bound: no more work should be taken on until results can be stored."""
        return self._bytes >= self._spool_bytes_max

    @property
    def room(self) -> int:
        """How many more results the spool holds, if they are as big as those that came last."""
        return max(0, int((self._spool_bytes_max - self._bytes) / max(self._mean_bytes, ROW_BYTES)))

    def __len__(self) -> int:
        return len(self._waiting)

    def problem(self, *, within: float) -> str | None:
        """A check for readiness: None unless results have waited for `within` seconds and none was stored."""
        return _standstill("results wait to be stored", self._waiting, self._moved_at, within)

    def add(self, finished: Iterable[Finished]) -> None:
        if not self._waiting:
            self._moved_at = time.monotonic()
        for item in finished:
            self._waiting.append(item)
            size = _size(item)
            self._bytes += size
            self._mean_bytes += (size - self._mean_bytes) * (_MEAN_WEIGHT if self._mean_bytes else 1.0)
        self._loop.wake()

    async def run_once(self) -> None:
        """Store all that waits. Raises when the result DB does not answer; everything not stored then still waits."""
        while self._waiting:
            batch = self._next_batch()
            failpoints.hit("results.before_insert")
            try:
                await self._store.insert([NewResult(item.task_id, item.attempt, item.result or b"") for item in batch])
            except psycopg.Error as error:
                if (error.sqlstate or "")[:2] not in DATA_ERRORS:
                    raise
                self._blame(batch, error)
                continue
            failpoints.hit("results.after_insert")
            self._forget(batch)
            self._rows_max = min(BATCH_ROWS, self._rows_max * 2)
            self._on_stored(batch)

    def _next_batch(self) -> list[Finished]:
        batch: list[Finished] = []
        size = 0
        for item in self._waiting:
            size += _size(item)
            if batch and (size > BATCH_BYTES or len(batch) >= self._rows_max):
                break
            batch.append(item)
        return batch

    def _blame(self, batch: Sequence[Finished], error: psycopg.Error) -> None:
        """One row of the batch was refused for its data: try smaller batches until it stands alone."""
        self._rows_max = max(1, len(batch) // 2)
        if len(batch) == 1:
            self._forget(batch)
            log.warning("result_unstorable", task_id=batch[0].task_id, attempt=batch[0].attempt, error=str(error))
            self._on_refused(batch[0], str(error))

    def _forget(self, batch: Sequence[Finished]) -> None:
        self._moved_at = time.monotonic()
        for item in batch:
            self._waiting.popleft()
            self._bytes -= _size(item)


class EarlierResults:
    """Looks for the result of an earlier attempt of the same round, before a later attempt is started."""

    def __init__(
        self,
        store: ResultDb,
        *,
        on_found: Callable[[list[Held]], None],
        on_missing: Callable[[list[Held]], None],
    ) -> None:
        self._store = store
        self._on_found = on_found
        self._on_missing = on_missing
        self._waiting: deque[Held] = deque()
        self._moved_at = 0.0
        self._loop = BackgroundLoop("look_for_earlier_results", self.run_once, interval=1.0)

    def start(self) -> None:
        self._loop.start()

    async def stop(self) -> None:
        await self._loop.stop()

    def problem(self, *, within: float) -> str | None:
        """A check for readiness: None unless attempts have waited for `within` seconds and none was looked at."""
        return _standstill("attempts wait for a look at earlier results", self._waiting, self._moved_at, within)

    def add(self, attempts: Iterable[Held]) -> None:
        if not self._waiting:
            self._moved_at = time.monotonic()
        self._waiting.extend(attempts)
        self._loop.wake()

    async def run_once(self) -> None:
        """Answer for all that wait. Raises when the result DB does not answer; they keep waiting then."""
        while self._waiting:
            batch = [self._waiting[index] for index in range(min(BATCH_ROWS, len(self._waiting)))]
            wanted = [held for held in batch if held.phase is Phase.CHECKING]
            if wanted:
                requests = [CopyRequest(held.task_id, held.round_base, held.attempt) for held in wanted]
                copied = {(item.task_id, item.attempt) for item in await self._store.copy_to_attempt(requests)}
                self._on_found([held for held in wanted if held.key in copied])
                self._on_missing([held for held in wanted if held.key not in copied])
            self._moved_at = time.monotonic()
            for _ in batch:
                self._waiting.popleft()


class ResultSweeper:
    """Removes results that are older than any task row that could point to them."""

    def __init__(self, store: ResultStore, *, keep: timedelta, interval: float = 60.0) -> None:
        self._store = store
        self._keep = keep
        self._loop = BackgroundLoop("sweep_results", self.run_once, interval=interval)

    def start(self) -> None:
        self._loop.start()

    async def stop(self) -> None:
        await self._loop.stop()

    async def run_once(self) -> None:
        """Remove a bounded number in small batches; the rest waits for the next run."""
        removed = 0
        for _ in range(SWEEP_BATCHES):
            count = await self._store.sweep(self._keep, SWEEP_ROWS)
            removed += count
            if count < SWEEP_ROWS:
                break
        if removed:
            log.info("results_swept", removed=removed)


def _standstill(what: str, waiting: Sized, moved_at: float, within: float) -> str | None:
    silent = time.monotonic() - moved_at
    return f"{what} for {silent:.1f} s" if waiting and silent > within else None


def _size(item: Finished) -> int:
    return len(item.result or b"") + ROW_BYTES
