"""Live streams at the gateway over raw WebSockets: what they tell, and how they end."""

import asyncio
import json
import time

import pytest
import redis.asyncio
from websockets.exceptions import InvalidStatus

from headrace.v1.task_pb2 import Submission, TaskStatus, TaskUpdate
from servicekit import redis_keys
from servicekit.errors import Unavailable
from tests.support.fake_management import FakeManagement
from tests.support.live import Publisher, open_socket
from tests.support.running_gateway import RunningGateway
from tests.support.waiting import wait_until

QUEUED = TaskStatus.TASK_STATUS_QUEUED
PROCESSING = TaskStatus.TASK_STATUS_PROCESSING
COMPLETED = TaskStatus.TASK_STATUS_COMPLETED
FIELDS = {"id", "type", "status", "result", "result_url", "error", "attempt", "revision", "progress", "at"}


def store(management: FakeManagement, *task_ids: int, type_name: str = "noop") -> None:
    for task_id in task_ids:
        management.store(Submission(task_id=task_id, type=type_name, data=b"{}", pool="io"))


async def test_a_task_is_told_from_its_state_to_its_end(running: RunningGateway, publisher: Publisher) -> None:
    async with open_socket(running.port, "/ws/tasks/7") as socket:
        first = await socket.hear()
        assert (first["event"], first["cursor"]) == ("snapshot", None)
        assert (first["data"]["more"], first["data"]["missing"]) == (False, [])
        [task] = first["data"]["tasks"]
        assert (task["id"], task["type"], task["status"], task["revision"]) == (7, "noop", "queued", 1)
        await publisher.move(7, PROCESSING)
        assert (await socket.update())["status"] == "processing"
        await publisher.progress(7, 1, 0.5, "half")
        assert (await socket.update())["progress"] == {"n": 1, "fraction": 0.5, "message": "half"}
        await publisher.move(7, COMPLETED, result=b"[1]")
        final = await socket.update()
        assert (final["status"], final["result"], final["result_url"]) == ("completed", [1], None)
        assert set(final) == set(task) == FIELDS
        assert await socket.closed() == 1000
    await wait_until(lambda: not len(running.gateway.hub) and not running.gateway.live.sockets)


async def test_the_stream_of_a_finished_task_is_its_state(running: RunningGateway, publisher: Publisher) -> None:
    await publisher.move(7, COMPLETED, result=b'"' + b"x" * 5_000 + b'"')
    async with open_socket(running.port, "/ws/tasks/7") as socket:
        [task] = await socket.snapshot()
        assert (task["status"], task["result"], task["result_url"]) == ("completed", None, "/api/tasks/7")
        assert await socket.closed() == 1000


async def test_a_task_that_is_not_stored_yet_is_queued(
    running: RunningGateway, publisher: Publisher, store: redis.asyncio.Redis
) -> None:
    await store.zadd(redis_keys.UNSTORED, {redis_keys.marker(8, 9): 9})
    async with open_socket(running.port, "/ws/tasks/8") as socket:
        [task] = await socket.snapshot()
        assert (task["status"], task["revision"], task["type"]) == ("queued", 0, None)
    async with open_socket(running.port, "/ws/tasks?id=7&id=8&id=9&id=10") as socket:
        data = await socket.event("snapshot")
        assert [(task["id"], task["revision"]) for task in data["tasks"]] == [(7, 1), (9, 0), (8, 0)]
        assert data["missing"] == [10]


@pytest.mark.parametrize(
    ("path", "code", "word", "field"),
    [
        ("/ws/tasks/999", 4404, "task_not_found", None),
        ("/ws/tasks/abc", 4422, "invalid_id", "id"),
        ("/ws/tasks/0", 4422, "invalid_id", "id"),
        ("/ws/tasks/7?type=noop", 4422, "invalid_parameter", "type"),
        ("/ws/tasks/7?cursor=x", 4422, "invalid_cursor", "cursor"),
        ("/ws/tasks?id=999", 4404, "task_not_found", None),
        ("/ws/tasks?statuss=queued", 4422, "invalid_parameter", "statuss"),
        ("/ws/tasks?status=weird", 4422, "invalid_parameter", "status"),
        ("/ws/tasks?type=", 4422, "invalid_parameter", "type"),
        ("/ws/tasks?type=%00", 4422, "invalid_parameter", "type"),
        ("/ws/tasks?id=*", 4422, "invalid_parameter", "id"),
        ("/ws/tasks?id=1.5", 4422, "invalid_parameter", "id"),
        ("/ws/tasks?id=99999999999999999999", 4422, "invalid_parameter", "id"),
        ("/ws/tasks?cursor=1-1.1.1&cursor=1-1.1.1", 4422, "invalid_parameter", "cursor"),
        ("/ws/tasks?" + "&".join(f"id={number}" for number in range(1, 1_002)), 4422, "invalid_parameter", "id"),
        ("/socket.io/nope", 4404, "unknown_task_type", None),
        ("/socket.io/noop?type=noop", 4422, "invalid_parameter", "type"),
    ],
)
async def test_a_socket_of_nothing_says_why(
    running: RunningGateway, publisher: Publisher, path: str, code: int, word: str, field: str | None
) -> None:
    async with open_socket(running.port, path) as socket:
        error = await socket.event("error")
        assert (error["code"], error["ref"], error.get("field")) == (word, None, field)
        assert await socket.closed() == code


@pytest.mark.parametrize(
    ("path", "headers"), [("/ws/tasks?type=" + "x" * 9_000, {}), ("/ws/tasks", {f"X-{n}": "1" for n in range(200)})]
)
async def test_a_handshake_beyond_the_bounds_is_refused(
    running: RunningGateway, path: str, headers: dict[str, str]
) -> None:
    with pytest.raises(InvalidStatus) as caught:
        async with open_socket(running.port, path, additional_headers=headers):
            pass
    assert caught.value.response.status_code == 431
    assert json.loads(caught.value.response.body or b"")["code"] == "headers_too_large"


async def test_tasks_are_told_by_a_filter(
    running: RunningGateway, publisher: Publisher, management: FakeManagement
) -> None:
    store(management, 8, type_name="word_count")
    store(management, 9)
    async with (
        open_socket(running.port, "/ws/tasks") as everything,
        open_socket(running.port, "/ws/tasks?type=noop&status=processing&status=completed") as some,
        open_socket(running.port, "/socket.io/word_count") as of_type,
    ):
        assert [task["id"] for task in await everything.snapshot()] == [9, 8, 7]
        assert await some.snapshot() == []
        assert [task["id"] for task in await of_type.snapshot()] == [8]
        await publisher.move(8, PROCESSING)
        await publisher.move(9, PROCESSING)
        await publisher.move(8, COMPLETED)
        assert [(await everything.update())["id"] for _ in range(3)] == [8, 9, 8]
        assert (await some.update())["id"] == 9
        assert [(await of_type.update())["status"] for _ in range(2)] == ["processing", "completed"]


async def test_a_filter_is_replaced_at_run_time(
    running: RunningGateway, publisher: Publisher, management: FakeManagement
) -> None:
    store(management, 8, 9)
    async with open_socket(running.port, "/ws/tasks?id=7") as socket:
        await socket.snapshot()
        answer = await socket.subscribe("a", ids=[8, 9, 9])
        assert answer["event"] == "subscribed"
        assert answer["data"] == {"ref": "a", "filter": {"types": None, "statuses": None, "ids": [8, 9]}}
        assert {task["id"] for task in await socket.snapshot()} == {8, 9}
        await publisher.move(7, PROCESSING)
        await publisher.move(8, PROCESSING)
        assert (await socket.update())["id"] == 8
        await socket.say({"type": "unsubscribe", "ref": "b"})
        assert await socket.event("subscribed") == {"ref": "b", "filter": None}
        await publisher.move(9, PROCESSING)
        await socket.subscribe("c", types=["noop"], statuses=["completed"])
        assert await socket.snapshot() == []
        await publisher.move(9, COMPLETED)
        assert (await socket.update())["revision"] == 3


async def test_a_subscription_that_fails_leaves_the_connection_to_the_next(
    running: RunningGateway, publisher: Publisher, management: FakeManagement
) -> None:
    async with open_socket(running.port, "/ws/tasks?id=7") as socket:
        await socket.snapshot()
        await socket.subscribe("a", ids=[999])
        error = await socket.event("error")
        assert (error["code"], error["ref"]) == ("task_not_found", "a")
        management.failures["GetTask"] = Unavailable("no database", code="database_unavailable")
        await socket.subscribe("b", ids=[7])
        assert (await socket.event("error"))["code"] == "database_unavailable"
        management.failures.clear()
        await socket.subscribe("c", ids=[7])
        assert [task["id"] for task in await socket.snapshot()] == [7]


async def test_the_streams_of_one_task_and_of_one_type_stay_what_they_are(
    running: RunningGateway, publisher: Publisher
) -> None:
    async with (
        open_socket(running.port, "/ws/tasks/7") as one,
        open_socket(running.port, "/socket.io/noop") as of_type,
    ):
        await one.snapshot()
        await of_type.snapshot()
        assert (await one.subscribe())["data"]["code"] == "filter_is_fixed"
        assert (await of_type.subscribe(types=["word_count"]))["data"]["code"] == "filter_is_fixed"
        answer = await of_type.subscribe(statuses=["queued"])
        assert answer["data"]["filter"] == {"types": ["noop"], "statuses": ["queued"], "ids": None}


async def test_a_cursor_that_is_not_known_leads_to_a_fresh_snapshot(
    running: RunningGateway, publisher: Publisher
) -> None:
    async with open_socket(running.port, "/ws/tasks?cursor=1-1.0.0") as socket:
        assert await socket.event("reset") == {"reason": "events_missed"}
        assert [task["id"] for task in await socket.snapshot()] == [7]


async def test_while_management_is_away_a_socket_is_asked_to_come_later(
    running: RunningGateway, publisher: Publisher, management: FakeManagement
) -> None:
    management.failures["ListTasks"] = Unavailable("no database", code="database_unavailable")
    async with open_socket(running.port, "/ws/tasks") as socket:
        assert (await socket.event("error"))["code"] == "database_unavailable"
        assert await socket.closed() == 1013


@pytest.mark.parametrize("origin", ["https://elsewhere.example", "null", "http://127.0.0.1.elsewhere.example"])
async def test_a_page_of_another_site_cannot_listen_in(
    running: RunningGateway, publisher: Publisher, origin: str
) -> None:
    for path in ("/ws/tasks/7", "/ws/tasks", "/socket.io/noop"):
        with pytest.raises(InvalidStatus) as caught:
            async with open_socket(running.port, path, origin=origin):
                pass
        assert caught.value.response.status_code == 403


@pytest.mark.parametrize("path", ["/ws/tasks/7", "/ws/tasks", "/socket.io/noop"])
async def test_a_client_that_speaks_another_protocol_is_told_so(
    running: RunningGateway, publisher: Publisher, path: str
) -> None:
    with pytest.raises(InvalidStatus) as caught:
        async with open_socket(running.port, path, subprotocols=["mqtt"]):
            pass
    response = caught.value.response
    assert (response.status_code, json.loads(response.body)["code"]) == (400, "unknown_subprotocol")


async def test_a_page_of_our_own_listens(running: RunningGateway, publisher: Publisher) -> None:
    async with open_socket(running.port, "/ws/tasks/7", origin=f"http://127.0.0.1:{running.port}") as socket:
        assert len(await socket.snapshot()) == 1


async def test_a_client_that_leaves_leaves_nothing_behind(running: RunningGateway, publisher: Publisher) -> None:
    async with open_socket(running.port, "/ws/tasks/7") as socket:
        await socket.snapshot()
        assert len(running.gateway.hub) == len(running.gateway.live.sockets) == 1
    await wait_until(lambda: not len(running.gateway.hub) and not running.gateway.live.sockets)


async def test_a_drain_closes_sockets_with_restart(running: RunningGateway, publisher: Publisher) -> None:
    async with (
        open_socket(running.port, "/ws/tasks/7") as one,
        open_socket(running.port, "/ws/tasks") as silent,
    ):
        await one.snapshot()
        await silent.snapshot()
        await silent.say({"type": "unsubscribe"})
        await silent.event("subscribed")
        running.gateway.draining = True
        assert (await silent.subscribe("a"))["data"] == {
            "code": "draining",
            "message": "The service restarts; connect again.",
            "retry_after": 1.0,
            "ref": "a",
        }
        started = time.monotonic()
        await asyncio.gather(running.drain(), one.closed(), silent.closed())
        assert time.monotonic() - started < 3
        assert one.connection.close_code == silent.connection.close_code == 1012


async def test_an_update_is_told_once_and_in_order(running: RunningGateway, publisher: Publisher) -> None:
    async with open_socket(running.port, "/ws/tasks") as socket:
        await socket.snapshot()
        for revision in (1, 3, 3, 2, 4):
            status = COMPLETED if revision == 4 else PROCESSING
            await publisher.publish(TaskUpdate(task_id=7, type="noop", status=status, revision=revision))
        assert [(await socket.update())["revision"] for _ in range(3)] == [2, 3, 4]


async def test_equal_snapshots_asked_for_at_once_are_one_read(
    running: RunningGateway, publisher: Publisher, management: FakeManagement
) -> None:
    gate = management.gates["ListTasks"] = asyncio.Event()
    sockets = [
        asyncio.create_task(_first_of(running.port, f"/ws/tasks?status=queued&type={name}"))
        for name in ["noop"] * 12 + ["word_count"] * 12
    ]
    await wait_until(lambda: len(running.gateway.hub) == 24)
    gate.set()
    told = [json.loads(text) for text in await asyncio.gather(*sockets)]
    assert [len(each["data"]["tasks"]) for each in told] == [1] * 12 + [0] * 12
    # Those that came while a read was on its way share the next one.
    assert management.calls["ListTasks"] <= 12


async def _first_of(port: int, path: str) -> str:
    async with open_socket(port, path) as socket:
        return str(await socket.connection.recv())
