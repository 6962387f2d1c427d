"""A user of the cluster, who writes down what was promised."""

import asyncio
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

import httpx

from tests.faults.harness.ledger import Entry, Ledger
from tests.support.api import FINAL

Task = dict[str, Any]


class Client:
    """Calls any of several gateways in turn. Submissions go into the ledger, whatever becomes of them."""

    def __init__(self, urls: Sequence[str], ledger: Ledger, *, timeout: float = 15.0) -> None:
        self.ledger = ledger
        limits = httpx.Limits(max_connections=200, max_keepalive_connections=50)
        self._https = [httpx.AsyncClient(base_url=url, timeout=timeout, limits=limits) for url in urls]
        self._turn = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for http in self._https:
            await http.aclose()

    @property
    def http(self) -> httpx.AsyncClient:
        """The next gateway's."""
        self._turn += 1
        return self._https[self._turn % len(self._https)]

    async def try_submit(self, tasks: Sequence[Task], *, key: str | None = None) -> Entry:
        """Submit a batch once; the entry says what came of it."""
        entry = self.ledger.begin(key=key, count=len(tasks), now=time.monotonic())
        headers = {"Idempotency-Key": key} if key is not None else {}
        try:
            answer = await self.http.post("/api/tasks/batch", json=list(tasks), headers=headers)
        except httpx.HTTPError:
            answer = None
        entry.seconds = time.monotonic() - entry.sent_at
        if answer is not None:
            entry.status = answer.status_code
            entry.outcome = "acked" if answer.is_success else "refused"
            if answer.is_success:
                entry.task_ids = answer.json()["task_ids"]
                entry.durability = answer.headers["Headrace-Durability"]
        self.ledger.end(entry)
        return entry

    async def submit(self, tasks: Sequence[Task], *, key: str | None = None, timeout: float = 30.0) -> list[int]:
        """Submit until acknowledged. Without a key a repeat may store the tasks twice, as users know."""
        deadline = time.monotonic() + timeout
        while True:
            entry = await self.try_submit(tasks, key=key)
            if entry.outcome == "acked":
                return entry.task_ids
            assert entry.status in (0, 429, 502, 503, 504), f"unexpected refusal: {entry}"
            assert time.monotonic() < deadline, f"never accepted: {entry}"
            await asyncio.sleep(0.1)

    async def load(self, tasks: Callable[[], Sequence[Task]], *, stop: asyncio.Event, pause: float = 0.02) -> None:
        """Submit batches until `stop`, each once; refusals and lost answers are part of the game."""
        while not stop.is_set():
            entry = await self.try_submit(tasks())
            await asyncio.sleep(pause if entry.outcome == "acked" else 0.1)

    async def read(self, task_id: int) -> Task:
        """Read a task, through whatever happens meanwhile."""
        return await self._until(task_id, lambda task: True, wait=None, timeout=30)

    async def final(self, task_id: int, *, timeout: float = 60.0) -> Task:
        """Wait for the end of a task."""
        return await self._until(task_id, lambda task: task["status"] in FINAL, wait=5, timeout=timeout)

    async def finals(self, task_ids: Sequence[int], *, timeout: float = 60.0) -> list[Task]:
        gate = asyncio.Semaphore(20)

        async def one(task_id: int) -> Task:
            async with gate:
                return await self.final(task_id, timeout=timeout)

        return await asyncio.gather(*(one(task_id) for task_id in task_ids))

    async def delete(self, task_id: int) -> httpx.Response:
        return await self.http.delete(f"/api/tasks/{task_id}")

    async def _until(self, task_id: int, wanted: Callable[[Task], bool], *, wait: int | None, timeout: float) -> Task:
        deadline = time.monotonic() + timeout
        last: object = None
        while time.monotonic() < deadline:
            try:
                answer = await self.http.get(f"/api/tasks/{task_id}", params={"wait": wait} if wait else {})
            except httpx.HTTPError as error:
                last = repr(error)
                await asyncio.sleep(0.1)
                continue
            last = answer.text
            if answer.status_code == 200:
                task: Task = answer.json()
                if wanted(task):
                    return task
            assert answer.status_code in (200, 502, 503, 504), f"task {task_id}: {answer.status_code} {answer.text}"
            await asyncio.sleep(0.05)
        raise AssertionError(f"task {task_id} did not come so far within {timeout} s: {last}")
