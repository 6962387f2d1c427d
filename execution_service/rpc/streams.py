"""One Dispatch stream with one manager: what waits to be sent on it, and what was heard on it."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import count
from typing import TypeVar

from execution_service.demand import Grant
from headrace.v1 import execution_pb2, task_pb2

# Bound of one message; the item that reaches it is still taken.
MESSAGE_BYTES = 4 * 1024 * 1024
# What an item costs in a message beside its own bytes.
ITEM_BYTES = 4
# A stream on which nothing was received for so long is ended.
SILENT_SECONDS = 2.5
# A manager whose write to the database was not confirmed by an echo for so long cannot claim.
ECHO_SECONDS = 2.5
ROUND_SECONDS = 2.0
# A message that the manager does not read for so long ends the stream.
WRITE_SECONDS = 5.0

_Item = TypeVar("_Item", task_pb2.Report, execution_pb2.Answer, execution_pb2.AttemptProgress)

_numbers = count(1)


class ManagerStream:
    """Gathers what one manager should be told, until the writer takes all of it as one message."""

    def __init__(self, manager_id: str, *, now: float) -> None:
        self.number = next(_numbers)
        self.manager_id = manager_id
        self.heard_at = now
        # Tasks that wait at the manager's, by pool.
        self.waiting: dict[str, int] = {}
        self._echo_number = 0
        self._echoed_at: float | None = None
        self._rounds = 0
        self._rounds_at = now
        self._taken_at: float | None = None
        self._wake = asyncio.Event()
        self._closed = asyncio.Event()
        self._hello: execution_pb2.Hello | None = None
        self._heartbeat: execution_pb2.Heartbeat | None = None
        self._demand: dict[str, Grant] = {}
        self._reports: deque[task_pb2.Report] = deque()
        self._answers: deque[execution_pb2.Answer] = deque()
        self._progress: dict[int, execution_pb2.AttemptProgress] = {}
        self._bye = self._bye_taken = False

    # What was heard.

    def note_echo(self, number: int, *, now: float) -> None:
        """A later heartbeat of the current session was echoed."""
        if number > self._echo_number:
            self._echo_number = number
            self._echoed_at = now

    def note_rounds(self, rounds: int, *, now: float) -> None:
        if rounds > self._rounds:
            self._rounds = rounds
            self._rounds_at = now

    def forget_echoes(self) -> None:
        """A new session counts its heartbeats from the beginning."""
        self._echo_number = 0
        self._echoed_at = None

    def is_silent(self, now: float) -> bool:
        return now - self.heard_at >= SILENT_SECONDS

    def is_stuck(self, now: float) -> bool:
        """Whether the manager has not read our last message for too long."""
        return self._taken_at is not None and now - self._taken_at >= WRITE_SECONDS

    def is_echoing(self, now: float) -> bool:
        """Whether the manager writes to its database: its verdicts can be expected."""
        return self._echoed_at is not None and now - self._echoed_at < ECHO_SECONDS

    def is_fit(self, now: float) -> bool:
        """Whether demand may be granted: the manager writes to its database and finishes its claims."""
        return self.is_echoing(now) and now - self._rounds_at < ROUND_SECONDS

    # What is to be sent.

    def hello(self, hello: execution_pb2.Hello) -> None:
        self._hello = hello
        self._heartbeat = None
        self._wake.set()

    def heartbeat(self, session_id: int, number: int, echoed: int) -> None:
        self._heartbeat = execution_pb2.Heartbeat(session_id=session_id, number=number, echoed=echoed)
        self._wake.set()

    def demand(self, grant: Grant) -> None:
        waiting = self._demand.get(grant.pool)
        recall = grant.recall or (waiting is not None and waiting.recall)
        self._demand[grant.pool] = Grant(grant.stream, grant.pool, grant.granted, recall)
        self._wake.set()

    def reports(self, reports: Iterable[task_pb2.Report]) -> None:
        self._reports.extend(reports)
        self._wake.set()

    def answers(self, answers: Iterable[execution_pb2.Answer]) -> None:
        self._answers.extend(answers)
        self._wake.set()

    def progress(self, items: Iterable[execution_pb2.AttemptProgress]) -> None:
        for item in items:
            self._progress[item.task_id] = item
        self._wake.set()

    def bye(self) -> None:
        """Say that nothing is held any more, and end the stream once all that waits is sent."""
        self._bye = True
        self._wake.set()

    @property
    def closed(self) -> bool:
        return self._closed.is_set()

    def close(self) -> None:
        self._closed.set()
        self._wake.set()

    async def wait_closed(self) -> None:
        await self._closed.wait()

    # The writer's side.

    async def next(self, monotonic: Callable[[], float]) -> execution_pb2.DispatchResponse | None:
        """Wait for something to send and return all of it as one message, as far as its bound allows.

        None ends the stream. A call also says that the message before was written.
        """
        self._taken_at = None
        while not self.closed:
            if self.has_work:
                self._taken_at = monotonic()
                return self._take()
            if self._bye_taken:
                return None
            self._wake.clear()
            await self._wake.wait()
        return None

    @property
    def has_work(self) -> bool:
        """Whether something waits to be sent."""
        return bool(
            self._hello
            or self._heartbeat
            or self._demand
            or self._reports
            or self._answers
            or self._progress
            or (self._bye and not self._bye_taken)
        )

    def _take(self) -> execution_pb2.DispatchResponse:
        message = execution_pb2.DispatchResponse(hello=self._hello, heartbeat=self._heartbeat)
        self._hello = self._heartbeat = None
        if self._demand:
            message.demand.extend(
                execution_pb2.DemandGrant(pool=grant.pool, granted=grant.granted, recall=grant.recall)
                for grant in self._demand.values()
            )
            self._demand.clear()
        room = _move(self._reports, message.reports.append, MESSAGE_BYTES)
        room = _move(self._answers, message.answers.append, room)
        if self._progress:
            waiting = deque(self._progress.values())
            _move(waiting, message.progress.append, room)
            self._progress = {item.task_id: item for item in waiting}
        if self._bye and not (self._reports or self._answers or self._progress):
            message.bye = self._bye_taken = True
        return message


def _move(waiting: deque[_Item], put: Callable[[_Item], None], room: int) -> int:
    """Move items into a message while there is room for them; return the room that is left."""
    while waiting and room > 0:
        item = waiting.popleft()
        room -= item.ByteSize() + ITEM_BYTES
        put(item)
    return room


class StreamSet:
    """The open streams, at most one per manager."""

    def __init__(self) -> None:
        self._streams: dict[int, ManagerStream] = {}

    def __iter__(self) -> Iterator[ManagerStream]:
        return iter(list(self._streams.values()))

    def __len__(self) -> int:
        return len(self._streams)

    def __getitem__(self, number: int) -> ManagerStream:
        return self._streams[number]

    def __contains__(self, stream: ManagerStream) -> bool:
        return self._streams.get(stream.number) is stream

    def add(self, stream: ManagerStream) -> None:
        self._streams[stream.number] = stream

    def remove(self, stream: ManagerStream) -> None:
        self._streams.pop(stream.number, None)

    def of_manager(self, manager_id: str) -> list[ManagerStream]:
        return [stream for stream in self._streams.values() if stream.manager_id == manager_id]

    def fit(self, now: float) -> list[int]:
        """Numbers of the streams whose managers can claim tasks."""
        return [number for number, stream in self._streams.items() if stream.is_fit(now)]

    def echoing(self, now: float) -> list[int]:
        """Numbers of the streams whose managers can write to their database."""
        return [number for number, stream in self._streams.items() if stream.is_echoing(now)]

    def numbers(self) -> list[int]:
        return list(self._streams)
