"""The overlay for production: HTTPS at the proxy, and two databases elsewhere that refuse what is not encrypted."""

import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from websockets.asyncio.client import connect

from tests.compose.conftest import PORT
from tests.compose.stack import CommandError, Stack
from tests.support.api import Api
from tests.support.bad_upstream import CERTIFICATE
from tests.support.live import Socket

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300)]

# `databases.yml` names this project's networks.
PROJECT = "headrace-test-production"
SUBNET = "10.215.0.0/22"
DATABASES = "tests/compose/databases.yml"
DSNS = {
    "HEADRACE_TASKS_DSN_FILE": "postgresql://producer:0f3c-not-a-secret@tasks.example.org/queue?sslmode=require",
    "HEADRACE_RESULTS_DSN_FILE": "postgresql://producer:0f3c-not-a-secret@results.example.org/outcomes?sslmode=require",
}
# The same file holds both.
TLS_FILES = ("HEADRACE_TLS_CERTIFICATE", "HEADRACE_TLS_KEY")
WORDS = {"text": "one two three"}
TASKS = 20


class Production:
    """The stack, and the servers that it does not own."""

    def __init__(self, stack: Stack, databases: Stack) -> None:
        self.stack = stack
        self.port = stack.port
        self._databases = databases

    async def query(self, server: str, database: str, sql: str) -> str:
        """Ask one of the database servers, over its own socket."""
        psql = ("psql", "-U", "producer", "-d", database, "-At", "-c", sql)
        return (await self._databases.compose("exec", "-T", server, *psql)).strip()


@pytest.fixture
def environment(tmp_path: Path, stack: Stack) -> dict[str, str]:
    """What the overlay asks for; the images are those that `stack` was started from."""
    environment = {
        "HEADRACE_IMAGES": "headrace",
        "HEADRACE_VERSION": "latest",
        **dict.fromkeys(TLS_FILES, str(CERTIFICATE)),
    }
    for name, dsn in DSNS.items():
        path = tmp_path / name
        path.write_text(dsn)
        path.chmod(0o444)
        environment[name] = str(path)
    return environment


@pytest_asyncio.fixture(loop_scope="session")
async def production(files: list[str], environment: dict[str, str]) -> AsyncIterator[Production]:
    files = [*files, "deploy/compose.prod.yml"]
    stack = Stack(PROJECT, files, port=PORT + 1, subnet=SUBNET, environment=environment)
    databases = Stack(f"{PROJECT}-databases", [DATABASES], port=0, subnet="")
    try:
        # The databases are on the networks of the stack, which are there as soon as its containers are made.
        await stack.compose("create")
        await databases.up()
        await stack.up()
        yield Production(stack, databases)
    finally:
        await databases.down()
        await stack.down()


@pytest.fixture
def trust() -> ssl.SSLContext:
    """Trusts our certificate alone. It is made out to a name, and we ask the loopback address."""
    context = ssl.create_default_context(cafile=CERTIFICATE)
    context.check_hostname = False
    return context


async def test_production_speaks_https_and_keeps_everything_in_databases_elsewhere(
    production: Production, trust: ssl.SSLContext
) -> None:
    stack = production.stack
    services = set((await stack.compose("ps", "--services")).split())
    assert services == {"proxy", "gateway", "management", "execution", "consul", "redis"}
    assert len(await stack.wait_healthy("gateway", 2)) == 2

    async with Api(f"https://127.0.0.1:{production.port}", verify=trust) as api:
        socket_url = f"wss://127.0.0.1:{production.port}/ws/tasks"
        async with connect(socket_url, ssl=trust, server_hostname="api.example.org") as connection:
            socket = Socket(connection)
            assert await socket.snapshot() == []
            ids = await api.submit_many([{"type": "word_count", "data": WORDS}] * TASKS)
            tasks = await api.finals(ids)
            assert {(task["status"], task["result"]["words"]) for task in tasks} == {("completed", 3)}
            completed: set[int] = set()
            while completed != set(ids):
                update = await socket.update()
                if update["status"] == "completed":
                    completed.add(update["id"])
        answer = await api.http.get("/healthz")
        assert answer.headers["Strict-Transport-Security"] == "max-age=31536000"

    async with httpx.AsyncClient() as plain:
        answer = await plain.get(f"http://127.0.0.1:{production.port}/api/tasks")
        assert answer.status_code == 400
        assert answer.json()["code"] == "https_required"

    for server, database, table in (("tasks", "queue", "tasks"), ("results", "outcomes", "results")):
        assert await production.query(server, database, f"SELECT count(*) FROM {table}") == str(TASKS)


@pytest.mark.parametrize("missing", [*DSNS, "HEADRACE_IMAGES", "HEADRACE_VERSION", *TLS_FILES])
async def test_production_starts_nothing_while_it_is_not_told_all(
    files: list[str], environment: dict[str, str], missing: str
) -> None:
    del environment[missing]
    stack = Stack(PROJECT, [*files, "deploy/compose.prod.yml"], port=PORT + 1, subnet=SUBNET, environment=environment)
    with pytest.raises(CommandError, match=missing):
        await stack.compose("config", "--quiet")
