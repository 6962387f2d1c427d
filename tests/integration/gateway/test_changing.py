import asyncio

import pytest
import redis.asyncio

from headrace.v1.task_pb2 import CancelReceipt, Submission, TaskError, TaskStatus, TaskUpdate
from servicekit import redis_keys
from tests.support.fake_management import FakeManagement
from tests.support.running_gateway import RunningGateway
from tests.support.updates import publish_update
from tests.support.waiting import wait_until

PROCESSING = TaskStatus.TASK_STATUS_PROCESSING
FAILED = TaskStatus.TASK_STATUS_FAILED
COMPLETED = TaskStatus.TASK_STATUS_COMPLETED
CANCELLED = TaskStatus.TASK_STATUS_CANCELLED


def store_task(management: FakeManagement, task_id: int = 7) -> None:
    management.store(Submission(task_id=task_id, type="noop", data=b"{}", pool="io"))


async def publish(store: redis.asyncio.Redis, management: FakeManagement, task_id: int) -> None:
    task = management.rows[task_id]
    update = TaskUpdate(task_id=task_id, status=task.status, revision=task.revision)
    await publish_update(store, update)


async def test_a_queued_task_is_cancelled_at_once(running: RunningGateway, management: FakeManagement) -> None:
    store_task(management)
    response = await running.client.delete("/api/tasks/7")
    assert (response.status_code, response.json()) == (200, {"message": "Task 7 was cancelled."})
    again = await running.client.delete("/api/tasks/7")
    assert (again.status_code, again.json()) == (200, response.json())


async def test_a_finished_task_is_removed_and_no_longer_read_from_the_cache(
    running: RunningGateway, management: FakeManagement, store: redis.asyncio.Redis
) -> None:
    store_task(management)
    management.move(7, COMPLETED, result=b"1")
    await running.client.get("/api/tasks/7")
    await wait_until(lambda: store.exists(redis_keys.cached_task(7)))
    assert (await running.client.delete("/api/tasks/7")).json() == {"message": "Task 7 was removed."}
    assert (await running.client.get("/api/tasks/7")).status_code == 404
    assert (await running.client.delete("/api/tasks/7")).status_code == 404


@pytest.mark.parametrize(("end", "status"), [(CANCELLED, 200), (COMPLETED, 409)])
async def test_the_outcome_of_cancelling_a_running_task_is_awaited(
    running: RunningGateway,
    management: FakeManagement,
    store: redis.asyncio.Redis,
    end: TaskStatus.ValueType,
    status: int,
) -> None:
    store_task(management)
    management.move(7, PROCESSING)
    deleting = asyncio.create_task(running.client.delete("/api/tasks/7"))
    await wait_until(lambda: running.gateway.feed.listeners and management.calls["GetTask"])
    management.move(7, end)
    await publish(store, management, 7)
    response = await asyncio.wait_for(deleting, 1.5)
    assert response.status_code == status
    if status == 409:
        assert response.json()["code"] == "already_final"


async def test_the_answer_to_a_cancel_says_what_ended_the_attempt(
    running: RunningGateway, management: FakeManagement, store: redis.asyncio.Redis
) -> None:
    store_task(management)
    management.move(7, PROCESSING)
    deleting = asyncio.create_task(running.client.delete("/api/tasks/7"))
    await wait_until(lambda: running.gateway.feed.listeners and management.calls["GetTask"])
    receipt = CancelReceipt(ended_by=CancelReceipt.ENDED_BY_SIGKILL, stopped_after_ms=1500, processes_gone=True)
    management.move(7, CANCELLED).error.CopyFrom(TaskError(code="cancelled", receipt=receipt))
    await publish(store, management, 7)
    response = await asyncio.wait_for(deleting, 1.5)
    assert response.json() == {"message": "Task 7 was cancelled: its worker was killed after 1.5 s."}
    shown = (await running.client.get("/api/tasks/7")).json()["error"]["receipt"]
    assert shown == {"ended_by": "sigkill", "stopped_after": 1.5, "processes_gone": True}


async def test_failed_tasks_are_started_again_by_a_filter_after_a_dry_run(
    running: RunningGateway, management: FakeManagement
) -> None:
    for task_id, code in ((5, "timeout"), (6, "handler_error"), (7, "timeout"), (8, "timeout")):
        store_task(management, task_id)
        management.move(task_id, FAILED).error.code = code
    stats = (await running.client.get("/api/stats")).json()
    assert stats["failures"] == [
        {"type": "noop", "error": "timeout", "count": 3},
        {"type": "noop", "error": "handler_error", "count": 1},
    ]
    filter_ = {"error": "timeout", "type": "noop", "limit": 2}
    dry = await running.client.post("/api/tasks/retry", json=filter_)
    assert (dry.status_code, dry.json()) == (200, {"dry_run": True, "task_ids": [8, 7], "count": 2, "more": True})
    assert management.rows[8].status == FAILED
    real = await running.client.post("/api/tasks/retry", json={**filter_, "dry_run": False})
    assert real.json() == {**dry.json(), "dry_run": False}
    assert (await running.client.get("/api/tasks/8")).json()["status"] == "queued"
    assert [management.rows[task_id].status for task_id in (5, 6)] == [FAILED, FAILED]


async def test_a_filter_of_retries_reaches_management_as_it_was_given(
    running: RunningGateway, management: FakeManagement
) -> None:
    body = {"status": "cancelled", "finished_after": "2030-01-01T00:00:00Z", "finished_before": "2030-01-02T00:00:00Z"}
    assert (await running.client.post("/api/tasks/retry", json=body)).status_code == 200
    [request] = management.retries
    assert request.status == CANCELLED
    assert request.finished_before.seconds - request.finished_after.seconds == 86_400
    bad = await running.client.post("/api/tasks/retry", json={"limit": 0, "status": "faild"})
    assert (bad.status_code, [error["field"] for error in bad.json()["errors"]]) == (422, ["/status", "/limit"])
    assert "'failed'" in bad.json()["errors"][0]["message"]
    assert (await running.client.post("/api/tasks/retry")).status_code == 415


async def test_a_cancel_that_takes_longer_is_accepted(
    running: RunningGateway, management: FakeManagement, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.changes._OUTCOME_SECONDS", 0.1)
    store_task(management)
    management.move(7, PROCESSING)
    assert (await running.client.delete("/api/tasks/7")).status_code == 202


async def test_a_finished_task_is_started_again_and_read_afresh(
    running: RunningGateway, management: FakeManagement, store: redis.asyncio.Redis
) -> None:
    store_task(management)
    assert (await running.client.post("/api/tasks/7/retry")).json()["code"] == "not_final"
    management.move(7, COMPLETED, result=b"1")
    await store.delete(redis_keys.cached_task(7))
    await running.client.get("/api/tasks/7")
    await wait_until(lambda: store.exists(redis_keys.cached_task(7)))
    response = await running.client.post("/api/tasks/7/retry")
    assert (response.status_code, response.json()["status"]) == (200, "queued")
    assert (await running.client.get("/api/tasks/7")).json()["status"] == "queued"


@pytest.mark.parametrize("method", ["DELETE", "POST"])
async def test_a_change_of_an_accepted_task_waits_for_its_row(
    running: RunningGateway, management: FakeManagement, store: redis.asyncio.Redis, method: str
) -> None:
    path = "/api/tasks/7" if method == "DELETE" else "/api/tasks/7/retry"
    await store.zadd(redis_keys.UNSTORED, {redis_keys.marker(5, 9): 9})
    changing = asyncio.create_task(running.client.request(method, path))
    name = "DeleteTask" if method == "DELETE" else "RetryTask"
    await wait_until(lambda: management.calls[name] > 1)
    store_task(management)
    await store.delete(redis_keys.UNSTORED)
    assert (await asyncio.wait_for(changing, 2)).status_code == (200 if method == "DELETE" else 409)


async def test_a_row_that_does_not_come_is_503_and_never_404(
    running: RunningGateway, store: redis.asyncio.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.changes._ROW_SECONDS", 0.1)
    await store.zadd(redis_keys.UNSTORED, {redis_keys.marker(5, 9): 9})
    response = await running.client.delete("/api/tasks/7")
    assert (response.status_code, response.json()["code"]) == (503, "not_stored_yet")
