import asyncio

import pytest

from gateway.ids import TaskIds
from gateway.management import Management
from servicekit.errors import Unavailable
from tests.support.fake_management import DirectCalls, FakeManagement
from tests.support.waiting import wait_until


def task_ids(management: FakeManagement) -> TaskIds:
    return TaskIds(Management(DirectCalls(management)))


async def test_ranges_follow_each_other_without_overlap() -> None:
    ids = task_ids(FakeManagement(block=100))
    assert [await ids.take(30), await ids.take(1), await ids.take(2)] == [1, 31, 32]


async def test_a_range_is_never_broken_over_two_blocks() -> None:
    ids = task_ids(FakeManagement(block=100))
    assert [await ids.take(70), await ids.take(40), await ids.take(60)] == [1, 101, 141]


async def test_the_next_block_is_leased_when_half_is_used() -> None:
    management = FakeManagement(block=100)
    ids = task_ids(management)
    ids.start()
    await wait_until(lambda: management.calls["ReserveTaskIds"] == 1)
    await ids.take(49)
    assert management.calls["ReserveTaskIds"] == 1
    await ids.take(1)
    await wait_until(lambda: management.calls["ReserveTaskIds"] == 2)
    await ids.stop()


async def test_ids_go_on_for_half_a_block_while_management_is_away() -> None:
    management = FakeManagement(block=100)
    ids = task_ids(management)
    await ids.take(50)
    await ids.run_once()
    management.failures["ReserveTaskIds"] = Unavailable("away")
    assert await ids.take(50) == 51
    assert await ids.take(100) == 101
    assert not ids.available
    with pytest.raises(Unavailable, match="No task ids"):
        await ids.take(1)


async def test_callers_at_the_same_moment_share_one_lease() -> None:
    management = FakeManagement(block=100)
    ids = task_ids(management)
    firsts = await asyncio.gather(*(ids.take(10) for _ in range(10)))
    assert sorted(firsts) == list(range(1, 101, 10))
    assert management.calls["ReserveTaskIds"] == 1
