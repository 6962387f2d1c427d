"""Reports of ended attempts: guarded batches move the tasks, then every report gets its verdict."""

import asyncio
import time
from collections.abc import Iterable, Sequence

import structlog

from headrace.v1.execution_pb2 import VerdictItem
from headrace.v1.task_pb2 import (
    OUTCOME_COMPLETED,
    OUTCOME_HANDED_BACK,
    TASK_STATUS_COMPLETED,
    VERDICT_ACCEPTED,
    VERDICT_STALE,
    VERDICT_UNKNOWN,
    Report,
    TaskUpdate,
    Verdict,
)
from management_service.dispatch import Dispatcher
from management_service.domain.statuses import TaskEvent
from management_service.links import ExecutorLink
from management_service.publishing import Publisher, update_of, wall_time
from management_service.rpc.mapping import EVENT_OF_OUTCOME
from management_service.storage.records import AttemptState, Change, Completed, Ending
from management_service.storage.tasks import TaskRepository
from servicekit import failpoints
from servicekit.errors import HeadraceError

log = structlog.stdlib.get_logger(__name__)

_BATCH_MAX = 2_000
_PAUSE_AFTER_FAILURE_SECONDS = 0.25
_SETTLE_SECONDS = 3.0

Key = tuple[int, int]
# One report per task, and the link that its verdict goes back on.
Batch = dict[int, tuple[Report, ExecutorLink]]


class ReportDesk:
    """Handles what gathered while the previous batch was committed. Bounded by the attempts in progress: a report
    that comes again takes the place of its first copy.
    """

    def __init__(self, tasks: TaskRepository, dispatcher: Dispatcher, publisher: Publisher) -> None:
        self._tasks = tasks
        self._dispatcher = dispatcher
        self._publisher = publisher
        self._pending: dict[Key, tuple[Report, ExecutorLink]] = {}
        self._endings: dict[Key, Ending] = {}
        self._wake = asyncio.Event()
        # Since when what waits could not be handled.
        self._failing_since: float | None = None

    def problem(self, *, within: float) -> str | None:
        """A check for readiness: what waits has not failed for so many seconds in a row."""
        since = self._failing_since
        if since is None or time.monotonic() - since <= within:
            return None
        return f"reports have waited for {time.monotonic() - since:.1f} s"

    def reported(self, link: ExecutorLink, reports: Iterable[Report]) -> None:
        """Take reports; their verdicts go back on `link`."""
        for report in reports:
            self._pending[report.task_id, report.attempt] = (report, link)
        self._wake.set()

    def give_back(self, keys: Iterable[Key], *, event: TaskEvent) -> None:
        """Requeue attempts that no replica holds: refused, or never sent."""
        for task_id, attempt in keys:
            report = Report(task_id=task_id, attempt=attempt, outcome=OUTCOME_HANDED_BACK)
            self._endings[task_id, attempt] = Ending(event, report)
        self._wake.set()

    async def run(self) -> None:
        """Handle batches until cancelled. While the database is away everything waits here."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._pending or self._endings:
                try:
                    await self._handle(self._take_batch())
                    self._failing_since = None
                except HeadraceError as error:
                    self._failing_since = self._failing_since or time.monotonic()
                    log.info("reports_wait", code=error.code, reason=error.message, waiting=len(self._pending))
                    await asyncio.sleep(_PAUSE_AFTER_FAILURE_SECONDS)
                except Exception as error:
                    self._failing_since = self._failing_since or time.monotonic()
                    log.error("reports_failed", exc_info=error, waiting=len(self._pending))
                    await asyncio.sleep(_PAUSE_AFTER_FAILURE_SECONDS)

    async def settle(self) -> None:
        """Handle what waits, before leaving. Gives up when the database does not answer: others will hear of it."""
        try:
            async with asyncio.timeout(_SETTLE_SECONDS):
                while self._pending or self._endings:
                    await self._handle(self._take_batch())
        except (HeadraceError, TimeoutError) as error:
            log.warning("reports_left", waiting=len(self._pending) + len(self._endings), reason=str(error))

    def _take_batch(self) -> Batch:
        """Choose one report per task; nothing leaves `_pending` before it was handled."""
        batch: Batch = {}
        for (task_id, _), entry in self._pending.items():
            batch.setdefault(task_id, entry)
            if len(batch) >= _BATCH_MAX:
                break
        return batch

    async def _handle(self, batch: Batch) -> None:
        reports = [report for report, _ in batch.values()]
        if reports:
            failpoints.hit("reports.before_commit")
        completed = await self._complete([report for report in reports if report.outcome == OUTCOME_COMPLETED])
        changes = await self._end([report for report in reports if report.outcome != OUTCOME_COMPLETED])
        moved = {done.task_id for done in completed} | {change.task_id for change in changes}
        verdicts = await self._judge([report for report in reports if report.task_id not in moved])
        verdicts.update((task_id, VERDICT_ACCEPTED) for task_id in moved)
        self._answer(batch, verdicts)

    async def _complete(self, reports: Sequence[Report]) -> list[Completed]:
        if not reports:
            return []
        cleared = self._publisher.take_cleared()
        try:
            completed = await self._tasks.complete(reports, published=cleared)
        except BaseException:
            self._publisher.give_back_cleared(cleared)
            raise
        failpoints.hit("reports.after_commit")
        results = {report.task_id: report.result for report in reports if report.HasField("result")}
        at = wall_time()
        self._publisher.put(
            (
                TaskUpdate(
                    task_id=done.task_id,
                    type=done.type,
                    status=TASK_STATUS_COMPLETED,
                    attempt=done.attempt,
                    revision=done.revision,
                    at=at,
                    result=results.get(done.task_id),
                )
                for done in completed
            ),
            outbox_ids=[completed[0].outbox_id] if completed else (),
        )
        return completed

    async def _end(self, reports: Sequence[Report]) -> list[Change]:
        """Move tasks whose attempts failed or came back, along with those that nobody holds."""
        internal, self._endings = self._endings, {}
        endings = {ending.report.task_id: ending for ending in internal.values()}
        for report in reports:
            if known := EVENT_OF_OUTCOME.get(report.outcome):
                endings[report.task_id] = Ending(known[0], report, worth_retrying=known[1])
            else:
                log.warning("report_of_unknown_outcome", task_id=report.task_id, outcome=report.outcome)
        if not endings:
            return []
        try:
            changes = await self._tasks.end_attempts(list(endings.values()))
        except BaseException:
            self._endings = internal | self._endings
            raise
        self.publish(changes)
        return changes

    def publish(self, changes: Sequence[Change]) -> None:
        """Tell of changes, and of pools that got ready tasks by them."""
        at = wall_time()
        self._publisher.put(
            (update_of(change, at=at) for change in changes),
            outbox_ids={change.outbox_id for change in changes},
        )
        if ready := {change.pool for change in changes if change.status == "queued"}:
            self._dispatcher.may_wait(ready)
            self._publisher.put_ready(ready)

    async def _judge(self, reports: Sequence[Report]) -> dict[int, Verdict.ValueType]:
        """Give verdicts on reports that moved nothing."""
        if not reports:
            return {}
        states = await self._tasks.read_attempts([report.task_id for report in reports])
        verdicts: dict[int, Verdict.ValueType] = {}
        for report in reports:
            verdict = verdict_on(report, states.get(report.task_id))
            if verdict is not None:
                verdicts[report.task_id] = verdict
        return verdicts

    def _answer(self, batch: Batch, verdicts: dict[int, Verdict.ValueType]) -> None:
        groups: dict[int, tuple[ExecutorLink, list[VerdictItem]]] = {}
        for task_id, (report, link) in batch.items():
            self._pending.pop((task_id, report.attempt), None)
            verdict = verdicts.get(task_id)
            if verdict is None:
                continue
            if verdict != VERDICT_ACCEPTED:
                log.info("report_without_effect", task_id=task_id, attempt=report.attempt, verdict=verdict)
            item = VerdictItem(task_id=task_id, attempt=report.attempt, verdict=verdict)
            groups.setdefault(id(link), (link, []))[1].append(item)
        for link, items in groups.values():
            link.give_verdicts(items)


def verdict_on(report: Report, state: AttemptState | None) -> Verdict.ValueType | None:
    """The verdict on a report that moved nothing; None when there is none to give and it may come again."""
    if state is None:
        return VERDICT_UNKNOWN
    if report.outcome == OUTCOME_COMPLETED:
        return VERDICT_ACCEPTED if state.result_attempt == report.attempt else VERDICT_STALE
    if report.outcome not in EVENT_OF_OUTCOME or (state.status == "processing" and state.attempt == report.attempt):
        return None
    return VERDICT_ACCEPTED if state.attempt == report.attempt else VERDICT_STALE
