"""The watch over sessions and attempts: counts leases, rescues tasks, asks about attempts, passes cancels on."""

import asyncio
from collections.abc import Mapping, Sequence

import structlog

from management_service.domain.leases import SCAN_SECONDS, LeaseCounter
from management_service.domain.questions import AttemptAges, AttemptRow
from management_service.links import ExecutorLink
from management_service.reports import ReportDesk
from management_service.storage.executors import ExecutorRepository
from management_service.storage.records import LiveSession
from management_service.storage.tasks import TaskRepository
from servicekit import failpoints
from servicekit.clock import Clock
from servicekit.loops import BackgroundLoop

log = structlog.stdlib.get_logger(__name__)


class LeaseWatch:
    """One scan every 0.5 s. `addresses` holds where sessions are to be dialled, as the database knows."""

    def __init__(
        self,
        *,
        manager_id: str,
        replica: str,
        executors: ExecutorRepository,
        tasks: TaskRepository,
        reports: ReportDesk,
        links: Mapping[str, ExecutorLink],
        clock: Clock,
    ) -> None:
        self.addresses: frozenset[str] = frozenset()
        self._manager_id = manager_id
        self._replica = replica
        self._executors = executors
        self._tasks = tasks
        self._reports = reports
        self._links = links
        self._clock = clock
        self._counter = LeaseCounter()
        self._ages = AttemptAges()
        self._loop = BackgroundLoop("leases", self.run_once, interval=SCAN_SECONDS, jitter=0.0)

    def start(self) -> None:
        self._loop.start()

    async def stop(self) -> None:
        await self._loop.stop()

    def problem(self, *, within: float) -> str | None:
        """A check for readiness."""
        return self._loop.problem(within=within)

    def heard(self, session_id: int) -> None:
        self._counter.heard(session_id, now=self._clock.monotonic())

    async def run_once(self) -> None:
        """Scan once; whatever fails starts every count of silence again."""
        try:
            sessions = await self._executors.scan_sessions(manager_id=self._manager_id, replica=self._replica)
            await self._end_silent(sessions)
            await self._rescue()
            await self._ask(await self._tasks.scan_attempts())
        except BaseException:
            self._counter.scan_failed()
            self._ages.forget_all()
            raise

    async def _end_silent(self, sessions: Sequence[LiveSession]) -> None:
        self.addresses = frozenset(session.address for session in sessions)
        beats = {session.session_id: session.beat for session in sessions}
        gone = [session.session_id for session in sessions if self._is_gone(session)]
        if gone:
            # Soon to be ended, and nothing is to be lost by the time between two scans.
            asyncio.get_running_loop().call_later(SCAN_SECONDS / 2, self._loop.wake)
        for lapse in self._counter.scan(beats, gone=gone, now=self._clock.monotonic()):
            if await self._executors.end_session(lapse.session_id, beat=lapse.beat):
                log.warning("session_ended", session_id=lapse.session_id, beat=lapse.beat)
                failpoints.hit("leases.after_end")

    def _is_gone(self, session: LiveSession) -> bool:
        """Nobody listens at the session's address, or another session answers there."""
        link = self._links.get(session.address)
        if link is None:
            return False
        return link.refused or link.session_id not in (None, session.session_id)

    async def _rescue(self) -> None:
        while changes := await self._tasks.rescue():
            log.warning("tasks_rescued", count=len(changes), first=changes[0].task_id)
            self._reports.publish(changes)

    async def _ask(self, rows: Sequence[AttemptRow]) -> None:
        """Ask each session about its old attempts, and repeat the cancels that wait for it."""
        links = {link.session_id: link for link in self._links.values() if link.session_id is not None}
        questions: dict[int, list[tuple[int, int]]] = {}
        cancels: dict[int, list[tuple[int, int]]] = {}
        for row in self._ages.scan(rows, now=self._clock.monotonic()):
            questions.setdefault(row.session_id, []).append((row.task_id, row.attempt))
        for row in rows:
            if row.cancel_requested:
                cancels.setdefault(row.session_id, []).append((row.task_id, row.attempt))
        for session_id, keys in questions.items():
            if link := links.get(session_id):
                link.ask(keys)
        for session_id, keys in cancels.items():
            if link := links.get(session_id):
                link.cancel(keys)
