"""The health check of containers, as a program, against real servers."""

import asyncio
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from servicekit.grpc_server import GrpcServer
from servicekit.http.server import listen

SERVICE = "headrace.v1.Some"


class _Answers(BaseHTTPRequestHandler):
    """Answers with the status that the path names."""

    def do_GET(self) -> None:
        self.send_response(int(self.path.lstrip("/")))
        self.end_headers()
        self.wfile.write(b"redis is away")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - named by the library
        """Nothing is logged."""


@pytest.fixture
def http_server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Answers) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
async def grpc_server() -> AsyncIterator[GrpcServer]:
    server = GrpcServer("127.0.0.1", 0)
    server.add(lambda servicer, grpc_server: None, object(), SERVICE)
    await server.start()
    yield server
    await server.stop(0)


async def check(url: str, *flags: str) -> tuple[int, str]:
    """The exit status, and what is said."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, *flags, "-m", "servicekit.health_check", url, stderr=asyncio.subprocess.PIPE
    )
    _, said = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode is not None
    return process.returncode, said.decode()


async def test_http_is_well_with_2xx_alone(http_server: str) -> None:
    answers = await asyncio.gather(*(check(f"{http_server}/{status}") for status in (200, 302, 404, 503)))
    assert answers[0] == (0, "")
    assert [status for status, _ in answers[1:]] == [1, 1, 1]
    assert answers[3][1].strip() == "503: redis is away"


async def test_http_needs_no_library(http_server: str) -> None:
    """`-S` leaves all of them out, which makes the check of the gateway cheap."""
    assert await check(f"{http_server}/200", "-S") == (0, "")


async def test_grpc_is_well_while_the_service_serves(grpc_server: GrpcServer) -> None:
    url = f"grpc://127.0.0.1:{grpc_server.port}"
    assert await check(f"{url}/{SERVICE}") == (1, "NOT_SERVING\n")
    grpc_server.set_serving(True)
    assert await check(f"{url}/{SERVICE}") == (0, "")
    status, said = await check(f"{url}/headrace.v1.Other")
    assert (status, said.partition(":")[0]) == (1, "NOT_FOUND")


@pytest.mark.parametrize(("scheme", "expected"), [("http", "ConnectionRefusedError"), ("grpc", "UNAVAILABLE")])
async def test_a_port_that_refuses_is_not_well(scheme: str, expected: str) -> None:
    status, said = await check(f"{scheme}://127.0.0.1:1/x")
    assert (status, said.partition(":")[0]) == (1, expected)


async def test_a_server_that_hangs_is_waited_for_and_not_well() -> None:
    with listen("127.0.0.1", 0) as silent:
        silent.listen()
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        began = time.monotonic()
        over_http, over_grpc = await asyncio.gather(check(f"http://{address}/x"), check(f"grpc://{address}/{SERVICE}"))
    assert (over_http[0], over_http[1].partition(":")[0]) == (1, "TimeoutError")
    assert (over_grpc[0], over_grpc[1].partition(":")[0]) == (1, "DEADLINE_EXCEEDED")
    assert time.monotonic() - began > 2


@pytest.mark.parametrize("url", ["127.0.0.1:8080", "https://127.0.0.1:8080/", "http://127.0.0.1/", "grpc://x:port/y"])
async def test_a_url_of_another_kind_is_an_error_of_usage(url: str) -> None:
    status, said = await check(url)
    assert status == 2
    assert "Traceback" not in said
    assert said.startswith("usage: python -m servicekit.health_check")
