"""`/api/workers` over several replicas, of which some do not answer."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from execution_service.workers.outcomes import WorkerState
from servicekit.errors import Conflict, Overloaded, Unavailable
from tests.support.fake_execution import FakeExecutor, NamedWatch, busy, serve_executors
from tests.support.fake_management import FakeManagement
from tests.support.running_gateway import RunningGateway, run_gateway


@pytest.fixture
async def executors() -> list[FakeExecutor]:
    return [FakeExecutor("exec-1"), FakeExecutor("exec-2")]


@pytest.fixture
async def watch(executors: list[FakeExecutor]) -> AsyncIterator[NamedWatch]:
    async with serve_executors(*executors) as watch:
        yield watch


@pytest.fixture
async def running(redis_url: str, management: FakeManagement, watch: NamedWatch) -> AsyncIterator[RunningGateway]:
    """A gateway that knows two execution replicas."""
    async with run_gateway(redis_url, management, watch) as gateway:
        yield gateway


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.execution.CALL_SECONDS", 0.3)


async def listed(running: RunningGateway) -> list[dict[str, Any]]:
    response = await running.client.get("/api/workers")
    assert response.status_code == 200, response.text
    workers: list[dict[str, Any]] = response.json()
    return workers


async def test_the_workers_of_all_replicas_are_listed(running: RunningGateway, executors: list[FakeExecutor]) -> None:
    workers = executors[1].list
    workers.listed[0] = busy(workers.listed[0], 17)
    response = await running.client.get("/api/workers")
    assert "headrace-unreachable" not in response.headers
    assert [worker["id"] for worker in response.json()] == [
        "exec-1-cpu-beef1",
        "exec-1-io-beef2",
        "exec-2-cpu-beef1",
        "exec-2-io-beef2",
    ]
    assert response.json()[2] == {
        "id": "exec-2-cpu-beef1",
        "startTime": "2030-03-17T17:46:40.250Z",
        "replica": "exec-2",
        "pid": 1001,
        "pool": "cpu",
        "state": "busy",
        "slots": 1,
        "tasks": [{"id": 17, "attempt": 2, "type": "word_count", "running_for": 1.5}],
        "tasks_done": 7,
        "memory_mib": 50.0,
    }
    one = await running.client.get("/api/workers/exec-2-cpu-beef1")
    assert one.json() == response.json()[2]


@pytest.mark.parametrize("how", ["frozen", "gone"])
async def test_a_replica_that_does_not_answer_is_named_beside_the_workers_of_the_others(
    running: RunningGateway, executors: list[FakeExecutor], how: str
) -> None:
    if how == "frozen":
        executors[0].answers.clear()
    else:
        await executors[0].server.stop(0)
    response = await running.client.get("/api/workers")
    assert response.headers["headrace-unreachable"] == "exec-1"
    assert {worker["replica"] for worker in response.json()} == {"exec-2"}
    lost = await running.client.get("/api/workers/exec-1-cpu-beef1")
    assert (lost.status_code, lost.json()["code"]) == (503, "replica_unreachable")
    assert lost.json()["detail"] == "The execution replica exec-1 does not answer."
    assert lost.headers["retry-after"]
    assert (await running.client.get("/api/workers/exec-2-cpu-beef1")).status_code == 200
    created = await running.client.post("/api/workers")
    assert created.json()["workerId"].startswith("exec-2-")


async def test_a_replica_that_is_gone_can_be_given_no_order(
    running: RunningGateway, executors: list[FakeExecutor]
) -> None:
    await executors[0].server.stop(0)
    removal = await running.client.delete("/api/workers/exec-1-cpu-beef1?force=true")
    addition = await running.client.post("/api/workers", json={"replica": "exec-1"})
    for response in (removal, addition):
        assert (response.status_code, response.json()["code"]) == (503, "replica_unreachable")
        assert "exec-1" in response.json()["detail"]


async def test_without_any_answer_there_is_no_list(
    running: RunningGateway, executors: list[FakeExecutor], watch: NamedWatch
) -> None:
    for each in executors:
        each.answers.clear()
    for response in (await running.client.get("/api/workers"), await running.client.post("/api/workers")):
        assert (response.status_code, response.json()["code"]) == (503, "replica_unreachable")
        assert response.json()["detail"] == "No execution replica answers: exec-1, exec-2."
    watch.replace([])
    for response in (await running.client.get("/api/workers"), await running.client.post("/api/workers")):
        assert (response.status_code, response.json()["code"]) == (503, "no_replica")


async def test_names_in_the_header_cannot_break_it(redis_url: str, management: FakeManagement) -> None:
    odd = FakeExecutor("a,b\r\nX: ü")
    async with (
        serve_executors(odd, FakeExecutor("exec-2")) as watch,
        run_gateway(redis_url, management, watch) as running,
    ):
        odd.answers.clear()
        response = await running.client.get("/api/workers")
        assert response.headers["headrace-unreachable"] == "a%2Cb%0D%0AX: %C3%BC"


async def test_a_worker_is_created_where_there_are_fewest(
    running: RunningGateway, executors: list[FakeExecutor]
) -> None:
    executors[0].list.add_worker("cpu")
    created = await running.client.post("/api/workers")
    assert (created.status_code, created.json()) == (201, {"workerId": "exec-2-cpu-beef3"})
    assert created.headers["location"] == "/api/workers/exec-2-cpu-beef3"
    assert (await running.client.get(created.headers["location"])).json()["pool"] == "cpu"
    # One that leaves does not count, nor do those of another pool.
    executors[0].list.listed[:] = [busy(worker, state=WorkerState.DRAINING) for worker in executors[0].list.listed]
    executors[0].list.add_worker("cpu")
    executors[0].list.add_worker("io")
    executors[0].list.add_worker("io")
    assert (await running.client.post("/api/workers", json={})).json()["workerId"].startswith("exec-1-cpu-")
    named = await running.client.post("/api/workers", json={"replica": "exec-1", "pool": "io"})
    assert named.json()["workerId"].startswith("exec-1-io-")
    nulls = await running.client.post("/api/workers", json={"replica": None, "pool": None})
    assert nulls.status_code == 201


async def test_a_pool_that_one_replica_alone_has_is_found_there(redis_url: str, management: FakeManagement) -> None:
    async with (
        serve_executors(FakeExecutor("exec-1"), FakeExecutor("exec-2", ["cpu", "gpu"])) as watch,
        run_gateway(redis_url, management, watch) as running,
    ):
        created = await running.client.post("/api/workers", json={"pool": "gpu"})
        assert created.json()["workerId"].startswith("exec-2-gpu-")


@pytest.mark.parametrize(
    ("body", "status", "code", "field"),
    [
        (b'{"replica": "exec-3"}', 422, "unknown_replica", "/replica"),
        (b'{"pool": "gpu"}', 422, "unknown_pool", "/pool"),
        (b'{"pool": ""}', 422, "unknown_pool", "/pool"),
        (b'{"replica": ""}', 422, "unknown_replica", "/replica"),
        (b'{"replica": 1}', 422, "invalid_request", "/replica"),
        (b'{"pol": "cpu"}', 422, "unknown_field", "/pol"),
        (b"[]", 422, "invalid_request", ""),
        (b"{", 400, "invalid_json", None),
        (b'{"pool": "' + b"x" * 70_000 + b'"}', 413, "body_too_large", None),
    ],
)
async def test_wrong_wishes_are_refused_with_the_field(
    running: RunningGateway,
    executors: list[FakeExecutor],
    body: bytes,
    status: int,
    code: str,
    field: str | None,
) -> None:
    before = [len(each.list.listed) for each in executors]
    response = await running.client.post("/api/workers", content=body, headers={"Content-Type": "application/json"})
    problem = response.json()
    assert (response.status_code, problem["code"]) == (status, code)
    assert response.headers["content-type"] == "application/problem+json"
    assert [error["field"] for error in problem["errors"]] == ([] if field is None else [field])
    assert [len(each.list.listed) for each in executors] == before


async def test_a_hint_names_the_replicas_there_are(running: RunningGateway) -> None:
    near = await running.client.post("/api/workers", json={"replica": "exce-1"})
    assert "Did you mean 'exec-1'" in near.json()["detail"]
    far = await running.client.post("/api/workers", json={"replica": "x"})
    assert "Known are exec-1, exec-2." in far.json()["detail"]


async def test_a_body_that_is_no_json_is_told_so(running: RunningGateway) -> None:
    response = await running.client.post("/api/workers", content=b"pool=io")
    assert (response.status_code, response.json()["code"]) == (415, "unsupported_media_type")


async def test_what_becomes_of_a_removed_worker_is_told(running: RunningGateway, executors: list[FakeExecutor]) -> None:
    workers = executors[0].list
    cases = [
        (busy(workers.listed[0], state=WorkerState.ENDING), "ends now."),
        (busy(workers.listed[0], 5, state=WorkerState.ENDING), "ends now; what it ran starts again in another one."),
        (
            busy(workers.listed[0], 5, state=WorkerState.DRAINING),
            "takes no more tasks, and ends when the task that it runs has ended.",
        ),
        (
            busy(workers.listed[0], 5, 6, state=WorkerState.DRAINING),
            "takes no more tasks, and ends when the 2 tasks that it runs have ended.",
        ),
        (
            busy(workers.listed[0], state=WorkerState.DRAINING),
            "takes no more tasks, and ends when what it holds has ended.",
        ),
    ]
    for worker, words in cases:
        workers.listed[0] = worker
        response = await running.client.delete(f"/api/workers/{worker.worker_id}")
        assert (response.status_code, response.json()) == (200, {"message": f"Worker {worker.worker_id} {words}"})
    for query, forced in (("?force=true", True), ("?force=false", False)):
        await running.client.delete(f"/api/workers/exec-1-cpu-beef1{query}")
        assert workers.removed[-1] == ("exec-1-cpu-beef1", forced)
    assert executors[1].list.removed == []


@pytest.mark.parametrize(
    "worker_id", ["exec-1-cpu-beef9", "exec-3-cpu-beef1", "nobody", "-", "exec-1", "x" * 500, "%00"]
)
async def test_an_unknown_worker_is_not_found(running: RunningGateway, worker_id: str) -> None:
    for method in ("GET", "DELETE"):
        response = await running.client.request(method, f"/api/workers/{worker_id}")
        assert (response.status_code, response.json()["code"]) == (404, "worker_not_found")
        assert len(response.json()["detail"]) < 200


@pytest.mark.parametrize(
    ("method", "path", "field"),
    [
        ("GET", "/api/workers?pool=cpu", "pool"),
        ("GET", "/api/workers/exec-1-cpu-beef1?x=1", "x"),
        ("POST", "/api/workers?pool=cpu", "pool"),
        ("DELETE", "/api/workers/exec-1-cpu-beef1?force=yes", "force"),
        ("DELETE", "/api/workers/exec-1-cpu-beef1?force=", "force"),
        ("DELETE", "/api/workers/exec-1-cpu-beef1?force=true&force=true", "force"),
        ("DELETE", "/api/workers/exec-1-cpu-beef1?forec=true", "forec"),
    ],
)
async def test_wrong_parameters_are_refused(
    running: RunningGateway, executors: list[FakeExecutor], method: str, path: str, field: str
) -> None:
    response = await running.client.request(method, path)
    assert (response.status_code, response.json()["code"]) == (422, "invalid_parameter")
    assert [error["field"] for error in response.json()["errors"]] == [field]
    assert executors[0].list.removed == []


async def test_what_a_replica_refuses_is_told_as_it_says_it(
    running: RunningGateway, executors: list[FakeExecutor]
) -> None:
    for failure, status in (
        (Conflict("It is the last one.", code="last_worker"), 409),
        (Overloaded("There are 256.", code="too_many_workers"), 503),
        (Unavailable("The replica is stopping.", code="draining"), 503),
    ):
        executors[0].list.failure = failure
        removal = await running.client.delete("/api/workers/exec-1-cpu-beef1")
        addition = await running.client.post("/api/workers", json={"replica": "exec-1"})
        for response in (removal, addition):
            problem = response.json()
            assert (response.status_code, problem["code"], problem["detail"]) == (status, failure.code, failure.message)


async def test_other_methods_are_refused(running: RunningGateway) -> None:
    assert (await running.client.put("/api/workers")).headers["allow"] == "GET, POST"
    assert (await running.client.patch("/api/workers/x")).headers["allow"] == "DELETE, GET"
