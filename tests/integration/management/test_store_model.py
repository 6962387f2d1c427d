"""Whatever is done to the task table, in any order and with crashes in between, it holds what the domain says.

The domain's functions are the model: every operation is done on both, on a real PostgreSQL and on the model.
"""

import asyncio
import dataclasses
import os
import random
from collections.abc import Awaitable, Callable, Coroutine
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar, cast

import hypothesis.strategies as st
import psycopg
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from headrace.local.postgres import PostgresServer
from headrace.v1 import task_pb2
from headrace.v1.task_pb2 import Report, Submission
from management_service.domain import task as domain
from management_service.domain.statuses import FINAL, TaskEvent, TaskStatus
from management_service.domain.task import Task
from management_service.storage.executors import ExecutorRepository
from management_service.storage.outbox import Outbox
from management_service.storage.records import Ending, NewTask, Session
from management_service.storage.tasks import TaskRepository
from result_store.model import NewResult
from result_store.store import ResultStore
from servicekit.migrations import migrate
from servicekit.postgres import Database, Work

T = TypeVar("T")

SEARCH = os.environ.get("HYPOTHESIS_PROFILE") == "search"
PROGRAMS, STEPS = (500, 60) if SEARCH else (25, 30)

_HOUR_MS = 3_600_000
_MAX_ATTEMPTS = 3
_TASKS = st.integers(1, 6)
_SESSIONS = st.integers(1, 4)
_KEYS = st.sampled_from(["", "", "k1", "k2"])
_OUTCOMES: dict[TaskEvent, task_pb2.Outcome.ValueType] = {
    TaskEvent.ATTEMPT_FAILED: task_pb2.OUTCOME_FAILED,
    TaskEvent.WORKER_DIED: task_pb2.OUTCOME_WORKER_DIED,
    TaskEvent.HANDED_BACK: task_pb2.OUTCOME_HANDED_BACK,
    TaskEvent.REFUSED: task_pb2.OUTCOME_HANDED_BACK,
    TaskEvent.ATTEMPT_CANCELLED: task_pb2.OUTCOME_CANCELLED,
}
# "die before n": the process is gone before its nth statement; "cut before n": the server ends its connection, and it
# goes on; "die after": it is gone after the commit, before it can tell anybody.
_CRASHES = st.sampled_from(
    ["", "", "", "", "die before 1", "die before 2", "cut before 1", "cut before 2", "die after"]
)


class ProcessDiedError(BaseException):
    """kill -9 of the process that was at work."""


class CrashingDatabase(Database):
    """Does the next work with the crash that `crash` names."""

    crash = ""

    async def run(self, work: Work[T]) -> T:
        crash, self.crash = self.crash, ""

        async def crashing(connection: psycopg.AsyncConnection) -> T:
            nonlocal crash
            now, crash = crash, ""
            return await work(cast("psycopg.AsyncConnection", _CrashingConnection(connection, now)))

        result = await super().run(crashing if "before" in crash else work)
        if crash == "die after":
            raise ProcessDiedError
        return result


class _CrashingConnection:
    def __init__(self, connection: psycopg.AsyncConnection, crash: str) -> None:
        self._connection = connection
        self._crash = crash
        self._statements = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    async def execute(self, *args: Any, **options: Any) -> Any:
        self._statements += 1
        if self._crash == f"die before {self._statements}":
            raise ProcessDiedError
        if self._crash == f"cut before {self._statements}":
            await _end_backend(self._connection)
        return await self._connection.execute(*args, **options)


async def _end_backend(connection: psycopg.AsyncConnection) -> None:
    async with await psycopg.AsyncConnection.connect(connection.info.dsn, password=connection.info.password) as other:
        await other.execute("SELECT pg_terminate_backend(%s)", [connection.info.backend_pid])


@dataclasses.dataclass(slots=True)
class Known:
    """What the model knows of one task."""

    task: Task
    key: str
    due: bool
    removed: bool = False
    # Changes that nobody has published: (status, attempt, revision), or None for a removal.
    untold: list[tuple[str, int, int] | None] = dataclasses.field(default_factory=list)

    def note(self) -> None:
        self.untold.append((self.task.status.value, self.task.attempt, self.task.revision))


class StoreModel(RuleBasedStateMachine):
    """One program: operations on the table and on the model."""

    task_dsn: str
    result_dsn: str

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.known: dict[int, Known] = {}
        self.sessions: dict[int, bool] = {}
        self.results: dict[tuple[int, int], bytes] = {}
        self.revisions: dict[int, int] = {}
        self.attempts: dict[int, int] = {}
        self.rng = random.Random(1)
        self.database = CrashingDatabase(self.task_dsn, name="model", max_size=2)
        self.tasks = TaskRepository(self.database, rng=random.Random(1))
        self.executors = ExecutorRepository(self.database)
        self.outbox = Outbox(self.database)
        self.result_database = Database(self.result_dsn, name="model", max_size=1)
        self.store = ResultStore(self.result_database)
        self.run(self._empty())

    def teardown(self) -> None:
        self.run(self.database.close())
        self.run(self.result_database.close())
        self.runner.close()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    async def _empty(self) -> None:
        await self.database.execute(b"TRUNCATE tasks, executors, outbox, ended_attempts RESTART IDENTITY")
        await self.result_database.execute(b"TRUNCATE results")

    def attempt_crashing(self, crash: str, call: Callable[[], Awaitable[T]]) -> tuple[T | None, bool]:
        """What the call returned, and whether its change took place."""

        async def work() -> T:
            return await call()

        self.database.crash = crash
        try:
            return self.run(work()), True
        except ProcessDiedError:
            return None, crash == "die after"
        finally:
            self.database.crash = ""

    # What clients do.

    @rule(task_id=_TASKS, key=_KEYS, owner=st.none() | _SESSIONS, delayed=st.booleans(), crash=_CRASHES)
    def submit(self, task_id: int, key: str, owner: int | None, delayed: bool, crash: str) -> None:
        """New, or the same id or key again."""
        submission = Submission(
            task_id=task_id,
            type="noop",
            data=b"{}",
            pool="cpu",
            max_attempts=_MAX_ATTEMPTS,
            timeout_ms=1000,
            delay_ms=_HOUR_MS if delayed else 0,
            idempotency_key=key,
            fingerprint=b"f",
        )
        backoff = task_pb2.Backoff(initial_ms=_HOUR_MS, factor=1, max_ms=_HOUR_MS)
        submission.options.backoff.CopyFrom(backoff)
        inserted, done = self.attempt_crashing(crash, lambda: self.tasks.insert([NewTask(submission, owner)]))
        is_new = task_id not in self.known and not (key and key in {known.key for known in self.known.values()})
        if not (done and is_new):
            assert inserted is None or not inserted.statuses
            return
        status = TaskStatus.QUEUED
        if delayed:
            status = TaskStatus.SCHEDULED
        elif self.sessions.get(owner or 0):
            status = TaskStatus.PROCESSING
        claimed = status is TaskStatus.PROCESSING
        task = Task(
            status=status, max_attempts=_MAX_ATTEMPTS, attempt=int(claimed), session_id=owner if claimed else None
        )
        self.known[task_id] = Known(task, key, due=not delayed)
        self.known[task_id].note()
        assert inserted is None or inserted.statuses == {task_id: status.value}

    @rule(task_id=_TASKS, crash=_CRASHES)
    def cancel(self, task_id: int, crash: str) -> None:
        _, done = self.attempt_crashing(crash, lambda: self.tasks.request_cancel(task_id))
        if done:
            self._apply(task_id, domain.request_cancel)

    @rule(task_id=_TASKS, crash=_CRASHES)
    def retry_by_hand(self, task_id: int, crash: str) -> None:
        _, done = self.attempt_crashing(crash, lambda: self.tasks.retry([task_id]))
        if done and self._apply(task_id, domain.retry_by_hand):
            self.known[task_id].due = True

    @rule(task_id=_TASKS)
    def remove(self, task_id: int) -> None:
        removed = self.run(self.tasks.remove(task_id))
        known = self.known.get(task_id)
        may_go = known is not None and not known.removed and known.task.status in FINAL
        # A cancel that is not a minute old protects what it left.
        assert removed == (may_go and known is not None and not known.task.cancel_requested)
        if removed and known is not None:
            known.removed = True
            known.untold.append(None)
            known.task = dataclasses.replace(known.task, revision=known.task.revision + 1)

    # What replicas and managers do.

    @rule(session_id=_SESSIONS)
    def open_session(self, session_id: int) -> None:
        lives = self.run(self.executors.open_session(Session(session_id, "r", "a", 1, [])))
        assert lives == self.sessions.setdefault(session_id, True)

    @rule(session_id=_SESSIONS, beat=st.integers(1, 2))
    def end_session(self, session_id: int, beat: int) -> None:
        ended = self.run(self.executors.end_session(session_id, beat=beat))
        assert ended == (self.sessions.get(session_id, False) and beat == 1)
        if ended:
            self.sessions[session_id] = False

    @rule(slots=st.lists(_SESSIONS, min_size=1, max_size=4), crash=_CRASHES)
    def claim(self, slots: list[int], crash: str) -> None:
        claimed, done = self.attempt_crashing(crash, lambda: self.tasks.claim(pool="cpu", types=["noop"], slots=slots))
        ready = [known for known in self.known.values() if known.due and known.task.status is TaskStatus.QUEUED]
        ready = [known for known in ready if known.task.replica_losses < domain.SOLITARY_LOSSES]
        count = min(len(ready), len([session_id for session_id in slots if self.sessions.get(session_id)]))
        if not done:
            return
        rows = self.run(self.tasks.scan_attempts())
        new = [row for row in rows if row.attempt > self.known[row.task_id].task.attempt]
        assert len(new) == count
        assert claimed is None or {(row.task_id, row.attempt) for row in claimed} == {row[:2] for row in new}
        for row in new:
            assert self.sessions[row.session_id], "claimed for an ended session"
            self._apply(row.task_id, partial(domain.claim, session_id=row.session_id))

    @precondition(lambda self: self._unfinished())
    @rule(data=st.data(), offset=st.sampled_from([0, 0, 0, -1, 1]), crash=_CRASHES)
    def complete(self, data: st.DataObject, offset: int, crash: str) -> None:
        task_id, attempt = self._some_attempt(data, offset)
        self.store_result(task_id, attempt)
        report = Report(task_id=task_id, attempt=attempt, outcome=task_pb2.OUTCOME_COMPLETED, started=True, worker="w")
        completed, done = self.attempt_crashing(crash, lambda: self.tasks.complete([report]))
        moved = done and self._end(task_id, attempt, TaskEvent.ATTEMPT_COMPLETED)
        assert completed is None or bool(completed) == moved or crash.startswith("cut")

    @precondition(lambda self: self._unfinished())
    @rule(
        data=st.data(),
        event=st.sampled_from(sorted(_OUTCOMES)),
        offset=st.sampled_from([0, 0, 0, -1, 1]),
        worth_retrying=st.booleans(),
        crash=_CRASHES,
    )
    def end_attempt(
        self,
        data: st.DataObject,
        event: TaskEvent,
        offset: int,
        worth_retrying: bool,
        crash: str,
    ) -> None:
        task_id, attempt = self._some_attempt(data, offset)
        report = Report(task_id=task_id, attempt=attempt, outcome=_OUTCOMES[event], started=True)
        ending = Ending(event, report, worth_retrying=worth_retrying)
        _, done = self.attempt_crashing(crash, lambda: self.tasks.end_attempts([ending]))
        if done:
            self._end(task_id, attempt, event, worth_retrying=worth_retrying)

    @rule(crash=_CRASHES)
    def rescue(self, crash: str) -> None:
        _, done = self.attempt_crashing(crash, self.tasks.rescue)
        if not done:
            return
        for task_id, known in self.known.items():
            task = known.task
            if task.status is TaskStatus.PROCESSING and not self.sessions.get(task.session_id or 0):
                self._end(task_id, task.attempt, TaskEvent.SESSION_ENDED)

    @rule()
    def become_due(self) -> None:
        self.run(self.database.execute(b"UPDATE tasks SET run_at = now()"))
        self.run(self.tasks.promote_due())
        for task_id, known in self.known.items():
            known.due = True
            self._apply(task_id, domain.become_due)

    @rule(task_id=_TASKS, attempt=st.integers(1, 4))
    def store_result(self, task_id: int, attempt: int) -> None:
        """Of any attempt, whether it was ever begun or not; the first one stays."""
        content = b'"%d"' % len(self.results)
        self.run(self.store.insert([NewResult(task_id, attempt, content)]))
        self.results.setdefault((task_id, attempt), content)

    @rule()
    def relay(self) -> None:
        """Publish what nobody has published, as the relay does, and let it go."""
        stale = self.run(self.outbox.take_stale(age=timedelta(0), limit=100))
        told = {task_id for row in stale for task_id in row.task_ids}
        states = {state.task_id: state for state in self.run(self.tasks.read_present(sorted(told)))}
        for task_id in told:
            known, state = self.known[task_id], states[task_id]
            assert (state.status, state.revision) == (known.task.status, known.task.revision)
            known.untold.clear()
        self.run(self.outbox.clear([row.outbox_id for row in stale]))

    # What must hold after each of them.

    @invariant()
    def the_table_is_as_the_model(self) -> None:
        columns = (
            b"SELECT task_id, status::text, attempt, failures, worker_deaths, replica_losses, refusals, round_base,"
            b" revision, result_attempt, cancel_requested_at IS NOT NULL, removed_at IS NOT NULL FROM tasks"
        )
        rows = {row[0]: row[1:] for row in self.run(self.database.fetch(columns))}
        assert rows == {
            task_id: (
                known.task.status.value, known.task.attempt, known.task.failures, known.task.worker_deaths,
                known.task.replica_losses, known.task.refusals, known.task.round_base, known.task.revision,
                known.task.result_attempt, known.task.cancel_requested, known.removed,
            )
            for task_id, known in self.known.items()
        }  # fmt: skip

    @invariant()
    def attempts_and_revisions_only_grow(self) -> None:
        for task_id, known in self.known.items():
            assert known.task.revision - self.revisions.get(task_id, 0) >= 0
            assert known.task.attempt - self.attempts.get(task_id, 0) in (0, 1)
            self.revisions[task_id], self.attempts[task_id] = known.task.revision, known.task.attempt

    @invariant()
    def the_outbox_holds_every_change_that_was_not_published(self) -> None:
        noted: dict[int, list[tuple[str, int, int] | None]] = {}
        for row in self.run(self.outbox.take_stale(age=timedelta(hours=-1), limit=10_000)):
            for place, task_id in enumerate(row.task_ids):
                change = None
                if row.statuses and row.attempts and row.revisions:
                    change = (row.statuses[place], row.attempts[place], row.revisions[place])
                noted.setdefault(task_id, []).append(change)
        assert noted == {task_id: known.untold for task_id, known in self.known.items() if known.untold}

    @invariant()
    def a_completed_task_has_the_one_result_of_its_attempt(self) -> None:
        keys = [
            (task_id, known.task.result_attempt)
            for task_id, known in self.known.items()
            if known.task.result_attempt is not None
        ]
        found = self.run(self.store.get(cast("Any", keys)))
        assert [(row.task_id, row.attempt, row.result) for row in found] == [
            (*key, self.results[key]) for key in sorted(keys)
        ]

    # The model's side.

    def _unfinished(self) -> bool:
        return any(known.task.attempt for known in self.known.values())

    def _some_attempt(self, data: st.DataObject, offset: int) -> tuple[int, int]:
        task_id = data.draw(st.sampled_from([task_id for task_id, known in self.known.items() if known.task.attempt]))
        return task_id, max(1, self.known[task_id].task.attempt + offset)

    def _apply(self, task_id: int, decide: Callable[[Task], Task]) -> bool:
        known = self.known.get(task_id)
        if known is None or known.removed:
            return False
        try:
            after = decide(known.task)
        except (domain.NotAllowedError, domain.StaleAttemptError):
            return False
        moved, known.task = after != known.task, after
        if moved:
            known.note()
        return moved

    def _end(self, task_id: int, attempt: int, event: TaskEvent, *, worth_retrying: bool = True) -> bool:
        moved = self._apply(
            task_id,
            lambda task: domain.end_attempt(task, event, attempt=attempt, rng=self.rng, worth_retrying=worth_retrying),
        )
        known = self.known[task_id]
        if moved and known.task.status not in FINAL:
            known.due = event in (TaskEvent.HANDED_BACK, TaskEvent.SESSION_ENDED)
            if event is TaskEvent.REFUSED:
                # It is due again after some milliseconds: too exact for a model.
                later = b"UPDATE tasks SET run_at = now() + interval '1 hour' WHERE task_id = %(task_id)s"
                self.run(self.database.execute(later, {"task_id": task_id}))
        return moved


@pytest.fixture(scope="module")
def model_dsns(postgres_server: PostgresServer) -> tuple[str, str]:
    """A task database and a result database that all programs share, one after the other."""

    async def make() -> None:
        admin = await psycopg.AsyncConnection.connect(postgres_server.dsn("postgres"), autocommit=True)
        async with admin:
            for name in ("model_tasks", "model_results"):
                await admin.execute(f"CREATE DATABASE {name}".encode())
        await migrate(postgres_server.dsn("model_tasks"), "management_service.storage")
        await migrate(postgres_server.dsn("model_results"), "result_store")

    asyncio.run(make())
    return postgres_server.dsn("model_tasks"), postgres_server.dsn("model_results")


@pytest.mark.timeout(3600 if SEARCH else 120)
def test_the_store_does_as_the_domain_says(model_dsns: tuple[str, str]) -> None:
    StoreModel.task_dsn, StoreModel.result_dsn = model_dsns
    limits = settings(max_examples=PROGRAMS, stateful_step_count=STEPS, deadline=None)
    run_state_machine_as_test(StoreModel, settings=limits)
