import asyncio
from typing import Any

import httpx
import pytest
import redis.asyncio

from headrace.v1.task_pb2 import SubmissionBatch
from servicekit import redis_keys
from tests.support.fake_management import FakeManagement
from tests.support.running_gateway import RunningGateway, run_gateway
from tests.support.waiting import wait_until

JSON = {"Content-Type": "application/json"}


async def stored_ids(store: redis.asyncio.Redis) -> list[int]:
    batches = map(SubmissionBatch.FromString, await entries_in(store))
    return [submission.task_id for batch in batches for submission in batch.submissions]


async def entries_in(store: redis.asyncio.Redis) -> list[bytes]:
    entries: Any = await store.xrange(redis_keys.SUBMISSIONS)
    return [fields[redis_keys.SUBMISSIONS_FIELD] for _, fields in entries]


async def test_an_accepted_task_is_in_the_stream_with_its_marker_and_counters(
    running: RunningGateway, store: redis.asyncio.Redis
) -> None:
    async with store.pubsub() as pubsub:
        await pubsub.subscribe(redis_keys.SUBMISSIONS_CHANNEL)
        await pubsub.get_message(timeout=2)
        response = await running.client.post("/api/tasks", json={"type": "noop", "data": {"a": 1}})
        assert (await pubsub.get_message(timeout=2))["type"] == "message"
    task_id = response.json()["task_id"]
    assert response.status_code == 201
    assert response.headers["location"] == f"/api/tasks/{task_id}"
    assert response.headers["headrace-durability"] == "redis-aof"
    [entry] = await entries_in(store)
    [submission] = SubmissionBatch.FromString(entry).submissions
    assert (submission.task_id, submission.type, submission.data) == (task_id, "noop", b'{"a":1}')
    members = await store.zrange(redis_keys.UNSTORED, 0, -1, withscores=True)
    assert members == [(redis_keys.marker(task_id, task_id).encode(), float(task_id))]
    assert await store.hgetall(redis_keys.BACKLOG) == {b"tasks": b"1", b"bytes": str(len(entry)).encode()}


async def test_a_batch_gets_ids_in_its_own_order(running: RunningGateway, store: redis.asyncio.Redis) -> None:
    body = [{"type": "noop", "data": {"n": number}} for number in range(1000)]
    response = await running.client.post("/api/tasks/batch", json=body)
    assert response.status_code == 201
    assert response.json()["task_ids"] == await stored_ids(store)
    assert len(set(response.json()["task_ids"])) == 1000


async def test_requests_at_the_same_moment_share_flushes_and_no_ids(
    running: RunningGateway, store: redis.asyncio.Redis
) -> None:
    responses = await asyncio.gather(
        *(running.client.post("/api/tasks", json={"type": "noop", "data": {}}) for _ in range(60))
    )
    ids = [response.json()["task_id"] for response in responses]
    assert sorted(ids) == sorted(await stored_ids(store))
    assert len(set(ids)) == 60
    assert await store.xlen(redis_keys.SUBMISSIONS) < 60


async def test_the_same_key_and_body_give_the_same_id(running: RunningGateway, store: redis.asyncio.Redis) -> None:
    async def submit(content: bytes) -> tuple[int, Any, str | None]:
        response = await running.client.post("/api/tasks", content=content, headers={**JSON, "Idempotency-Key": "k"})
        return response.status_code, response.json(), response.headers.get("idempotency-replayed")

    first = await submit(b'{"type":"noop","data":{"a":1,"b":2}}')
    again = await submit(b'{"data": {"b":2, "a":1}, "type":"noop"}')
    assert (first[0], again[0], again[2]) == (201, 201, "true")
    assert first[1] == again[1]
    status, problem, _ = await submit(b'{"type":"noop","data":{"a":2}}')
    assert (status, problem["code"]) == (422, "idempotency_conflict")
    assert await store.xlen(redis_keys.SUBMISSIONS) == 0


async def test_a_batch_with_a_key_is_repeated_as_a_whole(running: RunningGateway) -> None:
    body = [{"type": "noop", "data": {"n": number}} for number in range(3)]
    headers = {"Idempotency-Key": "batch-key"}
    first = await running.client.post("/api/tasks/batch", json=body, headers=headers)
    again = await running.client.post("/api/tasks/batch", json=body, headers=headers)
    shorter = await running.client.post("/api/tasks/batch", json=body[:2], headers=headers)
    assert first.json() == again.json()
    assert again.headers["idempotency-replayed"] == "true"
    assert shorter.status_code == 422


BAD_TASKS = [
    (b"", 422, "body_required"),
    (b"{", 400, "invalid_json"),
    (b'{"type":"noop","data":{"a":NaN}}', 400, "invalid_json"),
    (b'{"type":"noop","data":{"a":"\xff"}}', 400, "invalid_json"),
    (b"[]", 422, "invalid_request"),
    (b'{"type":"nope","data":{}}', 422, "unknown_task_type"),
    (b'{"type":"word_count","data":{"text":5}}', 422, "invalid_request"),
    (b'{"type":"word_count","data":{"text":"x","more":5}}', 422, "unknown_field"),
    (b'{"type":"noop","data":{},"prioritty":5}', 422, "unknown_field"),
    (b'{"type":"noop","data":{},"priority":true}', 422, "invalid_request"),
    (rb'{"type":"noop","data":{"a":"\u0000"}}', 422, "nul_character"),
    (rb'{"type":"noop","data":{"a":"\ud800"}}', 422, "invalid_unicode"),
    (b'{"type":"noop","data":' + b'{"a":' * 40 + b"1" + b"}" * 40 + b"}", 422, "too_deep"),
    (b'{"type":"noop","data":{"a":' + b"[" * 10_000 + b"]" * 10_000 + b"}}", 422, "too_deep"),
    (b'{"type":"noop","data":{"a":' + b"9" * 5000 + b"}}", 422, "number_out_of_range"),
    (b'{"type":"noop","data":{"a":1e999}}', 422, "number_out_of_range"),
    (b'{"type":"noop","data":{"a":"' + b"x" * 22_000 + b'"}}', 413, "data_too_large"),
    (b'{"type":"noop","data":{"a":"' + b"x" * 25_000 + b'"}}', 413, "body_too_large"),
]


async def test_nothing_of_a_refused_request_reaches_redis(
    redis_url: str, store: redis.asyncio.Redis, subtests: pytest.Subtests
) -> None:
    async with run_gateway(redis_url, FakeManagement(), data_bytes_max=21_000, body_bytes_max=25_000) as running:
        await store.flushall()
        for body, status, code in BAD_TASKS:
            with subtests.test(f"{code} {body[:40]!r}"):
                for path, content in (("/api/tasks", body), ("/api/tasks/batch", body and b"[" + body + b"]")):
                    response = await running.client.post(path, content=content, headers=JSON)
                    problem = response.json()
                    assert (response.status_code, problem["code"]) == (status, code)
                    assert response.headers["content-type"] == "application/problem+json"
                    assert problem["request_id"] == response.headers["x-request-id"]
                    assert set(problem) == {"type", "title", "status", "code", "detail", "errors", "request_id"}
                assert await nothing_stored(store)
                canary = await running.client.post("/api/tasks/batch", content=b"[]", headers=JSON)
                assert canary.status_code == 422
        assert (await running.client.post("/api/tasks", json={"type": "noop", "data": {}})).status_code == 201
        assert running.gateway.body_budget.bytes_held == 0


async def nothing_stored(store: redis.asyncio.Redis) -> bool:
    """Nothing is in Redis but the counter that the gateway's probe adds 0 to."""
    keys: Any = await store.keys("*")
    counters: Any = await store.hgetall(redis_keys.BACKLOG)
    return set(keys) <= {redis_keys.BACKLOG.encode()} and set(counters.values()) <= {b"0"}


async def test_a_chunked_body_beyond_the_limit_is_refused_while_it_comes(
    redis_url: str, store: redis.asyncio.Redis
) -> None:
    async with run_gateway(redis_url, FakeManagement(), body_bytes_max=2048) as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        writer.write(
            b"POST /api/tasks HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n" + b"400\r\n" + b"x" * 1024 + b"\r\n"
        )
        for _ in range(4):
            writer.write(b"400\r\n" + b"x" * 1024 + b"\r\n")
        answer = await asyncio.wait_for(reader.read(), 5)
        assert answer.startswith(b"HTTP/1.1 413")
        assert b"body_too_large" in answer
        writer.close()
    assert await nothing_stored(store)


async def test_a_slow_body_is_given_up(redis_url: str) -> None:
    async with run_gateway(redis_url, FakeManagement(), body_timeout=0.2) as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        writer.write(
            b"POST /api/tasks HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{"
        )
        assert (await asyncio.wait_for(reader.read(), 5)).startswith(b"HTTP/1.1 408")
        writer.close()


async def test_a_full_backlog_is_answered_with_a_time_to_come_back(redis_url: str, store: redis.asyncio.Redis) -> None:
    async with run_gateway(redis_url, FakeManagement(), backlog_tasks_max=2) as running:
        body = [{"type": "noop", "data": {}}] * 2
        assert (await running.client.post("/api/tasks/batch", json=body)).status_code == 201
        refused = await running.client.post("/api/tasks", json={"type": "noop", "data": {}})
        assert (refused.status_code, refused.json()["code"]) == (503, "backlog_full")
        assert int(refused.headers["retry-after"]) >= 1
        assert await store.xlen(redis_keys.SUBMISSIONS) == 1
        await store.hset(redis_keys.BACKLOG, mapping={"tasks": 0, "bytes": 0})
        await asyncio.sleep(0.3)  # the counters are read again after a quarter of a second
        assert (await running.client.post("/api/tasks", json={"type": "noop", "data": {}})).status_code == 201


@pytest.mark.parametrize(("tasks", "size"), [(1_000_000, 0), (1, 1024**3)])
async def test_at_the_default_caps_nothing_more_is_taken_and_nothing_is_trimmed(
    running: RunningGateway, store: redis.asyncio.Redis, tasks: int, size: int
) -> None:
    task = {"type": "noop", "data": {}}
    accepted = (await running.client.post("/api/tasks", json=task)).json()["task_id"]
    await store.hset(redis_keys.BACKLOG, mapping={"tasks": tasks, "bytes": size})
    await running.client.get("/api/stats")  # reads the counters
    for _ in range(20):
        refused = await running.client.post("/api/tasks", json=task)
        assert (refused.status_code, refused.json()["code"]) == (503, "backlog_full")
        assert int(refused.headers["retry-after"]) >= 1
    assert await stored_ids(store) == [accepted]
    assert (await running.client.get("/readyz")).status_code == 200  # reads and cancels go on
    await store.hset(redis_keys.BACKLOG, mapping={"tasks": 0, "bytes": 0})

    async def taken() -> bool:
        return (await running.client.post("/api/tasks", json=task)).status_code == 201

    await wait_until(taken)


async def test_bodies_beyond_the_budget_are_refused_with_a_time_to_come_back(running: RunningGateway) -> None:
    budget = running.gateway.body_budget
    with budget.hold() as hold:
        hold.add(budget.bytes_max)
        refused = await running.client.post("/api/tasks", json={"type": "noop", "data": {}})
        assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")
        assert int(refused.headers["retry-after"]) >= 1
    assert (await running.client.post("/api/tasks", json={"type": "noop", "data": {}})).status_code == 201


async def test_one_connection_too_many_is_refused_as_every_other_error(redis_url: str) -> None:
    async with run_gateway(redis_url, FakeManagement(), connections_max=1) as running:
        assert (await running.client.get("/healthz")).status_code == 200  # its connection is kept open
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{running.port}", trust_env=False) as second:
            refused = await second.get("/healthz")
        assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")
        assert (refused.headers["retry-after"], refused.headers["connection"]) == ("1", "close")
        assert (await running.client.get("/healthz")).status_code == 200
