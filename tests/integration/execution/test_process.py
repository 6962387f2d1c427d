"""`python -m execution_service` as a process."""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from headrace.v1 import task_pb2
from tests.integration.execution.conftest import NOBODY, SAMPLE_TASKS
from tests.integration.execution.manager import Manager
from tests.integration.execution.messages import assignment
from tests.support.waiting import wait_until


async def launch(results_dsn: str, scratch_dir: Path) -> asyncio.subprocess.Process:
    environment = {
        **os.environ,
        "HEADRACE_REPLICA": "exec-1",
        "HEADRACE_RESULTS_DSN": results_dsn,
        "HEADRACE_TASK_MODULES": SAMPLE_TASKS,
        "HEADRACE_SCRATCH_DIR": str(scratch_dir),
        "HEADRACE_CONSUL_URL": NOBODY,
        "HEADRACE_GRACE": "2",
    }
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "execution_service", env=environment, stdout=asyncio.subprocess.PIPE
    )


async def wait_for_event(process: asyncio.subprocess.Process, name: str) -> dict[str, Any]:
    """Read the log of a replica until it tells of an event."""
    assert process.stdout is not None
    lines = []
    async for line in process.stdout:
        lines.append(line.decode())
        event: dict[str, Any] = json.loads(line)
        if event["event"] == name:
            return event
    raise AssertionError(f"no event {name}:\n" + "".join(lines))


async def start_process(results_dsn: str, scratch_dir: Path) -> tuple[asyncio.subprocess.Process, str]:
    """Start a replica; returns it and its address, read from its log."""
    process = await launch(results_dsn, scratch_dir)
    started = await wait_for_event(process, "replica_started")
    return process, started["address"]


async def test_sigterm_lets_attempts_finish_and_the_process_ends_with_0(postgres_dsn: str, tmp_path: Path) -> None:
    process, address = await start_process(postgres_dsn, tmp_path)
    async with Manager(address) as manager:
        await wait_until(lambda: manager.open("cpu") == 2)
        manager.assign([assignment(1, type_name="nap", data={"seconds": 0.5})])
        await wait_until(lambda: manager.progress)
        process.send_signal(signal.SIGTERM)
        output, _ = await asyncio.wait_for(process.communicate(), 10)
        await wait_until(lambda: manager.ended)
    assert process.returncode == 0, output.decode()
    assert manager.said_bye
    assert [report.outcome for report in manager.reports] == [task_pb2.OUTCOME_COMPLETED]


@pytest.mark.alone
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
async def test_a_signal_ends_an_idle_replica_at_once(postgres_dsn: str, tmp_path: Path, number: signal.Signals) -> None:
    process, _ = await start_process(postgres_dsn, tmp_path)
    process.send_signal(number)
    output, _ = await asyncio.wait_for(process.communicate(), 3)
    assert process.returncode == 0, output.decode()


async def test_what_outlives_the_grace_is_handed_back_and_the_process_ends_with_0(
    postgres_dsn: str, tmp_path: Path
) -> None:
    process, address = await start_process(postgres_dsn, tmp_path)
    async with Manager(address) as manager:
        await wait_until(lambda: manager.open("cpu") == 2)
        manager.assign([assignment(1, type_name="nap_deaf", data={"seconds": 60})])
        await wait_until(lambda: manager.progress)
        process.send_signal(signal.SIGTERM)
        output, _ = await asyncio.wait_for(process.communicate(), 10)
        await wait_until(lambda: manager.ended)
    assert process.returncode == 0, output.decode()
    assert manager.said_bye
    assert [(report.outcome, report.started) for report in manager.reports] == [(task_pb2.OUTCOME_HANDED_BACK, True)]


async def test_a_replica_whose_result_db_never_came_ends_with_0(tmp_path: Path) -> None:
    process, _ = await start_process("postgresql://nobody@127.0.0.1:9/none?connect_timeout=1", tmp_path)
    process.send_signal(signal.SIGTERM)
    output, _ = await asyncio.wait_for(process.communicate(), 12)
    assert process.returncode == 0, output.decode()


@pytest.mark.alone
async def test_a_second_sigterm_ends_the_process_at_once_and_its_workers_with_it(
    postgres_dsn: str, tmp_path: Path
) -> None:
    process, address = await start_process(postgres_dsn, tmp_path)
    family = psutil.Process(process.pid).children(recursive=True)
    assert len(family) >= 3
    async with Manager(address) as manager:
        await wait_until(lambda: manager.open("cpu") == 2)
        manager.assign([assignment(1, type_name="nap_deaf", data={"seconds": 60})])
        await wait_until(lambda: manager.progress)
        process.send_signal(signal.SIGTERM)
        await wait_for_event(process, "stopping")
        process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(process.communicate(), 2)
    assert process.returncode == 1
    await wait_until(lambda: not any(each.is_running() for each in family))


async def test_sigterm_while_a_replica_starts_ends_it_with_0_and_leaves_nothing_behind(
    postgres_dsn: str, tmp_path: Path
) -> None:
    for event in ("starting", "worker_started"):
        process = await launch(postgres_dsn, tmp_path)
        await wait_for_event(process, event)
        family = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGTERM)
        output, _ = await asyncio.wait_for(process.communicate(), 10)
        assert process.returncode == 0, output.decode()
        assert not any(each.is_running() for each in family)
        assert list(tmp_path.iterdir()) == []
