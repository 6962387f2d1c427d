"""The examples do what their README says, by its own commands."""

import asyncio
import os
import re
import shlex
import shutil
import signal
import sys
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "mill_orders"
RUN_SECONDS = 90.0
STOP_SECONDS = 20.0


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", (EXAMPLE / "README.md").read_text(), re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    """Return the commands of the README, without those that put `.venv` onto the PATH: that is done here."""
    return [line for line in "".join(blocks("sh")).splitlines() if not line.startswith("source ")]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Copy the example, since its programs write files beside them."""
    ignored = shutil.ignore_patterns("__pycache__", "slips", "labels.pdf", ".*")
    return Path(shutil.copytree(EXAMPLE, tmp_path / "mill_orders", ignore=ignored))


async def start(command: str, folder: Path, *arguments: str) -> Process:
    """Start a command of the README with further arguments."""
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    # `env` reads assignments before a command as the shell does, and is replaced by the command.
    words = ["env", *shlex.split(command), *arguments]
    return await asyncio.create_subprocess_exec(
        *words, cwd=folder, env={**os.environ, "PATH": path}, stdout=PIPE, stderr=STDOUT
    )


async def output(command: str, folder: Path, *arguments: str) -> tuple[int | None, str]:
    """Run a command of the README; return its exit code and what it printed."""
    process = await start(command, folder, *arguments)
    async with asyncio.timeout(RUN_SECONDS):
        said, _ = await process.communicate()
    return process.returncode, said.decode()


@asynccontextmanager
async def running(command: str, folder: Path, *arguments: str) -> AsyncIterator[str]:
    """Run a cluster by a command of the README; give its URL."""
    process = await start(command, folder, *arguments)
    assert process.stdout is not None
    said = ""
    try:
        async with asyncio.timeout(RUN_SECONDS):
            while "Ctrl-C" not in said:
                line = await process.stdout.readline()
                assert line, f"it ended without having started:\n{said}"
                said += line.decode()
        yield re.findall(r"API +(http://\S+)/api\n", said)[0]
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGINT)
        async with asyncio.timeout(STOP_SECONDS):
            await process.communicate()


@pytest.mark.long
@pytest.mark.timeout(240)  # two clusters are started one after the other
async def test_the_mill_does_what_its_readme_says(project: Path) -> None:
    up, send, test = commands()
    [expected] = blocks("text")
    async with running(up, project, "--port", "0") as url:
        code, said = await output(send, project, url)
        # A fast client looks before the replica has reported that it has begun.
        assert (code, said.replace("is queued", "is processing")) == (0, expected)
        assert (project / "labels.pdf").read_bytes().startswith(b"%PDF-")
        assert (await output(send, project, url))[0] == 0, "it can be run again"
    code, said = await output(test, project, f"--basetemp={project.parent / 'temporary'}", "--color=no")
    assert (code, bool(re.search(r"\n=+ \d+ passed in ", said))) == (0, True), said
