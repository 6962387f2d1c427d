"""Which tests stay together where several processes share a run (`make test`)."""

from xdist.scheduler import LoadScopeScheduling

# All of these use the shared cluster, which then starts in one process alone.
SHARED_CLUSTER = frozenset(
    f"tests/acceptance/test_{name}.py" for name in ("task_life", "catalog", "live", "running_cluster")
)
# The tests of each of these share a cluster of their own.
OWN_CLUSTER = frozenset(f"tests/acceptance/test_{name}.py" for name in ("kills", "workers", "demand"))


def group_of(test_id: str) -> str:
    """The tests of a file share what it sets up. Acceptance tests that start clusters of their own take long and share
    nothing: each goes where there is room.
    """
    path = test_id.partition("::")[0]
    if path in SHARED_CLUSTER:
        return "cluster"
    if path.startswith("tests/acceptance/") and path not in OWN_CLUSTER:
        return test_id
    return path


class GroupScheduling(LoadScopeScheduling):  # type: ignore[misc]
    """Gives whole groups to processes, in the order of the tests.

    A scheduler of our own, because the plugin's marks for groups are not seen by the pytest that we use.
    """

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)
