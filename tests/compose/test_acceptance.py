"""The acceptance tests that need the API alone, over the proxy and all containers."""

import pytest

from tests.acceptance.test_task_life import (  # noqa: F401 - collected here, with the `api` of this folder
    test_a_batch_is_accepted_as_a_whole_and_every_task_runs,
    test_a_failing_task_is_retried_and_a_permanent_error_is_not,
    test_a_finished_task_is_removed_and_then_unknown,
    test_a_result_is_counted_right,
    test_a_running_task_is_cancelled,
    test_a_scheduled_task_runs_when_it_is_due,
    test_a_task_beyond_its_timeout_is_stopped,
    test_a_task_that_kills_its_worker_fails_with_the_evidence_and_its_neighbours_do_not,
    test_a_waiting_task_is_cancelled_at_once_and_a_repeat_says_the_same,
    test_an_idempotency_key_makes_one_task,
    test_lists_are_paged_and_filtered,
    test_the_docs_page_works_offline,
    test_the_examples_of_every_built_in_type_run,
    test_the_examples_of_the_docs_are_accepted,
)
from tests.acceptance.test_workers import workers_of
from tests.compose.conftest import SIZES
from tests.compose.replicas import host_in
from tests.compose.stack import Stack
from tests.support.api import Api
from tests.support.waiting import wait_until

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_a_worker_is_added_at_a_replica_and_goes(stack: Stack, api: Api) -> None:
    """What one gateway says and does of the workers of all containers."""
    replicas = {worker["replica"] for worker in await workers_of(api)}
    hosts = {container.host for container in await stack.containers("execution")}
    assert {host_in(replica) for replica in replicas} == hosts
    assert len(replicas) == SIZES["execution"]

    replica = min(replicas)
    answer = await api.http.post("/api/workers", json={"replica": replica})
    assert answer.status_code == 201, answer.text
    worker_id = answer.json()["workerId"]
    assert worker_id in {worker["id"] for worker in await workers_of(api) if worker["replica"] == replica}
    answer = await api.http.delete(f"/api/workers/{worker_id}")
    assert answer.status_code == 200, answer.text

    async def is_gone() -> bool:
        return worker_id not in {worker["id"] for worker in await workers_of(api)}

    await wait_until(is_gone, timeout=30)
