"""What must hold at every moment of a simulation, and when it has come to rest."""

from collections import defaultdict
from collections.abc import Callable, Iterable

from execution_service.attempts import Key
from execution_service.demand import prefetch
from execution_service.workers.outcomes import Attempt
from headrace.v1.task_pb2 import TaskUpdate
from management_service.domain.statuses import TRANSITIONS
from tests.simulation.processes import POOL, SLOTS, SimulatedReplica
from tests.simulation.tables import FINAL, ExecutorRow, Tables, TaskRow
from tests.unit.execution.world import MemoryResults

_MOVES = {(transition.source, transition.target) for transition in TRANSITIONS if transition.source is not None}
_BIRTHS = {transition.target for transition in TRANSITIONS if transition.source is None}


class Checker:
    """Collects violations; the first one says what went wrong."""

    def __init__(self, now: Callable[[], float], results: MemoryResults) -> None:
        self.violations: list[str] = []
        self.tables: Tables
        self.replicas: list[SimulatedReplica] = []
        self._now = now
        self._results = results
        self._published: defaultdict[int, set[int]] = defaultdict(set)
        self._started: set[Key] = set()
        self._running: defaultdict[int, list[Attempt]] = defaultdict(list)

    def require(self, condition: object, message: str) -> None:
        if not condition:
            self.violations.append(f"{self._now():.3f} s: {message}")

    # At every change.

    def task_changed(self, before: TaskRow | None, after: TaskRow) -> None:
        name = f"task {after.task_id}: {before and before.status} -> {after.status} (attempt {after.attempt})"
        if after.status == "processing" and (before is None or before.attempt != after.attempt):
            self.require(self.tables.lives(after.session_id), f"{name}: claimed for an ended session")
        if after.status == "completed":
            stored = (after.task_id, after.result_attempt) in self._results.rows
            self.require(stored, f"{name}: completed without a result")
        if before is None:
            self.require(after.status in _BIRTHS and after.revision == 1, f"{name}: began wrong")
            return
        self.require(after.revision == before.revision + 1, f"{name}: revision {before.revision} -> {after.revision}")
        self.require(after.attempt - before.attempt in (0, 1), f"{name}: attempt was {before.attempt}")
        asked = after.status == before.status == "processing" and after.attempt == before.attempt
        self.require(asked or (before.status, after.status) in _MOVES, f"{name}: there is no such change")
        if before.status in FINAL:
            new_round = after.status == "queued" and after.round_base == before.attempt
            self.require(new_round, f"{name}: a final row was moved")

    def session_changed(self, before: ExecutorRow | None, after: ExecutorRow) -> None:
        if before is None or before.ended_at == after.ended_at:
            return
        self.require(before.ended_at is None, f"session {after.session_id}: ended twice")
        for one in self.replicas:
            may_start = one.page.may_start(after.session_id, one.clock.boottime())
            alive = not one.process.dead
            self.require(not (alive and may_start), f"session of {after.replica} ended while it may start attempts")

    def handler(self, attempt: Attempt, began: bool) -> None:
        running = self._running[attempt.task_id]
        if not began:
            running.remove(attempt)
            return
        key = (attempt.task_id, attempt.attempt)
        row = self.tables.tasks[attempt.task_id]
        owns = row.status == "processing" and (row.attempt, row.session_id) == (attempt.attempt, attempt.session_id)
        self.require(owns, f"attempt {key} was started, and the row says {row.status}, attempt {row.attempt}")
        self.require(key not in self._started, f"attempt {key} was started twice")
        for other in running:
            self.require(
                not self.tables.lives(other.session_id), f"attempt {key} was started beside attempt {other.attempt}"
            )
        self._started.add(key)
        running.append(attempt)

    def published(self, update: TaskUpdate) -> None:
        self._published[update.task_id].add(update.revision)

    def demand(self) -> None:
        """No replica holds more than it asked for."""
        most = SLOTS + prefetch(SLOTS, 0.04)
        for one in self.replicas:
            if one.process.runs:
                held = one.replica.table.unfinished(POOL) + one.replica.demand.open(POOL)
                self.require(held <= most, f"{one.process.name} holds and asks for {held} tasks, {most} at most")

    # At rest.

    def at_rest(self, submitted: Iterable[int]) -> None:
        self.demand()
        for task_id in submitted:
            row = self.tables.tasks.get(task_id)
            self.require(row is not None, f"task {task_id} was accepted and is lost")
            if row is not None:
                told = f"attempt {row.attempt}, session {row.session_id}"
                self.require(row.status in FINAL, f"task {task_id} is {row.status} for ever ({told})")
        for row in self.tables.tasks.values():
            untold = set(range(1, row.revision + 1)) - self._published[row.task_id]
            self.require(row.removed_at or not untold, f"task {row.task_id}: revisions {untold} were not told")
        self.require(not self.tables.outbox, f"updates wait for ever: {self.tables.outbox}")
        for one in self.replicas:
            held = len(one.replica.table)
            self.require(one.process.dead or not held, f"{one.process.name} holds {held} attempts for ever")
