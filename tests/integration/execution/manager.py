"""A manager that speaks the contract over a real stream, and does only what a test lets it do."""

import asyncio
from collections import defaultdict
from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Self

import grpc

from headrace.v1 import execution_pb2, task_pb2
from headrace.v1.execution_pb2_grpc import ExecutionServiceStub
from servicekit.grpc_channel import open_channel

if TYPE_CHECKING:
    from headrace.v1.execution_pb2_grpc import ExecutionServiceAsyncStub

SPEAK_SECONDS = 0.25


class Manager:
    """Echoes, answers recalls and gives verdicts by itself, unless told not to."""

    def __init__(self, address: str, manager_id: str = "manager-1") -> None:
        self.manager_id = manager_id
        self.session_id = 0
        self.hellos: list[execution_pb2.Hello] = []
        self.newest_beat = 0
        self.granted: defaultdict[str, int] = defaultdict(int)
        self.sent: defaultdict[str, int] = defaultdict(int)
        self.returned: defaultdict[str, int] = defaultdict(int)
        self.reports: list[task_pb2.Report] = []
        self.answers: dict[tuple[int, int], int] = {}
        self.progress: list[execution_pb2.AttemptProgress] = []
        self.said_bye = False
        self.ended = False
        self.is_silent = False
        self.reads = asyncio.Event()
        self.reads.set()
        self.database_is_away = False
        self.verdict: task_pb2.Verdict.ValueType = task_pb2.VERDICT_ACCEPTED
        self._rounds = 0
        self._outbox: asyncio.Queue[execution_pb2.DispatchRequest] = asyncio.Queue()
        self._channel = open_channel(address)
        self.stub: ExecutionServiceAsyncStub = ExecutionServiceStub(self._channel)
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._call = self.stub.Dispatch()
        await self._call.write(execution_pb2.DispatchRequest(attach=execution_pb2.Attach(manager_id=self.manager_id)))
        self._tasks = [asyncio.create_task(work()) for work in (self._read, self._write, self._speak)]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        self._call.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._channel.close()

    def open(self, pool: str) -> int:
        return self.granted[pool] - self.sent[pool] - self.returned[pool]

    def reported(self, task_id: int) -> list[task_pb2.Report]:
        return [report for report in self.reports if report.task_id == task_id]

    def assign(self, assignments: Iterable[execution_pb2.Assignment], *, heard: int | None = None) -> None:
        assigned = list(assignments)
        for item in assigned:
            self.sent[item.pool] += 1
        self.say(
            heard=self.newest_beat if heard is None else heard,
            assignments=assigned,
            demand=self._use({item.pool for item in assigned}),
        )

    def ask(self, *keys: tuple[int, int]) -> None:
        self.say(questions=[execution_pb2.AttemptKey(task_id=task_id, attempt=attempt) for task_id, attempt in keys])

    def cancel(self, *keys: tuple[int, int]) -> None:
        self.say(cancels=[execution_pb2.AttemptKey(task_id=task_id, attempt=attempt) for task_id, attempt in keys])

    def end_session(self) -> None:
        self.say(ended_session_id=self.session_id)

    def say(self, **parts: object) -> None:
        self._outbox.put_nowait(execution_pb2.DispatchRequest(session_id=self.session_id, **parts))  # type: ignore[arg-type]

    def _use(self, pools: Iterable[str]) -> list[execution_pb2.DemandUse]:
        return [
            execution_pb2.DemandUse(pool=pool, sent=self.sent[pool], returned=self.returned[pool]) for pool in pools
        ]

    async def _write(self) -> None:
        while True:
            message = await self._outbox.get()
            if not self.is_silent:
                await self._call.write(message)

    async def _speak(self) -> None:
        while True:
            await asyncio.sleep(SPEAK_SECONDS)
            if not self.database_is_away:
                self._rounds += 1
            self.say(claim_rounds=self._rounds)

    async def _read(self) -> None:
        try:
            while (message := await self._call.read()) is not grpc.aio.EOF:
                assert isinstance(message, execution_pb2.DispatchResponse)
                await self.reads.wait()
                self._take(message)
        except grpc.aio.AioRpcError:
            pass
        finally:
            self.ended = True

    def _take(self, message: execution_pb2.DispatchResponse) -> None:
        if message.HasField("hello"):
            self.hellos.append(message.hello)
            self.session_id = message.hello.session_id
            self.newest_beat = message.hello.heartbeat
        if message.HasField("heartbeat"):
            self.newest_beat = message.heartbeat.number
            if not self.database_is_away:
                self.say(echo=message.heartbeat.number)
        for grant in message.demand:
            self.granted[grant.pool] = grant.granted
            if grant.recall:
                self.returned[grant.pool] += self.open(grant.pool)
                self.say(demand=self._use([grant.pool]))
        self._take_reports(message.reports)
        for answer in message.answers:
            self.answers[answer.task_id, answer.attempt] = answer.state
        self.progress.extend(message.progress)
        self.said_bye = self.said_bye or message.bye

    def _take_reports(self, reports: Iterable[task_pb2.Report]) -> None:
        self.reports.extend(reports)
        verdicts = [
            execution_pb2.VerdictItem(task_id=report.task_id, attempt=report.attempt, verdict=self.verdict)
            for report in reports
        ]
        if verdicts and not self.database_is_away:
            self.say(verdicts=verdicts)
