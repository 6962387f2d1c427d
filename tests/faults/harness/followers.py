"""Users' programs that follow all tasks, come back with their last cursor when cut off, and check what they hear."""

import asyncio
import contextlib
import itertools
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import grpc
import httpx
import websockets

from headrace.v1.management_pb2 import WatchTasksRequest
from headrace.v1.management_pb2_grpc import ManagementServiceStub
from servicekit.grpc_channel import open_channel

if TYPE_CHECKING:
    from headrace.v1.management_pb2_grpc import ManagementServiceAsyncStub

_OPEN_SECONDS = 5.0
# Far less than a person would wait: what comes back too early finds services that are not there yet.
_PAUSE_SECONDS = 0.05
# Longer than any scenario.
_CALL_SECONDS = 170.0


class Story:
    """What one client was told of every task, held against the promise: revisions 1, 2, 3 ... each once."""

    def __init__(self, name: str, *, looks_may_skip: bool = False) -> None:
        """`looks_may_skip`: an event without a place may tell of several changes at once, as a snapshot does."""
        self.name = name
        self.revisions: dict[int, int] = {}
        self.updates = 0
        self.snapshots = 0
        self.resets = 0
        self.broken: list[str] = []
        self._looks_may_skip = looks_may_skip
        # Snapshots had all tasks so far: one that is not known is told from its beginning.
        self._whole = True

    def take_snapshot(self, revisions: dict[int, int], *, more: bool) -> None:
        """Take the whole state for what is true from now on."""
        self.snapshots += 1
        for task_id in self.revisions.keys() & revisions.keys():
            if revisions[task_id] < self.revisions[task_id]:
                self._complain(task_id, revisions[task_id], "snapshot")
        self.revisions = revisions
        self._whole = not more

    def take_update(self, task_id: int, revision: int, *, placed: bool = True) -> None:
        self.updates += 1
        known = self.revisions.get(task_id, 0 if self._whole else revision - 1)
        skips = self._looks_may_skip and not placed and revision > known
        if revision != known + 1 and not skips:
            self._complain(task_id, revision, "update")
        self.revisions[task_id] = revision

    def _complain(self, task_id: int, revision: int, by: str) -> None:
        self.broken.append(f"{self.name}: task {task_id}: {by} {revision} after {self.revisions.get(task_id)}")


class Follower(ABC):
    """Follows over one connection after the other, at each server in turn."""

    def __init__(self, story: Story, servers: Sequence[str], *, first: int = 0) -> None:
        self.story = story
        self.connections = 0
        self._servers = itertools.islice(itertools.cycle(servers), first, None)
        self._task = asyncio.create_task(self._run(), name=story.name)

    async def stop(self) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _run(self) -> None:
        for server in self._servers:
            with contextlib.suppress(
                OSError, TimeoutError, websockets.WebSocketException, httpx.HTTPError, grpc.RpcError
            ):
                await self._follow(server)
            await asyncio.sleep(_PAUSE_SECONDS)

    @abstractmethod
    async def _follow(self, server: str) -> None:
        """Follow until the connection ends, or raise what the client raises then."""


class _GatewayFollower(Follower):
    """What both transports of a gateway have in common: the events."""

    _cursor = ""

    def _take(self, event: str, data: dict[str, Any], cursor: str) -> None:
        self._cursor = cursor or self._cursor
        match event:
            case "reset":
                self.story.resets += 1
            case "snapshot":
                tasks = {task["id"]: task["revision"] for task in data["tasks"]}
                self.story.take_snapshot(tasks, more=data["more"])
            case "task_update" if data["progress"] is None:
                self.story.take_update(data["id"], data["revision"], placed=bool(cursor))


class SocketFollower(_GatewayFollower):
    """As the example in docs/live.md does."""

    async def _follow(self, server: str) -> None:
        url = f"{server.replace('http', 'ws', 1)}/ws/tasks" + (f"?cursor={self._cursor}" if self._cursor else "")
        async with websockets.connect(url, open_timeout=_OPEN_SECONDS) as socket:
            self.connections += 1
            async for message in socket:
                told = json.loads(message)
                self._take(told["event"], told["data"], told.get("cursor") or "")


class EventsFollower(_GatewayFollower):
    """As EventSource does."""

    async def _follow(self, server: str) -> None:
        headers = {"Last-Event-ID": self._cursor} if self._cursor else {}
        timeout = httpx.Timeout(_OPEN_SECONDS, read=None)
        async with (
            httpx.AsyncClient(base_url=server, timeout=timeout) as http,
            http.stream("GET", "/api/events", headers=headers) as response,
        ):
            if response.status_code != 200:
                return
            self.connections += 1
            event = cursor = data = ""
            async for line in response.aiter_lines():
                name, _, value = line.partition(": ")
                match name:
                    case "event":
                        event = value
                    case "id":
                        cursor = value
                    case "data":
                        data = value
                    case "" if not line:
                        if data:
                            self._take(event, json.loads(data), cursor)
                        event = cursor = data = ""


class RpcFollower(Follower):
    """Follows named tasks at a manager, where streams have no cursors but begin with the present state.

    A snapshot looks like any other answer here: it is what tells of all tasks that are known. Updates that it was ahead
    of come after it, and are dropped, so repeats are not seen; what is missing is.
    """

    def __init__(self, story: Story, addresses: Sequence[str], task_ids: Sequence[int]) -> None:
        self._is_new = True
        self._request = WatchTasksRequest(task_ids=task_ids)
        super().__init__(story, addresses)

    async def _follow(self, server: str) -> None:
        async with open_channel(server) as channel:
            stub: ManagementServiceAsyncStub = ManagementServiceStub(channel)
            stream = stub.WatchTasks(self._request, timeout=_CALL_SECONDS)
            self._is_new = True
            async for response in stream:
                self.connections += self._is_new
                self._is_new = False
                revisions = [
                    (each.task_id, each.revision) for each in response.updates if not each.HasField("progress")
                ]
                self._take(revisions)

    def _take(self, revisions: Sequence[tuple[int, int]]) -> None:
        known = self.story.revisions
        latest = dict(revisions)
        if known.keys() <= latest.keys():
            self.story.take_snapshot(latest, more=False)
            return
        for task_id, revision in revisions:
            if revision > known.get(task_id, 0):
                self.story.take_update(task_id, revision)
