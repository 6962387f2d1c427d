"""`make bench`: what a whole cluster does with no-op tasks, through REST, on this machine.

Rounds of throughput (batches of 500 over several connections, until the last task is completed), then latency one task
at a time. Every round is checked against the task database and the result database. Quotes medians over the rounds.
"""

import argparse
import asyncio
import json
import os
import platform
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import uvloop
from rich.console import Console
from rich.table import Table

from bench.http_client import HttpClient
from bench.processes import Memory, cpu_seconds, memory
from headrace.local.cluster import LocalCluster

BATCH = 500
TASK = {"type": "noop", "data": {}}
ROUND_SECONDS_MAX = 300.0
RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True, slots=True)
class Round:
    """One round of throughput: rates per second, CPU in microseconds per task."""

    tasks: int
    accepted_per_second: float
    completed_per_second: float
    cpu_us: dict[str, float]
    client_cpu_us: float


@dataclass(slots=True)
class Report:
    started: str
    machine: str
    cores: int
    rounds: list[Round] = field(default_factory=list)
    latency_ms: dict[str, float] = field(default_factory=dict)
    idle_memory: dict[str, Memory] = field(default_factory=dict)
    memory: dict[str, Memory] = field(default_factory=dict)


async def submit(address: str, batches: int, connections: int) -> list[int]:
    """Post `batches` batches over `connections` connections; return the ids."""
    body = json.dumps([TASK] * BATCH).encode()
    left = iter(range(batches))
    ids: list[int] = []

    async def post_all() -> None:
        client = await HttpClient.connect(address)
        for _ in left:
            status, answer = await client.request("POST", "/api/tasks/batch", body)
            if status != 201:
                raise RuntimeError(f"refused with {status}: {answer[:300]!r}")
            ids.extend(json.loads(answer)["task_ids"])
        await client.close()

    await asyncio.gather(*(post_all() for _ in range(connections)))
    return ids


async def completed_of(connection: psycopg.AsyncConnection, first: int, last: int) -> int:
    query = b"SELECT count(*) FROM tasks WHERE task_id BETWEEN %s AND %s AND status = 'completed'"
    row = await (await connection.execute(query, (first, last))).fetchone()
    assert row is not None
    return int(row[0])


async def run_round(cluster: LocalCluster, tasks: int, connections: int) -> Round:
    entries, address = cluster.processes, cluster.process("gateway").address
    async with await psycopg.AsyncConnection.connect(cluster.file.postgres_dsn, autocommit=True) as connection:
        before, own = cpu_seconds(entries), time.process_time()
        began = time.monotonic()
        ids = await submit(address, tasks // BATCH, connections)
        accepted = time.monotonic()
        while await completed_of(connection, min(ids), max(ids)) < len(ids):
            if time.monotonic() - began > ROUND_SECONDS_MAX:
                raise RuntimeError("tasks are missing")
            await asyncio.sleep(0.05)
        done = time.monotonic()
        after = cpu_seconds(entries)
    await check_results(cluster, ids)
    return Round(
        tasks=len(ids),
        accepted_per_second=len(ids) / (accepted - began),
        completed_per_second=len(ids) / (done - began),
        cpu_us={role: (after[role] - before.get(role, 0)) / len(ids) * 1e6 for role in after},
        client_cpu_us=(time.process_time() - own) / len(ids) * 1e6,
    )


async def check_results(cluster: LocalCluster, ids: list[int]) -> None:
    """Every task has exactly one result in the result database, and no id was given twice."""
    async with await psycopg.AsyncConnection.connect(cluster.file.results_dsn) as connection:
        query = b"SELECT count(*), count(DISTINCT task_id) FROM results WHERE task_id BETWEEN %s AND %s"
        row = await (await connection.execute(query, (min(ids), max(ids)))).fetchone()
    if row != (len(ids), len(ids)) or len(set(ids)) != len(ids):
        raise RuntimeError(f"{len(ids)} tasks were accepted, results and tasks with results: {row}")


async def measure_latency(cluster: LocalCluster, samples: int) -> dict[str, float]:
    """From the POST of one task to its result in hand, in milliseconds."""
    client = await HttpClient.connect(cluster.process("gateway").address)
    body = json.dumps(TASK).encode()
    times = []
    for _ in range(samples):
        began = time.perf_counter()
        _, answer = await client.request("POST", "/api/tasks", body)
        status, answer = await client.request("GET", f"/api/tasks/{json.loads(answer)['task_id']}?wait=10")
        times.append((time.perf_counter() - began) * 1000)
        if status != 200 or json.loads(answer)["status"] != "completed":
            raise RuntimeError(f"not completed: {answer[:300]!r}")
    await client.close()
    cuts = statistics.quantiles(times, n=100)
    return {"p50": cuts[49], "p95": cuts[94], "p99": cuts[98]}


async def run(arguments: argparse.Namespace) -> Report:
    report = Report(datetime.now(UTC).isoformat(timespec="seconds"), platform.platform(), os.cpu_count() or 0)
    modules = {"HEADRACE_TASK_MODULES": "tests.support.probe_tasks"}
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder:
        cluster = LocalCluster(Path(folder) / "cluster", workers=arguments.workers, role_env={"execution": modules})
        async with cluster:
            report.idle_memory = memory(cluster.processes)
            await run_round(cluster, BATCH * 4, 2)  # warm-up: plans, imports, worker processes
            for _ in range(arguments.rounds):
                report.rounds.append(await run_round(cluster, arguments.tasks, arguments.connections))
            report.latency_ms = await measure_latency(cluster, arguments.samples)
            report.memory = memory(cluster.processes)
    return report


def show(report: Report, console: Console) -> None:
    rounds = report.rounds
    table = Table(title=f"{rounds[0].tasks} no-op tasks a round, {len(rounds)} rounds, {report.cores} cores")
    table.add_column("measure")
    table.add_column("median", justify="right")
    table.add_column("of all rounds", justify="right")
    for name in ("accepted_per_second", "completed_per_second", "client_cpu_us"):
        add_row(table, name.replace("_", " "), [getattr(one, name) for one in rounds])
    for role in rounds[0].cpu_us:
        add_row(table, f"CPU us/task {role}", [one.cpu_us.get(role, 0.0) for one in rounds])
    add_row(table, "CPU us/task in total", [sum(one.cpu_us.values()) for one in rounds])
    for name, value in report.latency_ms.items():
        table.add_row(f"latency {name}, ms", f"{value:.2f}", "")
    for title, sizes in (("idle", report.idle_memory), ("after", report.memory)):
        for role, size in sizes.items():
            table.add_row(f"memory {title} {role} x{size.processes}", f"{size.pss:.0f} MiB", f"RSS {size.rss:.0f}")
        ours = [size.pss for role, size in sizes.items() if role not in ("postgres", "redis")]
        table.add_row(f"memory {title}, Python processes", f"{sum(ours):.0f} MiB", "")
    console.print(table)


def add_row(table: Table, name: str, values: list[float]) -> None:
    table.add_row(name, f"{statistics.median(values):,.1f}", " ".join(f"{value:,.0f}" for value in values))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--tasks", type=int, default=40_000, help="tasks in a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--samples", type=int, default=500, help="tasks for the latency")
    parser.add_argument("--workers", type=int, default=1, help="worker processes in each of the two replicas")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        report = runner.run(run(parser.parse_args()))
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{report.started.replace(':', '')}.json"
    path.write_text(json.dumps(asdict(report), indent=2))
    console = Console()
    show(report, console)
    console.print(f"written to {path}")


if __name__ == "__main__":
    main()
