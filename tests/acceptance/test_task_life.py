"""What users do with tasks, through REST, WebSocket and gRPC, on a whole cluster."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
import redis.asyncio
import websockets

from bench.processes import proportional
from headrace.local.cluster import LocalCluster
from headrace.v1 import management_pb2, task_pb2
from headrace.v1.execution_pb2 import AttemptKey, GetResultsRequest
from headrace.v1.execution_pb2_grpc import ExecutionServiceStub
from headrace.v1.management_pb2_grpc import ManagementServiceStub
from servicekit.redis_keys import SUBMISSIONS
from tests.support.api import Api
from tests.support.javascript import javascript_client
from tests.support.side_effects import SideEffects
from tests.support.task_rows import submission
from tests.support.waiting import wait_until

BUILT_IN = ("calculate_statistics", "image_resize", "simulate_backup", "word_count")


@pytest.fixture
async def api(cluster: LocalCluster) -> AsyncIterator[Api]:
    async with Api(cluster.gateway_url) as api:
        yield api


async def test_the_examples_of_every_built_in_type_run(api: Api) -> None:
    types = {entry["name"]: entry for entry in (await api.http.get("/api/task-types")).json()}
    assert types.keys() >= set(BUILT_IN)
    for name in BUILT_IN:
        examples = types[name]["data_schema"]["examples"]
        assert examples, name
        for example in examples:
            task = await api.final(await api.submit(name, example))
            assert (task["status"], task["error"]) == ("completed", None), (name, task)
            assert set(types[name]["result_schema"].get("required", ())) <= task["result"].keys()


async def test_a_result_is_counted_right(api: Api) -> None:
    task = await api.final(await api.submit("word_count", {"text": "To be, or not to be. That is it."}))
    assert task["result"]["words"] == 9
    assert task["result"]["sentences"] == 2
    assert task["result"]["top_words"][:2] == [{"word": "be", "count": 2}, {"word": "to", "count": 2}]
    assert (task["attempt"], task["starts"], task["failures"]) == (1, 1, 0)


async def test_a_batch_is_accepted_as_a_whole_and_every_task_runs(api: Api) -> None:
    ids = await api.submit_many([{"type": "noop", "data": {"n": n}} for n in range(300)])
    assert ids == list(range(ids[0], ids[0] + 300))
    tasks = await api.finals(ids)
    assert [task["result"] for task in tasks] == [{"n": n} for n in range(300)]


async def test_an_async_handler_runs_many_at_a_time(api: Api) -> None:
    ids = await api.submit_many([{"type": "sleep_async", "data": {"seconds": 0.5}}] * 40)
    tasks = await api.finals(ids)
    assert {task["status"] for task in tasks} == {"completed"}
    assert len({task["worker"] for task in tasks}) <= 2


async def test_a_failing_task_is_retried_and_a_permanent_error_is_not(api: Api) -> None:
    retried = await api.final(await api.submit("fail", {"times": 1}))
    assert (retried["status"], retried["attempt"], retried["failures"]) == ("completed", 2, 1)
    permanent = await api.final(await api.submit("fail", {"permanent": True}))
    assert (permanent["status"], permanent["attempt"]) == ("failed", 1)
    assert permanent["error"]["code"] == "not_today"


async def test_a_task_that_kills_its_worker_fails_with_the_evidence_and_its_neighbours_do_not(api: Api) -> None:
    deadly = await api.submit("crash", {"signal": 11}, max_attempts=2)
    others = await api.submit_many([{"type": "noop", "data": {}}] * 50)
    task = await api.final(deadly)
    assert (task["status"], task["worker_deaths"], task["starts"]) == ("failed", 2, 2)
    assert (task["error"]["code"], task["error"]["signal"]) == ("worker_died", 11)
    assert {(other["status"], other["failures"]) for other in await api.finals(others)} == {("completed", 0)}


async def test_a_task_beyond_its_timeout_is_stopped(api: Api) -> None:
    task = await api.final(await api.submit("sleep_deaf", {"seconds": 30}, timeout=1, max_attempts=1))
    assert (task["status"], task["error"]["code"]) == ("failed", "timeout")


async def test_a_scheduled_task_runs_when_it_is_due(api: Api) -> None:
    task_id = await api.submit("noop", {}, delay=1.5)
    assert (await api.task(task_id))["status"] in ("queued", "scheduled")
    await wait_until(lambda: has_status(api, task_id, "scheduled"))
    task = await api.final(task_id)
    assert task["status"] == "completed"
    assert task["started_at"] >= task["run_at"]


async def test_a_waiting_task_is_cancelled_at_once_and_a_repeat_says_the_same(api: Api) -> None:
    task_id = await api.submit("noop", {}, delay=3600)
    await wait_until(lambda: has_status(api, task_id, "scheduled"))
    for _ in range(2):
        answer = await api.http.delete(f"/api/tasks/{task_id}")
        assert answer.status_code == 200, answer.text
    assert (await api.task(task_id))["status"] == "cancelled"


@pytest.mark.parametrize("type_name", ["sleep_for", "sleep_async", "ignore_sigterm"])
async def test_a_running_task_is_cancelled(api: Api, type_name: str) -> None:
    task_id = await api.submit(type_name, {"seconds": 30})
    await wait_until(lambda: has_status(api, task_id, "processing"))
    answer = await api.http.delete(f"/api/tasks/{task_id}")
    assert answer.status_code in (200, 202), answer.text
    task = await api.final(task_id, timeout=10)
    assert (task["status"], task["error"]["code"]) == ("cancelled", "cancelled")


async def test_a_finished_task_is_removed_and_then_unknown(api: Api) -> None:
    task_id = await api.submit("noop", {})
    await api.final(task_id)
    assert (await api.http.delete(f"/api/tasks/{task_id}")).status_code == 200
    for method in ("GET", "DELETE"):
        answer = await api.http.request(method, f"/api/tasks/{task_id}")
        assert (answer.status_code, answer.json()["code"]) == (404, "task_not_found")


async def test_a_finished_task_is_started_again_by_hand(api: Api, tmp_path: Path) -> None:
    effects = SideEffects(tmp_path / "effects")
    task_id = await api.submit("append_line", effects.data(0))
    await api.final(task_id)
    answer = await api.http.post(f"/api/tasks/{task_id}/retry")
    assert answer.status_code in (200, 202), answer.text
    await wait_until(lambda: effects.starts()[task_id] == 2)
    task = await api.final(task_id)
    assert (task["status"], task["attempt"]) == ("completed", 2)


async def test_an_idempotency_key_makes_one_task(api: Api) -> None:
    headers = {"Idempotency-Key": "acceptance-1"}
    body = {"type": "noop", "data": {"n": 1}}
    answers = await asyncio.gather(*(api.http.post("/api/tasks", json=body, headers=headers) for _ in range(20)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["task_id"] for answer in answers}) == 1
    other = await api.http.post("/api/tasks", json={"type": "noop", "data": {"n": 2}}, headers=headers)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_conflict")


async def test_lists_are_paged_and_filtered(api: Api) -> None:
    ids = await api.submit_many([{"type": "noop", "data": {}, "delay": 3600}] * 5)
    await wait_until(lambda: has_status(api, ids[-1], "scheduled"))
    first = await api.http.get("/api/tasks", params={"status": "scheduled", "type": "noop", "limit": 3})
    assert [task["id"] for task in first.json()] == ids[:1:-1]
    second = await api.http.get(first.links["next"]["url"])
    assert [task["id"] for task in second.json()][:2] == ids[1::-1]


async def test_progress_is_seen_live_and_the_final_update_ends_the_stream(cluster: LocalCluster, api: Api) -> None:
    task_id = await api.submit("progress", {"steps": 5, "seconds_each": 0.3})
    async with websockets.connect(f"{cluster.gateway_url.replace('http', 'ws')}/ws/tasks/{task_id}") as socket:
        events = [json.loads(message) async for message in socket]
    assert events[0]["event"] == "snapshot"
    assert {event["event"] for event in events[1:]} == {"task_update"}
    updates = [*events[0]["data"]["tasks"], *(event["data"] for event in events[1:])]
    fractions = [update["progress"]["fraction"] for update in updates if update["progress"]]
    assert fractions == sorted(fractions)
    assert len(fractions) >= 3
    revisions = [update["revision"] for update in updates if not update["progress"]]
    assert revisions == sorted(set(revisions))
    assert (updates[-1]["status"], updates[-1]["result"]) == ("completed", 5)


BAD_BODIES: list[tuple[bytes, int, str]] = [
    (b"{", 400, ""),
    (b"", 422, ""),
    (b"[1]", 422, ""),
    (b'{"type":"noop","data":{"a":NaN}}', 400, ""),
    (b'\xff\xfe{"type":"noop"}', 400, ""),
    (b'{"data":{}}', 422, "/type"),
    (b'{"type":"noop"}', 422, "/data"),
    (b'{"type":7,"data":{}}', 422, "/type"),
    (b'{"type":"no_such_type","data":{}}', 422, "/type"),
    (b'{"type":"noop","data":[]}', 422, "/data"),
    (b'{"type":"noop","data":{},"prioritty":1}', 422, "/prioritty"),
    (b'{"type":"noop","data":{},"priority":true}', 422, "/priority"),
    (b'{"type":"noop","data":{},"priority":10}', 422, "/priority"),
    (b'{"type":"noop","data":{},"max_attempts":0}', 422, "/max_attempts"),
    (b'{"type":"noop","data":{},"timeout":0}', 422, "/timeout"),
    (b'{"type":"noop","data":{},"run_at":"tomorrow"}', 422, "/run_at"),
    (b'{"type":"noop","data":{"a":"\\u0000"}}', 422, "/data/a"),
    (b'{"type":"noop","data":{"a":"\\ud800"}}', 422, "/data/a"),
    (b'{"type":"noop","data":{"a":1e999}}', 422, "/data/a"),
    (b'{"type":"noop","data":{"a":' + b"[" * 100 + b"]" * 100 + b"}}", 422, "/data/a"),
    (b'{"type":"noop","data":{"a":' + b"[" * 20000 + b"]" * 20000 + b"}}", 422, ""),
    (b'{"type":"word_count","data":{}}', 422, "/data/text"),
    (b'{"type":"word_count","data":{"text":7}}', 422, "/data/text"),
    (b'{"type":"word_count","data":{"text":"a","txet":"b"}}', 422, "/data/txet"),
    (b'{"type":"noop","data":{"a":"' + b"x" * (9 * 2**20) + b'"}}', 413, ""),
    (b'{"type":"noop","data":{"a":"' + b"x" * (33 * 2**20) + b'"}}', 413, ""),
]


@pytest.mark.parametrize(("body", "status", "field"), BAD_BODIES, ids=lambda value: str(value)[:40])
async def test_bad_input_is_refused_by_name_and_nothing_of_it_reaches_redis(
    cluster: LocalCluster, api: Api, body: bytes, status: int, field: str
) -> None:
    async with redis.asyncio.Redis.from_url(cluster.file.redis_url) as client:
        before = await entries_added(client)
        answer = await api.http.post("/api/tasks", content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == status, answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        problem = answer.json()
        assert problem["code"]
        if field:
            assert problem["errors"][0]["field"].startswith(field), problem
        assert await entries_added(client) == before


@pytest.mark.parametrize("bad_id", ["x", "1.5", "-1", "0", "9" * 30, "%00"])
async def test_ids_that_are_no_ids_are_refused(api: Api, bad_id: str) -> None:
    for method in ("GET", "DELETE"):
        answer = await api.http.request(method, f"/api/tasks/{bad_id}")
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_id")


async def test_grpc_clients_submit_read_watch_and_cancel(cluster: LocalCluster, api: Api) -> None:
    async with grpc.aio.insecure_channel(cluster.process("management").address) as channel:
        stub = ManagementServiceStub(channel)
        block: Any = await stub.ReserveTaskIds(management_pb2.ReserveTaskIdsRequest(), timeout=5)
        watch = stub.WatchTasks(management_pb2.WatchTasksRequest(task_ids=[block.first_id]), timeout=20)
        batch = task_pb2.SubmissionBatch(submissions=[submission(block.first_id, data=b'{"n":7}')])
        submitted: Any = await stub.SubmitTasks(management_pb2.SubmitTasksRequest(batch=batch), timeout=5)
        assert list(submitted.task_ids) == [block.first_id]
        revisions: list[int] = []
        status = task_pb2.TASK_STATUS_UNSPECIFIED
        while status != task_pb2.TASK_STATUS_COMPLETED:
            response: Any = await watch.read()
            for update in response.updates:
                if not revisions or update.revision > revisions[-1]:
                    revisions.append(update.revision)
                    status = update.status
        assert revisions == list(range(revisions[0], revisions[-1] + 1))
        read: Any = await stub.GetTask(management_pb2.GetTaskRequest(task_id=block.first_id), timeout=5)
        assert (read.task.status, json.loads(read.task.result)) == (task_pb2.TASK_STATUS_COMPLETED, {"n": 7})
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.CancelTask(management_pb2.CancelTaskRequest(task_id=block.first_id), timeout=5)
        assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    async with grpc.aio.insecure_channel(cluster.process("execution").address) as channel:
        keys = [AttemptKey(task_id=block.first_id, attempt=1), AttemptKey(task_id=block.first_id, attempt=2)]
        found: Any = await ExecutionServiceStub(channel).GetResults(GetResultsRequest(keys=keys), timeout=5)
        assert [(result.attempt, json.loads(result.result)) for result in found.results] == [(1, {"n": 7})]


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [({"data": b"[]"}, "data"), ({"priority": 11}, "priority"), ({"task_id": -1}, "task_id"), ({"type": ""}, "type")],
)
async def test_grpc_submissions_are_checked_again(cluster: LocalCluster, fields: dict[str, Any], wrong: str) -> None:
    batch = task_pb2.SubmissionBatch(submissions=[submission(**({"task_id": 1} | fields))])
    async with grpc.aio.insecure_channel(cluster.process("management").address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await ManagementServiceStub(channel).SubmitTasks(management_pb2.SubmitTasksRequest(batch=batch), timeout=5)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert wrong in (refused.value.details() or "")


async def test_the_docs_page_works_offline(api: Api) -> None:
    page = (await api.http.get("/docs")).text
    assert "https://" not in page.replace("https://www.w3.org", "")
    described = (await api.http.get("/openapi.json")).json()
    assert {"/api/tasks", "/api/tasks/{task_id}", "/api/task-types"} <= described["paths"].keys()


async def test_the_examples_of_the_docs_are_accepted(api: Api) -> None:
    paths = (await api.http.get("/openapi.json")).json()["paths"]
    one, many = (
        paths[path]["post"]["requestBody"]["content"]["application/json"] for path in ("/api/tasks", "/api/tasks/batch")
    )
    assert len(one["examples"]) >= 11
    for name, example in one["examples"].items():
        answer = await api.http.post("/api/tasks", json=example["value"])
        assert answer.status_code == 201, (name, answer.text)
    answer = await api.http.post("/api/tasks/batch", json=many["schema"]["example"])
    assert answer.status_code == 201, answer.text


@pytest.mark.alone
async def test_an_idle_cluster_stays_below_700_mib(cluster: LocalCluster) -> None:
    python = [entry for entry in cluster.processes if entry.role not in ("postgres", "redis")]
    processes = [psutil.Process(entry.pid) for entry in python] + [psutil.Process(cluster.pid)]
    with_children = [*processes, *(child for process in processes[:-1] for child in process.children(recursive=True))]
    shared_out = sum(proportional(process) for process in with_children)
    assert shared_out < 700 * 2**20


async def has_status(api: Api, task_id: int, status: str) -> bool:
    return bool((await api.task(task_id))["status"] == status)


async def entries_added(client: redis.asyncio.Redis) -> int:
    """How many entries the stream of submissions ever got."""
    info: Any = await client.xinfo_stream(SUBMISSIONS)
    return int(info["entries-added"])


async def test_a_page_follows_a_task_type_by_socket_io(cluster: LocalCluster, api: Api) -> None:
    """At the gateway from the first to the last revision; at the replica that runs it, where it is run."""
    async with javascript_client(f"{cluster.gateway_url}/append_line", auth={"statuses": []}) as page:
        refused = await page.hear("connect_error")
        assert refused.args[1]["field"] == "/statuses"
    async with javascript_client(f"{cluster.gateway_url}/word_count") as page:
        await page.hear("snapshot")
        task_id = await api.submit("word_count", {"text": "one two"})
        updates: list[dict[str, Any]] = []
        while not updates or updates[-1]["status"] != "completed":
            update = (await page.hear("task_update")).args[0]
            if update["id"] == task_id:
                updates.append(update)
        assert [update["revision"] for update in updates] == list(range(1, len(updates) + 1))
        assert [update["status"] for update in updates] in (
            ["queued", "processing", "completed"],
            ["processing", "completed"],
        )
        assert updates[-1]["result"]["words"] == 2
