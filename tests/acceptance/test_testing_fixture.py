"""The fixture `cluster` in a project of a user's own, which a pytest of its own tests."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import psutil

from headrace.local.cluster_file import read_cluster_file
from tests.support.processes import has_ended
from tests.support.waiting import wait_until

RUN_SECONDS = 90.0
END_SECONDS = 20.0
# Plugins of the machine are left out, so that the fixture is known to need none.
ENVIRONMENT = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "HEADRACE_TASK_MODULES": "no_such_tasks"}

PROJECT = {
    # Found by the setting alone: pytest is started elsewhere.
    "pytest.ini": "[pytest]\npythonpath = source\nfilterwarnings = error\n",
    "source/bakery/__init__.py": "",
    "source/bakery/prices.py": "ROLL = 0.5\n",
    "source/bakery/tasks.py": """
from pydantic import BaseModel, Field

from bakery.prices import ROLL
from headrace.tasks import PermanentError, task

class Rolls(BaseModel):
    count: int = Field(ge=0)

@task("roll_price", examples=[{"count": 2}])
def roll_price(rolls: Rolls) -> float:
    if not rolls.count:
        raise PermanentError("no_rolls", "Nothing costs nothing.")
    return rolls.count * ROLL
""",
    "checks/conftest.py": """
import pytest

from headrace.testing import cluster

@pytest.fixture(scope="session")
def headrace_task_modules() -> tuple[str, ...]:
    return ("bakery.tasks",)
""",
    "checks/test_rolls.py": """
import asyncio

import pytest

from headrace.testing import RunningCluster, TaskFailedError, TaskRefusedError

def test_a_result(cluster: RunningCluster) -> None:
    assert cluster.run("roll_price", {"count": 3}) == 1.5

def test_a_task_that_fails(cluster: RunningCluster) -> None:
    task_id = cluster.submit("roll_price", {"count": 0})
    assert cluster.wait(task_id)["error"]["code"] == "no_rolls"
    with pytest.raises(TaskFailedError, match="no_rolls: Nothing costs nothing"):
        cluster.run("roll_price", {"count": 0})

def test_a_task_that_is_refused(cluster: RunningCluster) -> None:
    with pytest.raises(TaskRefusedError, match="/data/count"):
        cluster.run("roll_price", {"count": -1})

def test_on_a_running_event_loop(cluster: RunningCluster) -> None:
    async def price() -> float:
        return cluster.run("roll_price", {"count": 1})

    assert asyncio.run(price()) == 0.5

def test_that_is_wrong(cluster: RunningCluster) -> None:
    assert cluster.run("roll_price", {"count": 0}) == 0
""",
}

CONFTEST = PROJECT["checks/conftest.py"]
ONE_TEST = "def test_it(cluster): ..."
BROKEN = {
    "environment/conftest.py": "from headrace.testing import cluster",
    "environment/test_environment.py": ONE_TEST,
    "text/conftest.py": CONFTEST.replace('("bakery.tasks",)', '"bakery.tasks"'),
    "text/test_text.py": ONE_TEST,
    "absent/conftest.py": CONFTEST.replace("modules()", "modules(absent)"),
    "absent/test_absent.py": ONE_TEST,
}


def pytest_on(files: Mapping[str, str], folder: Path, *options: str) -> list[str]:
    """Write files below `folder`, and return the command that runs the tests among them."""
    for name, content in files.items():
        path = folder / "project" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    command = [sys.executable, "-m", "pytest", "project", f"--basetemp={folder / 'temporary'}", "--color=no"]
    return [*command, "-p", "no:cacheprovider", *options]


def run_pytest(files: Mapping[str, str], folder: Path, *options: str) -> tuple[int, str]:
    """Run the tests among the files from the folder above theirs; return the exit code and the output."""
    command = pytest_on(files, folder, *options)
    done = subprocess.run(
        command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=RUN_SECONDS, check=False
    )
    assert done.stderr == ""
    return done.returncode, done.stdout


def test_a_project_is_tested_on_a_cluster_that_runs_its_task_types(tmp_path: Path) -> None:
    code, said = run_pytest(PROJECT, tmp_path, "-v")
    assert (code, "1 failed, 4 passed" in said) == (1, True), said
    assert "test_rolls.py::test_that_is_wrong FAILED" in said
    assert "TaskFailedError: task 5 (roll_price) ended as failed: no_rolls: Nothing costs nothing." in said
    processes = read_cluster_file(tmp_path / "temporary" / "headrace0").processes
    services = [entry.role for entry in processes if entry.role in ("gateway", "management", "execution")]
    assert sorted(services) == ["execution", "gateway", "management"]
    assert all(has_ended(entry.pid) for entry in processes)


def listen_to_ctrl_c() -> None:
    """Shells have what they start in the background ignore it, and so would we and all that we start."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


async def test_ctrl_c_during_the_start_leaves_nothing(tmp_path: Path) -> None:
    command = pytest_on(PROJECT, tmp_path)
    process = await asyncio.create_subprocess_exec(
        *command, cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.PIPE, preexec_fn=listen_to_ctrl_c
    )
    try:
        family = psutil.Process(process.pid)
        await wait_until(lambda: len(family.children(recursive=True)) > 3, timeout=RUN_SECONDS)
        pids = [child.pid for child in family.children(recursive=True)]
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(END_SECONDS):
            said, _ = await process.communicate()
        assert process.returncode == 2, said.decode()
        assert all(map(has_ended, pids))
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def test_what_is_wrong_is_said_before_a_cluster_is_started(tmp_path: Path) -> None:
    code, said = run_pytest(BROKEN, tmp_path, "--tb=short")
    assert (code, "3 errors" in said) == (1, True), said
    assert "ModuleNotFoundError: No module named 'no_such_tasks'" in said
    assert "TypeError: headrace_task_modules must return a sequence of module names, not 'bakery.tasks'" in said
    assert "fixture 'absent' not found" in said
    assert not (tmp_path / "temporary" / "headrace0").exists()


def test_the_fixture_also_comes_as_a_plugin_and_can_be_given_another_name(tmp_path: Path) -> None:
    files = {
        "conftest.py": 'pytest_plugins = ["headrace.testing"]',
        "test_nothing.py": "from headrace.testing import cluster as headrace_cluster",
    }
    _, said = run_pytest(files, tmp_path, "--fixtures", "-q")
    assert "\ncluster [session scope]" in said
    assert "\nheadrace_cluster [session scope]" in said
