"""Talks to the gateway as any program could: REST with httpx, and one WebSocket per task that is followed."""

import contextlib
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Self

import httpx
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from headrace.demo.errors import DemoError

REQUEST_SECONDS = 15.0
EVENT_BYTES_MAX = 16 * 1024 * 1024
TASKS_PER_PAGE = 200


class DemoClient:
    """Every answer that is not the expected one is a DemoError, and no call waits without a limit."""

    def __init__(self, gateway_url: str) -> None:
        self._socket_url = gateway_url.replace("http://", "ws://", 1)
        self._http = httpx.AsyncClient(base_url=gateway_url, timeout=REQUEST_SECONDS, trust_env=False)

    async def __aenter__(self) -> Self:
        await self._http.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def task_types(self) -> list[str]:
        return [entry["name"] for entry in await self._call("GET", "/api/task-types")]

    async def stats(self) -> dict[str, Any]:
        answer: dict[str, Any] = await self._call("GET", "/api/stats")
        return answer

    async def submit(self, task_type: str, data: Mapping[str, Any]) -> int:
        """Return the id of the task, which is kept from now on."""
        answer = await self._call("POST", "/api/tasks", json={"type": task_type, "data": data})
        task_id: int = answer["task_id"]
        return task_id

    async def submit_batch(self, task_type: str, batch: Sequence[Mapping[str, Any]]) -> list[int]:
        """Return the ids of the tasks, in the order of their data."""
        body = [{"type": task_type, "data": data} for data in batch]
        task_ids: list[int] = (await self._call("POST", "/api/tasks/batch", json=body))["task_ids"]
        return task_ids

    async def read(self, task_id: int, *, wait_seconds: int = 0) -> dict[str, Any]:
        """Return the task as it is; with `wait_seconds`, when it has ended or after that time."""
        params = {"wait": wait_seconds} if wait_seconds else {}
        view: dict[str, Any] = await self._call("GET", f"/api/tasks/{task_id}", params=params)
        return view

    async def list_completed(self, task_type: str, *, first_id: int) -> list[dict[str, Any]]:
        """Return all completed tasks of the type from `first_id` on, without data and results."""
        found: list[dict[str, Any]] = []
        params: dict[str, str | int] = {"status": "completed", "type": task_type, "limit": TASKS_PER_PAGE}
        while True:
            page = await self._call("GET", "/api/tasks", params=params)
            found += [view for view in page if view["id"] >= first_id]
            if len(page) < TASKS_PER_PAGE or page[-1]["id"] <= first_id:
                return found
            params["after"] = page[-1]["id"]

    async def follow(self, task_id: int) -> AsyncIterator[dict[str, Any]]:
        """Yield the updates of a task, until the final one."""
        url = f"{self._socket_url}/ws/tasks/{task_id}"
        try:
            async with connect(url, max_size=EVENT_BYTES_MAX, proxy=None, open_timeout=REQUEST_SECONDS) as socket:
                async for message in socket:
                    event = json.loads(message)
                    if event["event"] == "error":
                        raise DemoError(f"task {task_id} cannot be followed: {event['data']['message']}")
                    if event["event"] == "task_update":
                        yield event["data"]
                    for update in event["data"].get("tasks", ()):  # a snapshot
                        yield update
        except (WebSocketException, OSError) as error:
            raise DemoError(f"the WebSocket of task {task_id} broke: {error}") from error

    async def _call(self, method: str, path: str, **arguments: Any) -> Any:
        try:
            response = await self._http.request(method, path, **arguments)
        except httpx.HTTPError as error:
            raise DemoError(f"{method} {path} got no answer: {error!r}") from error
        if response.is_error:
            raise DemoError(f"{method} {path} was answered with {response.status_code}: {_problem(response)}")
        return response.json()


def _problem(response: httpx.Response) -> str:
    with contextlib.suppress(ValueError, KeyError, TypeError):
        return str(response.json()["detail"])
    return response.text[:200]
