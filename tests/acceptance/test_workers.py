"""Worker processes as a user sees and changes them: `/api/workers` of a whole cluster."""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

import httpx
import psutil
import pytest
import pytest_asyncio

from headrace.local.cluster import LocalCluster
from tests.conftest import PROBE_TASKS
from tests.support.api import Api
from tests.support.processes import has_ended
from tests.support.waiting import wait_until

pytestmark = pytest.mark.timeout(180)

REPLICAS = ["execution-0", "execution-1"]
TASKS_MAX = 100

WorkerView = dict[str, Any]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster_of_few(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LocalCluster]:
    """A cluster whose workers are changed, and are replaced after 100 tasks."""
    settings = {**PROBE_TASKS["execution"], "HEADRACE_WORKER_TASKS_MAX": str(TASKS_MAX)}
    data_dir = tmp_path_factory.mktemp("workers") / "data"
    async with LocalCluster(data_dir, workers=2, role_env={"execution": settings}) as running:
        yield running


@pytest.fixture
async def api(cluster_of_few: LocalCluster) -> AsyncIterator[Api]:
    """The API while all replicas answer, and each has two workers or more in the pool `cpu`."""
    async with Api(cluster_of_few.gateway_url) as api:

        async def is_whole() -> bool:
            answer = await api.http.get("/api/workers")
            if answer.status_code != 200 or "headrace-unreachable" in answer.headers:
                return False
            return all(ready(answer.json(), replica) for replica in REPLICAS)

        await wait_until(is_whole, timeout=30)
        for replica in REPLICAS:
            while len(ready(await workers_of(api), replica)) < 2:
                await create(api, replica=replica)
        yield api


def ready(workers: Iterable[WorkerView], replica: str, pool: str = "cpu") -> list[WorkerView]:
    return [
        worker
        for worker in workers
        if (worker["replica"], worker["pool"]) == (replica, pool) and worker["state"] in ("ready", "busy")
    ]


async def workers_of(api: Api) -> list[WorkerView]:
    answer = await api.http.get("/api/workers")
    assert answer.status_code == 200, answer.text
    workers: list[WorkerView] = answer.json()
    return workers


async def create(api: Api, **wish: str) -> WorkerView:
    """Create a worker, and wait until it is ready."""
    answer = await api.http.post("/api/workers", json=wish)
    assert answer.status_code == 201, answer.text
    assert answer.headers["location"] == f"/api/workers/{answer.json()['workerId']}"
    return await reach(api, answer.json()["workerId"], lambda worker: worker["state"] == "ready")


async def reach(api: Api, worker_id: str, condition: Callable[[WorkerView], bool]) -> WorkerView:
    """Wait until a worker is in some state."""
    seen: list[WorkerView] = []

    async def is_there() -> bool:
        answer = await api.http.get(f"/api/workers/{worker_id}")
        assert answer.status_code == 200, answer.text
        seen[:] = [answer.json()]
        return condition(seen[0])

    await wait_until(is_there)
    return seen[0]


async def is_unknown(api: Api, worker_id: str) -> bool:
    answer = await api.http.get(f"/api/workers/{worker_id}")
    return (answer.status_code, answer.json().get("code")) == (404, "worker_not_found")


async def start(api: Api, type_name: str = "sleep_deaf", *, seconds: float) -> tuple[int, WorkerView]:
    """Submit a task; return its id, and the worker that runs it."""
    task_id = await api.submit(type_name, {"seconds": seconds})
    found: list[WorkerView] = []

    async def runs() -> bool:
        found[:] = [
            worker for worker in await workers_of(api) if task_id in [running["id"] for running in worker["tasks"]]
        ]
        return bool(found)

    await wait_until(runs)
    return task_id, found[0]


async def test_the_workers_of_all_replicas_are_listed_with_what_they_run(api: Api) -> None:
    task_id, busy = await start(api, seconds=1)
    workers = await workers_of(api)
    assert {(worker["replica"], worker["pool"]) for worker in workers} == {
        (replica, pool) for replica in REPLICAS for pool in ("cpu", "io")
    }
    for worker in workers:
        assert worker["id"].startswith(f"{worker['replica']}-{worker['pool']}-")
        assert psutil.Process(worker["pid"]).cmdline()[2] == "execution_service.workers.worker"
        assert worker["memory_mib"] > 10
        assert worker["startTime"].endswith("Z")
    (running,) = busy["tasks"]
    assert (busy["state"], busy["slots"]) == ("busy", 1)
    assert (running["attempt"], running["type"]) == (1, "sleep_deaf")
    assert 0 <= running["running_for"] < 1.5
    task = await api.final(task_id)
    assert (task["status"], task["worker"]) == ("completed", busy["id"])


async def test_a_worker_is_added_and_drained_while_a_task_runs_in_it(api: Api) -> None:
    before = {worker["id"] for worker in await workers_of(api)}
    added = await create(api)
    assert added["id"] not in before
    task_id, busy = await start(api, seconds=1.5)
    answer = await api.http.delete(f"/api/workers/{busy['id']}")
    words = "takes no more tasks, and ends when the task that it runs has ended."
    assert (answer.status_code, answer.json()) == (200, {"message": f"Worker {busy['id']} {words}"})
    assert (await reach(api, busy["id"], lambda worker: True))["state"] == "draining"
    others = await api.finals([await api.submit("noop", {"n": number}) for number in range(20)])
    assert busy["id"] not in {task["worker"] for task in others}
    task = await api.final(task_id)
    assert (task["status"], task["starts"], task["worker"]) == ("completed", 1, busy["id"])
    await wait_until(lambda: is_unknown(api, busy["id"]))
    assert has_ended(busy["pid"])
    after = {worker["id"] for worker in await workers_of(api)}
    assert after == (before | {added["id"]}) - {busy["id"]}


async def test_a_worker_killed_by_request_costs_its_task_no_attempt(api: Api) -> None:
    task_id, busy = await start(api, seconds=2)
    answer = await api.http.delete(f"/api/workers/{busy['id']}?force=true")
    message = f"Worker {busy['id']} ends now; what it ran starts again in another one."
    assert (answer.status_code, answer.json()) == (200, {"message": message})
    task = await api.final(task_id)
    assert (task["status"], task["attempt"], task["starts"]) == ("completed", 2, 2)
    assert (task["failures"], task["worker_deaths"], task["replica_losses"]) == (0, 0, 0)
    assert [attempt["outcome"] for attempt in task["attempts"]] == ["handed_back", "completed"]
    assert task["worker"] != busy["id"]
    assert await is_unknown(api, busy["id"])
    assert has_ended(busy["pid"])


async def test_a_worker_of_the_async_pool_can_be_exchanged_but_the_last_one_cannot_go(api: Api) -> None:
    (old,) = ready(await workers_of(api), "execution-0", "io")
    for query in ("", "?force=true"):
        answer = await api.http.delete(f"/api/workers/{old['id']}{query}")
        assert (answer.status_code, answer.json()["code"]) == (409, "last_worker")
    new = await create(api, replica="execution-0", pool="io")
    assert (await api.http.delete(f"/api/workers/{old['id']}")).status_code == 200
    await wait_until(lambda: is_unknown(api, old["id"]))
    assert [worker["id"] for worker in ready(await workers_of(api), "execution-0", "io")] == [new["id"]]


async def test_what_is_wrong_with_a_request_is_told_and_nothing_changes(api: Api) -> None:
    before = {worker["id"] for worker in await workers_of(api)}
    some = next(iter(before))
    for method, path, body, status, code in (
        ("POST", "/api/workers", '{"replica": "execution-9"}', 422, "unknown_replica"),
        ("POST", "/api/workers", '{"pool": "gpu"}', 422, "unknown_pool"),
        ("POST", "/api/workers", '{"count": 3}', 422, "unknown_field"),
        ("POST", "/api/workers", "[]", 422, "invalid_request"),
        ("DELETE", f"/api/workers/{some}?force=1", "", 422, "invalid_parameter"),
        ("DELETE", "/api/workers/execution-0-cpu-ffff1", "", 404, "worker_not_found"),
        ("GET", "/api/workers/7", "", 404, "worker_not_found"),
        ("PUT", "/api/workers", "", 405, "method_not_allowed"),
    ):
        headers = {"Content-Type": "application/json"}
        answer = await api.http.request(method, path, content=body, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (status, code), path
        assert answer.headers["content-type"] == "application/problem+json"
    assert {worker["id"] for worker in await workers_of(api)} == before


async def test_workers_are_replaced_after_their_number_of_tasks_and_every_task_runs_once(api: Api) -> None:
    before = {worker["id"]: worker["startTime"] for worker in await workers_of(api) if worker["pool"] == "cpu"}
    ids: list[int] = []
    after: list[WorkerView] = []

    async def are_replaced() -> bool:
        ids.extend(await api.submit_many([{"type": "noop", "data": {}}] * 500))
        await api.final(ids[-1])
        after[:] = [worker for worker in await workers_of(api) if worker["pool"] == "cpu"]
        return not before.keys() & {worker["id"] for worker in after}

    await wait_until(are_replaced, timeout=60)
    assert min(worker["startTime"] for worker in after) > max(before.values())
    for task in await api.finals(ids[:: len(ids) // 50]):
        assert (task["status"], task["attempt"], task["starts"]) == ("completed", 1, 1)


async def test_a_killed_replica_comes_back_with_other_workers(cluster_of_few: LocalCluster, api: Api) -> None:
    lost = {worker["id"] for worker in await workers_of(api) if worker["replica"] == "execution-1"}
    cluster_of_few.kill(cluster_of_few.process("execution", 1))

    async def came_back() -> bool:
        return bool(ready(await workers_of(api), "execution-1"))

    await wait_until(came_back, timeout=30)
    assert not lost & {worker["id"] for worker in await workers_of(api)}
    assert await is_unknown(api, next(iter(lost)))


async def test_a_frozen_replica_is_named_and_nothing_said_of_its_workers(
    cluster_of_few: LocalCluster, api: Api
) -> None:
    (frozen_worker, *_) = ready(await workers_of(api), "execution-1")
    frozen = cluster_of_few.process("execution", 1)
    await wait_until(lambda: are_healthy(cluster_of_few, 2))
    cluster_of_few.kill(frozen, signal.SIGSTOP)
    try:
        await wait_until(lambda: are_healthy(cluster_of_few, 1))
        path = f"/api/workers/{frozen_worker['id']}"
        listed, read, removed, created = await asyncio.gather(
            api.http.get("/api/workers"), api.http.get(path), api.http.delete(path), api.http.post("/api/workers")
        )
    finally:
        cluster_of_few.kill(frozen, signal.SIGCONT)

    async def answers() -> bool:
        answer = await api.http.get("/api/workers")
        return "headrace-unreachable" not in answer.headers and bool(ready(answer.json(), "execution-1"))

    await wait_until(answers, timeout=20)
    assert listed.headers["headrace-unreachable"] == "execution-1"
    assert {worker["replica"] for worker in listed.json()} == {"execution-0"}
    for response in (read, removed):
        assert (response.status_code, response.json()["code"]) == (503, "replica_unreachable")
        assert "execution-1" in response.json()["detail"]
    assert created.json()["workerId"].startswith("execution-0-cpu-")


async def are_healthy(cluster: LocalCluster, count: int) -> bool:
    """Whether so many replicas pass the check of the registry."""
    async with httpx.AsyncClient(base_url=cluster.file.consul_url, trust_env=False) as registry:
        listed = (await registry.get("/v1/health/service/headrace-execution", params={"passing": "true"})).json()
    return len(listed) == count
