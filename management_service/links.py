"""One stream to one execution replica: what it says goes to whom it concerns, what is for it goes out in batches."""

import asyncio
import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

import grpc
import structlog

from headrace.v1 import execution_pb2 as pb
from headrace.v1.execution_pb2_grpc import ExecutionServiceStub
from headrace.v1.task_pb2 import Report
from management_service.domain.demand import Account
from management_service.sessions import SessionKeeper
from management_service.storage.records import Session
from servicekit import failpoints
from servicekit.clock import Clock
from servicekit.grpc_channel import open_channel

log = structlog.stdlib.get_logger(__name__)

SILENCE_SECONDS = 2.5
_REDIAL_SECONDS_MIN = 0.05
_REDIAL_SECONDS_MAX = 2.0
_MESSAGE_BYTES_MAX = 4 * 2**20
_ITEMS_MAX = 2_000


class Manager(Protocol):
    """What a link needs of the replica it belongs to."""

    manager_id: str
    clock: Clock
    sessions: SessionKeeper

    @property
    def claim_rounds(self) -> int: ...

    def heard(self, session_id: int) -> None: ...

    def demand_changed(self) -> None: ...

    def reported(self, link: "ExecutorLink", reports: Sequence[Report]) -> None: ...

    def answered(self, link: "ExecutorLink", answers: Sequence[pb.Answer]) -> None: ...

    def progressed(self, items: Sequence[pb.AttemptProgress]) -> None: ...

    def said_bye(self, session_id: int) -> None: ...

    def not_sent(self, assignments: Sequence[pb.Assignment]) -> None: ...


class ExecutorLink:
    """Dials `address` until closed. `session` is what answers there now, `accounts` its open demand by pool."""

    def __init__(self, address: str, manager: Manager) -> None:
        self.address = address
        self.session: Session | None = None
        # The session's row is there and was alive when we wrote it: claims for it make sense.
        self.open = False
        # The last dial was refused outright: nobody listens there.
        self.refused = False
        self.accounts: dict[str, Account] = {}
        # Number of the newest heartbeat heard of the session.
        self.newest_beat = 0
        # Attempts asked about on this stream: once is enough, an answer is final.
        self.asked: set[tuple[int, int]] = set()
        self._manager = manager
        self._out = _Outgoing()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name=f"link {self.address}")

    async def close(self) -> None:
        """End the stream and dial no more; what was not sent goes back."""
        if self._task:
            self._task.cancel()
            await asyncio.wait([self._task])

    @property
    def session_id(self) -> int | None:
        return self.session.session_id if self.session else None

    @property
    def claimable(self) -> bool:
        """Tasks may be claimed for the session: its row lives, and there is a heartbeat that assignments can name."""
        return self.open and self.newest_beat > 0

    def assign(self, account: Account, assignments: Sequence[pb.Assignment], *, heard: int) -> None:
        """Send tasks that were claimed for the account's session; `heard` as the claim began."""
        if account.session_id != self.session_id or not self.open:
            account.release(len(assignments))
            self._manager.not_sent(assignments)
            return
        account.send(len(assignments))
        self._out.add_assignments(assignments, heard=heard, pool=assignments[0].pool)

    def give_verdicts(self, verdicts: Iterable[pb.VerdictItem]) -> None:
        self._out.verdicts.extend(verdicts)
        self._out.wake.set()

    def ask(self, keys: Iterable[tuple[int, int]]) -> None:
        """Ask about attempts that this stream has not been asked about."""
        new = [key for key in keys if key not in self.asked]
        self.asked.update(new)
        self._out.questions.extend(pb.AttemptKey(task_id=task_id, attempt=attempt) for task_id, attempt in new)
        if new:
            self._out.wake.set()

    def cancel(self, keys: Iterable[tuple[int, int]]) -> None:
        self._out.cancels.update(keys)
        if self._out.cancels:
            self._out.wake.set()

    def tell_waiting(self, counts: Mapping[str, int]) -> None:
        """Say how many tasks wait in each pool, where that has changed."""
        if self._out.tell_waiting(counts):
            self._out.wake.set()

    def tick(self) -> None:
        """Say something, so that the replica hears us also while there is nothing to say."""
        self._out.wake.set()

    # What became of the session's writes (sessions.Listener).

    def session_opened(self, session_id: int) -> None:
        if session_id == self.session_id:
            self.open = True
            self._manager.demand_changed()

    def session_ended(self, session_id: int) -> None:
        if session_id == self.session_id:
            self.open = False
            self._out.ended_session_id = session_id
            self._out.wake.set()

    def echo(self, session_id: int, number: int) -> None:
        if session_id == self.session_id:
            self._out.echo = max(self._out.echo, number)
            self._out.wake.set()

    async def _run(self) -> None:
        failures = 0
        while True:
            began = self._manager.clock.monotonic()
            try:
                await self._converse()
            except (grpc.aio.AioRpcError, TimeoutError) as error:
                self._note_end(error)
            except Exception:
                log.exception("link_failed", address=self.address)
            finally:
                self._stream_ended()
            failures = 0 if self._manager.clock.monotonic() - began > SILENCE_SECONDS else failures + 1
            longest = min(_REDIAL_SECONDS_MAX, _REDIAL_SECONDS_MIN * 2 ** min(failures, 10))
            await asyncio.sleep(_REDIAL_SECONDS_MIN + longest * random.random())

    async def _converse(self) -> None:
        channel = open_channel(self.address)
        try:
            stream = ExecutionServiceStub(channel).Dispatch()
            writer = asyncio.create_task(self._write(stream))
            try:
                while True:
                    async with asyncio.timeout(SILENCE_SECONDS):
                        message = await stream.read()
                    if not isinstance(message, pb.DispatchResponse):  # end of the stream
                        break
                    self.refused = False
                    self._take(message)
            finally:
                writer.cancel()
                stream.cancel()
                await asyncio.gather(writer, return_exceptions=True)
        finally:
            await channel.close()

    async def _write(self, stream: "grpc.aio.StreamStreamCall[pb.DispatchRequest, pb.DispatchResponse]") -> None:
        await stream.write(pb.DispatchRequest(attach=pb.Attach(manager_id=self._manager.manager_id)))
        while True:
            await self._out.wake.wait()
            if self.session is None:
                self._out.wake.clear()
                continue
            message = self._out.compose(self.accounts)
            message.session_id = self.session.session_id
            message.claim_rounds = self._manager.claim_rounds
            await stream.write(message)
            if message.assignments:
                failpoints.hit("links.after_write")

    def _take(self, message: pb.DispatchResponse) -> None:
        """Handle one message, its parts in the order of the contract."""
        if message.HasField("hello"):
            self._take_hello(message.hello)
        if self.session is None:
            return
        if message.HasField("heartbeat"):
            self._take_heartbeat(message.heartbeat)
        if message.demand:
            self._take_demand(message.demand)
        if message.reports:
            self._manager.reported(self, message.reports)
        if message.answers:
            self._manager.answered(self, message.answers)
        if message.progress:
            self._manager.progressed(message.progress)
        if message.bye:
            self._manager.said_bye(self.session.session_id)

    def _take_hello(self, hello: pb.Hello) -> None:
        if self.session and self.session.session_id != hello.session_id:
            self._manager.sessions.forget(self.session.session_id)
        self.session = Session(hello.session_id, hello.replica, hello.address, hello.heartbeat, tuple(hello.task_types))
        self.open = False
        self.newest_beat = hello.heartbeat
        self._out.echo = self._out.ended_session_id = 0
        types = frozenset(task_type.name for task_type in hello.task_types)
        for pool in {task_type.pool for task_type in hello.task_types} | self.accounts.keys():
            account = self.accounts.setdefault(pool, Account(hello.session_id, types))
            account.session_id, account.types = hello.session_id, types
        if not self._manager.sessions.is_deaf(hello.session_id):
            self._manager.heard(hello.session_id)
        self._manager.sessions.hello(self.session, self)

    def _take_heartbeat(self, heartbeat: pb.Heartbeat) -> None:
        if heartbeat.session_id != self.session_id:
            return
        sessions = self._manager.sessions
        sessions.take_proof(heartbeat.session_id, heartbeat.echoed if heartbeat.HasField("echoed") else None)
        if sessions.is_deaf(heartbeat.session_id):
            self.echo(heartbeat.session_id, sessions.unproven_echo(heartbeat.session_id))
            return
        self.newest_beat = max(self.newest_beat, heartbeat.number)
        self._manager.heard(heartbeat.session_id)
        sessions.heartbeat(heartbeat.session_id, heartbeat.number, self)

    def _take_demand(self, grants: Iterable[pb.DemandGrant]) -> None:
        grown = False
        for grant in grants:
            account = self.accounts.get(grant.pool)
            if account is None:
                continue
            grown = account.grant(grant.granted) or grown
            if grant.recall:
                account.give_back()
                self._out.demand_pools.add(grant.pool)
                self._out.wake.set()
        if grown:
            self._manager.demand_changed()

    def _stream_ended(self) -> None:
        """Forget what was agreed on this stream; what it did not carry goes back to the queue."""
        if self.session:
            self._manager.sessions.forget(self.session.session_id)
        unsent = self._out.take_unsent()
        self.session, self.open = None, False
        self.accounts, self.asked = {}, set()
        self._out = _Outgoing()
        if unsent:
            self._manager.not_sent(unsent)

    def _note_end(self, error: Exception) -> None:
        reason = error.details() if isinstance(error, grpc.aio.AioRpcError) else "silent"
        self.refused = "refused" in (reason or "")
        if self.session:
            log.info("link_lost", address=self.address, reason=reason)


class _Outgoing:
    """What waits to be written, in the parts of the contract."""

    def __init__(self) -> None:
        self.wake = asyncio.Event()
        self.echo = 0
        self.ended_session_id = 0
        self.verdicts: list[pb.VerdictItem] = []
        self.questions: list[pb.AttemptKey] = []
        self.cancels: set[tuple[int, int]] = set()
        self.demand_pools: set[str] = set()
        self._waiting: dict[str, int] = {}
        self._waiting_told: dict[str, int] = {}
        self._assignments: list[tuple[int, Sequence[pb.Assignment]]] = []

    def add_assignments(self, assignments: Sequence[pb.Assignment], *, heard: int, pool: str) -> None:
        self._assignments.append((heard, assignments))
        self.demand_pools.add(pool)
        self.wake.set()

    def tell_waiting(self, counts: Mapping[str, int]) -> bool:
        """Take the counts that were not told before; return whether there are any."""
        self._waiting = {pool: count for pool, count in counts.items() if count != self._waiting_told.get(pool, 0)}
        return bool(self._waiting)

    def take_unsent(self) -> list[pb.Assignment]:
        unsent = [assignment for _, group in self._assignments for assignment in group]
        self._assignments = []
        return unsent

    def compose(self, accounts: dict[str, Account]) -> pb.DispatchRequest:
        """Take one message's worth of what waits; `wake` stays set while something is left."""
        message = pb.DispatchRequest(echo=self.echo, ended_session_id=self.ended_session_id)
        message.verdicts.extend(self.verdicts[:_ITEMS_MAX])
        message.questions.extend(self.questions[:_ITEMS_MAX])
        del self.verdicts[:_ITEMS_MAX], self.questions[:_ITEMS_MAX]
        message.cancels.extend(pb.AttemptKey(task_id=task_id, attempt=attempt) for task_id, attempt in self.cancels)
        self.cancels.clear()
        message.waiting.extend(pb.WaitingTasks(pool=pool, count=count) for pool, count in self._waiting.items())
        self._waiting_told.update(self._waiting)
        self._waiting = {}
        self._take_groups(message)
        if not self._assignments:
            message.demand.extend(
                pb.DemandUse(pool=pool, sent=account.sent, returned=account.returned)
                for pool in self.demand_pools
                if (account := accounts.get(pool))
            )
            self.demand_pools.clear()
        if not (self._assignments or self.verdicts or self.questions):
            self.wake.clear()
        return message

    def _take_groups(self, message: pb.DispatchRequest) -> None:
        """Move whole groups of assignments into the message up to its bound, with the oldest number heard."""
        taken = size = 0
        for heard, group in self._assignments:
            size += sum(len(assignment.data) + 64 for assignment in group)
            if taken and size > _MESSAGE_BYTES_MAX:
                break
            message.heard = min(message.heard or heard, heard)
            message.assignments.extend(group)
            taken += 1
        del self._assignments[:taken]
