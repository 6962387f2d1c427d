"""The task database as plain Python: the statements of management's two SQL files, each atomic at one instant.

They mean what the SQL means, by name; `test_tables_agree.py` runs both on the same operations. A transaction keeps its
writes to itself until it commits, and holds the rows it has locked until then.
"""

import json
import struct
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from management_service.storage.executors import QUERIES as EXECUTOR_QUERIES
from management_service.storage.tasks import QUERIES as TASK_QUERIES
from servicekit.pg_arrays import BoolArray, ByteaArray, PgArray, TextArray

FINAL = frozenset({"completed", "failed", "cancelled"})
WAITING = frozenset({"scheduled", "queued", "retrying"})
NAMES = {statement: name for queries in (TASK_QUERIES, EXECUTOR_QUERIES) for name, statement in queries.items()}

Params = Mapping[str, Any]
Rows = list[tuple[Any, ...]]
Lock = tuple[str, Hashable]


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRow:
    """A row of `tasks`; times are seconds of the database's clock."""

    task_id: int
    type: str
    data: bytes | None
    pool: str
    priority: int
    max_attempts: int
    timeout_ms: int
    run_at: float
    status: str
    attempt: int = 0
    session_id: int | None = None
    starts: int = 0
    failures: int = 0
    worker_deaths: int = 0
    replica_losses: int = 0
    refusals: int = 0
    round_base: int = 0
    result_attempt: int | None = None
    revision: int = 1
    key: str | None = None
    fingerprint: bytes | None = None
    options: bytes | None = None
    expires_at: float | None = None
    finished_at: float | None = None
    cancel_requested_at: float | None = None
    removed_at: float | None = None
    error: str | None = None
    worker: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutorRow:
    session_id: int
    replica: str
    address: str
    beat: int
    ended_at: float | None = None


@dataclass(frozen=True, slots=True)
class OutboxRow:
    # Tasks as they were after the change.
    tasks: list[TaskRow]
    created_at: float
    # Whether it tells of the changes, or only that there were some.
    in_detail: bool = True

    @property
    def task_ids(self) -> list[int]:
        return [row.task_id for row in self.tasks]

    def details(self) -> tuple[Any, ...]:
        """Statuses, attempts, revisions, and the time of the change."""
        at, rows = datetime.fromtimestamp(self.created_at, UTC), self.tasks
        if not self.in_detail:
            return None, None, None, at
        return [row.status for row in rows], [row.attempt for row in rows], [row.revision for row in rows], at


class LockedError(Exception):
    """Another transaction holds a row that the statement needs."""


@dataclass(slots=True, eq=False)
class Transaction:
    """What has been written and locked, and is seen by nobody yet."""

    tasks: dict[int, TaskRow] = field(default_factory=dict)
    executors: dict[int, ExecutorRow] = field(default_factory=dict)
    noted: dict[int, OutboxRow] = field(default_factory=dict)
    cleared: set[int] = field(default_factory=set)
    ended: dict[tuple[int, int], str] = field(default_factory=dict)
    forgotten: set[int] = field(default_factory=set)
    locks: set[Lock] = field(default_factory=set)


class Tables:
    """`on_task` and `on_executor` see every change as it is committed; before is None for a new row."""

    def __init__(
        self,
        now: Callable[[], float],
        *,
        on_task: Callable[[TaskRow | None, TaskRow], None] = lambda _before, _after: None,
        on_executor: Callable[[ExecutorRow | None, ExecutorRow], None] = lambda _before, _after: None,
    ) -> None:
        self.now = now
        self.tasks: dict[int, TaskRow] = {}
        self.executors: dict[int, ExecutorRow] = {}
        self.outbox: dict[int, OutboxRow] = {}
        # Outcomes of the attempts on record.
        self.ended: dict[tuple[int, int], str] = {}
        self._on_task = on_task
        self._on_executor = on_executor
        self._locks: dict[Lock, Transaction] = {}
        self._outbox_ids = 0

    def execute(self, statement: bytes, params: Params | None, transaction: Transaction) -> Rows:
        """Run a statement of the SQL files. Raises LockedError when it would have to wait; then nothing happened."""
        plain = {name: _items(value) if isinstance(value, PgArray) else value for name, value in (params or {}).items()}
        rows: Rows = getattr(self, NAMES[statement])(plain, transaction)
        return rows

    def commit(self, transaction: Transaction) -> None:
        for task_id, row in transaction.tasks.items():
            before = self.tasks.get(task_id)
            self.tasks[task_id] = row
            self._on_task(before, row)
        for session_id, executor in transaction.executors.items():
            known = self.executors.get(session_id)
            self.executors[session_id] = executor
            self._on_executor(known, executor)
        for task_id in transaction.forgotten:
            self.ended = {key: outcome for key, outcome in self.ended.items() if key[0] != task_id}
        assert not transaction.ended.keys() & self.ended.keys(), "an attempt ended twice"
        self.ended |= transaction.ended
        self.outbox |= transaction.noted
        for outbox_id in transaction.cleared:
            self.outbox.pop(outbox_id, None)
        self.roll_back(transaction)

    def roll_back(self, transaction: Transaction) -> None:
        for lock in transaction.locks:
            self._locks.pop(lock, None)
        transaction.locks = set()

    # Tasks.

    def insert_tasks(self, params: Params, transaction: Transaction) -> Rows:
        now, rows = self.now(), []
        keys = {row.key for row in self.tasks.values() if row.key}
        columns = zip(
            *(
                params[name]
                for name in (
                    "task_ids", "types", "data", "pools", "priorities", "max_attempts", "timeouts", "delays", "keys",
                    "fingerprints", "expires", "options", "owners",
                )
            ),
            strict=True,
        )  # fmt: skip
        for (
            task_id,
            name,
            data,
            pool,
            priority,
            most,
            timeout,
            delay,
            key,
            fingerprint,
            expires,
            options,
            owner,
        ) in columns:
            if task_id in self.tasks or task_id in transaction.tasks or (key and key in keys):
                continue
            keys.add(key)
            due = now + delay / 1000
            lives = self.lives(owner)
            status = "scheduled" if due > now else "processing" if lives else "queued"
            transaction.tasks[task_id] = TaskRow(
                task_id=task_id, type=name, data=data, pool=pool, priority=priority, max_attempts=most,
                timeout_ms=timeout, run_at=due, key=key, fingerprint=fingerprint, options=options, status=status,
                attempt=int(status == "processing"), session_id=owner if status == "processing" else None,
                expires_at=None if expires is None else due + expires / 1000,
            )  # fmt: skip
            rows.append((task_id, status))
        outbox_id = self.note([transaction.tasks[task_id] for task_id, _ in rows], transaction)
        return [(*row, outbox_id) for row in rows]

    def find_by_keys(self, params: Params, _: Transaction) -> Rows:
        return [(row.key, row.task_id, row.fingerprint) for row in self.tasks.values() if row.key in params["keys"]]

    def claim_tasks(self, params: Params, transaction: Transaction) -> Rows:
        slots = [session_id for session_id in params["slots"] if self.lives(session_id)]
        ready = [row for row in self._ready(params) if row.replica_losses < 2]
        picked = ready[: len(slots)]
        rows, size = [], 0
        for n, row in enumerate(picked):
            size += len(row.data or b"")
            if n and size > params["bytes_max"]:
                break
            rows.append((*self._claim(row, slots[n], transaction, solitary=False), len(picked)))
        outbox_id = self.note([transaction.tasks[row[0]] for row in rows], transaction)
        return [(*row, outbox_id) for row in rows]

    def count_waiting(self, params: Params, _: Transaction) -> Rows:
        rows = []
        for pool in params["pools"]:
            types = Counter(row.type for row in self._ready({"pool": pool})[:100])
            rows += [(pool, name, count) for name, count in types.items()]
        return rows

    def list_solitary(self, _params: Params, _: Transaction) -> Rows:
        if self._solitary_runs():
            return []
        now = self.now()
        waiting = [row for row in self.tasks.values() if row.status == "queued" and row.run_at <= now]
        return sorted({(row.pool, row.type) for row in waiting if row.replica_losses >= 2})

    def lock_solitary(self, _params: Params, transaction: Transaction) -> Rows:
        self._lock([("advisory", "solitary")], transaction)
        return [(None,)]

    def claim_solitary(self, params: Params, transaction: Transaction) -> Rows:
        ready = [row for row in self._ready(params) if row.replica_losses >= 2]
        if self._solitary_runs() or not ready or not self.lives(params["session_id"]):
            return []
        row = (*self._claim(ready[0], params["session_id"], transaction, solitary=True), 1)
        return [(*row, self.note([transaction.tasks[row[0]]], transaction))]

    def complete_attempts(self, params: Params, transaction: Transaction) -> Rows:
        owned = []
        for task_id, attempt, started, worker in zip(
            params["task_ids"], params["attempts"], params["started"], params["workers"], strict=True
        ):
            row = self._current(task_id, attempt)
            if row is not None:
                owned.append((row, started, worker))
        self._need([row for row, _, _ in owned])
        moved = [
            replace(
                row,
                status="completed",
                result_attempt=row.attempt,
                revision=row.revision + 1,
                finished_at=self.now(),
                starts=row.starts + started,
                worker=worker,
                error=None,
            )
            for row, started, worker in owned
        ]
        outbox_id = self._write(moved, transaction)
        transaction.cleared.update(params["published"])
        return [(row.task_id, row.attempt, row.type, row.revision, outbox_id) for row in moved]

    def read_attempts(self, params: Params, _: Transaction) -> Rows:
        known = [row for task_id in params["task_ids"] if (row := self.tasks.get(task_id))]
        return [(row.task_id, row.attempt, row.status, row.result_attempt) for row in known]

    def lock_attempts(self, params: Params, transaction: Transaction) -> Rows:
        pairs = zip(params["task_ids"], params["attempts"], strict=True)
        owned = [row for pair in pairs if (row := self._current(*pair))]
        self._lock([("task", row.task_id) for row in owned], transaction)
        return [
            (
                row.task_id, row.attempt, row.type, row.max_attempts, row.failures, row.worker_deaths,
                row.replica_losses, row.refusals, row.round_base, row.revision, row.cancel_requested_at is not None,
                row.pool, row.session_id, row.options,
            )
            for row in sorted(owned, key=lambda row: row.task_id)
        ]  # fmt: skip

    def move_attempts(self, params: Params, transaction: Transaction) -> Rows:
        moved = []
        for n, task_id in enumerate(params["task_ids"]):
            row, status = self.tasks[task_id], params["statuses"][n]
            ended = status in FINAL
            moved.append(
                replace(
                    row,
                    status=status,
                    revision=row.revision + 1,
                    run_at=row.run_at if ended else self.now() + params["delays"][n] / 1000,
                    finished_at=self.now() if ended else None,
                    starts=row.starts + params["started"][n],
                    failures=params["failures"][n],
                    worker_deaths=params["worker_deaths"][n],
                    refusals=params["refusals"][n],
                    error=params["errors"][n] or row.error,
                    worker=params["workers"][n] or row.worker,
                )
            )
            transaction.ended[task_id, row.attempt] = params["outcomes"][n]
        return self._changes(moved, transaction)

    def rescue_tasks(self, params: Params, transaction: Transaction) -> Rows:
        moved = []
        for row in self._unlocked(self.tasks.values())[: params["limit"]]:
            if row.status != "processing" or not self.is_lost(row):
                continue
            wish, losses = row.cancel_requested_at is not None, row.replica_losses + 1
            status = "failed" if losses >= params["losses_max"] else "cancelled" if wish else "queued"
            moved.append(
                replace(
                    row,
                    status=status,
                    revision=row.revision + 1,
                    replica_losses=losses,
                    refusals=0,
                    run_at=self.now() if status == "queued" else row.run_at,
                    finished_at=None if status == "queued" else self.now(),
                    error=_error("cancelled" if status == "cancelled" else "replica_lost"),
                )
            )
            transaction.ended[row.task_id, row.attempt] = "replica_lost"
        return self._changes(moved, transaction)

    def promote_due(self, params: Params, transaction: Transaction) -> Rows:
        now = self.now()
        due = [row for row in self._unlocked(self.tasks.values()) if row.status in ("scheduled", "retrying")]
        due = sorted((row for row in due if row.run_at <= now), key=lambda row: row.run_at)[: params["limit"]]
        moved = [replace(row, status="queued", revision=row.revision + 1) for row in due]
        outbox_id = self._write(moved, transaction)
        return [_change(replace(row, error=None), outbox_id) for row in moved]

    def expire_tasks(self, params: Params, transaction: Transaction) -> Rows:
        now = self.now()
        late = [row for row in self._unlocked(self.tasks.values()) if row.status in WAITING]
        late = [row for row in late if row.expires_at is not None and row.expires_at <= now][: params["limit"]]
        return self._changes(
            [
                replace(row, status="failed", finished_at=now, revision=row.revision + 1, error=_error("expired"))
                for row in late
            ],
            transaction,
        )

    def scan_attempts(self, _params: Params, _: Transaction) -> Rows:
        return [
            (row.task_id, row.attempt, row.session_id, row.cancel_requested_at is not None)
            for row in self.tasks.values()
            if row.status == "processing"
        ]

    def request_cancel(self, params: Params, transaction: Transaction) -> Rows:
        row, now = self.tasks.get(params["task_id"]), self.now()
        if row is None or row.removed_at is not None or row.status in FINAL:
            return []
        self._need([row])
        if row.status == "processing":
            if row.cancel_requested_at is not None:
                return []
            moved = replace(row, cancel_requested_at=now, revision=row.revision + 1)
        else:
            moved = replace(
                row,
                status="cancelled",
                cancel_requested_at=now,
                finished_at=now,
                revision=row.revision + 1,
                error=_error("cancelled"),
            )
        return self._changes([moved], transaction)

    def remove_task(self, params: Params, transaction: Transaction) -> Rows:
        row, now = self.tasks.get(params["task_id"]), self.now()
        if row is None or row.removed_at is not None or row.status not in FINAL:
            return []
        if row.cancel_requested_at is not None and row.cancel_requested_at > now - 60:
            return []
        removed = replace(row, removed_at=now, revision=row.revision + 1, data=None)
        self._write([removed], transaction, in_detail=False)
        transaction.forgotten.add(row.task_id)
        return [(row.task_id,)]

    def retry_tasks(self, params: Params, transaction: Transaction) -> Rows:
        known = [row for task_id in sorted(set(params["task_ids"])) if (row := self.tasks.get(task_id))]
        final = [row for row in known if row.status in FINAL and row.removed_at is None and row.data is not None]
        moved = [
            replace(
                row,
                status="queued",
                round_base=row.attempt,
                result_attempt=None,
                cancel_requested_at=None,
                error=None,
                failures=0,
                worker_deaths=0,
                replica_losses=0,
                refusals=0,
                finished_at=None,
                run_at=self.now(),
                expires_at=None,
                revision=row.revision + 1,
            )
            for row in final
        ]
        transaction.ended |= {(row.task_id, row.attempt): "completed" for row in final if row.result_attempt}
        outbox_id = self._write(moved, transaction)
        return [_change(row, outbox_id) for row in moved]

    def get_task(self, params: Params, _: Transaction) -> Rows:
        row = self.tasks.get(params["task_id"])
        if row is None or row.removed_at is not None:
            return []
        return [
            (
                row.task_id, row.type, row.status, row.data, row.error, row.pool, row.priority, row.attempt,
                row.max_attempts, row.starts, row.failures, row.worker_deaths, row.replica_losses, row.timeout_ms,
                row.revision, row.run_at, None, 0.0, None, None, None, row.finished_at, row.cancel_requested_at, None,
                row.worker, row.result_attempt, row.expires_at, row.options, None,
            )
        ]  # fmt: skip

    def read_updates(self, params: Params, _: Transaction) -> Rows:
        known = [row for task_id in params["task_ids"] if (row := self.tasks.get(task_id))]
        return [
            (row.task_id, row.attempt, row.type, row.status, row.revision, row.error, row.removed_at is not None)
            for row in known
        ]

    def take_stale_outbox(self, params: Params, _: Transaction) -> Rows:
        before = self.now() - params["age"].total_seconds()
        stale = sorted((outbox_id, row) for outbox_id, row in self.outbox.items() if row.created_at < before)
        return [(outbox_id, row.task_ids, *row.details()) for outbox_id, row in stale[: params["limit"]]]

    def delete_outbox(self, params: Params, transaction: Transaction) -> Rows:
        transaction.cleared.update(params["outbox_ids"])
        return []

    # Sessions.

    def save_task_types(self, _params: Params, _: Transaction) -> Rows:
        return []

    def open_session(self, params: Params, transaction: Transaction) -> Rows:
        self._lock([("session", params["session_id"])], transaction)
        known = self.executors.get(params["session_id"])
        row = known and replace(known, address=params["address"])
        names = ("session_id", "replica", "address", "beat")
        transaction.executors[params["session_id"]] = row or ExecutorRow(**{name: params[name] for name in names})
        return [(known is not None and known.ended_at is not None,)]

    def raise_beats(self, params: Params, transaction: Transaction) -> Rows:
        heard = dict(zip(params["session_ids"], params["beats"], strict=True))
        alive = [row for session_id in heard if (row := self.executors.get(session_id)) and row.ended_at is None]
        self._lock([("session", row.session_id) for row in alive], transaction)
        for row in alive:
            transaction.executors[row.session_id] = replace(row, beat=max(row.beat, heard[row.session_id]))
        return [(row.session_id,) for row in alive]

    def scan_sessions(self, _params: Params, _: Transaction) -> Rows:
        alive = [row for row in self.executors.values() if row.ended_at is None]
        return [(row.session_id, row.beat, row.address, row.replica) for row in alive]

    def end_session(self, params: Params, transaction: Transaction) -> Rows:
        row = self.executors.get(params["session_id"])
        if row is None or row.beat != params["beat"]:
            return []
        return self.close_session(params, transaction)

    def close_session(self, params: Params, transaction: Transaction) -> Rows:
        row = self.executors.get(params["session_id"])
        if row is None or row.ended_at is not None:
            return []
        self._lock([("session", row.session_id)], transaction)
        transaction.executors[row.session_id] = replace(row, ended_at=self.now())
        return [(row.session_id,)]

    # What statements share.

    def lives(self, session_id: int | None) -> bool:
        row = self.executors.get(session_id) if session_id is not None else None
        return row is not None and row.ended_at is None

    def is_lost(self, row: TaskRow) -> bool:
        """Whether nobody can be running the task any more."""
        return not self.lives(row.session_id)

    def _ready(self, params: Params) -> list[TaskRow]:
        now = self.now()
        ready = [
            row
            for row in self._unlocked(self.tasks.values())
            if row.status == "queued"
            and row.pool == params["pool"]
            and row.type in params.get("types", (row.type,))
            and row.run_at <= now
            and (row.expires_at is None or row.expires_at > now)
        ]
        return sorted(ready, key=lambda row: (-row.priority, row.run_at, row.task_id))

    def _solitary_runs(self) -> bool:
        return any(row.status == "processing" and row.replica_losses >= 2 for row in self.tasks.values())

    def _claim(self, row: TaskRow, session_id: int, transaction: Transaction, *, solitary: bool) -> tuple[Any, ...]:
        claimed = replace(
            row,
            status="processing",
            attempt=row.attempt + 1,
            session_id=session_id,
            worker=None,
            revision=row.revision + 1,
        )
        transaction.tasks[row.task_id] = claimed
        return (
            row.task_id, claimed.attempt, session_id, row.type, row.data, row.timeout_ms, row.round_base,
            row.worker_deaths > 0, row.max_attempts, row.options, solitary, claimed.revision, row.priority,
        )  # fmt: skip

    def _current(self, task_id: int, attempt: int) -> TaskRow | None:
        row = self.tasks.get(task_id)
        return row if row is not None and row.status == "processing" and row.attempt == attempt else None

    def _changes(self, moved: list[TaskRow], transaction: Transaction) -> Rows:
        outbox_id = self._write(moved, transaction)
        return [_change(row, outbox_id) for row in moved]

    def _write(self, moved: list[TaskRow], transaction: Transaction, *, in_detail: bool = True) -> int | None:
        transaction.tasks.update((row.task_id, row) for row in moved)
        return self.note(moved, transaction, in_detail=in_detail)

    def note(self, moved: list[TaskRow], transaction: Transaction, *, in_detail: bool = True) -> int | None:
        """One outbox row for what has to be published whatever happens."""
        if not moved:
            return None
        self._outbox_ids += 1
        transaction.noted[self._outbox_ids] = OutboxRow(moved, self.now(), in_detail)
        return self._outbox_ids

    def _unlocked(self, rows: Iterable[TaskRow]) -> list[TaskRow]:
        return [row for row in rows if ("task", row.task_id) not in self._locks]

    def _need(self, rows: Iterable[TaskRow]) -> None:
        if any(("task", row.task_id) in self._locks for row in rows):
            raise LockedError

    def _lock(self, locks: Iterable[Lock], transaction: Transaction) -> None:
        locks = list(locks)
        if any(self._locks.get(lock, transaction) is not transaction for lock in locks):
            raise LockedError
        self._locks.update(dict.fromkeys(locks, transaction))
        transaction.locks.update(locks)


def _change(row: TaskRow, outbox_id: int | None) -> tuple[Any, ...]:
    return row.task_id, row.attempt, row.type, row.status, row.revision, row.error, row.pool, outbox_id


def _error(code: str) -> str:
    return json.dumps({"code": code, "message": code})


def _items(array: PgArray) -> list[Any]:
    """The items of an array in PostgreSQL's binary format."""
    count, at, items = struct.unpack_from("!i", array, 12)[0], 20, list[Any]()
    for _ in range(count):
        (length,) = struct.unpack_from("!i", array, at)
        at += 4
        if length < 0:
            items.append(None)
            continue
        raw = bytes(array[at : at + length])
        at += length
        if isinstance(array, TextArray):
            items.append(raw.decode())
        elif isinstance(array, ByteaArray):
            items.append(raw)
        else:
            number = int.from_bytes(raw, "big", signed=True)
            items.append(bool(number) if isinstance(array, BoolArray) else number)
    return items
