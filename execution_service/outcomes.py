"""What becomes of an attempt after it ended: its result is stored, then it is reported, and kept until the verdict."""

from collections.abc import Callable, Iterable, Sequence

from execution_service.attempts import AttemptTable, Held, Key
from execution_service.logs import LogWriter
from execution_service.progress import ProgressPacer
from execution_service.reporting import ReportBook
from execution_service.results import ResultDb, ResultWriter
from execution_service.rpc import mapping
from execution_service.rpc.streams import StreamSet
from execution_service.workers.outcomes import AttemptError, Finished, Outcome, ProgressItem
from headrace.v1 import execution_pb2, task_pb2
from servicekit.clock import Clock
from servicekit.live.events import LiveEvent
from servicekit.live.hub import Hub

# With so many reports unanswered, managers do not keep up: no more work is asked for.
UNANSWERED_MAX = 20_000


class Outcomes:
    """Takes outcomes and progress from the pool, and verdicts from the managers."""

    def __init__(
        self,
        table: AttemptTable,
        store: ResultDb,
        *,
        streams: StreamSet,
        hub: Hub,
        clock: Clock,
        spool_bytes_max: int,
        on_change: Callable[[], None],
    ) -> None:
        """`on_change` is called when the pool or the result DB has moved something, once for each batch."""
        self._table = table
        self._streams = streams
        self._hub = hub
        self._clock = clock
        self._on_change = on_change
        self._book = ReportBook()
        self.logs = LogWriter(store)
        self._pacer = ProgressPacer()
        self._progress: dict[int, execution_pb2.AttemptProgress] = {}
        self.writer = ResultWriter(
            store, spool_bytes_max=spool_bytes_max, on_stored=self._stored, on_refused=self._unstorable
        )

    @property
    def is_full(self) -> bool:
        """Nothing more should be taken on: results cannot be stored, or managers do not answer reports."""
        return self.writer.full or len(self._book) >= UNANSWERED_MAX

    # From the pool.

    def finished(self, outcomes: Iterable[Finished]) -> None:
        """Attempts ended in the pool. Those that were let go in between are dropped."""
        completed = []
        reports = []
        ended = self._table.finish(outcomes)
        self._pass_on(self._pacer.take_last((item.task_id, item.attempt) for item in ended))
        for item in ended:
            if item.log:
                self.logs.add(item)
            if item.outcome is Outcome.COMPLETED:
                completed.append(item)
            else:
                reports.append(mapping.report(item))
        if completed:
            self.writer.add(completed)
        self.report(reports)
        self._on_change()

    def progressed(self, items: Sequence[ProgressItem]) -> None:
        """Pass the progress of attempts on; what comes too often waits, and the latest wins."""
        held = [item for item in items if self._is_held(item)]
        self._pass_on(self._pacer.note(held, self._clock.monotonic()))
        self.flush()

    def _pass_on(self, items: Iterable[ProgressItem]) -> None:
        """Keep progress until it can be sent."""
        for item in items:
            self._progress[item.task_id] = message = mapping.progress(item)
            if self._hub.hears(item.task_id):
                self._hub.publish([LiveEvent(mapping.progress_update(message))])

    # Outcomes without a run.

    def end_unstarted(self, attempts: Sequence[Held], outcome: Outcome, cause: AttemptError | None = None) -> None:
        """Report attempts that were held and for which no handler is started here."""
        self.report([mapping.report_unstarted(held, outcome, cause) for held in attempts])

    def report(self, reports: Sequence[task_pb2.Report]) -> None:
        """Keep reports until their verdicts; the next flush sends them."""
        self._book.add(reports)
        self._publish(reports)

    # From the managers.

    def verdicts(self, stream: int, items: Iterable[execution_pb2.VerdictItem]) -> list[Key]:
        """Let go what has its verdict; returns the attempts that are stale and have to be stopped in the pool."""
        self._book.answered_by(stream)
        stale = []
        for item in items:
            key = (item.task_id, item.attempt)
            if item.verdict == task_pb2.VERDICT_STALE:
                self._book.settle(key)
                if self._table.release_stale(*key):
                    stale.append(key)
            elif item.verdict != task_pb2.VERDICT_UNSPECIFIED and self._book.settle(key):
                self._table.release(*key)
        return stale

    def discard(self, attempts: Iterable[Held]) -> None:
        """Forget the reports of attempts that were replaced by later ones."""
        for held in attempts:
            self._book.settle(held.key)

    # To the managers.

    def flush(self, *, any_stream: bool = False) -> None:
        """Send what can be sent. Reports go to managers that can write, unless `any_stream` says to try all."""
        now = self._clock.monotonic()
        self._pass_on(self._pacer.take_due(now))
        able = self._streams.numbers() if any_stream else self._streams.echoing(now)
        while (assigned := self._book.assign(able, now)) is not None:
            number, reports = assigned
            self._streams[number].reports(reports)
        if self._progress and able:
            held = (self._table.find(task_id) for task_id in self._progress)
            items = zip(self._progress.values(), held, strict=True)
            self._streams[able[0]].progress([item for item, of in items if of and of.attempt == item.attempt])
            self._progress.clear()

    def resend_late(self) -> int:
        """Take back reports that have waited too long for their verdicts; the next flush sends them again."""
        return self._book.take_back_late(self._clock.monotonic(), streams=self._streams.numbers())

    def remove_stream(self, stream: int) -> None:
        self._book.remove_stream(stream)

    # From the result DB.

    def _stored(self, batch: Sequence[Finished]) -> None:
        self.report([mapping.report(item) for item in batch if self._is_held(item)])
        self._on_change()

    def _unstorable(self, item: Finished, reason: str) -> None:
        if self._is_held(item):
            cause = AttemptError("unstorable_result", f"the result DB refused the result: {reason}")
            self.report([mapping.report(mapping.failed_for_good(item, cause))])
        self._on_change()

    def _is_held(self, item: Finished | ProgressItem) -> bool:
        held = self._table.find(item.task_id)
        return held is not None and held.attempt == item.attempt

    def _publish(self, reports: Sequence[task_pb2.Report]) -> None:
        heard = [report for report in reports if self._hub.hears(report.task_id)]
        if heard:
            now = self._clock.now()
            known = [(report, self._table.find(report.task_id)) for report in heard]
            self._hub.publish(
                [LiveEvent(mapping.outcome_update(report, held.type, now)) for report, held in known if held]
            )
