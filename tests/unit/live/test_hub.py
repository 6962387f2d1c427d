import pytest

from servicekit.errors import Overloaded
from servicekit.live.events import LiveEvent
from servicekit.live.hub import Hub, Listener
from servicekit.live.mailbox import EVENTS_MAX, MERGED_MAX, Signal
from tests.unit.live.factories import COMPLETED, PROCESSING, events, update, wanted


@pytest.fixture
async def hub() -> Hub:
    return Hub()


def heard(listener: Listener) -> list[int]:
    tasks = []
    while isinstance(event := listener.mailbox.take(), LiveEvent):
        tasks.append(event.update.task_id)
    return tasks


async def test_each_hears_what_it_wants(hub: Hub) -> None:
    everything = hub.add(wanted())
    one = hub.add(wanted(1))
    of_type = hub.add(wanted(types=["noop", "other"]))
    ends = hub.add(wanted(statuses=[COMPLETED]))
    both = hub.add(wanted(1, 2, types=["other"], statuses=[PROCESSING]))
    ends_of_type = hub.add(wanted(types=["noop", "third"], statuses=[COMPLETED]))
    hub.publish(events(update(1, 1), update(2, 1, type="other"), update(3, 2, COMPLETED, type="third")))
    assert heard(everything) == [1, 2, 3]
    assert heard(one) == [1]
    assert heard(of_type) == [1, 2]
    assert heard(ends) == [3]
    assert heard(both) == [2]
    assert heard(ends_of_type) == [3]


async def test_an_event_that_nobody_wants_is_known_to_be_one(hub: Hub) -> None:
    assert not hub.hears(1)
    one = hub.add(wanted(1))
    assert hub.hears(1)
    assert not hub.hears(2)
    of_type = hub.add(wanted(types=["noop"], statuses=[PROCESSING, COMPLETED]))
    assert hub.hears(2)
    of_type.close()
    one.close()
    one.close()
    assert not hub.hears(1)
    assert not hub.hears(2)
    assert len(hub) == 0


async def test_a_listener_that_is_cut_off_takes_nothing_from_others(hub: Hub) -> None:
    slow, quick = hub.add(wanted()), hub.add(wanted())
    for task_id in range(1, EVENTS_MAX + MERGED_MAX + 3):
        hub.publish(events(update(task_id, 1)))
        assert heard(quick) == [task_id]
    assert slow.mailbox.take() is Signal.TOO_SLOW
    assert len(hub) == 1


async def test_there_are_so_many_listeners_and_named_tasks_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("servicekit.live.hub.NAMED_MAX", 5)
    hub = Hub(listeners_max=3)
    several = hub.add(wanted(1, 2, 3))
    with pytest.raises(Overloaded) as caught:
        hub.add(wanted(1, 2, 3))
    assert caught.value.code == "too_many_streams"
    hub.add(wanted())
    hub.add(wanted(4, 5))
    several.close()
    hub.add(wanted(1, 2, 3))
    with pytest.raises(Overloaded):
        hub.add(wanted())


async def test_a_closed_hub_tells_those_who_come_later(hub: Hub) -> None:
    before = hub.add(wanted(1))
    hub.reset()
    assert before.mailbox.take() is Signal.RESET
    hub.close()
    assert before.mailbox.take() is Signal.CLOSED
    assert hub.add(wanted(1)).mailbox.take() is Signal.CLOSED
