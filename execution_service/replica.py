"""The session side of an execution replica: its session, what it holds, what it asks for, and its streams.

Everything here is synchronous and decides at once; waiting happens in the writers of the streams, in the worker pool
and on the way to the result DB. Each call handles a whole list, and plans demand once after it.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Protocol

import structlog

from execution_service.attempts import AttemptTable, Held, Intake, Key, Phase
from execution_service.demand import NOTHING, DemandBook, RecentTypes, Target
from execution_service.outcomes import Outcomes
from execution_service.results import EarlierResults, ResultDb
from execution_service.rpc import mapping
from execution_service.rpc.streams import ManagerStream, StreamSet
from execution_service.sessions import Session, new_session_id
from execution_service.workers.failures import NEVER_STARTED
from execution_service.workers.lease_page import LeasePage
from execution_service.workers.outcomes import Attempt, AttemptError, Outcome
from headrace.v1 import execution_pb2, task_pb2
from servicekit import failpoints
from servicekit.clock import Clock
from servicekit.live.events import LiveEvent
from servicekit.live.hub import Hub

log = structlog.stdlib.get_logger(__name__)

# After its session was ended a replica waits for outcomes on their way from the workers, and then for the verdicts on
# what had finished, before it opens a new session.
SETTLE_SECONDS = 0.25
REOPEN_SECONDS_MAX = 10.0
# A new stream hears a heartbeat at once, so that its echo need not wait for the next one; but not a flood of them.
EXTRA_BEAT_SECONDS = 0.25

_UNKNOWN_TYPE = AttemptError("unknown_task_type", "this replica does not run tasks of this type in this pool")
_NOT_STARTED = AttemptError("not_started", "the replica could not start the attempt")
_DRAINING = AttemptError("draining", "the replica is stopping")
_SOLITARY = AttemptError("solitary", "the replica runs a task alone under which others were lost")


class Workers(Protocol):
    """What this module needs of the worker pool."""

    def slots(self, pool: str) -> int: ...
    def mean_seconds(self, type_name: str) -> float | None: ...
    def is_short(self, type_name: str) -> bool: ...
    def stuck(self, pool: str) -> int: ...
    def submit(self, attempts: Sequence[Attempt]) -> None: ...
    def cancel(self, task_id: int, attempt: int) -> None: ...
    def abandon(self, keys: Iterable[Key]) -> None: ...
    def kill_session(self, session_id: int) -> None: ...


class Replica:
    """One execution replica as its managers see it."""

    def __init__(
        self,
        workers: Workers,
        store: ResultDb,
        *,
        name: str,
        task_types: Sequence[task_pb2.TaskType],
        pools: Iterable[str],
        lease_page: LeasePage,
        hub: Hub,
        clock: Clock,
        spool_bytes_max: int,
    ) -> None:
        self._workers = workers
        self._name = name
        self._task_types = list(task_types)
        self._pools = tuple(pools)
        self._lease_page = lease_page
        self._hub = hub
        self._clock = clock
        self.address = ""
        # Demand waits for it: without its tables the result DB can take no result.
        self.can_store = False
        self.draining = False
        self.session = Session(new_session_id(), now=clock.boottime())
        self._ended_at = 0.0
        self._beat_at = clock.monotonic()
        self.streams = StreamSet()
        self.table = AttemptTable(self._pools, [task_type.name for task_type in task_types])
        self.demand = DemandBook(self._pools)
        self._recent = {pool: RecentTypes() for pool in self._pools}
        self.outcomes = Outcomes(
            self.table,
            store,
            streams=self.streams,
            hub=hub,
            clock=clock,
            spool_bytes_max=spool_bytes_max,
            on_change=self.settle,
        )
        self.earlier = EarlierResults(store, on_found=self._found, on_missing=self._start_checked)

    def serves(self, type_name: str) -> bool:
        return any(task_type.name == type_name for task_type in self._task_types)

    # Streams.

    def attach(self, manager_id: str) -> ManagerStream:
        """Open the stream of a manager; one that it had before is ended."""
        for older in self.streams.of_manager(manager_id):
            self.detach(older, reason="replaced")
        now = self._clock.monotonic()
        stream = ManagerStream(manager_id, now=now)
        self.streams.add(stream)
        self.demand.add_stream(stream.number)
        stream.hello(self._hello())
        log.info("manager_attached", manager=manager_id, stream=stream.number, session=self.session.session_id)
        if now - self._beat_at >= EXTRA_BEAT_SECONDS or not self.session.number:
            self.beat()
        return stream

    def detach(self, stream: ManagerStream, *, reason: str) -> None:
        """End a stream: its open demand and its unanswered reports go to others. What is held stays held."""
        if stream not in self.streams:
            return
        self.streams.remove(stream)
        self.demand.remove_stream(stream.number)
        self.outcomes.remove_stream(stream.number)
        stream.close()
        log.info("manager_detached", manager=stream.manager_id, stream=stream.number, reason=reason)
        self.settle()

    def beat(self) -> None:
        """Send the next heartbeat on all streams."""
        self._beat_at = self._clock.monotonic()
        number = self.session.beat(self._clock.boottime())
        for stream in self.streams:
            stream.heartbeat(self.session.session_id, number, self.session.echoed)

    def tick(self) -> None:
        """What depends on time alone: streams that fell silent, late verdicts, a session to be opened."""
        now = self._clock.monotonic()
        for stream in self.streams:
            if stream.is_silent(now):
                self.detach(stream, reason="silent")
            elif stream.is_stuck(now) or self.demand.ignores_recall(stream.number, now):
                self.detach(stream, reason="does_not_read")
        late = self.outcomes.resend_late()
        if late:
            log.warning("reports_sent_again", count=late)
        if self.session.ended and not self.draining:
            self._reopen(now)
        self.settle()

    def settle(self) -> None:
        """Send the reports that are ready, and grant or ask back demand as things are now."""
        now = self._clock.monotonic()
        self._start(self.table.start_solitary(now))
        self.outcomes.flush(any_stream=self.session.ended)
        fit = self.streams.fit(now)
        for pool in self._pools:
            held = self.table.unfinished(pool)
            for grant in self.demand.plan(pool, self._target(pool), held=held, fit=fit, now=now):
                self.streams[grant.stream].demand(grant)

    def waiting(self, pool: str) -> int:
        """How many tasks wait for any replica, as far as managers count them. They all count the same ones."""
        return max((stream.waiting.get(pool, 0) for stream in self.streams), default=0)

    def _target(self, pool: str) -> Target:
        if self.draining or self.session.ended or not self.can_store or self.outcomes.is_full:
            return NOTHING
        if self.table.solitary is not None:
            return NOTHING
        workers = self._workers
        slots = workers.slots(pool)
        free = slots - self.table.unfinished_but(pool, workers.is_short) - workers.stuck(pool)
        prefetch = self._recent[pool].prefetch(free, workers.mean_seconds, now=self._clock.monotonic())
        return Target(slots, min(prefetch, self.outcomes.writer.room))

    def _hello(self) -> execution_pb2.Hello:
        return execution_pb2.Hello(
            session_id=self.session.session_id,
            replica=self._name,
            address=self.address,
            task_types=self._task_types,
            pools=[execution_pb2.Pool(name=pool, slots=self._workers.slots(pool)) for pool in self._pools],
            heartbeat=self.session.number,
        )

    # What managers say, in the order of the parts of a message.

    def take_echo(self, stream: ManagerStream, session_id: int, number: int) -> None:
        """A heartbeat is in the database of the manager: attempts may start for a while from its sending on."""
        if not self.session.knows(session_id, number):
            return
        stream.note_echo(number, now=self._clock.monotonic())
        sent_at = self.session.echo(session_id, number)
        if sent_at is not None:
            self._lease_page.write(session_id, sent_at)

    def take_end(self, session_id: int) -> None:
        """The session is ended for good: nothing of it may start or run any more, only what has finished counts."""
        if session_id != self.session.session_id or self.session.ended:
            return
        log.warning("session_ended", session=session_id, held=len(self.table))
        self.session.ended = True
        self._ended_at = self._clock.monotonic()
        self._lease_page.write(0, 0.0)
        self._workers.kill_session(session_id)
        self.table.end_session()

    def take_verdicts(self, stream: ManagerStream, items: Iterable[execution_pb2.VerdictItem]) -> None:
        stale = self.outcomes.verdicts(stream.number, items)
        if stale:
            self._workers.abandon(stale)

    def take_assignments(
        self, stream: ManagerStream, session_id: int, heard: int, assigned: Sequence[execution_pb2.Assignment]
    ) -> None:
        """Take attempts on, unless the claim was for another session or is too old to be still good."""
        counts = Counter(item.pool for item in assigned)
        self.demand.receive(stream.number, counts, now=self._clock.monotonic())
        if not self.session.takes(session_id, heard, self._clock.boottime()):
            log.info("assignments_dropped", session=session_id, heard=heard, count=len(assigned))
            return
        intake = self.table.accept(mapping.offers(assigned, session_id), now=self._clock.monotonic())
        self._let_go(intake.replaced)
        self._note_types(intake)
        if self.draining:
            self._hand_back(intake)
        else:
            self._start(intake.start)
            if intake.check:
                self.earlier.add(intake.check)
        if intake.unserved:
            self.outcomes.end_unstarted(intake.unserved, Outcome.HANDED_BACK, _UNKNOWN_TYPE)
        if intake.crowded:
            self.outcomes.end_unstarted(intake.crowded, Outcome.HANDED_BACK, _SOLITARY)

    def take_demand_use(self, stream: ManagerStream, used: Iterable[execution_pb2.DemandUse]) -> None:
        now = self._clock.monotonic()
        for item in used:
            self.demand.use(stream.number, item.pool, sent=item.sent, returned=item.returned, now=now)

    def take_questions(self, stream: ManagerStream, session_id: int, asked: Sequence[Key]) -> None:
        """Say what is held. What is not is refused from now on, should its assignment still come."""
        if session_id == self.session.session_id:
            held = self.table.answer(asked, now=self._clock.monotonic())
            stream.answers(mapping.answers(asked, held))

    def take_cancels(self, session_id: int, keys: Iterable[Key]) -> None:
        if session_id != self.session.session_id:
            return
        in_pool, unstarted = self.table.cancel(keys)
        for task_id, attempt in in_pool:
            self._workers.cancel(task_id, attempt)
        if unstarted:
            self.outcomes.end_unstarted(unstarted, Outcome.CANCELLED, NEVER_STARTED)

    # Draining.

    def start_draining(self) -> None:
        """Ask for nothing more, ask back what is out, and give back what was not started."""
        self.draining = True
        unstarted = self.table.finish_unstarted(self.table.unstarted())
        self.outcomes.end_unstarted(unstarted, Outcome.HANDED_BACK, _DRAINING)
        self.settle()

    @property
    def is_empty(self) -> bool:
        """Nothing is held, and no manager has demand on which something could still be on its way."""
        return not len(self.table) and not any(self.demand.open(pool) for pool in self._pools)

    def say_bye(self) -> None:
        for stream in self.streams:
            stream.bye()

    # Details.

    def _start(self, attempts: list[Attempt]) -> None:
        if not attempts:
            return
        try:
            failpoints.hit("replica.before_start")
            self._workers.submit(attempts)
        except Exception as error:
            # What is held counts as held until it has an outcome; what never came to a worker would have none.
            log.error("attempts_not_started", exc_info=error, count=len(attempts), first=attempts[0].task_id)
            self._workers.abandon([(work.task_id, work.attempt) for work in attempts])
            self.outcomes.finished([mapping.handed_back(work, _NOT_STARTED) for work in attempts])
            return
        heard = [work for work in attempts if self._hub.hears(work.task_id)]
        if heard:
            now = self._clock.now()
            self._hub.publish([LiveEvent(mapping.started_update(work, now)) for work in heard])

    def _hand_back(self, intake: Intake) -> None:
        self.outcomes.finished([mapping.handed_back(work, _DRAINING) for work in intake.start])
        self.outcomes.end_unstarted(self.table.finish_unstarted(self.table.unstarted()), Outcome.HANDED_BACK, _DRAINING)

    def _let_go(self, replaced: Sequence[Held]) -> None:
        if replaced:
            self.outcomes.discard(replaced)
            self._workers.abandon([held.key for held in replaced if held.phase is Phase.IN_POOL])

    def _note_types(self, intake: Intake) -> None:
        by_pool: dict[str, Counter[str]] = {}
        for work in intake.start:
            by_pool.setdefault(work.pool, Counter())[work.type] += 1
        for held in intake.check:
            by_pool.setdefault(held.pool, Counter())[held.type] += 1
        for pool, counts in by_pool.items():
            self._recent[pool].note(counts, now=self._clock.monotonic())

    def _found(self, copied: Sequence[Held]) -> None:
        self.outcomes.end_unstarted(self.table.finish_unstarted(copied), Outcome.COMPLETED)
        self.settle()

    def _start_checked(self, missing: Sequence[Held]) -> None:
        if self.table.is_closed:
            self.outcomes.end_unstarted(self.table.finish_unstarted(missing), Outcome.HANDED_BACK, _SOLITARY)
        else:
            self._start(self.table.start_checked(missing))
        self.settle()

    def _reopen(self, now: float) -> None:
        waited = now - self._ended_at
        if waited < SETTLE_SECONDS or (self.table.finished and waited < REOPEN_SECONDS_MAX):
            return
        self.table.drop_lost()
        self.session = Session(new_session_id(), now=self._clock.boottime())
        log.info("session_opened", session=self.session.session_id, unreported=len(self.table))
        for stream in self.streams:
            stream.forget_echoes()
            stream.hello(self._hello())
        self.beat()
