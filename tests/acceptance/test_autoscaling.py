"""A replica takes more workers while tasks wait, and fewer when there is nothing to do: on a whole cluster."""

import asyncio
import json
from typing import Any

import pytest

from headrace.local.cluster import LocalCluster
from tests.conftest import PROBE_TASKS, ClusterFactory
from tests.support.api import Api
from tests.support.waiting import wait_until

# It waits until a processor is free.
pytestmark = [pytest.mark.timeout(180), pytest.mark.alone]

SETTINGS = {"HEADRACE_WORKERS_MAX": "3", "HEADRACE_WORKERS_IDLE": "2"}


def scalings(cluster: LocalCluster) -> list[dict[str, Any]]:
    """What the replica logged about the size of its pool."""
    lines = (cluster.data_dir / "logs" / "execution-0.log").read_text().splitlines()
    entries = [json.loads(line) for line in lines if '"workers_scaled"' in line]
    return [{name: entry[name] for name in ("pool", "change", "reason", "workers")} for entry in entries]


async def all_run(api: Api, count: int) -> bool:
    workers = (await api.http.get("/api/workers")).json()
    return sum(len(worker["tasks"]) for worker in workers) == count


async def test_a_replica_grows_while_tasks_wait_and_shrinks_when_it_is_idle(cluster_factory: ClusterFactory) -> None:
    role_env = {"execution": {**PROBE_TASKS["execution"], **SETTINGS}}
    cluster = await cluster_factory(managers=1, executors=1, workers=1, role_env=role_env)
    async with Api(cluster.gateway_url) as api:

        async def workers() -> int:
            return sum(1 for worker in (await api.http.get("/api/workers")).json() if worker["pool"] == "cpu")

        async def are(count: int) -> bool:
            return await workers() == count

        assert await workers() == 1
        # They wait at management: the replica asks for no more long tasks than it has workers.
        ids = await api.submit_many([{"type": "sleep_for", "data": {"seconds": 55}}] * 8)
        await wait_until(lambda: are(3), timeout=100)
        await wait_until(lambda: all_run(api, 3), timeout=20)
        await asyncio.gather(*(api.http.delete(f"/api/tasks/{task_id}") for task_id in ids))
        tasks = await api.finals(ids)
        assert {task["attempt"] for task in tasks} <= {0, 1}, "no attempt was taken from its worker"
        await wait_until(lambda: are(1), timeout=30)
    changes = scalings(cluster)
    grown = [change for change in changes if change["change"] > 0]
    assert sum(change["change"] for change in grown) == 2
    assert {change["reason"] for change in grown} == {"tasks_wait"}
    assert changes[len(grown) :] == [
        {"pool": "cpu", "change": -1, "reason": "idle", "workers": 2},
        {"pool": "cpu", "change": -1, "reason": "idle", "workers": 1},
    ]
