"""The REST API as a user's program calls it."""

import asyncio
import ssl
import time
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any, Self

import httpx

FINAL = ("completed", "failed", "cancelled")


class Api:
    """One gateway. Calls that a user would repeat on 503 are repeated."""

    def __init__(self, url: str, *, verify: ssl.SSLContext | bool = True) -> None:
        self.http = httpx.AsyncClient(base_url=url, timeout=30, verify=verify)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.http.aclose()

    async def submit(self, type_name: str, data: dict[str, Any] | None = None, **options: Any) -> int:
        """Submit one task; return its id."""
        answer = await self.http.post("/api/tasks", json={"type": type_name, "data": data or {}, **options})
        assert answer.status_code == 201, answer.text
        return int(answer.json()["task_id"])

    async def submit_many(self, tasks: Sequence[dict[str, Any]]) -> list[int]:
        """Submit a batch; return the ids."""
        answer = await self.http.post("/api/tasks/batch", json=tasks)
        assert answer.status_code == 201, answer.text
        ids: list[int] = answer.json()["task_ids"]
        return ids

    async def task(self, task_id: int, *, wait: float | None = None) -> dict[str, Any]:
        """Read a task, waiting up to `wait` seconds for its end."""
        answer = await self.http.get(f"/api/tasks/{task_id}", params={} if wait is None else {"wait": wait})
        assert answer.status_code == 200, answer.text
        task: dict[str, Any] = answer.json()
        return task

    async def final(self, task_id: int, *, timeout: float = 60) -> dict[str, Any]:
        """Wait for the end of a task, through whatever happens to the services meanwhile."""
        deadline = time.monotonic() + timeout
        last: object = None
        while time.monotonic() < deadline:
            try:
                answer = await self.http.get(f"/api/tasks/{task_id}", params={"wait": 5})
            except httpx.TransportError as error:
                last = error
                await asyncio.sleep(0.1)
                continue
            last = answer.text
            if answer.status_code == 200 and answer.json()["status"] in FINAL:
                task: dict[str, Any] = answer.json()
                return task
            if answer.status_code not in (200, 503):
                break
            await asyncio.sleep(0.05)
        raise AssertionError(f"task {task_id} did not end: {last}")

    async def finals(self, task_ids: Iterable[int], *, timeout: float = 60) -> list[dict[str, Any]]:
        """Wait for the ends of many tasks, in order."""
        gate = asyncio.Semaphore(20)

        async def one(task_id: int) -> dict[str, Any]:
            async with gate:
                return await self.final(task_id, timeout=timeout)

        return await asyncio.gather(*(one(task_id) for task_id in task_ids))
