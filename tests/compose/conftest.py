"""The stack that all tests here share, started once; they leave it whole."""

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from deploy.make_secrets import main as make_secrets
from tests.compose.load import Load
from tests.compose.stack import CommandError, Stack
from tests.support.api import Api
from tests.support.side_effects import SideEffects

PORT = int(os.environ.get("HEADRACE_TEST_PORT", "8080"))
# The sizes of docker-compose.yml, to which every test returns.
SIZES = {"gateway": 1, "management": 3, "execution": 3}
FILES = ["docker-compose.yml", "tests/compose/compose.test.yml"]
# Not the subnet of a stack that may run on this machine.
SUBNET = "10.214.0.0/22"


@pytest.fixture(scope="session")
def effects_folder() -> Iterator[Path]:
    """Handlers run as a user of their own, and pytest's own folders are closed to others."""
    folder = Path(tempfile.mkdtemp(prefix="headrace-compose-"))
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def stack(effects_folder: Path) -> AsyncIterator[Stack]:
    if shutil.which("docker") is None:
        pytest.fail("These tests need a Docker engine with `docker compose`.")
    make_secrets()
    stack = Stack(FILES, port=PORT, effects=effects_folder, environment={"HEADRACE_SUBNET": SUBNET})
    if not await _has_consul(stack):
        files = ["docker-compose.yml", "deploy/compose.registry.yml", "tests/compose/compose.test.yml"]
        stack = Stack(files, port=PORT, effects=effects_folder, environment={"HEADRACE_SUBNET": SUBNET})
    await stack.compose("down", "--volumes", "--remove-orphans", "--timeout", "5")
    await stack.compose("build")
    try:
        await stack.compose("up", "--detach", "--wait", "--wait-timeout", "300")
        yield stack
    finally:
        folder = os.environ.get("HEADRACE_TEST_LOGS")
        if folder:
            logs = await stack.compose("logs", "--no-color", "--timestamps")
            await asyncio.to_thread(Path(folder, "compose.log").write_text, logs)
        await stack.compose("down", "--volumes", "--remove-orphans", "--timeout", "20")


async def _has_consul(stack: Stack) -> bool:
    """Whether Consul's own image is here or can be had; where not, our stand-in takes its place."""
    try:
        await stack.compose("pull", "--quiet", "--policy", "missing", "consul", timeout=300)
    except CommandError:
        return False
    return True


@pytest.fixture
async def api(stack: Stack) -> AsyncIterator[Api]:
    """The API of a stack that is whole."""
    for service, count in SIZES.items():
        await stack.wait_healthy(service, count)
    async with Api(stack.url) as api:
        yield api


@pytest.fixture
def effects(stack: Stack, request: pytest.FixtureRequest) -> SideEffects:
    path = stack.effects / f"{request.node.name}.lines"
    # Made here, so that both users may write and read it.
    path.touch()
    path.chmod(0o666)
    return SideEffects(path)


@pytest.fixture
async def load(api: Api, effects: SideEffects) -> AsyncIterator[Load]:
    async with Load(api, effects) as load:
        yield load
