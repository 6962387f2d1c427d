"""What streams are told first, and what becomes of tasks that are on their way into the database."""

from collections.abc import Sequence
from typing import cast

import pytest

from gateway.cache import TaskCache
from gateway.management import Management
from gateway.reads import TaskReader
from gateway.snapshots import TASKS_MAX, Snapshots
from headrace.v1 import management_pb2 as pb
from headrace.v1.task_pb2 import Submission, Task, TaskStatus
from servicekit.errors import Unavailable
from servicekit.live.filters import Filter
from servicekit.live.sources import Snapshot
from tests.support.fake_management import DirectCalls, FakeManagement
from tests.unit.live.factories import COMPLETED, PROCESSING, QUEUED, wanted


class Markers(TaskCache):
    """Knows which tasks are not stored yet, or nothing at all."""

    def __init__(self) -> None:
        self.ids: frozenset[int] | None = frozenset()

    async def unstored(self, task_ids: Sequence[int]) -> frozenset[int] | None:
        return None if self.ids is None else self.ids & set(task_ids)


class World:
    def __init__(self) -> None:
        self.management = FakeManagement()
        self.markers = Markers()
        calls = Management(DirectCalls(self.management))
        self.snapshots = Snapshots(cast("TaskReader", None), self.markers, calls)

    def store(self, *task_ids: int, status: TaskStatus.ValueType = QUEUED, type_name: str = "noop") -> None:
        for task_id in task_ids:
            self.management.store(Submission(task_id=task_id, type=type_name)).status = status


@pytest.fixture
async def world() -> World:
    return World()


def ids(snapshot: Snapshot) -> list[int]:
    return [update.task_id for update in snapshot.updates]


async def test_the_newest_that_fit_are_told_and_whether_there_are_more(world: World) -> None:
    world.store(*range(1, TASKS_MAX + 2))
    everything = await world.snapshots.read(Filter())
    assert ids(everything) == list(range(TASKS_MAX + 1, 1, -1))
    assert everything.more
    world.store(900, status=PROCESSING, type_name="a")
    world.store(901, status=COMPLETED, type_name="b")
    some = await world.snapshots.read(wanted(types=["a", "b"], statuses=[PROCESSING, QUEUED]))
    assert (ids(some), some.more) == ([900], False)


async def test_a_named_task_without_a_row_is_queued_or_missing(world: World) -> None:
    world.store(1, 2)
    world.markers.ids = frozenset((2, 3))
    snapshot = await world.snapshots.read(wanted(1, 2, 3, 4))
    assert [(update.task_id, update.revision) for update in snapshot.updates] == [(2, 1), (1, 1), (3, 0)]
    assert snapshot.missing == [4]


async def test_a_named_task_that_does_not_fit_is_not_missing(world: World) -> None:
    world.store(1)
    world.store(2, status=COMPLETED)
    snapshot = await world.snapshots.read(wanted(1, 2, statuses=[COMPLETED]))
    assert (ids(snapshot), snapshot.missing) == ([2], [])


async def test_without_redis_a_task_without_a_row_cannot_be_told(world: World) -> None:
    world.store(1, 2)
    world.markers.ids = None
    assert ids(await world.snapshots.read(wanted(1, 2))) == [2, 1]
    with pytest.raises(Unavailable) as caught:
        await world.snapshots.read(wanted(1, 3))
    assert caught.value.code == "redis_unavailable"


async def test_an_older_management_service_is_not_taken_for_one_that_knows_no_task(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not read `task_ids`, and answers with the newest tasks."""

    async def newest(request: pb.ListTasksRequest, context: object) -> pb.ListTasksResponse:
        return pb.ListTasksResponse(tasks=[Task(task_id=9, status=QUEUED, revision=1)])

    monkeypatch.setattr(world.management, "ListTasks", newest)
    with pytest.raises(Unavailable) as caught:
        await world.snapshots.read(wanted(1, 2))
    assert caught.value.code == "management_outdated"
