"""All that is left after a run: read once, when everything has come to rest."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Self
from urllib.parse import urlsplit

import psutil
import redis.asyncio

from servicekit.redis_keys import BACKLOG, SUBMISSIONS, SUBMISSIONS_GROUP, UNSTORED
from tests.faults.harness.events import Event
from tests.faults.harness.stack import Stack
from tests.support.side_effects import Line, SideEffects

FINAL = ("completed", "failed", "cancelled")


@dataclass(frozen=True, slots=True)
class TaskRow:
    task_id: int
    status: str
    attempt: int
    revision: int
    starts: int
    failures: int
    worker_deaths: int
    replica_losses: int
    result_attempt: int | None
    removed: bool
    key: str | None


@dataclass(frozen=True, slots=True)
class Recovery:
    """How long something took, in seconds, and how long it may take."""

    what: str
    seconds: float
    promised: float


@dataclass(frozen=True, slots=True)
class Footprint:
    """What a process holds."""

    rss: int
    files: int
    threads: int

    @classmethod
    def of(cls, pid: int) -> Self:
        process = psutil.Process(pid)
        return cls(process.memory_info().rss, process.num_fds(), process.num_threads())


@dataclass(frozen=True, slots=True)
class Survivor:
    """A process that lived through a run, before it and when all has come to rest."""

    name: str
    before: Footprint
    after: Footprint


@dataclass(frozen=True, slots=True)
class Outage:
    """A time in which a process could not work, and what it said of itself meanwhile and later: (when, ready)."""

    name: str
    began: float
    ended: float
    said: Sequence[tuple[float, bool]]


@dataclass(slots=True)
class Evidence:
    tasks: dict[int, TaskRow] = field(default_factory=dict)
    # (task, attempt) of every stored result.
    results: set[tuple[int, int]] = field(default_factory=set)
    effects: Sequence[Line] = ()
    events: Sequence[Event] = ()
    stream_length: int = 0
    stream_pending: int = 0
    markers: int = 0
    backlog: dict[str, int] = field(default_factory=dict)
    outbox: int = 0
    # Processes in whose logs a password of the cluster shows.
    leaks: Sequence[str] = ()
    # Longest time that a task was seen processing without a live session.
    orphaned_seconds: float = 0.0
    recoveries: Sequence[Recovery] = ()
    survivors: Sequence[Survivor] = ()
    outages: Sequence[Outage] = ()


async def gather(stack: Stack, effects: SideEffects | None = None, events: Sequence[Event] = ()) -> Evidence:
    """Read everything from a stack whose databases and Redis run."""
    rows = await stack.query(
        "SELECT task_id, status::text, attempt, revision, starts, failures, worker_deaths, replica_losses,"
        " result_attempt, removed_at IS NOT NULL, idempotency_key FROM tasks"
    )
    tasks = [TaskRow(*row) for row in rows]  # type: ignore[arg-type]
    stored = await stack.query("SELECT task_id, attempt FROM results", results=True)
    [(outbox,)] = await stack.query("SELECT count(*) FROM outbox")
    evidence = Evidence(
        tasks={task.task_id: task for task in tasks},
        results={(int(str(task_id)), int(str(attempt))) for task_id, attempt in stored},
        effects=effects.lines() if effects else (),
        events=events,
        outbox=int(str(outbox)),
        leaks=[name for name in stack.processes if _shows_password(stack, name)],
    )
    async with redis.asyncio.Redis.from_url(stack.redis_url) as client:
        evidence.stream_length = await client.xlen(SUBMISSIONS)
        if evidence.stream_length or await client.exists(SUBMISSIONS):
            evidence.stream_pending = (await client.xpending(SUBMISSIONS, SUBMISSIONS_GROUP))["pending"]
        evidence.markers = await client.zcard(UNSTORED)
        evidence.backlog = {str(key): int(value) for key, value in (await client.hgetall(BACKLOG)).items()}
    return evidence


def _shows_password(stack: Stack, name: str) -> bool:
    text = stack[name].log.read_bytes() if stack[name].log.exists() else b""
    passwords = (urlsplit(url).password for url in (stack.task_dsn, stack.result_dsn, stack.redis_url))
    return any(password is not None and password.encode() in text for password in passwords)


async def drained(stack: Stack, *, timeout: float = 60.0) -> None:
    """Wait until nothing is on its way any more: no entry in the stream, no task unfinished, no outbox row."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    while True:
        async with redis.asyncio.Redis.from_url(stack.redis_url) as client:
            waiting = await client.xlen(SUBMISSIONS)
        [(unfinished, outbox)] = await stack.query(
            "SELECT (SELECT count(*) FROM tasks WHERE finished_at IS NULL), (SELECT count(*) FROM outbox)"
        )
        if not waiting and not unfinished and not outbox:
            return
        assert loop.time() < deadline, (
            f"not drained: {waiting} in the stream, {unfinished} unfinished, {outbox} outbox rows"
        )
        await asyncio.sleep(0.1)


class OrphanSampler:
    """Looks once a second for tasks that are processing though their session has ended (I12)."""

    def __init__(self, stack: Stack) -> None:
        self.longest = 0.0
        self._stack = stack
        self._since: dict[int, datetime] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> float:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        return self.longest

    async def _run(self) -> None:
        while True:
            try:
                rows = await self._stack.query(
                    "SELECT coalesce(max(extract(epoch FROM now() - e.ended_at)), 0)::float8 FROM tasks t"
                    " JOIN executors e USING (session_id) WHERE t.status = 'processing' AND e.ended_at IS NOT NULL"
                )
                self.longest = max(self.longest, float(str(rows[0][0])))
            except Exception:  # noqa: BLE001 - the database is one of the things that are maltreated
                pass
            await asyncio.sleep(1)
