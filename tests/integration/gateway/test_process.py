import asyncio
import os
import signal
import socket
import sys
import time

import httpx
import psutil
import pytest

from servicekit.http.server import listen
from tests.support.waiting import wait_until

# Nothing listens there.
_NOWHERE = "127.0.0.1:1"


def free_port() -> int:
    with listen("127.0.0.1", 0) as listener:
        port: int = listener.getsockname()[1]
        return port


async def start(port: int, *, output: int = asyncio.subprocess.DEVNULL, **settings: str) -> asyncio.subprocess.Process:
    environment = {
        **os.environ,
        "HEADRACE_HTTP_PORT": str(port),
        "HEADRACE_CONSUL_URL": f"http://{_NOWHERE}",
        "HEADRACE_REDIS_URL": f"redis://{_NOWHERE}/0",
        **settings,
    }
    return await asyncio.create_subprocess_exec(sys.executable, "-m", "gateway", env=environment, stdout=output)


UNFINISHED = b"POST /api/tasks HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{"


async def not_ready_or_closed(port: int) -> bool:
    try:
        async with httpx.AsyncClient(trust_env=False) as client:
            return "draining" in (await client.get(f"http://127.0.0.1:{port}/readyz")).json()["problems"]
    except httpx.HTTPError:
        return True


async def answers(port: int) -> bool:
    try:
        async with httpx.AsyncClient(trust_env=False) as client:
            return (await client.get(f"http://127.0.0.1:{port}/healthz")).status_code == 200
    except httpx.HTTPError:
        return False


@pytest.mark.parametrize("order", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
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


async def start_deaf(port: int, silent: socket.socket) -> asyncio.subprocess.Process:
    """A gateway whose Redis and Consul take connections and never answer, up to the start of its work."""
    host, silent_port = silent.getsockname()
    process = await start(
        port,
        output=asyncio.subprocess.PIPE,
        HEADRACE_CONSUL_URL=f"http://{host}:{silent_port}",
        HEADRACE_REDIS_URL=f"redis://{host}:{silent_port}/0",
        HEADRACE_GRACE="1",
    )
    assert process.stdout is not None
    while b"service_starting" not in await asyncio.wait_for(process.stdout.readline(), 20):
        assert process.returncode is None
    return process


async def test_an_order_to_stop_during_the_start_is_followed_though_nothing_answers() -> None:
    with listen("127.0.0.1", 0) as silent:
        silent.listen()
        process = await start_deaf(free_port(), silent)
        try:
            process.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(process.wait(), 6) == 0  # grace and 5 s
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


async def test_a_second_order_ends_it_at_once_with_1() -> None:
    port = free_port()
    process = await start(port)
    try:
        await wait_until(lambda: answers(port), timeout=20)
        # A body that does not come keeps it from stopping.
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(UNFINISHED)
        await writer.drain()
        process.send_signal(signal.SIGTERM)
        await wait_until(lambda: not_ready_or_closed(port), timeout=5)
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 2) == 1
        writer.close()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_a_request_that_outlasts_the_grace_is_told_to_come_back() -> None:
    port = free_port()
    process = await start(port, HEADRACE_GRACE="0.5")
    try:
        await wait_until(lambda: answers(port), timeout=20)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(UNFINISHED)
        await writer.drain()
        await wait_until(lambda: answers(port))  # answered after what came before it
        started = time.monotonic()
        process.send_signal(signal.SIGTERM)
        answer = (await asyncio.wait_for(reader.read(), 5)).lower()
        assert answer.startswith(b"http/1.1 503")
        assert b"\r\nretry-after: 1\r\n" in answer
        assert b'"code":"restarting"' in answer
        assert await asyncio.wait_for(process.wait(), 5) == 0
        assert time.monotonic() - started < 5.5
        writer.close()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
