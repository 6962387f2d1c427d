import asyncio
import os
import signal
import sys
import time

import httpx
import psutil
import pytest

from gateway.server import listen
from tests.support.waiting import wait_until

# Nothing listens there.
_NOWHERE = "127.0.0.1:1"


def free_port() -> int:
    with listen("127.0.0.1", 0) as listener:
        port: int = listener.getsockname()[1]
        return port


async def start(port: int) -> asyncio.subprocess.Process:
    environment = {
        **os.environ,
        "HEADRACE_HTTP_PORT": str(port),
        "HEADRACE_CONSUL_URL": f"http://{_NOWHERE}",
        "HEADRACE_REDIS_URL": f"redis://{_NOWHERE}/0",
    }
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway", env=environment, stdout=asyncio.subprocess.DEVNULL
    )


async def answers(port: int) -> bool:
    try:
        async with httpx.AsyncClient(trust_env=False) as client:
            return (await client.get(f"http://127.0.0.1:{port}/healthz")).status_code == 200
    except httpx.HTTPError:
        return False


@pytest.mark.parametrize("order", [signal.SIGTERM, signal.SIGINT])
async def test_it_starts_while_everything_else_is_away_and_stops_with_0(order: signal.Signals) -> None:
    port = free_port()
    process = await start(port)
    try:
        await wait_until(lambda: answers(port), timeout=20)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
            assert (await client.get("/readyz")).status_code == 503
            response = await client.post("/api/tasks", json={"type": "noop", "data": {}})
            assert (response.status_code, response.json()["code"]) == (503, "catalog_unavailable")
        assert psutil.Process(process.pid).memory_info().rss < 100 * 1024 * 1024
        started = time.monotonic()
        process.send_signal(order)
        assert await asyncio.wait_for(process.wait(), 10) == 0
        assert time.monotonic() - started < 10
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_a_port_that_is_taken_is_said_with_1() -> None:
    with listen("127.0.0.1", 0) as taken:
        taken.listen()
        process = await start(taken.getsockname()[1])
        assert await asyncio.wait_for(process.wait(), 20) == 1
