import asyncio

import pytest

from headrace.v1.task_pb2 import Backoff, TaskOptions
from servicekit.errors import Unavailable
from servicekit.http.protocol import BoundedHeadersProtocol
from tests.support.fake_management import FakeManagement, task_type
from tests.support.running_gateway import RunningGateway

PATHS = [
    ("GET", "/nope", 404, "not_found"),
    ("GET", "//api/tasks", 404, "not_found"),
    ("GET", "/api/tasks/", 404, "not_found"),
    ("GET", "/api/tasks/..%2f..%2fetc", 404, "not_found"),
    ("GET", "/docs/..%2f..%2fpyproject.toml", 404, "not_found"),
    ("GET", "/docs/swagger-ui.css.map", 404, "not_found"),
    ("PUT", "/api/tasks", 405, "method_not_allowed"),
    ("PATCH", "/api/tasks/1", 405, "method_not_allowed"),
    ("TRACE", "/api/stats", 405, "method_not_allowed"),
    ("GET", "/api/tasks/abc", 422, "invalid_id"),
    ("GET", "/api/tasks/1.5", 422, "invalid_id"),
    ("GET", "/api/tasks/-1", 422, "invalid_id"),
    ("GET", "/api/tasks/%00", 422, "invalid_id"),
    ("GET", "/api/tasks/99999999999999999999", 422, "invalid_id"),
    ("DELETE", "/api/tasks/x", 422, "invalid_id"),
    ("POST", "/api/tasks/x/retry", 422, "invalid_id"),
    ("GET", "/api/tasks/1?wait=abc", 422, "invalid_parameter"),
    ("GET", "/api/tasks?limit=0", 422, "invalid_parameter"),
    ("GET", "/api/tasks?limit=5&limit=5", 422, "invalid_parameter"),
    ("GET", "/api/tasks?status=weird", 422, "invalid_parameter"),
    ("GET", "/api/tasks?type=" + "x" * 5000, 414, "uri_too_long"),
    ("GET", "/api/task-types/nope", 404, "unknown_task_type"),
    ("GET", "/api/tasks/12345", 404, "task_not_found"),
    ("POST", "/api/tasks/12345/retry", 404, "task_not_found"),
]


async def test_every_error_is_problem_json(running: RunningGateway, subtests: pytest.Subtests) -> None:
    for method, path, status, code in PATHS:
        with subtests.test(f"{method} {path[:40]}"):
            response = await running.client.request(method, path)
            problem = response.json()
            assert (response.status_code, problem["status"], problem["code"]) == (status, status, code)
            assert response.headers["content-type"] == "application/problem+json"
            assert response.headers["x-content-type-options"] == "nosniff"
            assert problem["request_id"] == response.headers["x-request-id"]
            assert "Traceback" not in response.text
            if status == 405:
                assert response.headers["allow"]


async def test_the_allow_header_names_all_methods_of_the_path(running: RunningGateway) -> None:
    assert (await running.client.put("/api/tasks")).headers["allow"] == "GET, POST"
    assert (await running.client.put("/api/tasks/1")).headers["allow"] == "DELETE, GET"
    assert (await running.client.post("/openapi.json")).headers["allow"] == "GET, HEAD"


async def test_a_failure_of_our_own_shows_nothing_of_the_inside(
    running: RunningGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(task_id: int) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(running.gateway.reader, "read", broken)
    response = await running.client.get("/api/tasks/1")
    assert (response.status_code, response.json()["code"]) == (500, "internal")
    assert "secret" not in response.text
    assert response.headers["x-content-type-options"] == "nosniff"


async def test_a_harmless_request_id_is_kept_and_another_replaced(running: RunningGateway) -> None:
    kept = await running.client.get("/healthz", headers={"X-Request-Id": "trace-1"})
    assert kept.headers["x-request-id"] == "trace-1"
    replaced = await running.client.get("/healthz", headers={"X-Request-Id": "a b\tc"})
    assert len(replaced.headers["x-request-id"]) == 16


async def test_task_types_are_listed_with_examples(running: RunningGateway) -> None:
    types = (await running.client.get("/api/task-types")).json()
    assert [each["name"] for each in types] == ["noop", "word_count"]
    one = (await running.client.get("/api/task-types/word_count")).json()
    assert one == types[1]
    example = one["data_schema"]["examples"][0]
    assert (await running.client.post("/api/tasks", json={"type": "word_count", "data": example})).status_code == 201


async def test_a_type_shows_its_soft_timeout_and_backoff(running: RunningGateway, management: FakeManagement) -> None:
    plain = (await running.client.get("/api/task-types/noop")).json()
    assert (plain["soft_timeout"], plain["backoff"]) == (None, {"initial": 1, "factor": 2, "maximum": 300})
    options = TaskOptions(soft_timeout_ms=2500, backoff=Backoff(initial_ms=10, factor=1.5, max_ms=20))
    management.types.append(task_type("own", options=options))
    await running.gateway.catalog.refresh()
    own = (await running.client.get("/api/task-types/own")).json()
    assert (own["soft_timeout"], own["backoff"]) == (2.5, {"initial": 0.01, "factor": 1.5, "maximum": 0.02})


async def test_stats_count_every_status(running: RunningGateway) -> None:
    stats = (await running.client.get("/api/stats")).json()
    assert stats["tasks"] == {
        "scheduled": 0, "queued": 0, "processing": 0, "retrying": 0, "completed": 0, "failed": 0, "cancelled": 0,
    }  # fmt: skip
    assert (stats["live_executors"], stats["live_managers"]) == (1, 1)


async def test_metrics_are_in_the_text_format(running: RunningGateway) -> None:
    await running.client.post("/api/tasks", json={"type": "noop", "data": {}})
    response = await running.client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert 'headrace_http_requests_total{method="POST",route="/api/tasks",status="201"} 1' in response.text
    assert 'headrace_tasks_accepted_total{durability="redis-aof"} 1' in response.text


async def test_readiness_says_why_not(running: RunningGateway) -> None:
    assert (await running.client.get("/readyz")).status_code == 200
    running.gateway.draining = True
    response = await running.client.get("/readyz")
    assert (response.status_code, response.json()["problems"]) == (503, {"draining": "draining"})


async def test_the_docs_need_nothing_from_elsewhere(running: RunningGateway) -> None:
    page = (await running.client.get("/docs")).text
    assert "http" not in page.replace("httpd", "")
    for asset in ("swagger-ui.css", "swagger-ui-bundle.js", "start.js", "favicon-32x32.png"):
        assert f"/docs/{asset}" in page
        assert (await running.client.get(f"/docs/{asset}")).status_code == 200


async def test_the_description_covers_every_route_with_examples(running: RunningGateway) -> None:
    document = (await running.client.get("/openapi.json")).json()
    assert document["openapi"].startswith("3.0.")
    assert {(method, path) for path, methods in document["paths"].items() for method in methods} == {
        ("post", "/api/tasks"),
        ("get", "/api/tasks"),
        ("post", "/api/tasks/batch"),
        ("get", "/api/tasks/{task_id}"),
        ("delete", "/api/tasks/{task_id}"),
        ("get", "/api/tasks/{task_id}/logs"),
        ("get", "/api/tasks/{task_id}/events"),
        ("get", "/api/events"),
        ("post", "/api/tasks/{task_id}/retry"),
        ("post", "/api/tasks/retry"),
        ("get", "/api/workers"),
        ("post", "/api/workers"),
        ("get", "/api/workers/{worker_id}"),
        ("delete", "/api/workers/{worker_id}"),
        ("get", "/api/task-types"),
        ("get", "/api/task-types/{name}"),
        ("get", "/api/stats"),
        ("get", "/healthz"),
        ("get", "/readyz"),
        ("get", "/metrics"),
    }
    submit = document["paths"]["/api/tasks"]["post"]
    body = submit["requestBody"]["content"]["application/json"]
    assert body["schema"]["discriminator"]["mapping"]["word_count"] == "#/components/schemas/word_count"
    assert submit["responses"]["201"]["content"]["application/json"]["schema"]["example"] == {"task_id": 1_000_001}
    assert "422" not in submit["responses"]
    wish = document["paths"]["/api/workers"]["post"]["requestBody"]
    assert wish["required"] is False
    assert "application/problem+json" in submit["responses"]["4XX"]["content"]


@pytest.mark.parametrize("sent", [b"", b"GET /healthz HTTP/1.1\r\nHos"])
async def test_a_connection_without_a_whole_request_is_closed(
    running: RunningGateway, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr("servicekit.http.protocol.HEADER_SECONDS", 0.1)
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    writer.write(sent)
    assert await asyncio.wait_for(reader.read(), 5) == b""
    writer.close()


async def test_a_kept_connection_outlives_the_header_bound(
    running: RunningGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("servicekit.http.protocol.HEADER_SECONDS", 0.1)
    assert issubclass(running.server.config.http_protocol_class, BoundedHeadersProtocol)
    response = await running.client.get("/api/tasks/12345?wait=0")
    assert response.status_code == 404
    await asyncio.sleep(0.2)  # the bound is over
    assert (await running.client.get("/healthz")).status_code == 200


async def test_two_requests_with_different_lengths_are_no_smuggling(running: RunningGateway) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    writer.write(
        b"POST /api/tasks HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Content-Length: 2\r\nContent-Length: 5\r\n\r\n{}GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    )
    assert (await asyncio.wait_for(reader.read(), 5)).startswith(b"HTTP/1.1 400")
    writer.close()


async def test_the_catalog_is_known_while_management_is_away(
    running: RunningGateway, management: FakeManagement
) -> None:
    running.gateway.catalog.loaded = False
    management.failures["ListTaskTypes"] = Unavailable("away")
    response = await running.client.post("/api/tasks", json={"type": "other", "data": {}})
    assert (response.status_code, response.json()["code"]) == (503, "catalog_unavailable")
