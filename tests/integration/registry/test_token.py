"""The stand-in as containers run it: on all addresses, and for those alone that show its token."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx
import pytest

from headrace.local.http_probe import fetch
from headrace.local.process import Command, free_port
from servicekit.registry import ConsulRegistry, ServiceRegistration
from tests.support.servers import RunningServer
from tests.support.waiting import wait_until

TOKEN = "7c9d8a52-91b0-4a53-a1b7-0e6c1c9c2d11"
# Another address of this machine than the one that servers take unless they are told.
OTHER_ADDRESS = "127.0.0.2"


class GuardedRegistry:
    """The program with `--host` and `--token-file`."""

    def __init__(self, token_file: Path) -> None:
        self.port = free_port()
        self._arguments = ("--host", "0.0.0.0", "--port", str(self.port), "--token-file", str(token_file))
        self.url = f"http://127.0.0.1:{self.port}"

    def command(self) -> Command:
        return Command(argv=(sys.executable, "-m", "headrace.local.registry", *self._arguments), env=os.environ)

    def ready(self) -> bool:
        answer = fetch(self.port, "/v1/status/leader")
        return answer is not None and answer[0] == HTTPStatus.OK

    def close(self) -> None:
        """There is nothing to let go of."""


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GuardedRegistry]:
    root = tmp_path_factory.mktemp("registry")
    (root / "token").write_text(f"{TOKEN}\n")
    server = GuardedRegistry(root / "token")
    running = RunningServer(server, log=root / "registry.log")
    running.start()
    yield server
    running.close()


@pytest.fixture
async def stranger(registry: GuardedRegistry) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=registry.url, trust_env=False, timeout=10) as client:
        yield client


async def test_our_client_registers_and_watches_with_the_token(registry: GuardedRegistry) -> None:
    client = ConsulRegistry(registry.url, TOKEN)
    watch = client.watch("guarded")
    await watch.start()
    registration = ServiceRegistration(name="guarded", service_id="guarded-1", host=lambda: "127.0.0.1", port=9)
    await client.register(registration)
    await wait_until(lambda: [endpoint.service_id for endpoint in watch.endpoints] == ["guarded-1"])
    await client.deregister()
    await wait_until(lambda: watch.endpoints == ())
    await watch.stop()
    await client.close()


async def test_those_without_a_token_see_empty_lists_and_may_do_nothing(stranger: httpx.AsyncClient) -> None:
    for path, nothing in (
        ("/v1/health/service/guarded", []),
        ("/v1/catalog/services", {}),
        ("/v1/agent/services", {}),
        ("/v1/agent/checks", {}),
    ):
        answer = await stranger.get(path)
        assert (answer.status_code, answer.json()) == (200, nothing)
        assert answer.headers["X-Consul-Results-Filtered-By-ACLs"] == "true"
    for method, path in (
        ("PUT", "/v1/agent/service/register"),
        ("PUT", "/v1/agent/service/deregister/guarded-1"),
        ("GET", "/v1/agent/self"),
    ):
        answer = await stranger.request(method, path, headers={"X-Consul-Token": ""})
        assert (answer.status_code, answer.text) == (403, "Permission denied"), path


@pytest.mark.parametrize("token", ["another", TOKEN + "0"])
async def test_those_with_a_wrong_token_get_403_whatever_they_ask(stranger: httpx.AsyncClient, token: str) -> None:
    for method, path in (
        ("GET", "/v1/health/service/guarded"),
        ("GET", "/v1/agent/services"),
        ("PUT", "/v1/agent/service/register"),
        ("GET", "/v1/nothing/here"),
    ):
        answer = await stranger.request(method, path, headers={"X-Consul-Token": token})
        assert (answer.status_code, answer.text) == (403, "ACL not found"), path


async def test_whether_there_is_a_leader_is_told_to_everybody_at_every_address(
    registry: GuardedRegistry, stranger: httpx.AsyncClient
) -> None:
    assert (await stranger.get("/v1/status/leader")).status_code == 200
    assert (await stranger.get(f"http://{OTHER_ADDRESS}:{registry.port}/v1/status/leader")).status_code == 200


@pytest.mark.parametrize(("token", "reason"), [("", "may not see all"), ("another", "ACL not found")])
async def test_a_service_with_a_wrong_token_goes_on_and_says_why_it_is_not_found(
    registry: GuardedRegistry, stranger: httpx.AsyncClient, token: str, reason: str
) -> None:
    port = free_port()
    environment = {
        **os.environ,
        "HEADRACE_REPLICA": "lost",
        "HEADRACE_HTTP_PORT": str(port),
        "HEADRACE_CONSUL_URL": registry.url,
        "HEADRACE_CONSUL_TOKEN": token,
        "HEADRACE_REDIS_URL": "redis://127.0.0.1:1/0",
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway", env=environment, stdout=asyncio.subprocess.PIPE
    )
    try:
        refused = {
            "registration_delayed": {"service_id": "headrace-gateway-lost"},
            "loop_failed": {"loop": "watch headrace-management", "code": "registry_unavailable"},
        }
        for event in await _logged(process, refused):
            assert event["level"] == "warning"
            assert reason in event["reason"]
        assert (await stranger.get(f"http://127.0.0.1:{port}/healthz")).status_code == 200
        listed = await stranger.get("/v1/agent/services", headers={"X-Consul-Token": TOKEN})
        assert "headrace-gateway-lost" not in listed.json()
    finally:
        process.kill()
        await process.wait()


async def _logged(
    process: asyncio.subprocess.Process, wanted: Mapping[str, Mapping[str, object]]
) -> list[dict[str, Any]]:
    """The first event in the process's log of each name, with its fields, once all of them are there."""
    assert process.stdout is not None
    found: dict[str, dict[str, Any]] = {}
    while found.keys() != wanted.keys():
        line = await asyncio.wait_for(process.stdout.readline(), 20)
        assert line, "the service has ended"
        event: dict[str, Any] = json.loads(line)
        fields = wanted.get(event["event"])
        if fields is not None and fields.items() <= event.items():
            found.setdefault(event["event"], event)
    return list(found.values())


@pytest.mark.parametrize(("content", "problem"), [(None, "No such file"), ("\n", "is empty")])
async def test_a_token_file_without_a_token_is_an_error_of_usage(
    content: str | None, problem: str, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / "token").write_text(content)
    arguments = GuardedRegistry(tmp_path / "token").command().argv
    process = await asyncio.create_subprocess_exec(*arguments, stderr=asyncio.subprocess.PIPE)
    _, said = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode == 2
    assert "--token-file: " in said.decode()
    assert problem in said.decode()
