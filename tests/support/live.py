"""Both ends of a live stream: who publishes updates as management does, and who listens as a user's program does."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import redis.asyncio
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from headrace.v1.task_pb2 import Progress, TaskStatus, TaskUpdate
from tests.support.fake_management import FakeManagement
from tests.support.updates import publish_update

HEAR_SECONDS = 5.0


class Publisher:
    """Moves rows and tells of it, as management does."""

    def __init__(self, store: redis.asyncio.Redis, management: FakeManagement) -> None:
        self._store = store
        self._management = management

    async def move(self, task_id: int, status: TaskStatus.ValueType, *, result: bytes | None = None) -> None:
        task = self._management.move(task_id, status, result=result or b"")
        await self.publish(
            TaskUpdate(task_id=task_id, type=task.type, status=status, attempt=1, revision=task.revision, result=result)
        )

    async def progress(self, task_id: int, number: int, fraction: float, message: str = "") -> None:
        progress = Progress(n=number, fraction=fraction, message=message)
        status = TaskStatus.TASK_STATUS_PROCESSING
        await self.publish(TaskUpdate(task_id=task_id, type="noop", status=status, attempt=1, progress=progress))

    async def publish(self, update: TaskUpdate) -> None:
        await publish_update(self._store, update)


class Socket:
    """A client of a raw WebSocket."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    async def hear(self) -> dict[str, Any]:
        """The next message, whatever it is."""
        message: dict[str, Any] = json.loads(await asyncio.wait_for(self.connection.recv(), HEAR_SECONDS))
        return message

    async def event(self, name: str) -> dict[str, Any]:
        """The data of the next message, which is to be this event."""
        message = await self.hear()
        assert message["event"] == name, message
        data: dict[str, Any] = message["data"]
        return data

    async def snapshot(self) -> list[dict[str, Any]]:
        tasks: list[dict[str, Any]] = (await self.event("snapshot"))["tasks"]
        return tasks

    async def update(self) -> dict[str, Any]:
        return await self.event("task_update")

    async def say(self, message: object) -> None:
        await self.connection.send(json.dumps(message))

    async def subscribe(self, ref: str | None = None, cursor: str | None = None, **wanted: object) -> dict[str, Any]:
        """Ask for something else; returns the answer."""
        await self.say({"type": "subscribe", "filter": wanted, "ref": ref, "cursor": cursor})
        return await self.hear()

    async def closed(self) -> int:
        """Wait for the end, and return its code."""
        with contextlib.suppress(ConnectionClosed):
            while True:
                await asyncio.wait_for(self.connection.recv(), HEAR_SECONDS)
        code = self.connection.close_code
        assert code is not None
        return code


@asynccontextmanager
async def open_socket(port: int, path: str, **options: Any) -> AsyncIterator[Socket]:
    """A socket at `path` of the server on a port of this machine."""
    async with connect(f"ws://127.0.0.1:{port}{path}", **options) as connection:
        yield Socket(connection)


class Events:
    """A client of server-sent events, as EventSource reads them."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self.lines = response.aiter_lines()
        # What EventSource sends when it connects again.
        self.last_id = ""
        self.retry = 0
        self.comments = 0

    async def hear(self) -> tuple[str, dict[str, Any]]:
        """The next event: its name and its data. Raises StopAsyncIteration at the end."""
        name, data = "message", ""
        while True:
            line = await asyncio.wait_for(anext(self.lines), HEAR_SECONDS)
            field, _, value = line.partition(": ")
            if field == "id":
                self.last_id = value
            elif field == "retry":
                self.retry = int(value)
            elif field == "event":
                name = value
            elif field == "data":
                data += value
            elif field == ":":
                self.comments += 1
            elif not line and data:
                return name, json.loads(data)

    async def event(self, name: str) -> dict[str, Any]:
        """The data of the next event, which is to have this name."""
        heard, data = await self.hear()
        assert heard == name, (heard, data)
        return data

    async def ended(self) -> bool:
        """Whether the answer ends now, and as a whole."""
        with contextlib.suppress(StopAsyncIteration):
            await self.hear()
            return False
        return True


@asynccontextmanager
async def open_events(client: httpx.AsyncClient, path: str, *, last_id: str = "") -> AsyncIterator[Events]:
    headers = {"Last-Event-ID": last_id} if last_id else {}
    async with client.stream("GET", path, headers=headers) as response:
        assert response.status_code == 200, await response.aread()
        yield Events(response)
