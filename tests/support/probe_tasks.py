"""Task types for tests and benchmarks: each does one thing that a handler may do, good or bad."""

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from headrace.tasks import PermanentError, TaskContext, task


class _Data(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Sleep(_Data):
    seconds: float = Field(ge=0)


class AppendLine(_Data):
    path: str
    seconds: float = Field(default=0, ge=0)


class Crash(_Data):
    signal: int | None = None
    exit_code: int = 0
    # After this many attempts it completes.
    times: int = 1_000_000


class Fail(_Data):
    times: int = 1_000_000
    message: str = "as asked"
    permanent: bool = False


class Steps(_Data):
    steps: int = Field(ge=1)
    seconds_each: float = Field(default=0, ge=0)


@task("noop", examples=[{"n": 1}])
def noop(data: dict[str, Any]) -> dict[str, Any]:
    """Return the data."""
    return data


@task("noop_async", examples=[{"n": 1}])
async def noop_async(data: dict[str, Any]) -> dict[str, Any]:
    """Return the data, from an event loop."""
    return data


@task("sleep_for", timeout=60, examples=[{"seconds": 0.01}])
def sleep_for(data: Sleep, context: TaskContext) -> float:
    """Sleep; end early when cancelled."""
    end = time.monotonic() + data.seconds
    while time.monotonic() < end and not context.cancelled:
        time.sleep(max(0.0, min(0.02, end - time.monotonic())))
    return data.seconds


@task("sleep_deaf", timeout=60, examples=[{"seconds": 0.01}])
def sleep_deaf(data: Sleep) -> float:
    """Sleep in one go, whatever happens."""
    time.sleep(data.seconds)
    return data.seconds


@task("sleep_async", timeout=60, examples=[{"seconds": 0.01}])
async def sleep_async(data: Sleep) -> float:
    """Sleep on the event loop."""
    await asyncio.sleep(data.seconds)
    return data.seconds


@task("append_line", timeout=60, examples=[{"path": "/dev/null"}])
def append_line(data: AppendLine, context: TaskContext) -> None:
    """Leave a line at the start and one at the end: this is how side effects are counted."""
    _append(data.path, context, "start")
    time.sleep(data.seconds)
    _append(data.path, context, "end")


@task("append_line_async", timeout=60, examples=[{"path": "/dev/null"}])
async def append_line_async(data: AppendLine, context: TaskContext) -> None:
    """As append_line, on the event loop."""
    _append(data.path, context, "start")
    await asyncio.sleep(data.seconds)
    _append(data.path, context, "end")


@task("crash", examples=[{"times": 0}])
def crash(data: Crash, context: TaskContext) -> str:
    """Kill the own process, by a signal or by exiting."""
    if context.attempt <= data.times:
        if data.signal is not None:
            os.kill(os.getpid(), data.signal)
        os._exit(data.exit_code)
    return "survived"


@task("fail", examples=[{"times": 0}])
def fail(data: Fail, context: TaskContext) -> str:
    """Raise in the first attempts."""
    if context.attempt <= data.times:
        if data.permanent:
            raise PermanentError("not_today", data.message)
        raise RuntimeError(data.message)
    return "succeeded"


@task("progress", timeout=60, examples=[{"steps": 3}])
def progress(data: Steps, context: TaskContext) -> int:
    """Report progress in steps."""
    for step in range(1, data.steps + 1):
        time.sleep(data.seconds_each)
        context.progress(step / data.steps, f"step {step}")
    return data.steps


@task("ignore_sigterm", timeout=60, examples=[{"seconds": 0.01}])
def ignore_sigterm(data: Sleep) -> None:
    """Sleep deaf to SIGTERM."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    end = time.monotonic() + data.seconds
    while time.monotonic() < end:
        time.sleep(0.05)


def _append(path: str, context: TaskContext, event: str) -> None:
    line = f"{context.task_id} {context.attempt} {event} {os.getpid()} {time.monotonic()}\n"
    fd = os.open(Path(path), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(fd, line.encode())
    finally:
        os.close(fd)
