"""More and fewer replicas, and new ones for old ones, while tasks run."""

import pytest

from tests.compose.conftest import SIZES
from tests.compose.load import Load
from tests.compose.replicas import hosts_of
from tests.compose.stack import CommandError, Stack
from tests.support.api import Api
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(600)]

MORE = 50


async def test_execution_is_scaled_up_and_down_under_work(stack: Stack, api: Api, load: Load) -> None:
    """Replicas that go finish or hand back what they have: nothing runs twice."""
    for count in (5, 2, SIZES["execution"]):
        await load.grow(MORE)
        await stack.scale("execution", count)
        containers = await stack.wait_healthy("execution", count)
        hosts = {container.host for container in containers}

        async def are_the_replicas(hosts: set[str] = hosts) -> bool:
            return await hosts_of(api, "append_line") == hosts

        await wait_until(are_the_replicas, timeout=60)
    await load.grow(MORE)
    assert not load.refused
    await load.finish()


@pytest.mark.parametrize("service", ["management", "execution", "gateway"])
async def test_replicas_are_replaced_one_after_the_other(stack: Stack, load: Load, service: str) -> None:
    """Without a failed request, a lost task, or one that runs twice."""
    before = {container.id for container in await stack.containers(service)}
    await load.grow(MORE)
    await stack.run("make", "compose-roll", f"SERVICE={service}")
    after = {container.id for container in await stack.wait_healthy(service, len(before))}
    assert not before & after
    await load.grow(MORE)
    assert not load.refused
    await load.finish()


async def test_a_release_that_does_not_start_replaces_nothing(stack: Stack, load: Load) -> None:
    before = await stack.containers("management")
    # It ends at once.
    ends = 'ENTRYPOINT ["false"]'
    await stack.docker("commit", "--pause=false", "--change", ends, before[0].id, "headrace-management:broken")
    try:
        await load.grow(MORE)
        with pytest.raises(CommandError, match=r"headrace-test-management-\d+ ends as soon as it is started"):
            await stack.run("env", "HEADRACE_VERSION=broken", "make", "compose-roll", "SERVICE=management")
        await load.grow(MORE)
        assert await stack.wait_healthy("management", SIZES["management"]) == before
        assert not load.refused
        await load.finish()
    finally:
        await stack.docker("rmi", "headrace-management:broken")


@pytest.mark.parametrize("service", ["redis", "", "gateway nonsense"])
async def test_what_cannot_be_rolled_is_refused(stack: Stack, service: str) -> None:
    with pytest.raises(CommandError, match=r"usage: python -m deploy\.roll"):
        await stack.run("make", "compose-roll", f"SERVICE={service}")
