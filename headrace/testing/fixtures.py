"""The pytest fixture `cluster`: a real cluster for the test run, with the task types of the project under test."""

import asyncio
import os
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from headrace.local.cluster import LocalCluster
from headrace.tasks import load_registry
from headrace.testing.running_cluster import WAIT_SECONDS_MAX, RunningCluster

try:
    import pytest
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("the fixture `cluster` needs pytest: pip install pytest", name=error.name) from error

MODULES_FIXTURE = "headrace_task_modules"
MODULES_VARIABLE = "HEADRACE_TASK_MODULES"
ANSWER_SECONDS = 15.0


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCluster]:
    """A cluster on a free port: one gateway, one manager and one execution replica, stopped after the last test.

    Which modules hold its task types is what the fixture `headrace_task_modules` returns, a sequence of names, if the
    project has one (of session scope), and HEADRACE_TASK_MODULES otherwise. What tests can import, workers can.
    """
    modules = _task_modules(request)
    load_registry(modules)  # what is wrong with them is easier to read here than in the logs of a replica
    with _running(tmp_path_factory.mktemp("headrace"), modules) as url:
        timeout = ANSWER_SECONDS + WAIT_SECONDS_MAX
        # A proxy that the environment names is for the world outside.
        with httpx.Client(base_url=url, timeout=timeout, trust_env=False) as http:
            yield RunningCluster(http)


def _task_modules(request: pytest.FixtureRequest) -> Sequence[str]:
    # Looked up by name: a project imports `cluster` alone, and may leave the other fixture out.
    try:
        modules: Sequence[str] = request.getfixturevalue(MODULES_FIXTURE)
    except pytest.FixtureLookupError as error:
        if error.argname != MODULES_FIXTURE:
            raise
        return [name.strip() for name in os.environ.get(MODULES_VARIABLE, "").split(",") if name.strip()]
    if isinstance(modules, str):
        raise TypeError(f"{MODULES_FIXTURE} must return a sequence of module names, not {modules!r}")
    return modules


@contextmanager
def _running(data_dir: Path, modules: Sequence[str]) -> Iterator[str]:
    """Run a cluster and give its URL."""
    local = LocalCluster(
        data_dir,
        managers=1,
        executors=1,
        env={"PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))},
        role_env={"execution": {MODULES_VARIABLE: ",".join(modules)}},
    )
    with _loop_thread() as call:
        try:
            call(local.start())
            yield local.gateway_url
        finally:
            call(local.stop())


@contextmanager
def _loop_thread() -> Iterator[Callable[[Coroutine[Any, Any, None]], None]]:
    """Give a function that runs coroutines in another thread: that of the tests may have an event loop of its own.

    It is one thread for all of them: the kernel stops what a thread has started when that thread ends.
    """
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="headrace-cluster", daemon=True)

    def call(work: Coroutine[Any, Any, None]) -> None:
        future = asyncio.run_coroutine_threadsafe(work, loop)
        try:
            future.result()
        except BaseException:  # Ctrl-C too, for which the work must not go on
            future.cancel()
            raise

    thread.start()
    try:
        yield call
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
