"""What watchers are told while a cluster is maltreated, recorded for the checker."""

import asyncio
import contextlib
import json
import time
from dataclasses import dataclass

import websockets


@dataclass(frozen=True, slots=True)
class Event:
    """One update of one task, as a client saw it."""

    task_id: int
    revision: int
    attempt: int
    status: str
    at: float


class SocketRecorder:
    """Follows tasks over `/ws/tasks/{id}`, each until its end, connecting again whenever it is cut off."""

    def __init__(self, url: str) -> None:
        self._url = url.replace("http", "ws", 1)
        self.events: list[Event] = []
        self.close_codes: list[int] = []
        self._tasks: list[asyncio.Task[None]] = []

    def follow(self, *task_ids: int) -> None:
        self._tasks += [asyncio.create_task(self._follow(task_id)) for task_id in task_ids]

    async def finish(self, timeout: float = 30.0) -> None:
        """Wait until every followed task has told its end."""
        async with asyncio.timeout(timeout):
            await asyncio.gather(*self._tasks)

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _follow(self, task_id: int) -> None:
        while True:
            with contextlib.suppress(OSError, websockets.WebSocketException, TimeoutError):
                async with websockets.connect(f"{self._url}/ws/tasks/{task_id}", open_timeout=5) as socket:
                    try:
                        async for message in socket:
                            if self._take(message):
                                return
                    finally:
                        if socket.close_code is not None:
                            self.close_codes.append(socket.close_code)
            await asyncio.sleep(0.1)

    def _take(self, message: str | bytes) -> bool:
        told = json.loads(message)
        if told["event"] not in ("task_update", "snapshot"):
            return False
        ended = False
        for data in told["data"]["tasks"] if told["event"] == "snapshot" else [told["data"]]:
            if data["progress"] is None:
                at = time.monotonic()
                self.events.append(Event(data["id"], data["revision"], data["attempt"], data["status"], at))
            ended = ended or data["status"] in ("completed", "failed", "cancelled")
        return ended
