"""Tasks to replicas: claimed by demand, or handed over directly as they are stored while nothing waits."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import structlog

from headrace.v1.execution_pb2 import Assignment
from headrace.v1.task_pb2 import Submission, TaskOptions, TaskUpdate
from management_service.domain.demand import Account, by_types, spread
from management_service.links import ExecutorLink
from management_service.publishing import Publisher, wall_time
from management_service.rpc.mapping import STATUS_TO_PROTO
from management_service.storage.records import Claimed, Inserted, NewTask
from management_service.storage.tasks import TaskRepository
from servicekit import failpoints
from servicekit.loops import BackgroundLoop

log = structlog.stdlib.get_logger(__name__)

CLAIM_SECONDS = 0.5
_CLAIM_MAX = 2_000
_PROCESSING = "processing"
_QUEUED = "queued"


@dataclass(slots=True)
class _Pool:
    """What this manager believes of a pool's queue. `news` counts what could have filled it."""

    nothing_waits: bool = False
    news: int = 0


@dataclass(slots=True)
class Handover:
    """Tasks about to be stored, some of them for a session whose demand is reserved meanwhile."""

    tasks: list[NewTask]
    owners: dict[int, Account] = field(default_factory=dict)
    heard: dict[int, int] = field(default_factory=dict)


class Dispatcher:
    """Turns demand into assignments. `links` is the live mapping of addresses to links."""

    def __init__(
        self,
        tasks: TaskRepository,
        links: Mapping[str, ExecutorLink],
        publisher: Publisher,
    ) -> None:
        self.rounds = 0
        self._tasks = tasks
        self._links = links
        self._publisher = publisher
        self._pools: dict[str, _Pool] = {}
        # Pool and type of tasks that have to run with nothing beside them, as of the last look.
        self._solitary: set[tuple[str, str]] = set()
        self._loop = BackgroundLoop("claims", self.run_once, interval=CLAIM_SECONDS)
        self._poll = BackgroundLoop("claim_poll", self._doubt, interval=CLAIM_SECONDS)

    def start(self) -> None:
        self._loop.start()
        self._poll.start()

    async def stop(self) -> None:
        await self._poll.stop()
        await self._loop.stop()

    def problem(self, *, within: float) -> str | None:
        """A check for readiness."""
        return self._loop.problem(within=within)

    def demand_changed(self) -> None:
        self._loop.wake()

    def nothing_waits(self, pool: str) -> bool:
        """Whether the last claim has found too little, and nothing was heard since."""
        return pool in self._pools and self._pools[pool].nothing_waits

    def may_wait(self, pools: Iterable[str]) -> None:
        """Note that these pools may have ready tasks in the queue: claim, and hand nothing over past them."""
        for name in pools:
            pool = self._pool(name)
            pool.nothing_waits = False
            pool.news += 1
        self._loop.wake()

    def reserve(self, submissions: Sequence[Submission]) -> Handover:
        """Choose sessions for new tasks that need not wait; `settle` has to follow."""
        handover = Handover([])
        groups: dict[tuple[str, str], list[Submission]] = {}
        for submission in {submission.task_id: submission for submission in submissions}.values():
            if submission.delay_ms or submission.HasField("run_at"):
                handover.tasks.append(NewTask(submission))
            else:
                groups.setdefault((submission.pool, submission.type), []).append(submission)
        for (pool, type_name), group in groups.items():
            self._reserve_group(handover, pool, type_name, group)
        return handover

    def _reserve_group(self, handover: Handover, pool: str, type_name: str, group: list[Submission]) -> None:
        chosen: list[Account] = []
        if self._pool(pool).nothing_waits:
            accounts = [account for account in self._accounts(pool) if type_name in account.types]
            chosen = spread(accounts, len(group))
        if 0 < len(chosen) < len(group):
            group.sort(key=lambda submission: -submission.priority)
        for account, submission in zip(chosen, group, strict=False):
            handover.owners[submission.task_id] = account
            handover.tasks.append(NewTask(submission, account.session_id))
        handover.tasks.extend(NewTask(submission) for submission in group[len(chosen) :])
        for account, count in _counts(chosen):
            account.reserve(count)
        handover.heard.update(self._heard_now())

    def settle(self, handover: Handover, inserted: Inserted) -> None:
        """Send what was stored as processing, release the other reservations, tell of tasks that wait."""
        if handover.owners:
            failpoints.hit("dispatch.after_insert")
        groups: dict[int, tuple[Account, list[Assignment]]] = {}
        waiting: set[str] = set()
        for task in handover.tasks:
            task_id = task.submission.task_id
            account = handover.owners.get(task_id)
            status = inserted.statuses.get(task_id)
            if status == _QUEUED:
                waiting.add(task.submission.pool)
            if account is None:
                continue
            if status == _PROCESSING:
                groups.setdefault(id(account), (account, []))[1].append(_first_assignment(task.submission))
            else:
                account.release(1)
        for account, assignments in groups.values():
            self._send(account, assignments, heard=handover.heard.get(account.session_id, 0))
        self._publish_inserted(handover, inserted)
        if waiting:
            self.may_wait(waiting)
            self._publisher.put_ready(waiting)

    def release(self, handover: Handover) -> None:
        """Give reservations back after storing failed."""
        for account, count in _counts(handover.owners.values()):
            account.release(count)

    async def run_once(self) -> None:
        """Claim for every pool with open demand whose queue may hold something."""
        for name in self._pools_with_demand():
            await self._claim_solitary(name)
            pool = self._pool(name)
            while not pool.nothing_waits and await self._claim(name, pool):
                self.rounds += 1
        self.rounds += 1

    async def _doubt(self) -> None:
        """Look at every queue now and then, whatever we were told or not told."""
        self._solitary = set(await self._tasks.list_solitary())
        for pool in self._pools.values():
            pool.nothing_waits = False
        self._loop.wake()

    async def _claim_solitary(self, name: str) -> None:
        """Claim one task that two replicas were lost under, if one was seen; one is in progress at a time."""
        types = {type_name for pool, type_name in self._solitary if pool == name}
        account = next((a for a in self._accounts(name) if a.open > 0 and a.types & types), None)
        if account is None:
            return
        self._solitary = set()
        heard = self._heard_now()
        account.reserve(1)
        claimed: list[Claimed] = []
        try:
            claimed = await self._tasks.claim_solitary(
                pool=name, types=sorted(account.types & types), session_id=account.session_id
            )
        finally:
            account.release(1 - len(claimed))
        for assignments in _by_session(claimed, name).values():
            log.info("solitary_task_claimed", task_id=claimed[0].task_id, session_id=account.session_id)
            self._send(account, assignments, heard=heard.get(account.session_id, 0))
        self._publish_claimed(claimed)

    async def _claim(self, name: str, pool: _Pool) -> bool:
        """Claim once for each group of replicas with the same types; return whether to go on.

        That nothing waits is known only when every group asked for more than there was.
        """
        news = pool.news
        groups = by_types(self._accounts(name))
        fulfilled = 0
        for types, accounts in groups.items():
            chosen = spread(accounts, _CLAIM_MAX)
            claimed = await self._claim_group(name, types, chosen)
            fulfilled += bool(claimed) and claimed[0].ready_found == len(chosen)
        if groups and not fulfilled and pool.news == news:
            pool.nothing_waits = True
        return fulfilled > 0

    async def _claim_group(self, name: str, types: frozenset[str], chosen: Sequence[Account]) -> list[Claimed]:
        heard = self._heard_now()
        counts = _counts(chosen)
        for account, count in counts:
            account.reserve(count)
        claimed: list[Claimed] = []
        try:
            claimed = await self._tasks.claim(
                pool=name, types=sorted(types), slots=[account.session_id for account in chosen]
            )
        finally:
            by_session = _by_session(claimed, name)
            for account, count in counts:
                account.release(count - len(by_session.get(account.session_id, ())))
        if claimed:
            failpoints.hit("dispatch.after_claim")
        for account, _ in counts:
            if assignments := by_session.pop(account.session_id, None):
                self._send(account, assignments, heard=heard.get(account.session_id, 0))
        self._publish_claimed(claimed)
        return claimed

    def _send(self, account: Account, assignments: list[Assignment], *, heard: int) -> None:
        for link in self._links.values():
            if link.accounts.get(assignments[0].pool) is account:
                link.assign(account, assignments, heard=heard)
                return
        self._lost(assignments)

    def _lost(self, assignments: Sequence[Assignment]) -> None:
        """The stream ended meanwhile. The rows stay processing until a question or the session's end frees them."""
        log.info("assignments_without_stream", count=len(assignments))

    def _accounts(self, pool: str) -> list[Account]:
        return [account for link in self._links.values() if link.claimable and (account := link.accounts.get(pool))]

    def _pools_with_demand(self) -> set[str]:
        return {
            name
            for link in self._links.values()
            if link.claimable
            for name, account in link.accounts.items()
            if account.open > 0
        }

    def _heard_now(self) -> dict[int, int]:
        return {link.session.session_id: link.newest_beat for link in self._links.values() if link.session is not None}

    def _pool(self, name: str) -> _Pool:
        return self._pools.setdefault(name, _Pool())

    def _publish_inserted(self, handover: Handover, inserted: Inserted) -> None:
        at = wall_time()
        statuses = {status: STATUS_TO_PROTO[status] for status in set(inserted.statuses.values())}
        self._publisher.put(
            (
                TaskUpdate(
                    task_id=task.submission.task_id,
                    type=task.submission.type,
                    status=statuses[status],
                    attempt=1 if status == _PROCESSING else 0,
                    revision=1,
                    at=at,
                )
                for task in handover.tasks
                if (status := inserted.statuses.get(task.submission.task_id))
            ),
            outbox_ids=inserted.outbox_ids,
        )

    def _publish_claimed(self, claimed: Sequence[Claimed]) -> None:
        at = wall_time()
        status = STATUS_TO_PROTO[_PROCESSING]
        self._publisher.put(
            (
                TaskUpdate(
                    task_id=task.task_id,
                    type=task.type,
                    status=status,
                    attempt=task.attempt,
                    revision=task.revision,
                    at=at,
                )
                for task in claimed
            ),
            outbox_ids={task.outbox_id for task in claimed},
        )


def _counts(accounts: Iterable[Account]) -> list[tuple[Account, int]]:
    counts: dict[int, tuple[Account, int]] = {}
    for account in accounts:
        counts[id(account)] = (account, counts.get(id(account), (account, 0))[1] + 1)
    return list(counts.values())


def _by_session(claimed: Sequence[Claimed], pool: str) -> dict[int, list[Assignment]]:
    groups: dict[int, list[Assignment]] = {}
    for task in claimed:
        groups.setdefault(task.session_id, []).append(
            Assignment(
                task_id=task.task_id,
                attempt=task.attempt,
                type=task.type,
                data=task.data,
                pool=pool,
                timeout_ms=task.timeout_ms,
                round_base=task.round_base,
                isolated=task.isolated,
                max_attempts=task.max_attempts,
                solitary=task.solitary,
                soft_timeout_ms=TaskOptions.FromString(task.options).soft_timeout_ms if task.options else 0,
            )
        )
    return groups


def _first_assignment(submission: Submission) -> Assignment:
    return Assignment(
        task_id=submission.task_id,
        attempt=1,
        type=submission.type,
        data=submission.data,
        pool=submission.pool,
        timeout_ms=submission.timeout_ms,
        max_attempts=submission.max_attempts,
        soft_timeout_ms=submission.options.soft_timeout_ms,
    )
