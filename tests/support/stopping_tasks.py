"""Handlers that are told to come to their end, and what they make of it."""

import asyncio
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from headrace.tasks import SoftTimeoutError, TaskCancelled, TaskContext, TransientError, task


@task("read_nothing", timeout=60)
def read_nothing(data: dict[str, Any]) -> None:
    """Block in a system call."""
    read_fd, write_fd = os.pipe()
    try:
        os.read(read_fd, 1)
    finally:
        os.close(read_fd)
        os.close(write_fd)


@task("match_for_ever", timeout=60)
def match_for_ever(data: dict[str, Any]) -> None:
    """Stay in C code that looks for signals."""
    re.match(r"(a+)+$", "a" * 60 + "b")


@task("expect_errors", timeout=60)
def expect_errors(data: dict[str, Any]) -> None:
    """Take every error for one that a further try may mend."""
    while True:
        try:
            time.sleep(60)
        except Exception:  # noqa: BLE001
            continue


@task("swallow_everything", timeout=60)
def swallow_everything(data: dict[str, Any]) -> None:
    while True:
        try:
            time.sleep(60)
        except BaseException:  # noqa: BLE001
            continue


@task("tidy_up", timeout=60)
def tidy_up(data: dict[str, Any], context: TaskContext) -> str:
    """Wait; when told to end, say by what and how, and return or raise as the data say."""
    context.log.info("waiting")
    try:
        time.sleep(60)
    except (SoftTimeoutError, TaskCancelled) as told:
        Path(data["path"]).write_text(f"{type(told).__name__} {context.overdue} {context.cancelled}")
        if not data.get("return"):
            raise
    return "tidied up"


@task("tidy_up_async", timeout=60)
async def tidy_up_async(data: dict[str, Any], context: TaskContext) -> str:
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        Path(data["path"]).write_text(f"{context.overdue} {context.cancelled}")
        if data.get("fail"):
            raise ValueError("the broom broke") from None
        if not data.get("return"):
            raise
    return "tidied up"


@task("tidy_up_alone", pool="cpu", timeout=60)
async def tidy_up_alone(data: dict[str, Any]) -> str:
    """An `async def` handler in a worker that runs one attempt at a time."""
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        Path(data["path"]).write_text("cancelled")
        raise
    return "slept"


@task("look_at_the_clock", pool="io", timeout=60)
def look_at_the_clock(data: dict[str, Any], context: TaskContext) -> bool:
    """A `def` handler in a thread has to look for itself."""
    while not context.overdue:
        time.sleep(0.01)
    return context.cancelled


@task("talk_all_the_time", timeout=60)
def talk_all_the_time(data: dict[str, Any], context: TaskContext) -> None:
    """Be inside a call of the context nearly always."""
    _ = context.scratch
    while True:
        context.progress(0.5, "x" * 1000)
        context.log.info("talking", text="y" * 1000)


@task("yield_for_ever", timeout=60)
def yield_for_ever(data: dict[str, Any]) -> Any:
    """Run on while the result is being written."""
    return _pauses()


def _pauses() -> Iterator[float]:
    while True:
        time.sleep(0.01)
        yield 0.01


_DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(300)"


@task("have_a_family", timeout=60)
def have_a_family(data: dict[str, Any], context: TaskContext) -> None:
    """Start a process, one deaf to SIGTERM, and one in a session of its own; say who they are, and swallow all."""
    plain = subprocess.Popen(["/bin/sleep", "300"])
    deaf = subprocess.Popen([sys.executable, "-c", _DEAF], stdout=subprocess.PIPE)
    assert deaf.stdout is not None
    deaf.stdout.readline()
    detached = subprocess.Popen(["/bin/sleep", "300"], start_new_session=True)
    context.progress(0.5, f"{plain.pid} {deaf.pid} {detached.pid}")
    while True:
        try:
            time.sleep(60)
        except BaseException:  # noqa: BLE001
            if data.get("end"):
                return


@task("wait_for_program", timeout=60)
def wait_for_program(data: dict[str, float]) -> None:
    subprocess.run(["/bin/sleep", str(data["seconds"])], check=True)


@task("default_sigterm", timeout=60)
def default_sigterm(data: dict[str, Any], context: TaskContext) -> None:
    """Put back what SIGTERM does by default."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    context.progress(0.5, "deadly")
    time.sleep(60)


@task("end_a_fork", timeout=60)
def end_a_fork(data: dict[str, Any]) -> list[int | None]:
    """Fork processes and end each by SIGTERM at once, as everybody may."""
    children = [multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,)) for _ in range(20)]
    for child in children:
        child.start()
        child.terminate()
        child.join(10)
    return [child.exitcode for child in children]


@task("ask_for_later")
def ask_for_later(data: dict[str, float]) -> None:
    raise TransientError("busy", "The mill is busy.", retry_after=data["seconds"])
