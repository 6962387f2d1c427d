"""The overlay for development: what is saved in the source runs a moment later."""

import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from tests.compose.conftest import PORT
from tests.compose.stack import ROOT, Stack
from tests.support.api import Api
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300)]

RELOAD_SECONDS = 60
WORDS = {"text": "one two three"}


@pytest_asyncio.fixture(loop_scope="session")
async def development(tmp_path: Path, files: list[str]) -> AsyncIterator[Stack]:
    """A stack that runs a copy of the source, for tests to change."""
    copy_source(tmp_path)
    files = [*files, "deploy/compose.dev.yml"]
    stack = Stack("headrace-test-development", files, port=PORT + 2, subnet="10.216.0.0/22", folder=tmp_path)
    try:
        await stack.run("make", "secrets")
        await stack.compose("build")
        await stack.up()
        yield stack
    finally:
        await stack.down()


async def test_a_service_starts_anew_when_its_source_changes(development: Stack) -> None:
    async with Api(development.url) as api:
        result = (await api.final(await api.submit("word_count", WORDS)))["result"]
        assert result["words"] == 3

        # A task type in its module...
        change(
            development, "execution_service/handlers/word_count.py", "_WORD_SECONDS = 60 / 238", "_WORD_SECONDS = 1000"
        )

        async def is_slow() -> bool:
            task = await api.final(await api.submit("word_count", WORDS))
            return bool(task["result"]["reading_seconds"] > result["reading_seconds"])

        await wait_until(is_slow, timeout=RELOAD_SECONDS)

        # ... and a page of the gateway.
        change(development, "gateway/app.py", 'title="Headrace"', 'title="Tailrace"')

        async def has_the_title() -> bool:
            try:
                return "Tailrace" in (await api.http.get("/openapi.json")).text
            except httpx.TransportError:
                return False

        await wait_until(has_the_title, timeout=RELOAD_SECONDS)


def copy_source(folder: Path) -> None:
    """Copy what git knows of, to be read by the users of the containers as well."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    folder.chmod(0o755)


def change(stack: Stack, name: str, old: str, new: str) -> None:
    """Write a file of the source as an editor does."""
    path = stack.folder / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
