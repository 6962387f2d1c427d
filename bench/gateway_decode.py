"""What one no-op task costs the gateway, step by step, in batches of 500: `python -m bench.gateway_decode`.

Steps are measured alone in this process; the last one is the whole way through the HTTP stack and a real Redis, with
the CPU time of this process, the small client's share included.
"""

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import uvloop

from gateway.bodies import decode_tasks
from gateway.core import Gateway
from gateway.stream import entries_of
from gateway.submissions import number, weigh
from headrace.local.redis import RedisServer
from tests.support.fake_management import FakeManagement
from tests.support.running_gateway import run_gateway
from tests.support.servers import RunningServer

BATCH = 500
ROUNDS = 100
BODY = b"[" + b",".join([b'{"type":"noop","data":{}}'] * BATCH) + b"]"


def main() -> None:
    uvloop.run(measure())


async def measure() -> None:
    async with real_redis() as redis_url, run_gateway(redis_url, FakeManagement()) as running:
        gateway = running.gateway
        report("decode", timed(lambda: decode_tasks(BODY)))
        bodies = decode_tasks(BODY)
        started = time.process_time()
        for _ in range(ROUNDS):
            submissions = await gateway.admission.admit_many(bodies)
        report("admit", time.process_time() - started)
        report(
            "weigh, number and serialize",
            timed(lambda: (weigh(submissions), number(submissions, 1), list(entries_of(submissions)))),
        )
        report("submit to Redis", await submitted(gateway))
        report("whole request, client included", await requested(running.client))


def timed(step: Callable[[], object]) -> float:
    started = time.process_time()
    for _ in range(ROUNDS):
        step()
    return time.process_time() - started


async def submitted(gateway: Gateway) -> float:
    admitted = [await gateway.admission.admit_many(decode_tasks(BODY)) for _ in range(ROUNDS)]
    started = time.process_time()
    for submissions in admitted:
        await gateway.submissions.submit(submissions)
    return time.process_time() - started


async def requested(client: httpx.AsyncClient) -> float:
    started = time.process_time()
    for _ in range(ROUNDS):
        response = await client.post("/api/tasks/batch", content=BODY, headers={"Content-Type": "application/json"})
        response.raise_for_status()
    return time.process_time() - started


def report(step: str, seconds: float) -> None:
    print(f"{step:32} {seconds / ROUNDS / BATCH * 1e6:8.2f} µs of CPU per task")


@asynccontextmanager
async def real_redis() -> AsyncIterator[str]:
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        server = RedisServer(root / "server")
        server.prepare()
        running = RunningServer(server, log=root / "redis.log")
        await asyncio.to_thread(running.start)
        try:
            yield server.url
        finally:
            await asyncio.to_thread(running.close)


if __name__ == "__main__":
    main()
