"""Which completed tasks lack their result, told by two streams of keys."""

from hypothesis import given
from hypothesis import strategies as st

from deploy.checks import IDS_PER_BLOCK, Check, missing_keys, report
from deploy.stores import STORES
from management_service.storage.id_blocks import block_bounds
from servicekit.migrations import read_migrations
from servicekit.redis_keys import CACHED_TASKS, cached_task

KEYS = st.sets(st.tuples(st.integers(1, 20), st.integers(1, 4)))


@given(
    completed=st.dictionaries(st.integers(1, 20), st.integers(1, 4)), results=KEYS, excused=st.sets(st.integers(1, 20))
)
def test_a_task_is_missing_its_result_exactly_if_no_row_has_its_key(
    completed: dict[int, int], results: set[tuple[int, int]], excused: set[int]
) -> None:
    missing = {key for key in completed.items() if key not in results and key[0] not in excused}

    problem = missing_keys(iter(sorted(completed.items())), iter(sorted(results)), excused=excused)

    assert problem.startswith(f"{len(missing)} have none: ") if missing else problem == ""


def test_a_few_of_those_without_result_are_named() -> None:
    completed = [(task_id, 2) for task_id in range(1, 10)]

    problem = missing_keys(completed, [(1, 1), (2, 2), (9, 2)], excused={3})

    assert problem == ("6 have none: task 1 (attempt 2), 4 (attempt 2), 5 (attempt 2), 6 (attempt 2), 7 (attempt 2), …")


def test_each_check_is_a_line() -> None:
    said: list[str] = []

    failed = report([Check("water is wet"), Check("the sky is green", "it is blue")], say=said.append)

    assert failed == 1
    assert said == ["ok    water is wet", "FAIL  the sky is green: it is blue"]


def test_the_tools_know_what_the_services_know() -> None:
    assert block_bounds(7) == (6 * IDS_PER_BLOCK + 1, 7 * IDS_PER_BLOCK)
    for store in STORES:
        assert store.known_schema() == read_migrations(store.package)[-1].version
    assert cached_task(17) == CACHED_TASKS.replace("*", "17")
