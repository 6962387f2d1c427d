"""How a run is shared out: by files, the users of the shared cluster together, long tests one by one."""

import pytest

from tests.support.sharing import OWN_CLUSTER, SHARED_CLUSTER, group_of


@pytest.mark.parametrize(
    ("test_id", "group"),
    [
        ("tests/unit/test_readme.py::test_a", "tests/unit/test_readme.py"),
        ("tests/unit/test_readme.py::TestMore::test_b[x::y]", "tests/unit/test_readme.py"),
        ("tests/acceptance/test_task_life.py::test_a", "cluster"),
        ("tests/acceptance/test_catalog.py::test_b", "cluster"),
        ("tests/acceptance/test_kills.py::test_a[redis]", "tests/acceptance/test_kills.py"),
        ("tests/acceptance/test_demo.py::test_a", "tests/acceptance/test_demo.py::test_a"),
    ],
)
def test_groups(test_id: str, group: str) -> None:
    assert group_of(test_id) == group


def test_the_files_that_are_named_exist(pytestconfig: pytest.Config) -> None:
    for path in SHARED_CLUSTER | OWN_CLUSTER:
        assert (pytestconfig.rootpath / path).is_file(), path


def test_all_tests_that_use_the_shared_cluster_are_named(request: pytest.FixtureRequest) -> None:
    users = {
        item.nodeid.partition("::")[0]
        for item in request.session.items
        if "cluster" in getattr(item, "fixturenames", ())
    }
    assert users <= SHARED_CLUSTER
