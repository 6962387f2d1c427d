"""A server of live streams whose updates come from the test itself."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

from starlette.applications import Starlette

from headrace.v1.task_pb2 import TaskStatus, TaskUpdate
from servicekit.errors import NotFound
from servicekit.http.problems import EXCEPTION_HANDLERS
from servicekit.http.server import HttpServer
from servicekit.live.cursors import Cursor
from servicekit.live.events import LiveEvent
from servicekit.live.filters import Filter
from servicekit.live.hub import Hub
from servicekit.live.socketio.bounds import Bounds
from servicekit.live.socketio.server import SocketIOServer
from servicekit.live.sources import Snapshot
from servicekit.live.streams import LiveStreams
from servicekit.live.websocket import socket_routes
from tests.support.waiting import wait_until

TYPES = ("noop", "word_count")
QUEUED = TaskStatus.TASK_STATUS_QUEUED


class MemorySource:
    """A LiveSource that remembers everything."""

    is_deaf = False

    def __init__(self) -> None:
        # That of the server that runs now.
        self.hub = Hub()
        self._events: list[LiveEvent] = []
        self._tasks: dict[int, TaskUpdate] = {}

    def publish(self, task_id: int, status: TaskStatus.ValueType = QUEUED, *, type_name: str = "noop") -> TaskUpdate:
        known = self._tasks.get(task_id)
        revision = known.revision + 1 if known else 1
        update = TaskUpdate(task_id=task_id, type=type_name, status=status, revision=revision)
        self._tasks[task_id] = update
        event = LiveEvent(update, Cursor(1, len(self._events), 0))
        self._events.append(event)
        self.hub.publish([event])
        return update

    @property
    def position(self) -> Cursor | None:
        return self._events[-1].cursor if self._events else None

    def clear(self) -> None:
        """Forget everything."""
        self._events.clear()
        self._tasks.clear()

    async def ready(self) -> None:
        pass

    def replay(self, cursor: Cursor) -> Sequence[LiveEvent] | None:
        if cursor.ms != 1 or cursor.seq >= len(self._events):
            return None
        return self._events[cursor.seq + 1 :]

    def revision_of(self, task_id: int) -> int | None:
        task = self._tasks.get(task_id)
        return task.revision if task else None

    async def snapshot(self, wanted: Filter) -> Snapshot:
        missing = sorted(wanted.task_ids - self._tasks.keys())
        if missing and len(wanted.task_ids) == 1:
            raise NotFound(f"There is no task {missing[0]}.", code="task_not_found")
        return Snapshot([task for task in self._tasks.values() if wanted.wants(task)], missing=missing)


@dataclass(slots=True)
class RunningStreams:
    port: int
    hub: Hub
    source: MemorySource
    streams: LiveStreams
    socketio: SocketIOServer
    is_draining: bool = False

    async def drain(self) -> None:
        self.is_draining = True
        self.streams.close()
        await self.socketio.drain()


@asynccontextmanager
async def run_streams(
    bounds: Bounds | None = None, *, port: int = 0, source: MemorySource | None = None
) -> AsyncIterator[RunningStreams]:
    """Raw WebSockets and Socket.IO. With the port and source of an earlier one it is that one, started again."""

    async def require_type(name: str) -> None:
        if name not in TYPES:
            raise NotFound(f"There is no task type {name!r}.", code="unknown_task_type")

    source = source or MemorySource()
    hub = source.hub = Hub()
    streams = LiveStreams(hub, source, require_type=require_type, is_draining=lambda: running.is_draining)
    socketio = SocketIOServer(streams, bounds=bounds or Bounds())
    app = Starlette(routes=socket_routes(), exception_handlers=EXCEPTION_HANDLERS)
    app.state.live, app.state.routes = streams, []
    server = HttpServer(socketio.wrap(app), "127.0.0.1", port, connections_max=2_000, grace=timedelta(seconds=1))
    running = RunningStreams(await server.start(), hub, source, streams, socketio)
    await wait_until(lambda: _listens(running.port))
    try:
        yield running
    finally:
        await running.drain()
        await server.stop()


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionRefusedError:
        return False
    writer.close()
    return True
