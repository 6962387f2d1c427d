"""Live streams at the gateway as server-sent events."""

import asyncio
import socket
import time

import pytest

from headrace.v1.task_pb2 import Submission, TaskStatus
from servicekit.errors import Unavailable
from tests.support.fake_management import FakeManagement
from tests.support.live import Publisher, open_events
from tests.support.running_gateway import RunningGateway
from tests.support.waiting import wait_until

PROCESSING = TaskStatus.TASK_STATUS_PROCESSING
COMPLETED = TaskStatus.TASK_STATUS_COMPLETED


async def test_a_task_is_told_to_its_end_and_eventsource_does_not_come_back_for_more(
    running: RunningGateway, publisher: Publisher
) -> None:
    path = "/api/tasks/7/events"
    async with open_events(running.client, path) as events:
        headers = events.response.headers
        assert headers["content-type"].startswith("text/event-stream")
        assert (headers["cache-control"], headers["x-accel-buffering"]) == ("no-store", "no")
        assert headers["x-request-id"]
        [task] = (await events.event("snapshot"))["tasks"]
        assert (task["id"], task["status"]) == (7, "queued")
        await publisher.move(7, PROCESSING)
        assert (await events.event("task_update"))["status"] == "processing"
        await publisher.move(7, COMPLETED, result=b'{"a":\r\n [1,\n2]}')
        assert (await events.event("task_update"))["result"] == {"a": [1, 2]}
        assert await events.ended()
        assert (events.last_id, events.retry) == ("end", 2000)
    again = await running.client.get(path, headers={"Last-Event-ID": events.last_id})
    assert (again.status_code, again.content) == (204, b"")
    await running.client.post("/api/tasks/7/retry")
    async with open_events(running.client, path, last_id="end") as events:
        assert (await events.event("snapshot"))["tasks"][0]["status"] == "queued"
    await wait_until(lambda: not len(running.gateway.hub) and not running.gateway.live.event_streams)


async def test_tasks_are_told_by_a_filter(
    running: RunningGateway, publisher: Publisher, management: FakeManagement
) -> None:
    management.store(Submission(task_id=8, type="word_count", data=b"{}", pool="cpu"))
    async with open_events(running.client, "/api/events?type=word_count&type=noop&status=completed") as events:
        assert (await events.event("snapshot"))["tasks"] == []
        await publisher.move(8, PROCESSING)
        await publisher.move(8, COMPLETED)
        assert (await events.event("task_update"))["revision"] == 3


@pytest.mark.parametrize(
    ("path", "headers", "status", "code", "field"),
    [
        ("/api/tasks/999/events", {}, 404, "task_not_found", None),
        ("/api/tasks/x/events", {}, 422, "invalid_id", "id"),
        ("/api/tasks/7/events?status=queued", {}, 422, "invalid_parameter", "status"),
        ("/api/tasks/7/events", {"Last-Event-ID": "7"}, 422, "invalid_cursor", "Last-Event-ID"),
        ("/api/events?id=999", {}, 404, "task_not_found", None),
        ("/api/events?stauts=queued", {}, 422, "invalid_parameter", "stauts"),
        ("/api/events?cursor=1", {}, 422, "invalid_cursor", "cursor"),
        ("/api/events", {"Last-Event-ID": "end"}, 422, "invalid_cursor", "Last-Event-ID"),
        ("/api/events?" + "&".join(f"id={number}" for number in range(1, 1_002)), {}, 422, "invalid_parameter", "id"),
        ("/api/events?type=" + "x" * 30_000, {}, 414, "uri_too_long", None),
    ],
)
async def test_what_is_wrong_before_the_stream_is_an_ordinary_answer(
    running: RunningGateway,
    publisher: Publisher,
    path: str,
    headers: dict[str, str],
    status: int,
    code: str,
    field: str | None,
) -> None:
    response = await running.client.get(path, headers=headers)
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert (response.status_code, problem["code"]) == (status, code)
    assert [error["field"] for error in problem["errors"]] == ([field] if field else [])


async def test_while_management_is_away_a_stream_does_not_begin(
    running: RunningGateway, publisher: Publisher, management: FakeManagement
) -> None:
    management.failures["ListTasks"] = Unavailable("no database", code="database_unavailable")
    response = await running.client.get("/api/events")
    assert (response.status_code, response.json()["code"]) == (503, "database_unavailable")
    assert response.headers["retry-after"]


async def test_a_cursor_that_is_not_known_leads_to_a_fresh_snapshot(
    running: RunningGateway, publisher: Publisher
) -> None:
    async with open_events(running.client, "/api/events?cursor=2-2.0.0", last_id="1-1.0.0") as events:
        assert await events.event("reset") == {"reason": "events_missed"}
        assert len((await events.event("snapshot"))["tasks"]) == 1
        assert events.last_id == ""


async def test_a_silent_stream_shows_that_it_lives(
    running: RunningGateway, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("servicekit.live.session.IDLE_SECONDS", 0.05)
    async with open_events(running.client, "/api/events") as events:
        await events.event("snapshot")
        listening = asyncio.create_task(events.hear())
        await wait_until(lambda: events.comments >= 3)
        await publisher.move(7, PROCESSING)
        assert (await listening)[0] == "task_update"


async def test_a_drain_ends_streams_with_a_word_and_does_not_wait_for_them(
    running: RunningGateway, publisher: Publisher
) -> None:
    async with (
        open_events(running.client, "/api/events") as everything,
        open_events(running.client, "/api/tasks/7/events") as one,
    ):
        await everything.event("snapshot")
        await one.event("snapshot")
        started = time.monotonic()
        draining = asyncio.create_task(running.drain())
        for events in (everything, one):
            assert (await events.event("error"))["code"] == "restarting"
            assert await events.ended()
        await draining
        assert time.monotonic() - started < 3


async def test_a_stream_is_counted_as_answered_when_it_begins(
    running: RunningGateway, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("servicekit.live.session.IDLE_SECONDS", 0.05)
    async with open_events(running.client, "/api/events") as events:
        await events.event("snapshot")
        began = time.monotonic()
        assert "headrace_event_streams_open 1" in (await running.client.get("/metrics")).text
        listening = asyncio.create_task(events.hear())
        await wait_until(lambda: events.comments >= 10)
        listening.cancel()
        lasted = time.monotonic() - began
    await wait_until(lambda: not running.gateway.live.event_streams)
    await wait_until(lambda: running.gateway.metrics.requests["GET", "/api/events", 200])
    assert 0 < running.gateway.metrics.seconds["/api/events"] < lasted


@pytest.mark.parametrize("path", ["/api/events", "/api/tasks/7/events"])
async def test_a_client_that_reads_nothing_is_cut_off(
    running: RunningGateway, publisher: Publisher, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setattr("servicekit.live.sse.SEND_SECONDS", 0.2)
    with socket.socket() as receiver:
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        receiver.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(receiver, ("127.0.0.1", running.port))
        await loop.sock_sendall(receiver, f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        await wait_until(lambda: running.gateway.live.event_streams)
        for number in range(1, 3_000):
            await publisher.progress(7, number, 0.5, "x" * 3_000)
            if not running.gateway.live.event_streams:
                break
        await wait_until(lambda: not running.gateway.live.event_streams)
        # The connection is gone, not only the stream: nothing waits for this client.
        await wait_until(lambda: len(running.server.server_state.connections) == 0)
