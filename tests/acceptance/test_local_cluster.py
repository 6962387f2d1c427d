"""One command starts everything, and stops everything, whatever is killed."""

import signal
import time
from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path

import httpx
import psutil
import psycopg
import pytest

from headrace.local.cluster import LocalCluster
from headrace.local.cluster_file import ProcessEntry
from headrace.local.consul import RegistryServer
from headrace.local.errors import LocalClusterError
from headrace.local.postgres import PostgresServer
from headrace.local.services import Stores
from tests.conftest import PROBE_TASKS, ClusterFactory
from tests.support.processes import has_ended
from tests.support.servers import RunningServer
from tests.support.waiting import wait_until

STOP_SECONDS = 20.0


def whole_family(cluster: LocalCluster) -> list[psutil.Process]:
    """Return `headrace up` and everything that it or its children started."""
    parent = psutil.Process(cluster.pid)
    return [parent, *parent.children(recursive=True)]


def all_ended(processes: Collection[psutil.Process]) -> bool:
    return all(has_ended(process.pid) for process in processes)


async def is_ready(cluster: LocalCluster) -> bool:
    async with httpx.AsyncClient(base_url=cluster.gateway_url, trust_env=False) as client:
        try:
            return (await client.get("/readyz")).status_code == 200
        except httpx.TransportError:
            return False


async def submit(cluster: LocalCluster, task_type: str, **data: object) -> int:
    async with httpx.AsyncClient(base_url=cluster.gateway_url, trust_env=False) as client:
        response = await client.post("/api/tasks", json={"type": task_type, "data": data})
        response.raise_for_status()
        task_id: int = response.json()["task_id"]
        return task_id


async def status_of(cluster: LocalCluster, task_id: int) -> str:
    async with httpx.AsyncClient(base_url=cluster.gateway_url, trust_env=False) as client:
        response = await client.get(f"/api/tasks/{task_id}")
        response.raise_for_status()
        return str(response.json()["status"])


async def start_long_task(cluster: LocalCluster) -> int:
    """Have a task run that takes no notice of anything for a minute."""
    task_id = await submit(cluster, "sleep_deaf", seconds=55)

    async def runs() -> bool:
        return await status_of(cluster, task_id) == "processing"

    await wait_until(runs)
    return task_id


async def words_counted(cluster: LocalCluster, task_id: int) -> int:
    """Wait for the end of a word_count task and return its result."""
    async with httpx.AsyncClient(base_url=cluster.gateway_url, trust_env=False, timeout=40) as client:
        response = await client.get(f"/api/tasks/{task_id}", params={"wait": 30})
        response.raise_for_status()
        words: int = response.json()["result"]["words"]
        return words


@pytest.mark.long
async def test_a_stopped_cluster_leaves_nothing_and_keeps_its_tasks(cluster_factory: ClusterFactory) -> None:
    cluster = await cluster_factory()
    task_id = await submit(cluster, "word_count", text="one two three")
    assert await words_counted(cluster, task_id) == 3
    family = whole_family(cluster)
    began = time.monotonic()
    await cluster.stop()
    assert time.monotonic() - began < STOP_SECONDS
    assert all_ended(family)
    await cluster.start()
    assert await words_counted(cluster, task_id) == 3


async def test_a_killed_cluster_leaves_nothing_and_keeps_its_tasks(cluster_factory: ClusterFactory) -> None:
    cluster = await cluster_factory()
    task_id = await submit(cluster, "word_count", text="one two three")
    assert await words_counted(cluster, task_id) == 3
    family = whole_family(cluster)
    await cluster.kill_supervisor()
    await wait_until(lambda: all_ended(family), timeout=STOP_SECONDS)
    await cluster.start()
    assert await words_counted(cluster, task_id) == 3


@pytest.mark.long
async def test_a_task_that_runs_delays_the_end_by_its_grace_alone(cluster_factory: ClusterFactory) -> None:
    cluster = await cluster_factory(role_env=PROBE_TASKS)
    task_id = await start_long_task(cluster)
    family = whole_family(cluster)
    began = time.monotonic()
    await cluster.stop()
    assert 7.5 < time.monotonic() - began < STOP_SECONDS
    assert all_ended(family)
    await cluster.start()
    assert await status_of(cluster, task_id) in ("queued", "processing")


@pytest.mark.long
async def test_a_task_that_runs_does_not_outlive_a_killed_cluster(cluster_factory: ClusterFactory) -> None:
    cluster = await cluster_factory(role_env=PROBE_TASKS)
    task_id = await start_long_task(cluster)
    family = whole_family(cluster)
    await cluster.kill_supervisor()
    await wait_until(lambda: all_ended(family), timeout=STOP_SECONDS)
    await cluster.start()
    assert await status_of(cluster, task_id) in ("queued", "processing")


async def test_servers_that_exist_are_used(
    cluster_factory: ClusterFactory, postgres_server: PostgresServer, redis_url: str, tmp_path: Path
) -> None:
    async with await psycopg.AsyncConnection.connect(postgres_server.dsn("postgres"), autocommit=True) as connection:
        for name in ("tasks_elsewhere", "results_elsewhere"):
            await connection.execute(f"CREATE DATABASE {name}".encode())
    consul = RegistryServer(tmp_path / "registry", consul=None)
    running_consul = RunningServer(consul, log=tmp_path / "registry.log")
    running_consul.start()
    try:
        stores = Stores(
            postgres_dsn=postgres_server.dsn("tasks_elsewhere"),
            results_dsn=postgres_server.dsn("results_elsewhere"),
            redis_url=redis_url,
            consul_url=consul.url,
        )
        cluster = await cluster_factory(managers=1, executors=1, workers=1, **asdict(stores))
        assert [entry.id for entry in cluster.processes] == ["management-0", "execution-0", "gateway-0"]
        assert await words_counted(cluster, await submit(cluster, "word_count", text="one two")) == 2
        async with await psycopg.AsyncConnection.connect(stores.results_dsn) as connection:
            assert await (await connection.execute("SELECT count(*) FROM results")).fetchone() == (1,)
        await cluster.stop()
    finally:
        running_consul.stop()


@pytest.mark.alone
async def test_task_modules_that_cannot_be_used_end_the_start_at_once(cluster_factory: ClusterFactory) -> None:
    before = await cluster_factory(managers=1, executors=1, workers=1)
    await before.stop()
    broken = LocalCluster(before.data_dir, role_env={"execution": {"HEADRACE_TASK_MODULES": "no_such_tasks"}})
    began = time.monotonic()
    with pytest.raises(LocalClusterError, match="the task module 'no_such_tasks' cannot be imported: ModuleNotFound"):
        await broken.start()
    assert time.monotonic() - began < STOP_SECONDS
    await broken.stop()


@pytest.mark.long
async def test_a_killed_cluster_can_be_started_again_at_once(cluster_factory: ClusterFactory) -> None:
    cluster = await cluster_factory()
    await cluster.kill_supervisor()
    await cluster.start()
    assert await words_counted(cluster, await submit(cluster, "word_count", text="one two")) == 2


async def test_what_is_killed_comes_back_at_the_same_address(cluster_factory: ClusterFactory) -> None:
    cluster = await cluster_factory()
    before = cluster.processes
    for victim in before:
        cluster.kill(victim, signal.SIGKILL)

    def came_back(victim: ProcessEntry) -> bool:
        now = next(entry for entry in cluster.processes if entry.id == victim.id)
        return now.pid != victim.pid and now.address == victim.address and psutil.pid_exists(now.pid)

    await wait_until(lambda: all(came_back(victim) for victim in before), timeout=20)
    await wait_until(lambda: is_ready(cluster), timeout=20)
    task_id = await submit(cluster, "word_count", text="one two three four")
    assert await words_counted(cluster, task_id) == 4
    said = cluster.output.read_text()
    assert all(f"{victim.id} was killed by SIGKILL, restarting" in said for victim in before)
