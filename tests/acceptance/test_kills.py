"""Processes are killed while tasks run. Accepted tasks survive, and nothing runs again without need."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import psycopg
import pytest
import pytest_asyncio

from headrace.local.cluster import LocalCluster
from tests.conftest import PROBE_TASKS
from tests.support.api import Api
from tests.support.javascript import Heard, javascript_client
from tests.support.side_effects import SideEffects
from tests.support.waiting import wait_until

# They share a cluster, so they are not run by several processes.
pytestmark = pytest.mark.timeout(180)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mortal_cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LocalCluster]:
    """A cluster whose processes are killed; `headrace up` restarts them."""
    data_dir = tmp_path_factory.mktemp("mortal") / "data"
    async with LocalCluster(data_dir, workers=2, role_env=PROBE_TASKS) as running:
        yield running


@pytest.fixture
async def api(mortal_cluster: LocalCluster) -> AsyncIterator[Api]:
    """The API once everything is up (again)."""
    async with Api(mortal_cluster.gateway_url) as api:

        async def is_whole() -> bool:
            try:
                stats = (await api.http.get("/api/stats")).json()
                types = (await api.http.get("/api/task-types/append_line")).json()
            except httpx.TransportError:
                return False
            return bool(stats.get("live_managers") == 2 and len(types.get("replicas", [])) == 2)

        await wait_until(is_whole, timeout=30)
        yield api


@pytest.fixture
def effects(tmp_path: Path) -> SideEffects:
    return SideEffects(tmp_path / "side-effects")


async def start_tasks(api: Api, effects: SideEffects, *, count: int, seconds: float) -> list[int]:
    """Submit tasks and wait until all of them run."""
    ids = await api.submit_many([{"type": "append_line", "data": effects.data(seconds)}] * count)
    await wait_until(lambda: len(effects.starts()) == count)
    return ids


def assert_run_once(effects: SideEffects, ids: list[int]) -> None:
    assert effects.starts() == dict.fromkeys(ids, 1)


async def test_a_killed_manager_costs_no_execution(
    mortal_cluster: LocalCluster, api: Api, effects: SideEffects
) -> None:
    ids = await start_tasks(api, effects, count=4, seconds=6)
    mortal_cluster.kill(mortal_cluster.process("management", 0))
    tasks = await api.finals(ids)
    assert [(task["status"], task["attempt"]) for task in tasks] == [("completed", 1)] * 4
    assert_run_once(effects, ids)


async def test_all_managers_killed_cost_no_execution(
    mortal_cluster: LocalCluster, api: Api, effects: SideEffects
) -> None:
    ids = await start_tasks(api, effects, count=4, seconds=3)
    for number in (0, 1):
        mortal_cluster.kill(mortal_cluster.process("management", number))
    tasks = await api.finals(ids)
    assert [(task["status"], task["attempt"]) for task in tasks] == [("completed", 1)] * 4
    assert_run_once(effects, ids)


@pytest.mark.alone
async def test_tasks_of_a_killed_execution_replica_run_elsewhere_within_5_s(
    mortal_cluster: LocalCluster, api: Api, effects: SideEffects
) -> None:
    ids = await start_tasks(api, effects, count=4, seconds=4)
    doomed = mortal_cluster.process("execution", 0)
    lost = [task["id"] for task in [await api.task(task_id) for task_id in ids] if task["replica"] == doomed.id]
    assert len(lost) == 2
    mortal_cluster.kill(doomed)
    killed_at = time.monotonic()
    again = {(task_id, 2) for task_id in lost}
    await wait_until(lambda: effects.started_attempts().keys() >= again, timeout=8)
    assert time.monotonic() - killed_at < 5
    tasks = await api.finals(ids)
    assert {task["status"] for task in tasks} == {"completed"}
    assert effects.starts() == {task_id: 2 if task_id in lost else 1 for task_id in ids}
    assert set(effects.started_attempts().values()) == {1}
    assert [task["failures"] for task in tasks] == [0] * 4


@pytest.mark.alone
async def test_tasks_of_a_frozen_execution_replica_run_elsewhere_and_its_late_results_count_for_nothing(
    mortal_cluster: LocalCluster, api: Api, effects: SideEffects
) -> None:
    ids = await start_tasks(api, effects, count=4, seconds=3)
    frozen = mortal_cluster.process("execution", 1)
    lost = [task["id"] for task in [await api.task(task_id) for task_id in ids] if task["replica"] == frozen.id]
    mortal_cluster.kill(frozen, signal.SIGSTOP)
    frozen_at = time.monotonic()
    try:
        again = {(task_id, 2) for task_id in lost}
        await wait_until(lambda: effects.started_attempts().keys() >= again, timeout=12)
        assert time.monotonic() - frozen_at < 8
    finally:
        mortal_cluster.kill(frozen, signal.SIGCONT)
    tasks = await api.finals(ids)
    assert {task["status"] for task in tasks} == {"completed"}
    assert {task["id"]: task["attempt"] for task in tasks} == {task_id: 2 if task_id in lost else 1 for task_id in ids}
    assert set(effects.started_attempts().values()) == {1}


async def submit_until(api: Api, done: asyncio.Event) -> list[int]:
    """Submit batches one after the other; return the ids of those that were accepted."""
    accepted: list[int] = []
    while not done.is_set():
        try:
            answer = await api.http.post("/api/tasks/batch", json=[{"type": "noop", "data": {}}] * 50)
        except httpx.TransportError:
            continue
        if answer.status_code == 201:
            accepted += answer.json()["task_ids"]
        else:
            assert answer.status_code == 503, answer.text
            assert "retry-after" in answer.headers
        await asyncio.sleep(0.01)
    return accepted


async def count_results(cluster: LocalCluster, ids: list[int]) -> int:
    async with await psycopg.AsyncConnection.connect(cluster.file.results_dsn) as connection:
        query = b"SELECT count(DISTINCT task_id) FROM results WHERE task_id = ANY(%s)"
        row = await (await connection.execute(query, (ids,))).fetchone()
    assert row is not None
    return int(row[0])


@pytest.mark.parametrize("role", ["redis", "postgres", "registry"])
async def test_accepted_tasks_survive_the_death_of_a_store_and_what_runs_goes_on(
    mortal_cluster: LocalCluster, api: Api, effects: SideEffects, role: str
) -> None:
    running = await start_tasks(api, effects, count=2, seconds=5)
    done = asyncio.Event()
    submitting = asyncio.create_task(submit_until(api, done))
    victim = mortal_cluster.process(role)
    await asyncio.sleep(0.5)
    mortal_cluster.kill(victim)
    await wait_until(lambda: mortal_cluster.process(role).pid != victim.pid)
    after = await wait_for_submission(api)
    await asyncio.sleep(0.5)
    done.set()
    accepted = await submitting
    assert len(accepted) > 100
    tasks = await api.finals([after, *running, accepted[0], accepted[-1]])
    assert {task["status"] for task in tasks} == {"completed"}
    assert_run_once(effects, running)
    await wait_until(lambda: all_have_results(mortal_cluster, accepted), timeout=60)


async def wait_for_submission(api: Api) -> int:
    """Submit one more task as soon as that works; return its id."""
    while True:
        answer = await api.http.post("/api/tasks", json={"type": "noop", "data": {}})
        if answer.status_code == 201:
            return int(answer.json()["task_id"])
        await asyncio.sleep(0.05)


async def all_have_results(cluster: LocalCluster, ids: list[int]) -> bool:
    return await count_results(cluster, ids) == len(set(ids))


@pytest.mark.parametrize("resume", [False, True], ids=["anew", "resuming"])
@pytest.mark.parametrize("transport", ["websocket", "polling"])
async def test_a_page_comes_back_by_itself_to_a_gateway_that_was_killed(
    mortal_cluster: LocalCluster, api: Api, effects: SideEffects, transport: str, resume: bool
) -> None:
    """However it comes back, its picture of each task goes on without a gap: by the next revision or a snapshot."""
    address = f"{mortal_cluster.gateway_url}/append_line"
    known: dict[int, int] = {}
    async with javascript_client(address, options={"transports": [transport]}, resume=resume) as listener:
        await listener.hear("snapshot")
        [task_id] = await start_tasks(api, effects, count=1, seconds=2)
        while task_id not in known:
            _take(known, await listener.hear("snapshot", "task_update"))
        mortal_cluster.kill(mortal_cluster.process("gateway"))
        await listener.hear("disconnect")
        await listener.hear("connect")
        final = await api.final(task_id)
        while known[task_id] < final["revision"]:
            _take(known, await listener.hear("snapshot", "task_update"))


def _take(known: dict[int, int], heard: Heard) -> None:
    """Note the newest revision of each task; updates of a task follow each other."""
    data = heard.args[0]
    if heard.event == "snapshot":
        known.update({task["id"]: task["revision"] for task in data["tasks"]})
    elif data["progress"] is None:
        assert data["revision"] == known.get(data["id"], data["revision"] - 1) + 1, (known, heard)
        known[data["id"]] = data["revision"]
