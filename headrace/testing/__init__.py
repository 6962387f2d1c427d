"""Tests of your own task types: one task in this process, or a real cluster for the whole test run.

    from headrace.testing import run_task

    def test_the_total() -> None:
        assert run_task(invoice, {"prices": [9.5, 20]}).result == {"total": 29.5}

With this line in `conftest.py` tests can also ask for `cluster`, a RunningCluster:

    from headrace.testing import cluster

    def test_it_runs(cluster: RunningCluster) -> None:
        assert cluster.run("invoice", {"prices": [9.5, 20]}) == {"total": 29.5}
"""

import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headrace.testing.context import FakeContext, LogLine, Report
    from headrace.testing.fixtures import cluster
    from headrace.testing.running import RunOptions, TaskRun, run_task, run_task_async
    from headrace.testing.running_cluster import RunningCluster, TaskFailedError, TaskRefusedError

__all__ = [
    "FakeContext",
    "LogLine",
    "Report",
    "RunOptions",
    "RunningCluster",
    "TaskFailedError",
    "TaskRefusedError",
    "TaskRun",
    "cluster",
    "run_task",
    "run_task_async",
]

_MODULES = {
    "context": ("FakeContext", "LogLine", "Report"),
    "fixtures": ("cluster",),
    "running": ("RunOptions", "TaskRun", "run_task", "run_task_async"),
    "running_cluster": ("RunningCluster", "TaskFailedError", "TaskRefusedError"),
}


def __getattr__(name: str) -> Any:
    # Loaded on first use: running a task needs no pytest and no cluster.
    for module, names in _MODULES.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> Sequence[str]:
    # pytest finds the fixture in this list when a project names `headrace.testing` as a plugin.
    return [*globals(), *__all__]
