"""Reports without a verdict: which stream each was sent on, and which have to be sent again. Pure.

A report is kept until its verdict. A stream that ends, or gives no verdict in time, gives its reports back to be sent
on another one; the manager's guard makes a repeat harmless.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

from execution_service.attempts import Key
from headrace.v1 import task_pb2

# Sent again when no verdict came for so long.
VERDICT_SECONDS = 5.0
# Reports that one call of `assign` hands out at most; the rest follows with the next.
BATCH_MAX = 2_000


@dataclass(slots=True, eq=False)
class _Pending:
    report: task_pb2.Report
    stream: int | None = None
    sent_at: float = 0.0


class ReportBook:
    """All reports that wait for a verdict."""

    def __init__(self) -> None:
        self._pending: dict[Key, _Pending] = {}
        self._unsent: dict[Key, None] = {}
        self._unanswered: dict[int, int] = {}
        # Streams that gave no verdict in time and none since: the last choice.
        self._slow: set[int] = set()

    def __len__(self) -> int:
        return len(self._pending)

    @property
    def unsent(self) -> int:
        return len(self._unsent)

    def add(self, reports: Iterable[task_pb2.Report]) -> None:
        for report in reports:
            key = (report.task_id, report.attempt)
            self._pending[key] = _Pending(report)
            self._unsent[key] = None

    def assign(self, streams: Sequence[int], now: float) -> tuple[int, list[task_pb2.Report]] | None:
        """Choose the stream with the fewest unanswered reports for a batch of what was not sent yet."""
        if not self._unsent or not streams:
            return None
        stream = min(streams, key=lambda candidate: (candidate in self._slow, self._unanswered.get(candidate, 0)))
        batch = []
        for key in list(islice(self._unsent, BATCH_MAX)):
            del self._unsent[key]
            pending = self._pending[key]
            pending.stream, pending.sent_at = stream, now
            batch.append(pending.report)
        self._unanswered[stream] = self._unanswered.get(stream, 0) + len(batch)
        return stream, batch

    def settle(self, key: Key) -> bool:
        """Forget a report that has its verdict, or whose attempt was replaced; false if there is none."""
        pending = self._pending.pop(key, None)
        if pending is None:
            return False
        self._unsent.pop(key, None)
        self._answered(pending)
        return True

    def answered_by(self, stream: int) -> None:
        """A verdict came on this stream: it may be chosen again."""
        self._slow.discard(stream)

    def remove_stream(self, stream: int) -> None:
        """Take back what was sent on a stream that ended."""
        self._take_back(key for key, pending in self._pending.items() if pending.stream == stream)
        self._unanswered.pop(stream, None)
        self._slow.discard(stream)

    def take_back_late(self, now: float, *, streams: Collection[int]) -> int:
        """Take back what has waited too long for its verdict; returns how many. Nothing while there is no stream."""
        if not streams:
            return 0
        late = []
        for key, pending in self._pending.items():
            if pending.stream is not None and now - pending.sent_at >= VERDICT_SECONDS:
                late.append(key)
                self._slow.add(pending.stream)
        self._take_back(late)
        return len(late)

    def _take_back(self, keys: Iterable[Key]) -> None:
        for key in list(keys):
            pending = self._pending[key]
            self._answered(pending)
            pending.stream = None
            self._unsent[key] = None

    def _answered(self, pending: _Pending) -> None:
        if pending.stream is not None and pending.stream in self._unanswered:
            self._unanswered[pending.stream] -= 1
