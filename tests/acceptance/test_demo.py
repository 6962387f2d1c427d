"""`headrace demo` as a person runs it: it shows the tasks, checks them, ends by itself, and leaves nothing behind."""

import asyncio
import os
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from execution_service.handlers import BUILTIN_MODULES
from headrace.local.cluster_file import read_cluster_file
from headrace.tasks import load_registry
from tests.support.processes import has_ended
from tests.support.waiting import wait_until

TYPES = tuple(definition.name for definition in load_registry(BUILTIN_MODULES).definitions)
STAGES = ("accepted", "stored", "dispatched", "started", "executed", "result stored", "seen", "in all")
DEMO_SECONDS = 90.0
STOP_SECONDS = 20.0


@asynccontextmanager
async def demo(temporary: Path, *arguments: str) -> AsyncIterator[Process]:
    """Run the demo with a directory for temporary files of its own."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "headrace.cli", "demo", *arguments,
        stdout=PIPE, stderr=PIPE, env={**os.environ, "TMPDIR": str(temporary)},
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def descendants(process: Process) -> list[int]:
    return [child.pid for child in psutil.Process(process.pid).children(recursive=True)]


def all_ended(pids: Collection[int]) -> bool:
    return all(has_ended(pid) for pid in pids)


async def read_until(process: Process, text: str) -> str:
    assert process.stdout is not None
    said = ""
    async with asyncio.timeout(DEMO_SECONDS):
        while text not in said:
            line = await process.stdout.readline()
            assert line, f"it ended without saying {text!r}:\n{said}"
            said += line.decode()
    return said


async def test_it_runs_tasks_of_every_type_and_leaves_only_what_is_to_be_kept(tmp_path: Path) -> None:
    temporary, kept = tmp_path / "temporary", tmp_path / "kept"
    temporary.mkdir()
    async with demo(temporary, "--keep", str(kept)) as process:
        said = await read_until(process, "accepted as task")
        pids = descendants(process)
        async with asyncio.timeout(DEMO_SECONDS):
            rest, errors = await process.communicate()
    said += rest.decode()
    assert (process.returncode, errors) == (0, b""), said
    assert len(pids) > 8
    assert all_ended(pids)
    for task_type in TYPES:
        assert f"{task_type}, task " in said
    times = {words[0]: words[1:] for line in said.splitlines() if len(words := line.split()) == len(STAGES) + 1}
    assert set(TYPES) <= set(times)
    assert "verified by reading them back" in said
    assert "tasks/s" in said
    assert sorted(os.listdir(kept / "outputs")) == ["mill-sepia.jpg", "mill.jpg", "mill.png"]
    # One way or the other, it says which APIs were asked.
    assert "ask the public APIs" in said or "ask a local stand-in" in said
    assert {entry.role for entry in read_cluster_file(kept / "cluster").processes} >= {"gateway", "postgres"}
    assert os.listdir(temporary) == []


@pytest.mark.long
async def test_sigterm_ends_it_early_and_leaves_nothing(tmp_path: Path) -> None:
    async with demo(tmp_path) as process:
        await read_until(process, "accepted as task")
        pids = descendants(process)
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(STOP_SECONDS):
            _, errors = await process.communicate()
    assert process.returncode == 130
    assert errors.decode().strip() == "Interrupted. Everything was stopped."
    assert all_ended(pids)
    assert os.listdir(tmp_path) == []


async def test_a_killed_demo_leaves_no_process(tmp_path: Path) -> None:
    async with demo(tmp_path) as process:
        await read_until(process, "Starting")
        await wait_until(lambda: len(descendants(process)) > 3)
        pids = descendants(process)
        process.kill()
        await wait_until(lambda: all_ended(pids), timeout=STOP_SECONDS)


async def test_it_says_what_is_in_its_way(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        async with demo(tmp_path, "--port", str(taken.getsockname()[1])) as process, asyncio.timeout(DEMO_SECONDS):
            _, errors = await process.communicate()
    assert process.returncode == 1
    assert b"cannot be used" in errors
    assert b"Everything was stopped" in errors


async def test_it_does_not_write_into_a_directory_that_is_in_use(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").touch()
    async with demo(tmp_path, "--keep", str(tmp_path)) as process, asyncio.timeout(DEMO_SECONDS):
        _, errors = await process.communicate()
    assert process.returncode == 2
    # The message stands in a box, whose width is the terminal's.
    assert "not an empty directory" in " ".join(errors.decode().replace("│", " ").split())
