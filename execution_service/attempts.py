"""The attempts that this replica holds, and those it refused. Pure: it decides, others run, store and report.

An attempt is held from its assignment until the verdict on its report, whatever happens in between, since a manager
relies on `held` being final. One attempt per task: a higher one says that the older no longer owns the task.

A solitary attempt may be what two replicas were lost under, so nothing is to be lost with it here. From its coming to
its end nothing else is taken on, and it starts when all else has ended, or after a minute.
"""

from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

from execution_service.workers.outcomes import Attempt, Finished

Key = tuple[int, int]

# Refusals are remembered far longer than a late assignment can be valid (2.5 s); beyond the maximum, so long at least.
REFUSED_SECONDS = 60.0
REFUSED_SECONDS_MIN = 5.0
REFUSED_MAX = 100_000

# A solitary attempt waits so long for the end of others; then it starts beside them.
SOLITARY_WAIT_SECONDS = 60.0


class Phase(IntEnum):
    # Waits for the answer whether an earlier attempt left a result; nothing was started.
    CHECKING = 1
    # In the worker pool, waiting or running.
    IN_POOL = 2
    # Its session was ended while it was in the pool: only an outcome that was on its way already still counts.
    LOST = 3
    # The outcome is known; its result is being stored, or its report waits for the verdict.
    FINISHED = 4
    # Waits until nothing else is unfinished here; nothing was started.
    WAITING = 5


_UNSTARTED = (Phase.CHECKING, Phase.WAITING)


@dataclass(slots=True, eq=False)
class Held:
    """One attempt that is held. `work` is let go as soon as the attempt cannot be started any more."""

    task_id: int
    attempt: int
    type: str
    pool: str
    round_base: int
    phase: Phase
    work: Attempt | None
    cancelled: bool = False

    @property
    def key(self) -> Key:
        return self.task_id, self.attempt


@dataclass(slots=True)
class Intake:
    """What to do with a list of assignments."""

    start: list[Attempt] = field(default_factory=list)
    check: list[Held] = field(default_factory=list)
    # Assigned, but of a type or pool that is not served here.
    unserved: list[Held] = field(default_factory=list)
    # Assigned while a solitary attempt is here.
    crowded: list[Held] = field(default_factory=list)
    # Older attempts that the new ones replace: nothing of them may be run or reported any more.
    replaced: list[Held] = field(default_factory=list)


class AttemptTable:
    """Every attempt held here, by task."""

    def __init__(self, pools: Collection[str], types: Collection[str]) -> None:
        self._pools = frozenset(pools)
        self._types = frozenset(types)
        self._held: dict[int, Held] = {}
        self._refused: OrderedDict[Key, float] = OrderedDict()
        # Attempts without an outcome, by pool: what counts against the demand.
        self._unfinished: Counter[str] = Counter()
        self._unfinished_types: Counter[tuple[str, str]] = Counter()
        self._solitary: Held | None = None
        self._solitary_since = 0.0

    def __len__(self) -> int:
        return len(self._held)

    @property
    def finished(self) -> int:
        """How many have an outcome and wait for its storing or verdict."""
        return sum(1 for held in self._held.values() if held.phase is Phase.FINISHED)

    def unfinished(self, pool: str) -> int:
        return self._unfinished[pool]

    def unfinished_but(self, pool: str, is_left_out: Callable[[str], bool]) -> int:
        """How many are unfinished in the pool, without those of some types."""
        items = self._unfinished_types.items()
        return sum(count for (of_pool, name), count in items if count and of_pool == pool and not is_left_out(name))

    @property
    def solitary(self) -> Held | None:
        """The attempt here beside which nothing else is to run, from its coming to its end."""
        held = self._solitary
        if held is None or held.phase is Phase.FINISHED or self._held.get(held.task_id) is not held:
            return None
        return held

    @property
    def is_closed(self) -> bool:
        """Whether a solitary attempt runs: nothing may be started beside it."""
        solitary = self.solitary
        return solitary is not None and solitary.phase not in _UNSTARTED

    def accept(self, offers: Iterable[tuple[Attempt, int]], *, now: float) -> Intake:
        """Take assignments, each with its round_base, except refused ones and repeats of what is held."""
        intake = Intake()
        for work, round_base in offers:
            if (work.task_id, work.attempt) in self._refused:
                continue
            known = self._held.get(work.task_id)
            if known is not None:
                if known.attempt >= work.attempt:
                    continue
                self._drop(known)
                intake.replaced.append(known)
            self._take(work, round_base, intake, now)
        return intake

    def _take(self, work: Attempt, round_base: int, intake: Intake, now: float) -> None:
        held = Held(work.task_id, work.attempt, work.type, work.pool, round_base, Phase.IN_POOL, work)
        self._held[work.task_id] = held
        if work.type not in self._types or work.pool not in self._pools:
            held.phase, held.work = Phase.FINISHED, None
            intake.unserved.append(held)
            return
        if self.solitary is not None:
            held.phase, held.work = Phase.FINISHED, None
            intake.crowded.append(held)
            return
        if work.solitary:
            self._solitary, self._solitary_since = held, now
        self._count(held, 1)
        if work.attempt > round_base + 1:
            held.phase = Phase.CHECKING
            intake.check.append(held)
        elif work.solitary:
            held.phase = Phase.WAITING
        else:
            held.work = None
            intake.start.append(work)

    def start_checked(self, checked: Iterable[Held]) -> list[Attempt]:
        """Those of the checked attempts that are still wanted and may start; they count as given to the pool."""
        start = []
        for held in checked:
            if held.phase is not Phase.CHECKING or held.work is None or self._held.get(held.task_id) is not held:
                continue
            if held is self._solitary:
                held.phase = Phase.WAITING
            else:
                start.append(held.work)
                held.phase, held.work = Phase.IN_POOL, None
        return start

    def start_solitary(self, now: float) -> list[Attempt]:
        """The solitary attempt, once it is alone or has waited for long enough; it counts as given to the pool."""
        held = self.solitary
        if held is None or held.phase is not Phase.WAITING or held.work is None:
            return []
        if self._unfinished.total() > 1 and now - self._solitary_since < SOLITARY_WAIT_SECONDS:
            return []
        work, held.work, held.phase = held.work, None, Phase.IN_POOL
        return [work]

    def finish_unstarted(self, attempts: Iterable[Held]) -> list[Held]:
        """Those that were not started yet, now finished: their outcome was found, or they will not start."""
        ended = []
        for held in attempts:
            if held.phase in _UNSTARTED and self._held.get(held.task_id) is held:
                self._finish(held)
                ended.append(held)
        return ended

    def finish(self, outcomes: Iterable[Finished]) -> list[Finished]:
        """Those outcomes whose attempt was waiting for one; the rest belongs to attempts let go before."""
        ours = []
        for outcome in outcomes:
            held = self._held.get(outcome.task_id)
            if held is None or held.attempt != outcome.attempt or held.phase not in (Phase.IN_POOL, Phase.LOST):
                continue
            self._finish(held)
            ours.append(outcome)
        return ours

    def cancel(self, keys: Iterable[Key]) -> tuple[list[Key], list[Held]]:
        """Attempts to cancel in the pool, each named once, and attempts that end here as they were never started."""
        in_pool: list[Key] = []
        unstarted: list[Held] = []
        for task_id, attempt in keys:
            held = self._held.get(task_id)
            if held is None or held.attempt != attempt or held.cancelled:
                continue
            if held.phase is Phase.IN_POOL:
                held.cancelled = True
                in_pool.append((task_id, attempt))
            elif held.phase in _UNSTARTED:
                self._finish(held)
                unstarted.append(held)
        return in_pool, unstarted

    def answer(self, keys: Sequence[Key], *, now: float) -> list[bool]:
        """Whether each attempt is held. What is not held now is refused, and will not be accepted any more."""
        self._forget_refusals(now)
        answers = []
        for task_id, attempt in keys:
            held = self._held.get(task_id)
            is_held = held is not None and held.attempt == attempt
            if not is_held:
                self._refused[task_id, attempt] = now
                self._refused.move_to_end((task_id, attempt))
            answers.append(is_held)
        return answers

    def release(self, task_id: int, attempt: int) -> None:
        """Let a finished attempt go: its report has a verdict."""
        held = self._held.get(task_id)
        if held is not None and held.attempt == attempt and held.phase is Phase.FINISHED:
            del self._held[task_id]

    def release_stale(self, task_id: int, attempt: int) -> bool:
        """Let an attempt go that no longer owns its task; true if it has to be stopped in the pool."""
        held = self._held.get(task_id)
        if held is None or held.attempt != attempt:
            return False
        self._drop(held)
        return held.phase is Phase.IN_POOL

    def end_session(self) -> None:
        """The session was ended: drop what was not started, and expect no more from the pool than is on its way."""
        for held in list(self._held.values()):
            if held.phase in _UNSTARTED:
                self._drop(held)
            elif held.phase is Phase.IN_POOL:
                held.phase = Phase.LOST
                self._count(held, -1)

    def drop_lost(self) -> None:
        """A new session begins: no outcome of the last one can come any more."""
        for held in [held for held in self._held.values() if held.phase is Phase.LOST]:
            self._drop(held)

    def unstarted(self) -> list[Held]:
        return [held for held in self._held.values() if held.phase in _UNSTARTED]

    def held(self) -> Collection[Held]:
        return self._held.values()

    def find(self, task_id: int) -> Held | None:
        return self._held.get(task_id)

    def _finish(self, held: Held) -> None:
        if held.phase is not Phase.LOST:
            self._count(held, -1)
        held.phase, held.work = Phase.FINISHED, None

    def _drop(self, held: Held) -> None:
        del self._held[held.task_id]
        held.work = None
        if held.phase in (*_UNSTARTED, Phase.IN_POOL):
            self._count(held, -1)

    def _count(self, held: Held, change: int) -> None:
        self._unfinished[held.pool] += change
        self._unfinished_types[held.pool, held.type] += change

    def _forget_refusals(self, now: float) -> None:
        while self._refused:
            age = now - next(iter(self._refused.values()))
            if age <= REFUSED_SECONDS and not (len(self._refused) > REFUSED_MAX and age > REFUSED_SECONDS_MIN):
                return
            self._refused.popitem(last=False)
