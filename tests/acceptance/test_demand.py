"""Short tasks do not wait behind long ones, and long ones are not hoarded: on a whole cluster, whatever ran before."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import psycopg
import pytest
import pytest_asyncio

from headrace.local.cluster import LocalCluster
from tests.conftest import PROBE_TASKS
from tests.support.api import Api
from tests.support.side_effects import SideEffects
from tests.support.waiting import wait_until

# They share a cluster, and what is measured is how long tasks wait.
pytestmark = [pytest.mark.timeout(180), pytest.mark.alone]

LONG_SECONDS = 30
SHORT = {"type": "sleep_deaf", "data": {"seconds": 0.02}}
WAIT_SECONDS_P99 = 0.25


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def small_cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LocalCluster]:
    """Two replicas with two `cpu` workers each."""
    data_dir = tmp_path_factory.mktemp("demand") / "data"
    async with LocalCluster(data_dir, workers=2, role_env=PROBE_TASKS) as running:
        yield running


@pytest.fixture
async def api(small_cluster: LocalCluster) -> AsyncIterator[Api]:
    async with Api(small_cluster.gateway_url) as api:
        yield api


@pytest.fixture
def effects(tmp_path: Path) -> SideEffects:
    return SideEffects(tmp_path / "side-effects")


async def run_short_ones(api: Api) -> None:
    """Have the replicas ask for hundreds of tasks, as they are all short."""
    for _ in range(4):
        await api.finals((await api.submit_many([{"type": "noop", "data": {}}] * 500))[-1:])


async def start_long_ones(api: Api, effects: SideEffects, count: int) -> list[int]:
    """Submit long tasks one by one, and wait until all of them run."""
    before = len(effects.starts())
    ids = [await api.submit("append_line", effects.data(LONG_SECONDS)) for _ in range(count)]
    await wait_until(lambda: len(effects.starts()) == before + count)
    return ids


async def cancel(api: Api, ids: Sequence[int]) -> None:
    await asyncio.gather(*(api.http.delete(f"/api/tasks/{task_id}") for task_id in ids))
    await api.finals(ids)


async def waits(cluster: LocalCluster, ids: Sequence[int]) -> list[float]:
    """Seconds from the claim of each task to its start, sorted."""
    query = b"SELECT extract(epoch FROM started_at - claimed_at)::float8 FROM tasks WHERE task_id = ANY(%s)"
    async with await psycopg.AsyncConnection.connect(cluster.file.postgres_dsn) as connection:
        rows = await (await connection.execute(query, (list(ids),))).fetchall()
    return sorted(seconds for (seconds,) in rows)


async def test_long_tasks_are_shared_out_evenly_also_right_after_short_ones(api: Api, effects: SideEffects) -> None:
    await run_short_ones(api)
    ids = await start_long_ones(api, effects, 4)
    replicas = Counter([(await api.task(task_id))["replica"] for task_id in ids])
    await cancel(api, ids)
    assert sorted(replicas.values()) == [2, 2]


async def test_short_tasks_do_not_wait_behind_long_ones(
    small_cluster: LocalCluster, api: Api, effects: SideEffects
) -> None:
    await run_short_ones(api)
    long_ones = await start_long_ones(api, effects, 3)
    ids = await api.submit_many([SHORT] * 500)
    tasks = await api.finals(ids)
    still_running = [(await api.task(task_id))["status"] for task_id in long_ones]
    await cancel(api, long_ones)
    assert {task["status"] for task in tasks} == {"completed"}
    assert still_running == ["processing"] * 3
    waited = await waits(small_cluster, ids)
    assert waited[int(len(waited) * 0.99)] < WAIT_SECONDS_P99
