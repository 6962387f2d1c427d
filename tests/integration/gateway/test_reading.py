import asyncio

import pytest
import redis.asyncio

from headrace.v1.task_pb2 import Attempt, AttemptLog, Outcome, Submission, Task, TaskError, TaskStatus
from servicekit import redis_keys
from servicekit.errors import Unavailable
from tests.support.fake_management import FakeManagement
from tests.support.running_gateway import RunningGateway
from tests.support.waiting import wait_until

COMPLETED = TaskStatus.TASK_STATUS_COMPLETED
PROCESSING = TaskStatus.TASK_STATUS_PROCESSING


def stored(management: FakeManagement, task_id: int = 7, *, status: TaskStatus.ValueType = COMPLETED) -> Task:
    management.store(Submission(task_id=task_id, type="noop", data=b"{}", pool="io"))
    return management.move(task_id, status, result=b'{"n":1}' if status == COMPLETED else b"")


async def mark(store: redis.asyncio.Redis, first: int, last: int) -> None:
    await store.zadd(redis_keys.UNSTORED, {redis_keys.marker(first, last): last})


async def test_an_accepted_task_without_a_row_is_queued(running: RunningGateway, store: redis.asyncio.Redis) -> None:
    await mark(store, 5, 9)
    for task_id, status in ((4, 404), (5, 200), (7, 200), (9, 200), (10, 404)):
        response = await running.client.get(f"/api/tasks/{task_id}")
        assert response.status_code == status
        if status == 200:
            assert (response.json()["status"], response.json()["revision"]) == ("queued", 0)


async def test_the_marker_of_another_flush_covers_nothing(running: RunningGateway, store: redis.asyncio.Redis) -> None:
    await mark(store, 1, 3)
    await mark(store, 10, 20)
    assert (await running.client.get("/api/tasks/5")).status_code == 404


async def test_a_row_wins_over_a_marker(
    running: RunningGateway, store: redis.asyncio.Redis, management: FakeManagement
) -> None:
    await mark(store, 7, 7)
    stored(management)
    assert (await running.client.get("/api/tasks/7")).json()["status"] == "completed"


async def test_a_finished_task_is_kept_by_its_first_read(
    running: RunningGateway, store: redis.asyncio.Redis, management: FakeManagement
) -> None:
    stored(management)
    first = await running.client.get("/api/tasks/7")
    await wait_until(lambda: store.exists(redis_keys.cached_task(7)))
    assert 0 < await store.ttl(redis_keys.cached_task(7)) <= redis_keys.CACHE_SECONDS
    assert (await running.client.get("/api/tasks/7")).json() == first.json()
    assert first.json()["result"] == {"n": 1}
    assert management.calls["GetTask"] == 1


@pytest.mark.parametrize("reason", ["unfinished", "large", "unavailable"])
async def test_what_may_change_or_is_large_is_not_kept(
    running: RunningGateway, store: redis.asyncio.Redis, management: FakeManagement, reason: str
) -> None:
    task = stored(management, status=PROCESSING if reason == "unfinished" else COMPLETED)
    if reason == "large":
        task.result = b'"' + b"x" * 70_000 + b'"'
    task.result_unavailable = reason == "unavailable"
    stored(management, 8)
    answer = (await running.client.get("/api/tasks/7")).json()
    await running.client.get("/api/tasks/8")
    await wait_until(lambda: store.exists(redis_keys.cached_task(8)))
    assert not await store.exists(redis_keys.cached_task(7))
    assert answer["result_unavailable"] is (reason == "unavailable")


async def test_a_tombstone_sends_reads_to_management_and_is_not_overwritten(
    running: RunningGateway, store: redis.asyncio.Redis, management: FakeManagement
) -> None:
    stored(management)
    stored(management, 8)
    await store.set(redis_keys.cached_task(7), redis_keys.TOMBSTONE, ex=60)
    for _ in range(2):
        assert (await running.client.get("/api/tasks/7")).json()["status"] == "completed"
    await running.client.get("/api/tasks/8")
    await wait_until(lambda: store.exists(redis_keys.cached_task(8)))
    assert await store.get(redis_keys.cached_task(7)) == redis_keys.TOMBSTONE


async def test_a_read_that_began_before_a_removal_leaves_nothing_in_the_cache(
    running: RunningGateway, store: redis.asyncio.Redis, management: FakeManagement
) -> None:
    stored(management)
    held = management.gates["GetTask"] = asyncio.Event()
    reading = asyncio.create_task(running.client.get("/api/tasks/7"))
    await wait_until(lambda: management.calls["GetTask"])
    # The answer is that of before the removal, since the row is looked up when the gate opens.
    before = Task.FromString(management.rows[7].SerializeToString())
    assert (await running.client.delete("/api/tasks/7")).json() == {"message": "Task 7 was removed."}
    management.rows[7] = before
    held.set()
    assert (await reading).status_code == 200
    del management.rows[7], management.gates["GetTask"]
    await running.gateway.cache.close()
    assert (await running.client.get("/api/tasks/7")).status_code == 404


async def test_an_old_answer_is_not_kept(
    running: RunningGateway, store: redis.asyncio.Redis, monkeypatch: pytest.MonkeyPatch, management: FakeManagement
) -> None:
    monkeypatch.setattr("gateway.cache.QUERY_AGE_SECONDS_MAX", -1.0)
    stored(management)
    await running.client.get("/api/tasks/7")
    await running.gateway.cache.close()
    assert not await store.exists(redis_keys.cached_task(7))


async def test_attempts_are_read_with_the_task_and_left_out_of_lists(
    running: RunningGateway, store: redis.asyncio.Redis, management: FakeManagement
) -> None:
    stored(management).attempts.extend([Attempt(attempt=1, outcome=Outcome.OUTCOME_WORKER_DIED), Attempt(attempt=2)])
    for _ in range(2):  # from management, then from the cache
        shown = (await running.client.get("/api/tasks/7")).json()["attempts"]
        assert [(attempt["attempt"], attempt["outcome"]) for attempt in shown] == [(1, "worker_died"), (2, None)]
        await wait_until(lambda: store.exists(redis_keys.cached_task(7)))
    assert management.calls["GetTask"] == 1
    [listed] = (await running.client.get("/api/tasks")).json()
    assert "attempts" not in listed


async def test_a_task_with_long_attempts_is_shown_and_not_kept(
    running: RunningGateway, store: redis.asyncio.Redis, management: FakeManagement
) -> None:
    error = TaskError(code="handler_error", message="x" * 16_000, log_tail="y" * 2000)
    stored(management).attempts.extend(Attempt(attempt=number, error=error) for number in range(1, 101))
    stored(management, 8)
    shown = (await running.client.get("/api/tasks/7")).json()["attempts"]
    assert [len(attempt["error"]["message"]) for attempt in shown] == [16_000] * 100
    await running.client.get("/api/tasks/8")
    await wait_until(lambda: store.exists(redis_keys.cached_task(8)))
    assert not await store.exists(redis_keys.cached_task(7))


async def test_a_list_is_paged_by_link(running: RunningGateway, management: FakeManagement) -> None:
    for task_id in range(1, 6):
        stored(management, task_id)
    path, seen = "/api/tasks?status=completed&limit=2", []
    while path:
        response = await running.client.get(path)
        seen += [task["id"] for task in response.json()]
        path = response.headers.get("link", "").partition(">")[0].removeprefix("<")
    assert seen == [5, 4, 3, 2, 1]


async def test_management_that_is_away_is_503(running: RunningGateway, management: FakeManagement) -> None:
    management.failures["GetTask"] = management.failures["ListTasks"] = Unavailable(
        "no database", code="database_unavailable"
    )
    for path in ("/api/tasks/7", "/api/tasks"):
        response = await running.client.get(path)
        assert (response.status_code, response.json()["code"]) == (503, "database_unavailable")
        assert "retry-after" in response.headers


async def test_logs_are_those_that_management_gives(running: RunningGateway, management: FakeManagement) -> None:
    stored(management)
    management.logs[7] = [AttemptLog(attempt=1, log="one\n"), AttemptLog(attempt=2, log="zwei\n")]
    response = await running.client.get("/api/tasks/7/logs")
    assert [(log["attempt"], log["log"]) for log in response.json()] == [(1, "one\n"), (2, "zwei\n")]
    assert (await running.client.get("/api/tasks/8/logs")).status_code == 404
    assert (await running.client.get("/api/tasks/x/logs")).status_code == 422
    assert (await running.client.get("/api/tasks/7/logs?tail=1")).status_code == 422


async def test_an_accepted_task_has_no_logs_yet(running: RunningGateway, store: redis.asyncio.Redis) -> None:
    await mark(store, 5, 5)
    assert (await running.client.get("/api/tasks/5/logs")).json() == []


async def test_a_waiting_task_without_a_replica_says_so(running: RunningGateway, management: FakeManagement) -> None:
    management.store(Submission(task_id=7, type="noop", data=b"{}", pool="io"))
    assert (await running.client.get("/api/tasks/7")).json()["notice"] is None
    management.replicas = []
    await running.gateway.catalog.refresh()
    assert "No live replica" in (await running.client.get("/api/tasks/7")).json()["notice"]
    management.move(7, COMPLETED, result=b"1")
    assert (await running.client.get("/api/tasks/7")).json()["notice"] is None
