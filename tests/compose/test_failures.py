"""Containers are killed, stopped and cut off while tasks run. What was accepted completes, and nothing runs twice."""

import pytest

from tests.compose.conftest import SIZES
from tests.compose.load import Load
from tests.compose.replicas import host_in, hosts_of
from tests.compose.stack import Stack
from tests.support.api import Api
from tests.support.side_effects import SideEffects
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300)]

STORES = ("redis", "tasks-db", "results-db", "consul")
# More than the pause after which the engine starts a container again.
MORE = 50


@pytest.mark.parametrize("service", ["gateway", "management", "execution", *STORES, "proxy"])
async def test_a_container_is_killed_and_comes_back(stack: Stack, load: Load, service: str) -> None:
    await load.grow(MORE)
    containers = await stack.containers(service)
    await stack.crash(containers[0])
    await load.grow(MORE)
    again = {container.id for container in await stack.wait_healthy(service, len(containers))}
    assert again == {container.id for container in containers}
    await load.grow(MORE)
    await load.finish(again=service == "execution")


@pytest.mark.parametrize("service", STORES)
async def test_a_server_is_stopped_and_started_again(stack: Stack, load: Load, service: str) -> None:
    """Away for longer than any timeout of those who need it."""
    await load.grow(MORE)
    container = await stack.only(service)
    await stack.docker("stop", container.id)
    try:
        # Submissions are taken without any one of them.
        await load.grow(MORE)
    finally:
        await stack.docker("start", container.id)
    await stack.wait_healthy(service, 1)
    await load.grow(MORE)
    await load.finish()


async def test_an_execution_replica_is_cut_off_and_put_back(
    stack: Stack, api: Api, load: Load, effects: SideEffects
) -> None:
    """Its tasks run elsewhere; back in the network, at whatever address, it is given work again."""
    await load.grow(MORE)
    container = (await stack.containers("execution"))[0]
    name = container.host
    await stack.docker("network", "disconnect", f"{stack.project}_control", container.id)

    async def is_missed() -> bool:
        return name not in await hosts_of(api, "append_line")

    async def is_back() -> bool:
        return name in await hosts_of(api, "append_line")

    await wait_until(is_missed, timeout=30)
    await load.grow(MORE)
    # An address that is free now may be given to somebody else: so the replica comes back at another one.
    await stack.docker("network", "connect", "--ip", "10.214.3.77", f"{stack.project}_control", container.id)
    await wait_until(is_back, timeout=60)
    task_ids = await api.submit_many([{"type": "append_line", "data": effects.data(1.0)}] * 2 * SIZES["execution"])
    tasks = await api.finals(task_ids)
    assert name in {host_in(task["replica"]) for task in tasks}
    await load.finish(again=True)


async def test_the_registry_forgets_everything(stack: Stack, api: Api, load: Load) -> None:
    """A new agent knows nobody. Everybody registers again by himself, and meanwhile nobody is missed."""
    await load.grow(MORE)
    await stack.compose("up", "--detach", "--no-deps", "--force-recreate", "consul")
    await load.grow(MORE)
    await stack.wait_healthy("consul", 1)

    async def all_are_known() -> bool:
        workers = (await api.http.get("/api/workers")).json()
        return len({worker["replica"] for worker in workers}) == SIZES["execution"]

    await wait_until(all_are_known, timeout=30)
    await load.grow(MORE)
    assert not load.refused
    await load.finish()
