"""The stack that all tests here share, started once; they leave it whole."""

import asyncio
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from deploy.make_secrets import main as make_secrets
from tests.compose.load import Load
from tests.compose.stack import ROOT, Stack
from tests.support.api import Api
from tests.support.side_effects import SideEffects

PORT = int(os.environ.get("HEADRACE_TEST_PORT", "8080"))
# The sizes of docker-compose.yml, to which every test returns.
SIZES = {"gateway": 1, "management": 3, "execution": 3}
PROJECT = "headrace-test"
# Not the subnet of a stack that may run on this machine.
SUBNET = "10.214.0.0/22"


@pytest.fixture(scope="session")
def effects_folder() -> Iterator[Path]:
    """Handlers run as a user of their own, and pytest's own folders are closed to others."""
    folder = Path(tempfile.mkdtemp(prefix="headrace-compose-"))
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def files() -> list[str]:
    """The compose files that every stack here has: with Consul where its image is here or can be had."""
    if shutil.which("docker") is None:
        pytest.fail("These tests need a Docker engine with `docker compose`.")
    make_secrets()
    pull = ["docker", "compose", "pull", "--quiet", "--policy", "missing", "consul"]
    if subprocess.run(pull, cwd=ROOT, timeout=300, capture_output=True, check=False).returncode == 0:
        return ["docker-compose.yml"]
    return ["docker-compose.yml", "deploy/compose.registry.yml"]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def stack(effects_folder: Path, files: list[str]) -> AsyncIterator[Stack]:
    environment = {"HEADRACE_TEST_EFFECTS": str(effects_folder)}
    files = [*files, "tests/compose/compose.test.yml"]
    stack = Stack(PROJECT, files, port=PORT, subnet=SUBNET, environment=environment)
    await stack.down()
    await stack.compose("build")
    try:
        await stack.up()
        yield stack
    finally:
        folder = os.environ.get("HEADRACE_TEST_LOGS")
        if folder:
            logs = await stack.compose("logs", "--no-color", "--timestamps")
            await asyncio.to_thread(Path(folder, "compose.log").write_text, logs)
        await stack.down()


@pytest_asyncio.fixture(loop_scope="session")
async def api(stack: Stack) -> AsyncIterator[Api]:
    """The API of a stack that is whole."""
    for service, count in SIZES.items():
        await stack.wait_healthy(service, count)
    async with Api(stack.url) as api:
        yield api


@pytest.fixture
def effects(effects_folder: Path, request: pytest.FixtureRequest) -> SideEffects:
    path = effects_folder / f"{request.node.name}.lines"
    # Made here, so that both users may write and read it.
    path.touch()
    path.chmod(0o666)
    return SideEffects(path)


@pytest_asyncio.fixture(loop_scope="session")
async def load(api: Api, effects: SideEffects) -> AsyncIterator[Load]:
    async with Load(api, effects) as load:
        yield load
