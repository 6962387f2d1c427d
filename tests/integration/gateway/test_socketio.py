"""Live streams at the gateway for real Socket.IO clients: the JavaScript one, over WebSocket and polling."""

import asyncio
from typing import Any

import pytest

from headrace.v1.task_pb2 import Submission, TaskStatus
from tests.support.fake_management import FakeManagement
from tests.support.javascript import Listener, javascript_client
from tests.support.live import Publisher
from tests.support.running_gateway import RunningGateway
from tests.support.waiting import wait_until

PROCESSING = TaskStatus.TASK_STATUS_PROCESSING
COMPLETED = TaskStatus.TASK_STATUS_COMPLETED
FIELDS = {"id", "type", "status", "result", "result_url", "error", "attempt", "revision", "progress", "at"}
TOLD = ("snapshot", "reset", "task_update", "error", "disconnect", "connect_error")
WEBSOCKET = {"transports": ["websocket"]}
POLLING = {"transports": ["polling"]}


def url(running: RunningGateway, namespace: str = "/") -> str:
    return f"http://127.0.0.1:{running.port}{namespace}"


def nobody_listens(running: RunningGateway) -> bool:
    return not len(running.gateway.hub) and not len(running.gateway.socketio)


async def update(listener: Listener) -> dict[str, Any]:
    """The data of the next thing heard, which is to be an update."""
    heard = await listener.hear(*TOLD)
    assert heard.event == "task_update", listener.all
    data: dict[str, Any] = heard.args[0]
    return data


async def snapshot(listener: Listener) -> list[int]:
    """The tasks of the snapshot that comes first."""
    heard = await listener.hear(*TOLD)
    assert heard.event == "snapshot", listener.all
    return [task["id"] for task in heard.args[0]["tasks"]]


@pytest.mark.parametrize("options", [WEBSOCKET, POLLING, {}], ids=["websocket", "polling", "upgrading"])
async def test_a_namespace_is_told_of_its_task_type(
    running: RunningGateway, publisher: Publisher, management: FakeManagement, options: dict[str, Any]
) -> None:
    management.store(Submission(task_id=8, type="resize", data=b"{}", pool="io"))
    async with javascript_client(url(running, "/noop"), options=options) as listener:
        await listener.hear("connect")
        heard = await listener.hear("snapshot")
        data = heard.args[0]
        assert ([task["id"] for task in data["tasks"]], data["more"], data["missing"]) == ([7], False, [])
        await publisher.move(8, PROCESSING)
        await publisher.move(7, PROCESSING)
        first = await update(listener)
        assert (first["id"], first["status"], first["revision"]) == (7, "processing", 2)
        await publisher.progress(7, 1, 0.5, "half")
        assert (await update(listener))["progress"] == {"n": 1, "fraction": 0.5, "message": "half"}
        await publisher.move(7, COMPLETED, result=b"[1]")
        final = await update(listener)
        assert (final["status"], final["result"]) == ("completed", [1])
        assert set(final) == FIELDS
        transports = [heard.args[0] for heard in listener.all if heard.event in ("connect", "upgrade")]
        assert transports[-1] == options.get("transports", ["websocket"])[0]
        await listener.tell("leave")
        await listener.hear("disconnect")
        await wait_until(lambda: nobody_listens(running))


async def test_the_root_namespace_is_told_of_all_types(
    running: RunningGateway, publisher: Publisher, management: FakeManagement
) -> None:
    management.store(Submission(task_id=8, type="word_count", data=b"{}", pool="cpu"))
    async with javascript_client(url(running), options=WEBSOCKET) as listener:
        await listener.hear("connect")
        assert await snapshot(listener) == [8, 7]
        await publisher.move(7, PROCESSING)
        await publisher.move(8, PROCESSING)
        assert [(await update(listener))["type"] for _ in range(2)] == ["noop", "word_count"]


async def test_a_path_that_names_a_type_is_told_of_it_in_the_root_namespace(
    running: RunningGateway, publisher: Publisher, management: FakeManagement
) -> None:
    management.store(Submission(task_id=8, type="word_count", data=b"{}", pool="cpu"))
    for options in (WEBSOCKET, POLLING, {}):
        path = {**options, "path": "/socket.io/word_count"}
        async with javascript_client(url(running), options=path) as listener:
            await listener.hear("connect")
            assert await snapshot(listener) == [8]
    async with javascript_client(url(running, "/noop"), options=path) as listener:
        assert (await listener.hear("connect_error")).args[1]["code"] == "invalid_namespace"


async def test_a_raw_websocket_shares_the_path(running: RunningGateway, publisher: Publisher) -> None:
    address = f"ws://127.0.0.1:{running.port}/socket.io/noop"
    async with javascript_client(address, raw=True) as listener:
        await listener.hear("connect")
        assert (await listener.hear("message")).args[0]["event"] == "snapshot"
        await publisher.move(7, PROCESSING)
        [message] = (await listener.hear("message")).args
        assert (message["event"], message["data"]["status"]) == ("task_update", "processing")
        await listener.tell("leave")
        assert (await listener.hear("disconnect")).args[0] in (1000, 1005)


async def test_what_is_wanted_is_said_when_connecting_and_changed_later(
    running: RunningGateway, publisher: Publisher, management: FakeManagement
) -> None:
    for task_id in (8, 9):
        management.store(Submission(task_id=task_id, type="noop", data=b"{}", pool="io"))
    wish = {"ids": [7, 8], "statuses": ["queued", "completed"]}
    async with javascript_client(url(running, "/noop"), options=WEBSOCKET, auth=wish) as listener:
        await listener.hear("connect")
        assert await snapshot(listener) == [8, 7]
        await publisher.move(7, PROCESSING)
        await publisher.move(9, COMPLETED)
        await publisher.move(7, COMPLETED)
        assert (await update(listener))["status"] == "completed"
        await listener.tell("ask", "subscribe", {"ids": [8, 8, 404]})
        assert (await listener.hear()).args == [{"ok": True}]
        heard = await listener.hear("snapshot")
        assert ([task["id"] for task in heard.args[0]["tasks"]], heard.args[0]["missing"]) == ([8], [404])
        await publisher.move(8, PROCESSING)
        assert (await update(listener))["id"] == 8
        await listener.tell("ask", "subscribe", {"statuses": ["weird"]})
        [answer] = (await listener.hear("ack")).args
        assert (answer["ok"], answer["error"]["code"], answer["error"]["field"]) == (
            False,
            "invalid_filter",
            "/statuses/0",
        )
        await publisher.move(8, COMPLETED)
        assert (await update(listener))["status"] == "completed"


async def test_a_connection_that_is_refused_says_why(running: RunningGateway, publisher: Publisher) -> None:
    async with javascript_client(url(running, "/absent"), options=WEBSOCKET) as listener:
        message, data = (await listener.hear("connect_error")).args
        assert "There is no task type 'absent'" in message
        assert data == {"code": "invalid_namespace", "message": message}
    await wait_until(lambda: nobody_listens(running))


async def test_a_task_that_does_not_exist_ends_its_namespace(running: RunningGateway, publisher: Publisher) -> None:
    async with javascript_client(url(running), options=WEBSOCKET, auth={"ids": [404]}) as listener:
        [error, _] = (await listener.hear("error")).args
        assert error["code"] == "task_not_found"
        assert (await listener.hear("disconnect")).args == ["io server disconnect"]


@pytest.mark.parametrize("options", [WEBSOCKET, POLLING], ids=["websocket", "polling"])
async def test_a_gateway_that_stops_says_so_and_its_clients_come_back(
    running: RunningGateway, publisher: Publisher, options: dict[str, Any]
) -> None:
    async with javascript_client(url(running, "/noop"), options=options) as listener:
        await listener.hear("snapshot")
        started = asyncio.get_running_loop().time()
        await running.drain()
        assert asyncio.get_running_loop().time() - started < 3
        [error, _] = (await listener.hear("error")).args
        assert error["code"] == "restarting"
        # Not "io server disconnect", after which a client stays away.
        assert (await listener.hear("disconnect")).args == ["transport close"]
        assert (await listener.hear("connect_error")).args[1] is None


async def test_a_client_that_was_away_hears_what_it_missed(running: RunningGateway, publisher: Publisher) -> None:
    async with javascript_client(url(running, "/noop"), options=WEBSOCKET, resume=True) as listener:
        await listener.hear("snapshot")
        await publisher.move(7, PROCESSING)
        assert (await listener.hear("task_update")).args[1] is not None
        await listener.tell("leave")
        await listener.hear("disconnect")
        await publisher.move(7, COMPLETED)
        await listener.tell("return")
        missed = await update(listener)
        assert (missed["status"], missed["revision"]) == ("completed", 3)
