"""Claims and direct hand-over on a real database, with links that only remember what they were given."""

from collections.abc import Sequence

import pytest

from headrace.v1.execution_pb2 import Assignment
from management_service.dispatch import Dispatcher
from management_service.domain.demand import Account
from management_service.links import ExecutorLink
from management_service.manager import open_redis
from management_service.publishing import Publisher
from management_service.storage.records import Session
from management_service.storage.tasks import TaskRepository
from management_service.storing import TaskStore
from tests.support.task_rows import SESSION, Rows, submission
from tests.support.waiting import wait_until


class RememberingLink(ExecutorLink):
    """A link without a stream."""

    def __init__(self, session_id: int = SESSION, *, granted: int = 0) -> None:
        self.address = f"127.0.0.1:{session_id}"
        self.session = Session(session_id, "r", self.address, 1, ())
        self.open = True
        self.newest_beat = 1
        self.accounts = {"cpu": Account(session_id, frozenset({"noop"}), granted=granted)}
        self.assigned: list[tuple[int, int]] = []

    def assign(self, account: Account, assignments: Sequence[Assignment], *, heard: int) -> None:
        assert heard == self.newest_beat
        account.send(len(assignments))
        self.assigned += [(assignment.task_id, assignment.attempt) for assignment in assignments]

    @property
    def account(self) -> Account:
        return self.accounts["cpu"]


@pytest.fixture
def links() -> dict[str, ExecutorLink]:
    return {}


@pytest.fixture
def dispatcher(
    tasks: TaskRepository, redis_url: str, links: dict[str, ExecutorLink], monkeypatch: pytest.MonkeyPatch
) -> Dispatcher:
    """One that never polls: it has to notice by itself."""
    monkeypatch.setattr("management_service.dispatch.CLAIM_SECONDS", 3600.0)
    return Dispatcher(tasks, links, Publisher(open_redis(redis_url)))


async def test_a_grant_is_used_at_once_also_after_a_claim_that_used_all_demand(
    dispatcher: Dispatcher, links: dict[str, ExecutorLink], rows: Rows
) -> None:
    link = RememberingLink(granted=2)
    links[link.address] = link
    await rows.session()
    await rows.queued(*range(1, 11))
    dispatcher.start()
    for granted in (2, 5, 8):
        link.account.grant(granted)
        dispatcher.demand_changed()
        await wait_until(lambda granted=granted: len(link.assigned) == granted)  # type: ignore[misc]
    await dispatcher.stop()


async def test_new_tasks_are_handed_over_directly_while_nothing_waits(
    dispatcher: Dispatcher, links: dict[str, ExecutorLink], tasks: TaskRepository, rows: Rows
) -> None:
    link = RememberingLink(granted=3)
    links[link.address] = link
    await rows.session()
    store = TaskStore(tasks, dispatcher)
    await dispatcher.run_once()  # finds nothing
    await store.store([submission(task_id) for task_id in (1, 2)])
    assert link.assigned == [(1, 1), (2, 1)]
    await store.store([submission(task_id) for task_id in (3, 4)])
    assert link.assigned == [(1, 1), (2, 1), (3, 1)]
    assert [await rows.read(task_id, "status") for task_id in (3, 4)] == ["processing", "queued"]
    assert (link.account.open, link.account.reserved) == (0, 0)
    link.account.grant(10)
    await store.store([submission(5)])
    assert await rows.read(5, "status") == "queued", "a task may not pass one that waits"


async def test_reserved_demand_comes_back_when_tasks_were_stored_before_or_their_session_ended(
    dispatcher: Dispatcher, links: dict[str, ExecutorLink], tasks: TaskRepository, rows: Rows
) -> None:
    link = RememberingLink(granted=5)
    links[link.address] = link
    store = TaskStore(tasks, dispatcher)
    await dispatcher.run_once()
    await rows.queued(1)
    await store.store([submission(1), submission(2), submission(2)])
    assert link.assigned == []
    assert await rows.read(2, "status") == "queued"
    assert (link.account.open, link.account.reserved) == (5, 0)


async def test_a_task_that_has_to_run_alone_is_sent_though_others_would_take_all_demand(
    tasks: TaskRepository, dispatcher: Dispatcher, links: dict[str, ExecutorLink], rows: Rows
) -> None:
    await rows.session()
    link = RememberingLink(granted=1)
    links[link.address] = link
    await rows.queued(1)
    await rows.set(1, "replica_losses = 2")
    await rows.queued(*range(2, 6))
    await dispatcher._doubt()
    await dispatcher.run_once()
    assert link.assigned == [(1, 1)]
    link.account.grant(3)
    await dispatcher.run_once()
    assert link.assigned == [(1, 1), (2, 1), (3, 1)]
