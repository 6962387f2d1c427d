"""Work that goes on while the stack is harmed, and the account that is taken of it."""

import asyncio
from types import TracebackType
from typing import Self

import httpx

from tests.support.api import Api
from tests.support.side_effects import SideEffects
from tests.support.waiting import wait_until

BATCH = 5
TASK_SECONDS = 0.2
PAUSE_SECONDS = 0.1
# More than replicas ask for ahead, and few enough to be done soon after the end.
WAITING_MAX = 200
# What a proxy or a gateway may answer while something is away.
_AWAY = (502, 503, 504)


class Load:
    """Submits small batches, one after the other, from entry to `finish`. What was answered with 201 was promised."""

    def __init__(self, api: Api, effects: SideEffects) -> None:
        self._api = api
        self._effects = effects
        self._stop = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.accepted: list[int] = []
        # What was not accepted, and why.
        self.refused: list[str] = []

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._submit())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._end()

    async def grow(self, count: int, *, timeout: float = 60) -> None:
        """Wait until so many more tasks are accepted."""
        wanted = len(self.accepted) + count
        await wait_until(lambda: len(self.accepted) >= wanted, timeout=timeout)

    async def finish(self, *, again: bool = False, timeout: float = 120) -> None:
        """Stop, and check that every accepted task completed, each attempt was started once, and none without need.

        `again` says that attempts may have been lost with their replica, and so been made once more.
        """
        await self._end()
        tasks = await self._api.finals(self.accepted, timeout=timeout)
        assert {(task["status"], task["failures"]) for task in tasks} <= {("completed", 0)}
        assert set(self._effects.started_attempts().values()) == {1}
        starts = self._effects.starts()
        # More than those accepted may have run: an answer can get lost on its way.
        assert starts.keys() >= set(self.accepted)
        if not again:
            repeated = {task_id: count for task_id, count in starts.items() if count > 1}
            assert not repeated, repeated

    async def _end(self) -> None:
        self._stop.set()
        if self._task is not None:
            await self._task

    async def _submit(self) -> None:
        batch = [{"type": "append_line", "data": self._effects.data(TASK_SECONDS)}] * BATCH
        while not self._stop.is_set():
            if len(self.accepted) - len(self._effects.starts()) > WAITING_MAX:
                await asyncio.sleep(PAUSE_SECONDS)
                continue
            try:
                answer = await self._api.http.post("/api/tasks/batch", json=batch)
            except httpx.TransportError as error:
                self.refused.append(repr(error))
            else:
                if answer.status_code == 201:
                    self.accepted += answer.json()["task_ids"]
                else:
                    assert answer.status_code in _AWAY, answer.text
                    self.refused.append(f"{answer.status_code} {answer.text[:200]}")
            await asyncio.sleep(PAUSE_SECONDS)
