"""The demo from start to end: start a cluster, send it work, follow the work, check and show what came out, stop."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from execution_service.handlers.settings import handler_settings
from headrace.demo.burst import Burst, run_burst
from headrace.demo.cases import Case, check, demo_cases
from headrace.demo.client import DemoClient
from headrace.demo.display import Display, open_display
from headrace.demo.errors import DemoError
from headrace.demo.journey import Journey, journey
from headrace.demo.public_apis import api_environment, are_reachable
from headrace.demo.report import journey_table, show_burst, show_results
from headrace.local.cluster import LocalCluster

TASKS_SECONDS = 60.0
COMPLETE_SECONDS = 15.0
MANAGERS = 2
EXECUTORS = 2
_POLL_SECONDS = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """A case whose task has ended well: its id, what was found in its result, and how long it was under way."""

    case: Case
    task_id: int
    findings: Sequence[str]
    journey: Journey


async def run_demo(folder: Path, *, port: int, console: Console) -> None:
    """Run the whole demo, with the cluster's data and all outputs below `folder`.

    Raises DemoError or LocalClusterError, with nothing left running, if anything is not as it should be.
    """
    began = time.monotonic()
    outputs = folder / "outputs"
    outputs.mkdir(parents=True, exist_ok=True)
    cases = demo_cases(outputs)
    urls = handler_settings().api_urls
    with api_environment(console, urls, reachable=await are_reachable(urls)) as environment:
        console.print("Starting PostgreSQL, Redis, a registry, a gateway, two managers and two executors ...")
        cluster = LocalCluster(
            folder / "cluster", port=port, managers=MANAGERS, executors=EXECUTORS, role_env={"execution": environment}
        )
        await _run_on(cluster, cases, console, began=began)
    console.print(f"All stopped. The demo took {time.monotonic() - began:.1f} s.")


async def _run_on(cluster: LocalCluster, cases: Sequence[Case], console: Console, *, began: float) -> None:
    async with cluster, DemoClient(cluster.gateway_url) as client:
        try:
            async with asyncio.timeout(TASKS_SECONDS):
                await _wait_until_complete(client, {case.type for case in cases})
                console.print(f"The cluster is up at {cluster.gateway_url} after {time.monotonic() - began:.1f} s.\n")
                done, burst = await _run_tasks(client, cases, console)
        except TimeoutError:
            raise DemoError(f"the tasks did not end within {TASKS_SECONDS:g} s") from None
        show_results(console, [(each.case, each.task_id, each.findings) for each in done])
        show_burst(console, burst)
        console.print(journey_table([(each.case.type, each.journey) for each in done]))
        console.print("\nStopping everything ...")


async def _wait_until_complete(client: DemoClient, wanted: set[str]) -> None:
    """Wait for all replicas and their task types, since the gateway is ready as soon as it has some of them."""
    deadline = time.monotonic() + COMPLETE_SECONDS
    while True:
        stats = await client.stats()
        missing = wanted - set(await client.task_types())
        if not missing and stats["live_managers"] >= MANAGERS and stats["live_executors"] >= EXECUTORS:
            break
        if time.monotonic() > deadline:
            raise DemoError(f"the cluster is not complete. Missing task types: {sorted(missing)}; counts: {stats}")
        await asyncio.sleep(_POLL_SECONDS)
    # One task goes all the way before others do, so that what is measured is the system as it runs, not as it starts.
    await client.read(await client.submit("word_count", {"text": "Open the sluice."}), wait_seconds=10)


async def _run_tasks(client: DemoClient, cases: Sequence[Case], console: Console) -> tuple[list[Done], Burst]:
    """Run all cases at once, and the burst as soon as only long ones are left."""
    with open_display(console) as display:
        try:
            async with asyncio.TaskGroup() as group:
                running = [group.create_task(_run_case(client, case, display)) for case in cases]
                await asyncio.wait([task for task, case in zip(running, cases, strict=True) if not case.is_long])
                burst = await run_burst(client, display)
        except* DemoError as errors:
            raise _first(errors) from None
    return [task.result() for task in running], burst


def _first(errors: ExceptionGroup[DemoError]) -> DemoError:
    error: ExceptionGroup[DemoError] | DemoError = errors
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error


async def _run_case(client: DemoClient, case: Case, display: Display) -> Done:
    """Submit the task of a case, follow it to its end, and check its result."""
    sent = datetime.now(UTC)
    task_id = await client.submit(case.type, case.data)
    display.show(case.type, f"accepted as task {task_id}")
    last = await _follow(client, task_id, case, display)
    seen = datetime.now(UTC)
    if last.get("status") != "completed":
        raise DemoError(f"task {task_id} ({case.type}) ended as {last.get('status')}: {last.get('error')}")
    view = await client.read(task_id)
    if last["result_url"] is None and view["result"] != last["result"]:
        raise DemoError(f"task {task_id} ({case.type}) has one result by REST and another by WebSocket")
    return Done(
        case=case,
        task_id=task_id,
        findings=check(case, view["result"]),
        journey=journey(view, sent=sent, seen=seen),
    )


async def _follow(client: DemoClient, task_id: int, case: Case, display: Display) -> dict[str, Any]:
    """Show every update, and return the last one."""
    update: dict[str, Any] = {}
    async for update in client.follow(task_id):
        progress = update["progress"]
        if progress is None:
            display.show(case.type, update["status"])
        else:
            display.show(case.type, progress["message"] or update["status"], fraction=progress["fraction"])
    return update
