"""How the containers are made and fenced in."""

import asyncio
import json

import httpx
import pytest

from tests.compose.conftest import SIZES
from tests.compose.stack import Container, Stack
from tests.support.api import Api
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300)]

MB = 1_000_000
MIB = 1024 * 1024
PROBLEM = "application/problem+json"
JSON = {"Content-Type": "application/json"}
OWN = ("gateway", "management", "execution")
STORES = ("redis", "tasks-db", "results-db")
PORTS = {"redis": 6379, "tasks-db": 5432, "results-db": 5432, "consul": 8500, "gateway": 8080, "management": 50051}
# What is on the network on which services find each other, and what else a role has to do with.
CONTROL = {"consul", "gateway", "management"}
REACHES = {
    "gateway": CONTROL | {"redis"},
    "management": CONTROL | {"redis", "tasks-db"},
    "execution": CONTROL | {"results-db"},
}


async def test_images_hold_what_their_service_needs(stack: Stack) -> None:
    sizes: dict[str, float] = {}
    for role in OWN:
        [entry] = json.loads(await stack.docker("inspect", (await stack.containers(role))[0].image))
        sizes[role] = entry["Size"] / MB
    print(f"image sizes in MB: {sizes}")  # noqa: T201
    assert sizes["gateway"] < 250
    assert sizes["management"] < 250
    search = "import importlib.util as u; print(u.find_spec('PIL'), u.find_spec('numpy'))"
    for role in ("gateway", "management"):
        assert await python(stack, role, search) == "None None"


@pytest.mark.parametrize("role", OWN)
async def test_services_run_unprivileged_on_a_read_only_file_system(stack: Stack, role: str) -> None:
    assert await python(stack, role, "import os; print(os.getuid(), os.getgid() != 0)") == "10001 True"
    status = await python(stack, role, "print(open('/proc/self/status').read())")
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert int(fields["CapEff"], 16) == int(fields["CapBnd"], 16) == 0
    assert fields["NoNewPrivs"].strip() == "1"
    assert "Read-only" in await python(
        stack, role, "try: open('/srv/headrace/x', 'w')\nexcept OSError as error: print(error)"
    )


@pytest.mark.parametrize("role", OWN)
async def test_a_service_reaches_what_it_has_to_do_with_and_nothing_else(stack: Stack, role: str) -> None:
    program = (
        "import socket\n"
        f"for name, port in {PORTS!r}.items():\n"
        "    try: socket.create_connection((name, port), 2).close(); print(name)\n"
        "    except OSError: pass\n"
    )
    assert set((await python(stack, role, program)).split()) == REACHES[role]


async def test_only_the_proxy_is_published_and_only_on_loopback(stack: Stack) -> None:
    published: dict[str, list[dict[str, str]]] = {}
    for service in (*SIZES, *STORES, "consul", "proxy"):
        for container in await stack.containers(service):
            [entry] = json.loads(await stack.docker("inspect", container.id))
            bindings = (entry["HostConfig"]["PortBindings"] or {}).values()
            published |= {service: [binding for each in bindings for binding in each]} if bindings else {}
    assert published == {"proxy": [{"HostIp": "127.0.0.1", "HostPort": str(stack.port)}]}


async def test_no_secret_is_in_the_environment_or_on_a_command_line(stack: Stack) -> None:
    password = (await stack.run("cat", "deploy/secrets/tasks_db_password")).strip()
    token = (await stack.run("cat", "deploy/secrets/consul_token")).strip()
    for service in (*SIZES, *STORES, "consul"):
        for container in await stack.containers(service):
            said = await stack.docker("inspect", container.id) + await stack.docker("top", container.id)
            said += await stack.docker("logs", container.id)
            assert password not in said, service
            assert token not in said, service


@pytest.mark.parametrize("role", OWN)
async def test_the_order_to_stop_reaches_the_service(stack: Stack, api: Api, role: str) -> None:
    """It ends by itself, and long before its grace is over."""
    container = (await stack.containers(role))[0]
    began = asyncio.get_running_loop().time()
    await stack.docker("stop", container.id)
    took = asyncio.get_running_loop().time() - began
    assert await exit_code(stack, container) == 0
    print(f"{role} stopped in {took:.1f} s")  # noqa: T201
    assert took < 15
    await stack.docker("start", container.id)
    await stack.wait_healthy(role, SIZES[role])


async def test_the_proxy_carries_what_a_gateway_takes(stack: Stack, api: Api) -> None:
    """Big bodies go through, and those that are too big are refused by the gateway, with its reason."""
    words = "mill " * 800_000
    task = await api.final(await api.submit("word_count", {"text": words}))
    assert task["result"]["words"] == 800_000
    answer = await api.http.post("/api/tasks", content=b"x" * (33 * MIB), headers=JSON)
    assert answer.status_code == 413
    assert answer.headers["Content-Type"] == PROBLEM


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        ("GET /api/tasks/%00 HTTP/1.1", 400),
        (f"GET /{'x' * 20_000} HTTP/1.1", 414),
        ("POST /api/tasks HTTP/1.1\r\nContent-Length: 99999999", 413),
    ],
)
async def test_what_the_proxy_refuses_itself_is_a_problem_too(
    stack: Stack, api: Api, request_line: str, status: int
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", stack.port)
    writer.write(f"{request_line}\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
    writer.close()
    assert head.startswith(f"HTTP/1.1 {status} ")
    assert f"Content-Type: {PROBLEM}" in head
    assert json.loads(body)["status"] == status


async def test_the_proxy_says_that_no_gateway_is_there(stack: Stack, api: Api) -> None:
    container = await stack.only("gateway")
    await stack.docker("stop", container.id)
    try:
        async with httpx.AsyncClient(base_url=stack.url, timeout=15) as http:
            answer = await http.get("/api/stats")
            problem = answer.json()
            assert (problem["status"], problem["code"]) == (answer.status_code, "no_gateway")
            # Its address may be known for a second longer, and is tried then.
            assert answer.status_code in (502, 504)
            assert (answer.headers["Content-Type"], answer.headers["Retry-After"]) == (PROBLEM, "1")
    finally:
        await stack.docker("start", container.id)

    async def answers() -> bool:
        return (await api.http.get("/readyz")).status_code == 200

    await wait_until(answers, timeout=30)
    await stack.wait_healthy("gateway", 1)


async def python(stack: Stack, role: str, program: str) -> str:
    container = (await stack.containers(role))[0]
    return (await stack.docker("exec", container.id, "python", "-c", program)).strip()


async def exit_code(stack: Stack, container: Container) -> int:
    [entry] = json.loads(await stack.docker("inspect", container.id))
    return int(entry["State"]["ExitCode"])
