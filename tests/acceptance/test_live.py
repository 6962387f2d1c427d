"""Live streams as users see them: at the gateway over WebSocket and as events, and at the replicas."""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from headrace.local.cluster import LocalCluster
from tests.support.api import FINAL, Api
from tests.support.live import Socket, open_events, open_socket

TASKS = 40


@pytest.fixture
async def api(cluster: LocalCluster) -> AsyncIterator[Api]:
    async with Api(cluster.gateway_url) as api:
        yield api


def port_of(url: str) -> int:
    port = httpx.URL(url).port
    assert port is not None
    return port


async def told_until_ended(socket: Socket, task_ids: set[int]) -> dict[int, list[dict[str, Any]]]:
    """What is told of these tasks, until each has ended."""
    told: dict[int, list[dict[str, Any]]] = defaultdict(list)
    async with asyncio.timeout(60):
        while {task_id for task_id, updates in told.items() if updates[-1]["status"] in FINAL} < task_ids:
            update = await socket.update()
            if update["id"] in task_ids:
                told[update["id"]].append(update)
    return told


async def test_every_change_of_every_task_is_told_in_order(cluster: LocalCluster, api: Api) -> None:
    async with (
        open_socket(port_of(cluster.gateway_url), "/ws/tasks?type=noop") as socket,
        open_socket(port_of(cluster.gateway_url), "/socket.io/noop?status=completed") as ends,
    ):
        await socket.event("snapshot")
        await ends.event("snapshot")
        ids = await api.submit_many([{"type": "noop", "data": {"n": n}} for n in range(TASKS)])
        told = await told_until_ended(socket, set(ids))
        for task_id, updates in told.items():
            revisions = [update["revision"] for update in updates]
            assert revisions == list(range(1, len(revisions) + 1)), (task_id, updates)
            assert [update["status"] in FINAL for update in updates] == [False] * (len(updates) - 1) + [True]
        assert {updates[-1]["result"]["n"] for updates in told.values()} == set(range(TASKS))
        assert {
            task_id: len(each) for task_id, each in (await told_until_ended(ends, set(ids))).items()
        } == dict.fromkeys(ids, 1)


async def test_a_client_follows_what_it_asks_for_at_run_time(cluster: LocalCluster, api: Api) -> None:
    async with open_socket(port_of(cluster.gateway_url), "/ws/tasks?status=cancelled") as socket:
        await socket.event("snapshot")
        task_id = await api.submit("progress", {"steps": 4, "seconds_each": 0.3})
        other = await api.submit("noop", {}, delay=3600)
        answer = await socket.subscribe("mine", ids=[task_id, other])
        assert answer["data"]["ref"] == "mine"
        assert {task["id"] for task in await socket.snapshot()} == {task_id, other}
        told = await told_until_ended(socket, {task_id})
        fractions = [update["progress"]["fraction"] for update in told[task_id] if update["progress"]]
        assert fractions == sorted(fractions)
        assert len(fractions) >= 2
        await socket.subscribe("ends", statuses=["cancelled"], ids=[other, task_id])
        assert await socket.snapshot() == []
        await api.http.delete(f"/api/tasks/{other}")
        assert (await socket.update())["status"] == "cancelled"


async def test_a_task_is_followed_by_events_to_its_end(cluster: LocalCluster, api: Api) -> None:
    task_id = await api.submit("progress", {"steps": 3, "seconds_each": 0.2})
    path = f"/api/tasks/{task_id}/events"
    async with open_events(api.http, path) as events:
        heard = [await events.hear()]
        with contextlib.suppress(StopAsyncIteration):
            while True:
                heard.append(await events.hear())
    assert heard[0][0] == "snapshot"
    assert {name for name, _ in heard[1:]} == {"task_update"}
    assert (heard[-1][1]["status"], heard[-1][1]["result"]) == ("completed", 3)
    assert (await api.http.get(path, headers={"Last-Event-ID": events.last_id})).status_code == 204


async def test_the_replica_that_runs_a_task_tells_of_it(cluster: LocalCluster, api: Api) -> None:
    replicas = [entry for entry in cluster.processes if entry.role == "execution"]
    assert len(replicas) == 2
    async with contextlib.AsyncExitStack() as stack:
        sockets = [
            await stack.enter_async_context(
                open_socket(port_of(f"http://{entry.http_address}"), "/ws/tasks?type=progress")
            )
            for entry in replicas
        ]
        for socket in sockets:
            await socket.event("snapshot")
        task_id = await api.submit("progress", {"steps": 3, "seconds_each": 0.2})
        followers = [asyncio.create_task(told_until_ended(socket, {task_id})) for socket in sockets]
        finished, others = await asyncio.wait(followers, return_when=asyncio.FIRST_COMPLETED, timeout=30)
        for other in others:
            other.cancel()
        [follower] = finished
        updates = follower.result()[task_id]
        assert [update["status"] for update in updates] == ["processing"] * (len(updates) - 1) + ["completed"]
        assert updates[-1]["result"] == 3
        await asyncio.gather(*others, return_exceptions=True)
