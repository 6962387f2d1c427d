"""The simulated tables and PostgreSQL say and hold the same after the same operations."""

import contextlib
import json
import random
from collections.abc import Callable, Coroutine
from dataclasses import replace
from random import Random
from typing import Any, TypeVar

import psycopg
import pytest

from headrace.v1 import task_pb2
from headrace.v1.task_pb2 import Report, Submission, TaskError
from management_service.domain.statuses import TaskEvent, TaskStatus
from management_service.storage.executors import ExecutorRepository
from management_service.storage.outbox import Outbox
from management_service.storage.records import Ending, NewTask, Session
from management_service.storage.tasks import TaskRepository
from servicekit.migrations import migrate
from servicekit.postgres import Database
from tests.simulation.database import DatabaseServer, SimulatedDatabase
from tests.simulation.tables import Tables
from tests.simulation.virtual_time import Process, VirtualLoop

T = TypeVar("T")

_HOUR_MS = 3_600_000
_SESSIONS = 12
_COLUMNS = (
    "task_id, status::text, attempt, session_id, starts, failures, worker_deaths, replica_losses, refusals, round_base,"
    " result_attempt, revision, cancel_requested_at IS NOT NULL, removed_at IS NOT NULL, finished_at IS NOT NULL,"
    " error ->> 'code', data IS NULL"
)
_EVENTS = {
    TaskEvent.ATTEMPT_FAILED: task_pb2.OUTCOME_FAILED,
    TaskEvent.WORKER_DIED: task_pb2.OUTCOME_WORKER_DIED,
    TaskEvent.HANDED_BACK: task_pb2.OUTCOME_HANDED_BACK,
    TaskEvent.REFUSED: task_pb2.OUTCOME_HANDED_BACK,
    TaskEvent.ATTEMPT_CANCELLED: task_pb2.OUTCOME_CANCELLED,
}


class _ImmediateServer(DatabaseServer):
    """Answers at once: no time passes here."""

    async def ask(self, work: Callable[[], T], *, name: str = "commit") -> T:
        del name
        return work()

    def _later(self, seconds: float, call: Callable[..., object], *args: object) -> None:
        """Nothing happens later."""


class _Side:
    """The repositories on one of the two."""

    def __init__(self, database: Database) -> None:
        self.tasks = TaskRepository(database, rng=random.Random(7))
        self.executors = ExecutorRepository(database)
        self.outbox = Outbox(database)


class _Pair:
    def __init__(self, real: Database, connection: psycopg.AsyncConnection, rng: Random) -> None:
        self.seconds = 0.0
        self.tables = Tables(lambda: self.seconds)
        loop = VirtualLoop()
        simulated = SimulatedDatabase(_ImmediateServer(loop, self.tables, rng), Process(loop, "test"))
        loop.close()
        self.sides = (_Side(real), _Side(simulated))
        self.connection = connection
        self.rng = rng
        self.ids: list[int] = []
        self.sessions: list[int] = []
        self.seen: set[str] = set()

    async def both(self, call: Callable[[_Side], Coroutine[Any, Any, object]]) -> None:
        """Do one operation on both and compare what it returned and what is there now."""
        self.seconds += 0.01
        real, simulated = [_plain(await call(side)) for side in self.sides]
        assert real == simulated
        await self._put_off_refused()
        assert await self._real_rows() == self._simulated_rows()
        self.seen.update(row.status for row in self.tables.tasks.values())

    async def submit(self) -> None:
        new = []
        for _ in range(self.rng.randint(1, 3)):
            task_id = self.rng.choice([*self.ids[-3:], len(self.ids) + 1])
            if task_id not in self.ids:
                self.ids.append(task_id)
            options = {
                "options": task_pb2.TaskOptions(
                    backoff=task_pb2.Backoff(initial_ms=_HOUR_MS, factor=1, max_ms=_HOUR_MS)
                )
            }
            new.append(
                NewTask(
                    Submission(
                        task_id=task_id,
                        type=self.rng.choice(("noop", "other")),
                        data=b"{}",
                        pool="cpu",
                        priority=self.rng.randint(0, 2),
                        max_attempts=self.rng.randint(1, 3),
                        timeout_ms=1000,
                        delay_ms=self.rng.choice((0, 0, _HOUR_MS)),
                        expires_in_ms=self.rng.choice((0, 0, 0, 2 * _HOUR_MS)),
                        idempotency_key=self.rng.choice(("", "", f"key {self.rng.randint(1, 5)}")),
                        fingerprint=b"f",
                        **options,  # type: ignore[arg-type]
                    ),
                    self.rng.choice((None, *self.sessions)),
                )
            )
        unique = list({task.submission.task_id: task for task in new}.values())
        await self.both(lambda side: side.tasks.insert(unique))

    async def open_session(self) -> None:
        session_id = self.rng.randint(1, _SESSIONS)
        self.sessions.append(session_id)
        session = Session(session_id, f"r{session_id % 2}", f"a{self.rng.randint(1, 9)}", 1, [])
        await self.both(lambda side: side.executors.open_session(session))

    async def beat(self) -> None:
        beats = {session_id: self.rng.randint(1, 20) for session_id in range(1, _SESSIONS + 1)}
        await self.both(lambda side: side.executors.raise_beats(beats))

    async def end_session(self) -> None:
        session_id, beat = self.rng.randint(1, _SESSIONS), self.rng.randint(1, 3)
        if self.rng.random() < 0.5:
            await self.both(lambda side: side.executors.end_session(session_id, beat=beat))
        else:
            await self.both(lambda side: side.executors.close_session(session_id))

    async def scan(self) -> None:
        await self.both(lambda side: side.executors.scan_sessions(manager_id="m", replica="m"))
        await self.both(lambda side: side.tasks.scan_attempts())
        await self.both(lambda side: side.tasks.list_solitary())
        await self.both(lambda side: side.tasks.count_waiting(["cpu", "io"]))

    async def claim(self) -> None:
        slots = [self.rng.choice(self.sessions or [1]) for _ in range(self.rng.randint(1, 4))]
        types = self.rng.choice((["noop"], ["noop", "other"]))
        await self.both(lambda side: side.tasks.claim(pool="cpu", types=types, slots=slots))

    async def claim_solitary(self) -> None:
        session_id = self.rng.choice(self.sessions or [1])
        types = ["noop", "other"]
        await self.both(lambda side: side.tasks.claim_solitary(pool="cpu", types=types, session_id=session_id))

    async def complete(self) -> None:
        reports = [
            Report(task_id=task_id, attempt=attempt, outcome=task_pb2.OUTCOME_COMPLETED, started=True, worker="w")
            for task_id, attempt in self._attempts()
        ]
        known = list(self.tables.outbox)[:1]
        await self.both(lambda side: side.tasks.complete(reports, published=known))
        await self.both(lambda side: side.tasks.read_attempts([report.task_id for report in reports]))

    async def end_attempts(self) -> None:
        endings = []
        for task_id, attempt in self._attempts():
            event = self.rng.choice(list(_EVENTS))
            error = TaskError(code=event.value, message="simulated")
            report = Report(
                task_id=task_id, attempt=attempt, outcome=_EVENTS[event], started=True, worker="w", error=error
            )
            endings.append(Ending(event, report, worth_retrying=self.rng.random() < 0.8))
        await self.both(lambda side: side.tasks.end_attempts(endings))

    async def rescue(self) -> None:
        await self.both(lambda side: side.tasks.rescue())

    async def become_due(self) -> None:
        for task_id, row in self.tables.tasks.items():
            self.tables.tasks[task_id] = replace(row, run_at=self.seconds)
        await self.connection.execute("UPDATE tasks SET run_at = now()")
        await self.both(lambda side: side.tasks.promote_due())

    async def expire(self) -> None:
        for task_id, row in self.tables.tasks.items():
            if row.expires_at is not None and task_id % 2:
                self.tables.tasks[task_id] = replace(row, expires_at=self.seconds)
        await self.connection.execute(
            "UPDATE tasks SET expires_at = now() WHERE expires_at IS NOT NULL AND task_id % 2 = 1"
        )
        await self.both(lambda side: side.tasks.expire())

    async def cancel(self) -> None:
        task_id = self._any_task()
        await self.both(lambda side: side.tasks.request_cancel(task_id))

    async def retry(self) -> None:
        task_ids = sorted({self._any_task() for _ in range(3)})
        await self.both(lambda side: side.tasks.retry(task_ids))

    async def remove(self) -> None:
        task_id = self._any_task()
        await self.both(lambda side: side.tasks.remove(task_id))

    async def read(self) -> None:
        task_ids = sorted({self._any_task() for _ in range(3)})
        await self.both(lambda side: side.tasks.read_present(task_ids))
        await self.both(lambda side: side.tasks.find_by_keys(["key 1", "key 2"]))

    async def clear_outbox(self) -> None:
        outbox_ids = list(self.tables.outbox)[:2]
        await self.both(lambda side: side.outbox.clear(outbox_ids))

    def _any_task(self) -> int:
        return self.rng.choice([*self.ids, 999])

    def _attempts(self) -> list[tuple[int, int]]:
        running = [row for row in self.tables.tasks.values() if row.status == "processing"]
        known = running if self.rng.random() < 0.7 else list(self.tables.tasks.values())
        chosen = self.rng.sample(known, min(3, len(known)))
        return [(row.task_id, row.attempt + self.rng.choice((0, 0, 0, -1, 1))) for row in chosen]

    async def _put_off_refused(self) -> None:
        """A refusal puts a task off by milliseconds; nothing here may depend on how many have passed."""
        for task_id, row in self.tables.tasks.items():
            if row.status == "queued" and row.refusals:
                self.tables.tasks[task_id] = replace(row, run_at=self.seconds + 3600)
        await self.connection.execute(
            "UPDATE tasks SET run_at = now() + interval '1 hour' WHERE status = 'queued' AND refusals > 0"
        )

    async def _real_rows(self) -> object:
        tasks = await self._fetch(f"SELECT {_COLUMNS} FROM tasks ORDER BY task_id")
        executors = await self._fetch(
            "SELECT session_id, replica, address, beat, ended_at IS NOT NULL FROM executors ORDER BY session_id"
        )
        outbox = await self._fetch(
            "SELECT outbox_id, array(SELECT (id, status, attempt, revision)::text"
            " FROM unnest(task_ids, statuses, attempts, revisions) AS t (id, status, attempt, revision) ORDER BY id)"
            " FROM outbox ORDER BY 1"
        )
        ended = await self._fetch("SELECT task_id, attempt, outcome FROM ended_attempts ORDER BY task_id, attempt")
        return tasks, executors, outbox, ended

    def _simulated_rows(self) -> object:
        tables = self.tables
        tasks = [
            (
                row.task_id, row.status, row.attempt, row.session_id, row.starts, row.failures, row.worker_deaths,
                row.replica_losses, row.refusals, row.round_base, row.result_attempt, row.revision,
                row.cancel_requested_at is not None, row.removed_at is not None, row.finished_at is not None,
                json.loads(row.error)["code"] if row.error else None, row.data is None,
            )
            for _, row in sorted(tables.tasks.items())
        ]  # fmt: skip
        executors = [
            (row.session_id, row.replica, row.address, row.beat, row.ended_at is not None)
            for _, row in sorted(tables.executors.items())
        ]
        outbox = [
            (
                outbox_id,
                [
                    f"({task.task_id},{task.status},{task.attempt},{task.revision})"
                    if row.in_detail
                    else f"({task.task_id},,,)"
                    for task in sorted(row.tasks, key=lambda task: task.task_id)
                ],
            )
            for outbox_id, row in sorted(tables.outbox.items())
        ]
        ended = [(*key, outcome) for key, outcome in sorted(tables.ended.items())]
        return tasks, executors, outbox, ended

    async def _fetch(self, query: str) -> list[tuple[Any, ...]]:
        return await (await self.connection.execute(query.encode())).fetchall()


def _plain(value: object) -> object:
    """What an operation returned, without the order of its rows and the words of its errors."""
    if isinstance(value, list):
        return sorted((_plain(item) for item in value), key=repr)
    if isinstance(value, tuple):
        return tuple(_plain(item) for item in value)
    if isinstance(value, str) and value.startswith("{") and "code" in value:
        return json.loads(value)["code"]
    return value


OPERATIONS = (
    *(_Pair.submit, _Pair.submit, _Pair.open_session, _Pair.open_session, _Pair.beat, _Pair.end_session, _Pair.scan),
    *(_Pair.claim, _Pair.claim, _Pair.claim, _Pair.claim_solitary, _Pair.complete, _Pair.end_attempts),
    *(_Pair.end_attempts, _Pair.rescue, _Pair.become_due, _Pair.become_due, _Pair.expire, _Pair.cancel, _Pair.retry),
    *(_Pair.remove, _Pair.read, _Pair.clear_outbox),
)


@pytest.mark.parametrize("seed", range(4))
async def test_both_tables_answer_alike(postgres_dsn: str, seed: int) -> None:
    await migrate(postgres_dsn, "management_service.storage")
    database = Database(postgres_dsn, name="test")
    await database.open()
    async with (
        contextlib.AsyncExitStack() as stack,
        await psycopg.AsyncConnection.connect(postgres_dsn, autocommit=True) as connection,
    ):
        stack.push_async_callback(database.close)
        pair = _Pair(database, connection, Random(seed))
        for _ in range(150):
            await pair.rng.choice(OPERATIONS)(pair)
    assert len(pair.seen) >= len(TaskStatus) - 2, "the operations did not get far"
