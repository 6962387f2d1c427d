"""A replica in virtual time: its clock, workers and result DB are the test's, its decisions are the real ones."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta

from psycopg import errors

from execution_service.attempts import Key
from execution_service.demand import PREFETCH_SECONDS
from execution_service.replica import Replica
from execution_service.rpc.streams import ManagerStream
from execution_service.workers.lease_page import LeasePage
from execution_service.workers.outcomes import Attempt
from headrace.v1 import execution_pb2, task_pb2
from result_store.model import Copied, CopyRequest, NewLog, NewResult
from servicekit.errors import Unavailable
from servicekit.live.hub import Hub


class ManualClock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def monotonic(self) -> float:
        return self.seconds

    def boottime(self) -> float:
        return self.seconds + 5000.0

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self.seconds)


class RecordingWorkers:
    """Runs nothing; remembers what it was told."""

    def __init__(self) -> None:
        self.slots_now = 4
        self.means: dict[str, float] = {}
        self.stuck_now = 0
        self.submitted: list[Attempt] = []
        self.cancelled: list[Key] = []
        self.abandoned: list[Key] = []
        self.killed_sessions: list[int] = []

    def slots(self, pool: str) -> int:
        return self.slots_now

    def mean_seconds(self, type_name: str) -> float | None:
        return self.means.get(type_name)

    def is_short(self, type_name: str) -> bool:
        return self.means.get(type_name, 1.0) <= PREFETCH_SECONDS

    def stuck(self, pool: str) -> int:
        return self.stuck_now

    def submit(self, attempts: Sequence[Attempt]) -> None:
        self.submitted.extend(attempts)

    def cancel(self, task_id: int, attempt: int) -> None:
        self.cancelled.append((task_id, attempt))

    def abandon(self, keys: Iterable[Key]) -> None:
        self.abandoned.extend(keys)

    def kill_session(self, session_id: int) -> None:
        self.killed_sessions.append(session_id)


class MemoryResults:
    """A result DB that can be taken away, and that refuses the results of some tasks."""

    def __init__(self) -> None:
        self.rows: dict[Key, bytes] = {}
        self.away = False
        self.refused_tasks: set[int] = set()
        self.batches: list[int] = []
        self.logs: list[NewLog] = []

    async def insert_logs(self, logs: Sequence[NewLog], /) -> None:
        self._answer()
        self.logs.extend(logs)

    async def insert(self, results: Sequence[NewResult], /) -> None:
        self._answer()
        self.batches.append(len(results))
        if any(item.task_id in self.refused_tasks for item in results):
            raise errors.UntranslatableCharacter("NUL")
        for item in results:
            self.rows.setdefault((item.task_id, item.attempt), item.result)

    async def copy_to_attempt(self, items: Sequence[CopyRequest], /) -> list[Copied]:
        self._answer()
        copied = []
        for task_id, round_base, attempt in items:
            earlier = [key for key in self.rows if key[0] == task_id and round_base < key[1] < attempt]
            if earlier:
                self.rows[task_id, attempt] = self.rows[max(earlier)]
                copied.append(Copied(task_id, attempt, max(earlier)[1]))
        return copied

    def _answer(self) -> None:
        if self.away:
            raise Unavailable("away", code="database_unavailable")


class World:
    """One replica, and what its managers say to it and hear from it."""

    def __init__(self, *, spool_bytes_max: int = 1024 * 1024) -> None:
        self.clock = ManualClock()
        self.workers = RecordingWorkers()
        self.results = MemoryResults()
        self.lease_page = LeasePage.create()
        self.hub = Hub()
        self.replica = Replica(
            self.workers,
            self.results,
            name="exec-1",
            task_types=[task_pb2.TaskType(name="word_count", pool="cpu")],
            pools=["cpu"],
            lease_page=self.lease_page,
            hub=self.hub,
            clock=self.clock,
            spool_bytes_max=spool_bytes_max,
        )
        self.replica.can_store = True

    @property
    def session_id(self) -> int:
        return self.replica.session.session_id

    def attach(self, manager_id: str = "m1", *, fit: bool = True) -> ManagerStream:
        stream = self.replica.attach(manager_id)
        if fit:
            self.echo(stream)
        return stream

    def echo(self, stream: ManagerStream, number: int | None = None, *, session_id: int | None = None) -> None:
        """The manager hears the newest heartbeat, and says so."""
        newest = self.replica.session.number if number is None else number
        stream.heard_at = self.clock.seconds
        stream.note_rounds(int(self.clock.seconds * 10), now=self.clock.seconds)
        self.replica.take_echo(stream, session_id or self.session_id, newest)
        self.replica.settle()

    def live(self, seconds: float, *streams: ManagerStream) -> None:
        """Let time pass while these managers go on as they should."""
        for _ in range(round(seconds / 0.25)):
            self.clock.seconds += 0.25
            if self.clock.seconds % 1 == 0:
                self.replica.beat()
            for stream in streams:
                self.echo(stream)
            self.replica.tick()

    def assign(
        self,
        stream: ManagerStream,
        *assignments: execution_pb2.Assignment,
        heard: int | None = None,
        session_id: int | None = None,
    ) -> None:
        newest = self.replica.session.number if heard is None else heard
        self.replica.take_assignments(stream, session_id or self.session_id, newest, assignments)
        self.replica.settle()

    def ask(self, stream: ManagerStream, *keys: Key) -> None:
        self.replica.take_questions(stream, self.session_id, keys)

    def judge(self, stream: ManagerStream, verdict: task_pb2.Verdict.ValueType, *keys: Key) -> None:
        items = [
            execution_pb2.VerdictItem(task_id=task_id, attempt=attempt, verdict=verdict) for task_id, attempt in keys
        ]
        self.replica.take_verdicts(stream, items)
        self.replica.settle()

    async def heard(self, stream: ManagerStream) -> execution_pb2.DispatchResponse:
        """All that was said on a stream since the last call, as one message."""
        everything = execution_pb2.DispatchResponse()
        while stream.has_work:
            message = await stream.next(self.clock.monotonic)
            if message is None:
                break
            everything.MergeFrom(message)
        return everything

    async def reports(self, stream: ManagerStream) -> list[task_pb2.Report]:
        return list((await self.heard(stream)).reports)

    def may_start(self) -> bool:
        return self.lease_page.may_start(self.session_id, self.clock.boottime())
