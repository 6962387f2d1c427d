"""`python -m execution_service` as a process."""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

from headrace.v1 import task_pb2
from tests.integration.execution.conftest import NOBODY, SAMPLE_TASKS
from tests.integration.execution.manager import Manager
from tests.integration.execution.messages import assignment
from tests.support.waiting import wait_until


async def start_process(results_dsn: str, scratch_dir: Path) -> tuple[asyncio.subprocess.Process, str]:
    """Start a replica; returns it and its address, read from its log."""
    environment = {
        **os.environ,
        "HEADRACE_REPLICA": "exec-1",
        "HEADRACE_RESULTS_DSN": results_dsn,
        "HEADRACE_TASK_MODULES": SAMPLE_TASKS,
        "HEADRACE_SCRATCH_DIR": str(scratch_dir),
        "HEADRACE_CONSUL_URL": NOBODY,
        "HEADRACE_GRACE": "2",
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "execution_service", env=environment, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    lines = []
    async for line in process.stdout:
        lines.append(line.decode())
        event = json.loads(line)
        if event["event"] == "replica_started":
            return process, event["address"]
    raise AssertionError("the replica did not start:\n" + "".join(lines))


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


async def test_sigterm_ends_an_idle_replica_at_once(postgres_dsn: str, tmp_path: Path) -> None:
    process, _ = await start_process(postgres_dsn, tmp_path)
    process.send_signal(signal.SIGTERM)
    output, _ = await asyncio.wait_for(process.communicate(), 3)
    assert process.returncode == 0, output.decode()
