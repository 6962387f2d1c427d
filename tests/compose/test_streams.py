"""Live streams through the proxy, with more than one gateway behind it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.compose.conftest import SIZES
from tests.compose.stack import Stack
from tests.support.api import Api
from tests.support.javascript import javascript_client
from tests.support.live import open_events, open_socket
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300)]

GATEWAYS = 3
WORDS = {"text": "one two"}


@pytest_asyncio.fixture(loop_scope="session")
async def gateways(stack: Stack, api: Api) -> AsyncIterator[None]:
    """Several, all of them asked by the proxy."""
    await stack.scale("gateway", GATEWAYS)
    await stack.wait_healthy("gateway", GATEWAYS)
    yield
    await stack.scale("gateway", SIZES["gateway"])
    await stack.wait_healthy("gateway", SIZES["gateway"])


@pytest.mark.parametrize("transports", [["websocket"], ["polling"], ["polling", "websocket"]], ids="-".join)
async def test_pages_follow_a_type_whichever_gateways_their_requests_meet(
    stack: Stack, api: Api, gateways: None, transports: list[str]
) -> None:
    async with contextlib.AsyncExitStack() as open_pages:
        pages = [
            await open_pages.enter_async_context(
                javascript_client(f"{stack.url}/word_count", options={"transports": transports})
            )
            for _ in range(2 * GATEWAYS)
        ]
        for page in pages:
            await page.hear("snapshot")
        task_id = await api.submit("word_count", WORDS)
        for page in pages:
            revisions = []
            async with asyncio.timeout(30):
                status = ""
                while status != "completed":
                    update: dict[str, Any] = (await page.hear("task_update")).args[0]
                    if update["id"] == task_id:
                        status = update["status"]
                        revisions.append(update["revision"])
            assert revisions == list(range(1, len(revisions) + 1))


async def test_a_stream_goes_on_at_another_gateway_where_it_ended(stack: Stack, api: Api, gateways: None) -> None:
    """Cut off with its gateway, a client comes back with its cursor: nothing is missing, nothing comes twice."""
    told: list[tuple[int, int]] = []
    ids: list[int] = []
    async with open_socket(stack.port, "/ws/tasks?type=noop") as socket:
        await socket.event("snapshot")
        cursor = ""
        ids += await api.submit_many([{"type": "noop", "data": {}}] * 20)
        while len({task_id for task_id, _ in told}) < len(ids):
            message = await socket.hear()
            told.append((message["data"]["id"], message["data"]["revision"]))
            cursor = message["cursor"] or cursor
        for container in await stack.containers("gateway"):
            await stack.crash(container)
        await socket.closed()

    async def is_back() -> bool:
        return (await api.http.get("/readyz")).status_code == 200

    await wait_until(is_back, timeout=60)
    ids += await api.submit_many([{"type": "noop", "data": {}}] * 20)
    finals = {task["id"]: task["revision"] for task in await api.finals(ids)}
    async with open_socket(stack.port, f"/ws/tasks?type=noop&cursor={cursor}") as socket:
        while {task_id: max(n for t, n in told if t == task_id) for task_id, _ in told} != finals:
            update = await socket.update()
            told.append((update["id"], update["revision"]))
    expected = sorted((task_id, n) for task_id, last in finals.items() for n in range(1, last + 1))
    assert sorted(told) == expected
    await stack.wait_healthy("gateway", GATEWAYS)


async def test_events_come_as_they_happen(stack: Stack, api: Api, gateways: None) -> None:
    """The proxy holds nothing back: each report of progress is heard before the next is made."""
    task_id = await api.submit("progress", {"steps": 4, "seconds_each": 1.0})
    heard_at: list[float] = []
    async with open_events(api.http, f"/api/tasks/{task_id}/events") as events:
        with contextlib.suppress(StopAsyncIteration):
            while True:
                name, update = await events.hear()
                if name == "task_update" and update["progress"]:
                    heard_at.append(asyncio.get_running_loop().time())
    assert heard_at[-1] - heard_at[0] > 1.5
