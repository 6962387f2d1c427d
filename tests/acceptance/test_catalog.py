"""The catalog as a user sees it: new types come by themselves, and types without a replica stay known."""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from headrace.local.cluster import LocalCluster
from headrace.local.process import free_port
from tests.support.api import Api
from tests.support.waiting import wait_until

MODULE = '''
from headrace import task


@task("{name}", examples=[{{"grain": "rye"}}])
def {name}(data: dict[str, str]) -> str:
    """Mill grain."""
    return data["grain"] + " flour"
'''


@contextlib.asynccontextmanager
async def extra_replica(cluster: LocalCluster, folder: Path, name: str) -> AsyncIterator[float]:
    """One more execution replica, which brings the task type `name`; gives the time at which it was started."""
    (folder / f"{name}_tasks.py").write_text(MODULE.format(name=name))
    environment = {
        **os.environ,
        "HEADRACE_REPLICA": f"{name}-replica",
        "HEADRACE_HOST": "127.0.0.1",
        "HEADRACE_GRPC_PORT": str(free_port()),
        "HEADRACE_CONSUL_URL": cluster.file.consul_url,
        "HEADRACE_RESULTS_DSN": cluster.file.results_dsn,
        "HEADRACE_SCRATCH_DIR": str(folder / "scratch"),
        "HEADRACE_WORKERS": "1",
        "HEADRACE_GRACE": "2",
        "HEADRACE_TASK_MODULES": f"{name}_tasks",
        "PYTHONPATH": str(folder),
    }
    with (folder / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "execution_service", env=environment, stdout=log, stderr=log
        )
    try:
        await wait_until(lambda: b"replica_started" in (folder / "log").read_bytes(), timeout=30)
        yield time.monotonic()
    finally:
        process.send_signal(signal.SIGTERM)
        await process.wait()


@pytest.mark.alone
async def test_a_new_type_is_usable_soon_and_stays_known_without_its_replica(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    async with Api(cluster.gateway_url) as api:
        assert (await api.http.get("/api/task-types/mill_grain")).status_code == 404
        async with extra_replica(cluster, tmp_path, "mill_grain") as started:
            while (await api.http.get("/api/task-types/mill_grain")).status_code != 200:
                assert time.monotonic() - started < 2, "the type was not usable within 2 s"
                await asyncio.sleep(0.05)
            task_id = await api.submit("mill_grain", {"grain": "spelt"})
            ended = await api.final(task_id)
            assert (ended["result"], ended["replica"]) == ("spelt flour", "mill_grain-replica")
            described = (await api.http.get("/api/task-types/mill_grain")).json()
            assert described["replicas"] == ["mill_grain-replica"]
            assert described["data_schema"]["examples"] == [{"grain": "rye"}]
            assert described["limits"]["memory_mib"] == 1024

        async def has_no_replica() -> bool:
            return not (await api.http.get("/api/task-types/mill_grain")).json()["replicas"]

        await wait_until(has_no_replica)
        waiting = await api.submit("mill_grain", {"grain": "oats"})

        async def has_notice() -> bool:
            return (await api.task(waiting))["notice"] is not None

        await wait_until(has_notice)
        view = await api.task(waiting)
        assert view["status"] == "queued"
        assert view["notice"] == "No live replica serves the task type 'mill_grain'; the task waits for one."
        async with extra_replica(cluster, tmp_path, "mill_grain"):
            ended = await api.final(waiting)
            assert (ended["result"], ended["notice"]) == ("oats flour", None)


async def test_the_log_of_each_attempt_is_kept(cluster: LocalCluster) -> None:
    async with Api(cluster.gateway_url) as api:
        task_id = await api.submit("fail", {"times": 1, "message": "the stone is worn"}, max_attempts=2)
        ended = await api.final(task_id)
        assert ended["status"] == "completed"

        async def logs_are_there() -> bool:
            return bool((await api.http.get(f"/api/tasks/{task_id}/logs")).json())

        await wait_until(logs_are_there)
        [first] = (await api.http.get(f"/api/tasks/{task_id}/logs")).json()
        assert first["attempt"] == 1
        assert "RuntimeError: the stone is worn" in first["log"]
        assert (await api.http.get("/api/tasks/999999999999/logs")).status_code == 404


async def test_bad_data_is_refused_at_submit_with_a_pointer(cluster: LocalCluster) -> None:
    async with Api(cluster.gateway_url) as api:
        answer = await api.http.post("/api/tasks", json={"type": "word_count", "data": {"txt": "a"}})
        assert answer.status_code == 422
        assert {error["field"]: error["rule"] for error in answer.json()["errors"]} == {
            "/data/text": "required",
            "/data/txt": "unknown_field",
        }
        answer = await api.http.post("/api/tasks", json={"type": "wordcount", "data": {}})
        assert "'word_count'" in answer.json()["detail"]
