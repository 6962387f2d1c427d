"""`make bench-live`: what followers cost a gateway, in a whole cluster on this machine.

Thousands of WebSockets wait for what never happens, one hears of every task, and some follow one task each, while no-op
tasks run. Then the waiting ones are dropped, and come back all at once with a cursor.
"""

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
import uvloop

from bench.http_client import HttpClient
from bench.processes import cpu_seconds
from bench.raw_socket import RawSocket, connect
from headrace.local.cluster import LocalCluster
from servicekit.open_files import allow_open_files

TASK = {"type": "noop", "data": {}}
IDLE = "/ws/tasks?type=noop&status=cancelled"
IDLE_FILTER = {"types": ["noop"], "statuses": ["cancelled"]}
OPENING = 50  # at a time, when the idle clients come for the first time
BATCHES_PER_SECOND = 10
WAIT_SECONDS = 120.0
OTHER_FILES = 1000


class Follower:
    """Hears of every task: how late, and up to where."""

    def __init__(self) -> None:
        self.delays: list[float] = []
        self.cursor = ""
        self.socket: RawSocket
        self._completed: set[int] = set()
        self._heard = asyncio.Event()
        self._broken_by: dict[str, Any] | None = None

    async def start(self, address: str) -> None:
        self.socket = await connect(address, "/ws/tasks", self._hear)
        self.socket.closed.add_done_callback(lambda _: self._heard.set())
        await self.socket.first

    async def all_completed(self, ids: list[int]) -> None:
        """Return when all are known to be completed. Raises RuntimeError when the stream ends before."""
        while not self._completed.issuperset(ids):
            if self.socket.closed.done():
                code = self.socket.closed.result()
                raise RuntimeError(f"the stream of all tasks ended with {code}: {self._broken_by}")
            self._heard.clear()
            await self._heard.wait()

    def _hear(self, event: dict[str, Any]) -> None:
        now = time.time()
        if event["event"] in ("reset", "error"):
            self._broken_by = event
            self.socket.abort()
        if event["event"] == "task_update":
            task = event["data"]
            self.cursor = event["cursor"] or self.cursor
            self.delays.append(now - datetime.fromisoformat(task["at"]).timestamp())
            if task["status"] == "completed":
                self._completed.add(task["id"])
        self._heard.set()


async def open_idle(address: str, clients: int) -> list[RawSocket]:
    """Connect, and have the snapshot of each."""
    slots = asyncio.Semaphore(OPENING)

    async def open_one() -> RawSocket:
        async with slots:
            socket = await connect(address, IDLE)
            await socket.first
            return socket

    return await asyncio.gather(*(open_one() for _ in range(clients)))


async def come_back(address: str, clients: int, cursor: str) -> list[float]:
    """All connect at once with the cursor, and subscribe behind it again; seconds until each is answered.

    A stream that goes on says nothing until something happens; the answer to `subscribe` shows that it is served.
    """
    began = time.monotonic()

    async def one() -> float:
        socket = await connect(address, f"{IDLE}&cursor={cursor}")
        socket.say({"type": "subscribe", "filter": IDLE_FILTER, "cursor": cursor})
        if (first := await socket.first) != "subscribed":
            raise RuntimeError(f"{first} instead of going on")
        return time.monotonic() - began

    return await asyncio.gather(*(one() for _ in range(clients)))


async def run_tasks(address: str, per_second: int, seconds: int) -> tuple[list[int], list[RawSocket]]:
    """Submit batches at a steady pace; the first task of each has a follower of its own."""
    client = await HttpClient.connect(address)
    body = json.dumps([TASK] * (per_second // BATCHES_PER_SECOND)).encode()
    ids: list[int] = []
    followers: list[asyncio.Task[RawSocket]] = []
    began = time.monotonic()
    for number in range(seconds * BATCHES_PER_SECOND):
        await asyncio.sleep(began + number / BATCHES_PER_SECOND - time.monotonic())
        status, answer = await client.request("POST", "/api/tasks/batch", body)
        if status != 201:
            raise RuntimeError(f"refused with {status}: {answer[:300]!r}")
        batch = json.loads(answer)["task_ids"]
        ids += batch
        followers.append(asyncio.create_task(connect(address, f"/ws/tasks/{batch[0]}")))
    await client.close()
    return ids, await asyncio.gather(*followers)


async def measure(cluster: LocalCluster, arguments: argparse.Namespace) -> None:
    gateway = cluster.process("gateway")
    process = psutil.Process(gateway.pid)
    follower = Follower()
    await follower.start(gateway.address)
    warm_up, _ = await run_tasks(gateway.address, arguments.rate, 2)  # plans, imports, worker processes
    await follower.all_completed(warm_up)

    before = process.memory_info().rss
    idle = await open_idle(gateway.address, arguments.clients)
    each = (process.memory_info().rss - before) / 1024 / arguments.clients
    print(f"{arguments.clients} idle clients: {each:.1f} KiB each, gateway {before / 2**20:.0f} MiB without them")

    follower.delays.clear()
    began, used = time.monotonic(), cpu_seconds([gateway])["gateway"]
    ids, one_task = await run_tasks(gateway.address, arguments.rate, arguments.seconds)
    await follower.all_completed(ids)
    took = time.monotonic() - began
    used = cpu_seconds([gateway])["gateway"] - used
    for socket in one_task:
        if (code := await socket.closed) != 1000:
            raise RuntimeError(f"a stream of one task ended with {code}")
    cuts = statistics.quantiles(follower.delays, n=100)
    print(f"{len(follower.delays)} events, {len(follower.delays) / took:.0f}/s; {len(one_task)} tasks with a follower")
    print(f"from change to arrival: p50 {cuts[49] * 1e3:.1f} ms, p99 {cuts[98] * 1e3:.1f} ms")
    print(f"gateway: {used / took:.0%} of a core")

    if lost := sum(socket.closed.done() for socket in idle):
        raise RuntimeError(f"{lost} idle clients were cut off")
    for socket in idle:
        socket.abort()
    answered = sorted(await come_back(gateway.address, arguments.clients, follower.cursor))
    middle = statistics.median(answered)
    print(f"{arguments.clients} come back at once: median {middle:.2f} s, last {answered[-1]:.2f} s")


async def run(arguments: argparse.Namespace) -> None:
    allow_open_files(2 * arguments.clients + OTHER_FILES)
    modules = {"HEADRACE_TASK_MODULES": "tests.support.probe_tasks"}
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder:
        async with LocalCluster(Path(folder) / "cluster", workers=1, role_env={"execution": modules}) as cluster:
            async with asyncio.timeout(WAIT_SECONDS + arguments.seconds):
                await measure(cluster, arguments)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.live", description=__doc__)
    parser.add_argument("--clients", type=int, default=2000, help="idle WebSockets")
    parser.add_argument("--rate", type=int, default=250, help="tasks per second, in steps of 10; most tell two events")
    parser.add_argument("--seconds", type=int, default=10)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
