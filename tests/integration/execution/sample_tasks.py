"""Task types for the tests of a whole replica."""

import asyncio
import os
import time

from pydantic import BaseModel

from headrace.tasks import TaskContext, TransientError, task


class Number(BaseModel):
    value: int = 0


class Nap(BaseModel):
    seconds: float
    # The file gets a line for each start.
    trace: str = ""


@task("double")
def double(data: Number) -> Number:
    return Number(value=data.value * 2)


@task("nap")
def nap(data: Nap, context: TaskContext) -> Number:
    if data.trace:
        with open(data.trace, "a", encoding="utf-8") as trace:
            trace.write(f"{context.task_id} {context.attempt}\n")
    end = time.monotonic() + data.seconds
    context.progress(0.5, "sleeping")
    while time.monotonic() < end and not context.cancelled:
        time.sleep(0.01)
    return Number(value=1)


@task("nap_async")
async def nap_async(data: Nap) -> Number:
    await asyncio.sleep(data.seconds)
    return Number(value=2)


@task("blob")
def blob(data: Number) -> str:
    """Return as many characters."""
    return "x" * data.value


@task("nap_deaf", timeout=60)
def nap_deaf(data: Nap, context: TaskContext) -> None:
    context.progress(0.5, "sleeping")
    time.sleep(data.seconds)


@task("busy")
def busy(data: Number) -> None:
    raise TransientError("busy", "The mill is busy.", retry_after=data.value)


@task("crash")
def crash(data: Number) -> Number:
    print("about to crash", flush=True)  # noqa: T201
    os._exit(data.value)
