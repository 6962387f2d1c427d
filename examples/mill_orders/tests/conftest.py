"""The cluster for the tests in test_cluster.py runs the task types of the mill."""

import pytest
from headrace.testing import cluster

__all__ = ["cluster"]


@pytest.fixture(scope="session")
def headrace_task_modules() -> tuple[str, ...]:
    return ("mill_orders.tasks",)
