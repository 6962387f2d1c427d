"""A next release beside this one, under work: its replicas join, take over, and are taken back (P19)."""

import textwrap
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.compose.conftest import SIZES
from tests.compose.load import Load
from tests.compose.stack import Container, Stack
from tests.support.api import Api

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(600)]

MORE = 50
SMALL = {"management": 2, "execution": 2, "gateway": 1}
TASKS = 20
# The order of an upgrade; going back is the other way round.
ORDER = ("management", "execution", "gateway")
# A release may add to a schema: what it adds, older code neither names nor fills.
MIGRATIONS = {
    "management": "management_service/storage/migrations",
    "execution": "result_store/migrations",
}
TABLES = {"management": "tasks", "execution": "results"}
TASK_TYPE = textwrap.dedent('''
    from headrace.tasks import task

    @task("next_release", examples=[{}])
    def next_release(data: dict) -> str:
        """Say that it runs."""
        return "here"
''')
NEXT = ("env", "HEADRACE_VERSION=next", "HEADRACE_TEST_MODULES=tests.support.probe_tasks,next_release")
ADD = ("docker", "compose", "up", "--detach", "--no-deps", "--no-recreate")


@pytest_asyncio.fixture(loop_scope="session")
async def small(stack: Stack, api: Api) -> AsyncIterator[None]:
    """Fewer replicas, for each takes a while to be exchanged."""
    for role, count in SMALL.items():
        await stack.scale(role, count)
    yield
    for role, count in SIZES.items():
        await stack.scale(role, count)
        await stack.wait_healthy(role, count)


@pytest_asyncio.fixture(loop_scope="session")
async def next_release(stack: Stack, tmp_path: Path) -> AsyncIterator[None]:
    """Images of a release that adds columns to both databases, and a task type."""
    (tmp_path / "next_release.py").write_text(TASK_TYPE)
    for role in ORDER:
        lines = [f"FROM headrace-{role}:latest", "LABEL release=next", "COPY next_release.py /srv/headrace/"]
        if role in MIGRATIONS:
            table = TABLES[role]
            migration = f"ALTER TABLE {table} ADD COLUMN note text, ADD COLUMN weight integer NOT NULL DEFAULT 1;\n"
            (tmp_path / f"{role}.sql").write_text(migration)
            lines.append(f"COPY {role}.sql /srv/headrace/{MIGRATIONS[role]}/900_next_release.sql")
        (tmp_path / f"{role}.Dockerfile").write_text("\n".join(lines))
        await stack.docker("build", "-t", f"headrace-{role}:next", "-f", f"{tmp_path}/{role}.Dockerfile", str(tmp_path))
    yield
    for role in ORDER:
        await stack.docker("rmi", "--force", f"headrace-{role}:next")


async def test_a_next_release_runs_beside_this_one_takes_over_and_is_taken_back(
    stack: Stack, load: Load, api: Api, small: None, next_release: None
) -> None:
    this = {role: images(await stack.wait_healthy(role, count)) for role, count in SMALL.items()}
    await load.grow(MORE)
    await stack.run(*NEXT, "make", "compose-roll", "SERVICE=management")
    await load.grow(MORE)

    # One new execution replica beside the old ones, which do not know its task type.
    count = SMALL["execution"] + 1
    await stack.run(*NEXT, *ADD, "--scale", f"execution={count}", "execution")
    assert images(await stack.wait_healthy("execution", count)) > this["execution"]
    tasks = await api.finals(await api.submit_many([{"type": "next_release", "data": {}}] * TASKS))
    assert {(task["status"], task["result"], task["failures"]) for task in tasks} == {("completed", "here", 0)}
    await load.grow(MORE)

    await stack.run(*NEXT, "make", "compose-roll", "SERVICE=execution gateway")
    for role in ORDER:
        assert not this[role] & images(await stack.containers(role))
    await load.grow(MORE)

    # Back: this release works with the newer schema.
    await stack.run("make", "compose-roll", f"SERVICE={' '.join(reversed(ORDER))}")
    for role in ORDER:
        assert images(await stack.containers(role)) == this[role]
    await load.grow(MORE)
    assert not load.refused
    await load.finish()


def images(containers: list[Container]) -> set[str]:
    return {container.image for container in containers}
