"""What a test is told of a cluster's answers; functions here play the gateway."""

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from headrace.testing import RunningCluster, TaskFailedError, TaskRefusedError

URL = "http://127.0.0.1:8080"
CODED = {"code": "no_grain", "message": "There is none.", "exception": "headrace.tasks.PermanentError"}


def cluster_that(answer: Callable[[httpx.Request], httpx.Response]) -> RunningCluster:
    return RunningCluster(httpx.Client(base_url=URL, transport=httpx.MockTransport(answer)))


def cluster_with(*answers: httpx.Response) -> RunningCluster:
    """Return a cluster that accepts a task as number 7 and gives the answers in turn when it is asked for it."""
    remaining = iter(answers)

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(201, json={"task_id": 7}) if request.method == "POST" else next(remaining)

    return cluster_that(answer)


def task(status: str, *, result: Any = None, error: dict[str, str] | None = None) -> httpx.Response:
    return httpx.Response(200, json={"id": 7, "type": "grind", "status": status, "result": result, "error": error})


def test_it_knows_its_address() -> None:
    assert cluster_with().url == URL


def test_a_task_is_submitted_with_its_options() -> None:
    bodies: list[Any] = []

    def answer(request: httpx.Request) -> httpx.Response:
        bodies.append((request.url.path, json.loads(request.content)))
        return httpx.Response(201, json={"task_id": 7})

    assert cluster_that(answer).submit("grind", {"kg": 2}, delay=3, max_attempts=1) == 7
    assert bodies == [("/api/tasks", {"type": "grind", "data": {"kg": 2}, "delay": 3, "max_attempts": 1})]


def test_a_task_that_is_not_accepted_says_all_that_is_wrong_with_it() -> None:
    errors = [
        {"field": "/data/kg", "rule": "type", "message": "Too light."},
        {"field": "/delay", "message": "Too long."},
    ]
    problem = {"status": 422, "code": "invalid_request", "detail": "/data/kg: Too light. (1 more below)"}
    cluster = cluster_that(lambda _: httpx.Response(422, json={**problem, "errors": errors}))
    with pytest.raises(TaskRefusedError) as refused:
        cluster.run("grind", {})
    said = "grind was refused (422): /data/kg: Too light. (1 more below)\n/delay: Too long."
    assert (str(refused.value), refused.value.problem["code"]) == (said, "invalid_request")


def test_the_result_is_awaited() -> None:
    assert cluster_with(task("queued"), task("processing"), task("completed", result=[1])).run("grind", {}) == [1]


@pytest.mark.parametrize(
    ("status", "error", "said", "code"),
    [
        (
            "failed",
            CODED,
            "task 7 (grind) ended as failed: no_grain: There is none. (headrace.tasks.PermanentError)",
            "no_grain",
        ),
        (
            "failed",
            {"code": "timeout", "message": "Too slow."},
            "task 7 (grind) ended as failed: timeout: Too slow.",
            "timeout",
        ),
        ("cancelled", None, "task 7 (grind) ended as cancelled", None),
    ],
)
def test_a_task_without_a_result_raises_its_error(
    status: str, error: dict[str, str] | None, said: str, code: str | None
) -> None:
    with pytest.raises(TaskFailedError) as failed:
        cluster_with(task(status, error=error)).run("grind", {})
    assert (str(failed.value), failed.value.code, failed.value.task["id"]) == (said, code, 7)


def test_a_failed_task_can_be_looked_at() -> None:
    assert cluster_with(task("failed", error=CODED)).wait(7)["error"] == CODED


def test_a_service_that_catches_up_is_waited_for() -> None:
    assert cluster_with(httpx.Response(503), task("completed", result=3)).run("grind", {}) == 3


def test_a_task_that_does_not_exist_is_not_waited_for() -> None:
    with pytest.raises(httpx.HTTPStatusError, match="404"):
        cluster_with(httpx.Response(404)).wait(7)


@pytest.mark.parametrize(("last", "status"), [(task("processing"), "processing"), (httpx.Response(503), "unknown")])
def test_a_wait_ends_in_time(last: httpx.Response, status: str) -> None:
    waits: list[float] = []

    def answer(request: httpx.Request) -> httpx.Response:
        waits.append(float(request.url.params["wait"]))
        return last

    with pytest.raises(TimeoutError, match=rf"task 7 is {status} after 0\.05 s"):
        cluster_that(answer).wait(7, timeout=0.05)
    assert 0 < waits[0] <= 0.05


def test_a_long_wait_is_made_of_waits_that_the_gateway_allows() -> None:
    waits: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        waits.append(request.url.params["wait"])
        return task("queued" if len(waits) < 3 else "completed")

    cluster_that(answer).wait(7, timeout=600)
    assert waits == ["10.000"] * 3
