"""One management replica: its parts, put together, and what they tell each other."""

import asyncio
import random
import secrets
from collections.abc import Sequence
from typing import Protocol

import structlog
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from headrace.v1 import execution_pb2 as pb
from headrace.v1.task_pb2 import TASK_STATUS_PROCESSING, Report, TaskUpdate
from management_service.dispatch import Dispatcher
from management_service.domain.statuses import TaskEvent
from management_service.ids import IdBlocks
from management_service.intake import Intake, Takeover
from management_service.leases import LeaseWatch
from management_service.lifecycle import TaskLifecycle
from management_service.links import ExecutorLink
from management_service.publishing import Publisher
from management_service.reports import ReportDesk
from management_service.sessions import SessionKeeper
from management_service.settings import ManagementSettings
from management_service.storage.executors import ExecutorRepository
from management_service.storage.id_blocks import IdBlockRepository
from management_service.storage.outbox import Outbox
from management_service.storage.tasks import TaskRepository
from management_service.storing import TaskStore
from management_service.upkeep import OutboxRelay, Retention, Scheduler
from management_service.waiting import WaitingCounts
from management_service.wakeups import WakeUps
from servicekit.cancelling import cancel_and_wait
from servicekit.clock import Clock
from servicekit.discovery import ServiceWatch
from servicekit.loops import BackgroundLoop
from servicekit.postgres import Database

log = structlog.stdlib.get_logger(__name__)

_TICK_SECONDS = 0.5
# A link to an address that nobody names any more is kept for a while: a registry may be away for a moment.
_UNNAMED_SECONDS = 10.0


class Part(Protocol):
    """Something that runs by itself between `start` and `stop`."""

    def start(self) -> None: ...

    async def stop(self) -> None: ...


class Manager:
    """Owns the links to execution replicas and every loop. `watch` names replicas, as the sessions' rows do."""

    def __init__(
        self,
        settings: ManagementSettings,
        database: Database,
        redis: Redis,
        watch: ServiceWatch,
        *,
        clock: Clock,
        rng: random.Random,
    ) -> None:
        self.manager_id = f"{settings.replica}-{secrets.token_hex(4)}"
        self.clock = clock
        self.links: dict[str, ExecutorLink] = {}
        self.tasks = TaskRepository(database, rng=rng)
        self.executors = ExecutorRepository(database)
        self.publisher = Publisher(redis)
        self.dispatcher = Dispatcher(self.tasks, self.links, self.publisher)
        self.waiting = WaitingCounts(self.tasks, self.links, self.dispatcher)
        self.sessions = SessionKeeper(self.executors)
        self.reports = ReportDesk(self.tasks, self.dispatcher, self.publisher)
        self.store = TaskStore(self.tasks, self.dispatcher)
        self.lifecycle = TaskLifecycle(self.tasks, self.reports, self.publisher, pass_on_cancel=self._pass_on_cancel)
        self.ids = IdBlocks(IdBlockRepository(database), redis)
        self._watch = watch
        self._unnamed_since: dict[str, float] = {}
        self.leases = LeaseWatch(
            manager_id=self.manager_id,
            replica=settings.replica,
            executors=self.executors,
            tasks=self.tasks,
            reports=self.reports,
            links=self.links,
            clock=clock,
        )
        self.intake = Intake(redis, self.store, consumer=settings.replica)
        self._takeover = Takeover(redis, self.intake, consumer=settings.replica)
        self._wakeups = WakeUps(redis, on_submissions=self.intake.wake, on_ready=self.dispatcher.may_wait)
        self.scheduler = Scheduler(self.tasks, self.reports)
        self._upkeep = (
            self.scheduler,
            OutboxRelay(Outbox(database), self.tasks, self.publisher),
            Retention(self.tasks, self.executors, retention=settings.retention),
            self.ids,
        )
        self._ticker = BackgroundLoop("links", self._tick, interval=_TICK_SECONDS, jitter=0.0)
        self._runs: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Start every loop; they survive the loss of whatever they talk to."""
        self._watch.subscribe(self._ticker.wake)
        for run in (self.publisher.run, self.sessions.run, self.reports.run, self._wakeups.run):
            self._runs.append(asyncio.create_task(run(), name=run.__qualname__))
        parts: tuple[Part, ...] = (
            self._ticker,
            self.leases,
            self.dispatcher,
            self.waiting,
            self._takeover,
            self.intake,
        )
        for part in (*parts, *self._upkeep):
            part.start()

    async def stop(self) -> None:
        """Take in and claim nothing more, hand back what was not sent, settle what was reported, let go."""
        await self._stop_parts(self.intake, self._takeover, self.waiting, self.dispatcher, self._ticker)
        await asyncio.gather(*(link.close() for link in self.links.values()))
        await self.reports.settle()
        await self.publisher.settle()
        await self._stop_parts(self.leases, *self._upkeep)
        await cancel_and_wait(*self._runs)

    async def _stop_parts(self, *parts: Part) -> None:
        for part in parts:
            await part.stop()

    @property
    def claim_rounds(self) -> int:
        return self.dispatcher.rounds

    # What the links tell (links.Manager).

    def heard(self, session_id: int) -> None:
        self.leases.heard(session_id)

    def demand_changed(self) -> None:
        self.dispatcher.demand_changed()

    def reported(self, link: ExecutorLink, reports: Sequence[Report]) -> None:
        self.reports.reported(link, reports)

    def answered(self, link: ExecutorLink, answers: Sequence[pb.Answer]) -> None:
        """Requeue what a replica does not hold; what it holds is not asked about again on this stream."""
        refused = [(a.task_id, a.attempt) for a in answers if a.state == pb.Answer.STATE_REFUSED]
        if refused:
            log.info("attempts_refused", address=link.address, count=len(refused), first=refused[0])
            self.reports.give_back(refused, event=TaskEvent.REFUSED)

    def progressed(self, items: Sequence[pb.AttemptProgress]) -> None:
        self.publisher.put(
            TaskUpdate(
                task_id=item.task_id,
                type=item.type,
                status=TASK_STATUS_PROCESSING,
                attempt=item.attempt,
                at=item.at,
                progress=item.progress,
            )
            for item in items
        )

    def said_bye(self, session_id: int) -> None:
        self.sessions.bye(session_id)

    def not_sent(self, assignments: Sequence[pb.Assignment]) -> None:
        """The stream did not carry these: they go back to the queue at once."""
        log.info("assignments_not_sent", count=len(assignments))
        self.reports.give_back([(a.task_id, a.attempt) for a in assignments], event=TaskEvent.HANDED_BACK)

    async def _tick(self) -> None:
        """Dial whoever is named, drop whoever is not named any more, and let every replica hear us."""
        named = {endpoint.address for endpoint in self._watch.endpoints} | self.leases.addresses
        for address in sorted(named - self.links.keys()):
            self.links[address] = link = ExecutorLink(address, self)
            link.start()
        now = self.clock.monotonic()
        for address, link in list(self.links.items()):
            link.tick()
            if address in named or link.session is not None:
                self._unnamed_since.pop(address, None)
            elif now - self._unnamed_since.setdefault(address, now) > _UNNAMED_SECONDS:
                del self.links[address], self._unnamed_since[address]
                await link.close()

    def _pass_on_cancel(self, task_id: int, attempt: int) -> None:
        """Every replica may be told: it ignores what it does not hold."""
        for link in self.links.values():
            link.cancel([(task_id, attempt)])


def open_redis(url: str, *, timeout: float = 1.5) -> Redis:
    """A client that fails within `timeout` seconds and repeats nothing by itself: a repeat may have taken effect."""
    client: Redis = Redis.from_url(
        url, socket_timeout=timeout, socket_connect_timeout=1.0, retry=Retry(NoBackoff(), 0), protocol=2
    )
    return client
