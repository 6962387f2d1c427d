"""Disks are full: that of Redis, that of the task database, that of scratch directories.

Each is a small file system in memory, which takes the right to mount one.
"""

import ctypes
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.conftest import StackFactory
from tests.faults.harness.checker import Allowed
from tests.faults.harness.run import Run
from tests.faults.harness.stack import Sizes, Stack
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(180)]

_MIB = 1024 * 1024
# What is below the folder of a stack, and how large its disk is.
_DISKS = {"redis": 96, "postgres": 256, "scratch/execution-0": 8}
_LAZY_UNMOUNT = 2


@pytest.fixture
def small_disks(tmp_path: Path) -> Iterator[Path]:
    """The folder of the first stack of a test, with small disks in it."""
    libc = ctypes.CDLL(None, use_errno=True)
    folder, mounted = tmp_path / "stack-1", []
    try:
        for name, size in _DISKS.items():
            path = folder / name
            path.mkdir(parents=True, mode=0o755 if name in ("redis", "postgres") else 0o700)
            options = f"size={size}m,mode={path.stat().st_mode & 0o777:o}".encode()
            if libc.mount(b"tmpfs", os.fsencode(path), b"tmpfs", 0, options) != 0:
                pytest.skip(f"mounting is not allowed: {os.strerror(ctypes.get_errno())}")
            mounted.append(path)
        yield folder
    finally:
        for path in mounted:
            libc.umount2(os.fsencode(path), _LAZY_UNMOUNT)


async def test_f58_full_disks_lose_nothing_and_give_no_false_promise(
    small_disks: Path, stack_factory: StackFactory, tmp_path: Path
) -> None:
    stack = await stack_factory(Sizes(executors=1))
    assert stack.folder == small_disks
    async with Run(stack, tmp_path) as run:
        await _scratch_is_full(run)
        await _redis_is_full(run)
        await _postgres_is_full(run)
        await run.settle(Allowed(charged=1, statuses=("completed", "failed")))
        failed = await stack.query("SELECT type FROM tasks WHERE status = 'failed'")
        assert failed == [("write_file",)]


async def _scratch_is_full(run: Run) -> None:
    """The attempt that needs it fails; others do not notice."""
    filler = _fill(run.stack, "scratch/execution-0")
    writing = {"type": "write_file", "data": {"bytes": 500_000}, "max_attempts": 1}
    [full] = await run.client.submit([writing])
    others = await run.client.submit(run.tasks(10))
    ended = await run.client.final(full)
    assert (ended["status"], ended["error"]["code"]) == ("failed", "handler_error")
    assert "No space left" in ended["error"]["message"]
    assert {task["status"] for task in await run.client.finals(others)} == {"completed"}
    filler.unlink()
    [again] = await run.client.submit([writing])
    assert (await run.client.final(again))["status"] == "completed"


async def _redis_is_full(run: Run) -> None:
    """It ends rather than acknowledge what it cannot keep: submissions go to the task database."""
    stack = run.stack
    filler = _fill(stack, "redis")
    seen = []
    for _ in range(200):
        entry = await run.client.try_submit([_large_task()])
        seen.append(entry.durability)
        if not stack["redis"].running and entry.durability == "postgres":
            break
    assert seen[-1] == "postgres"
    assert "AOF write error" in stack["redis"].tail()
    await run.client.finals(await run.client.submit(run.tasks(5)))
    filler.unlink()
    await stack.start("redis")

    async def redis_again() -> bool:
        return (await run.client.try_submit(run.tasks(1))).durability == "redis-aof"

    await wait_until(redis_again, timeout=10)
    print(f"F58 redis_full_after={seen.index('postgres')} submissions")  # noqa: T201


async def _postgres_is_full(run: Run) -> None:
    """What is accepted waits in Redis; nothing of it is lost."""
    stack = run.stack
    filler = _fill(stack, "postgres")
    outcomes = []
    for _ in range(100):
        entry = await run.client.try_submit([_large_task()])
        outcomes.append((entry.outcome, entry.durability))
        if "No space left" in stack["postgres"].tail(100_000):
            break
    assert "No space left" in stack["postgres"].tail(100_000)
    assert set(outcomes) == {("acked", "redis-aof")}
    waiting = await run.client.submit(run.tasks(5))
    filler.unlink()
    if not stack["postgres"].running:
        await stack.start("postgres")
    await run.client.finals(waiting)
    print(f"F58 postgres_full_after={len(outcomes)} submissions")  # noqa: T201


def _large_task() -> dict[str, object]:
    """Data that no compression makes small."""
    return {"type": "noop", "data": {"noise": secrets.token_hex(400_000)}}


def _fill(stack: Stack, name: str) -> Path:
    """Write a file until the disk takes no more."""
    path = stack.folder / name / "filler"
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(64 * 1024))
        except OSError:
            return path
