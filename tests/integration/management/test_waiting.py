"""Replicas are told how many tasks of their types wait, on a real database and cheaply."""

import pytest

from headrace.v1 import execution_pb2 as pb
from management_service.dispatch import Dispatcher
from management_service.domain.demand import Account
from management_service.links import ExecutorLink
from management_service.manager import open_redis
from management_service.publishing import Publisher
from management_service.storage.records import Session
from management_service.storage.tasks import QUERIES, TaskRepository
from management_service.waiting import WaitingCounts
from tests.support.task_rows import Rows


class ListeningLink(ExecutorLink):
    """A link without a stream, that remembers what it was told."""

    def __init__(self, session_id: int, **types: set[str]) -> None:
        self.session = Session(session_id, "r", "127.0.0.1:1", 1, ())
        self.open = True
        self.newest_beat = 1
        self.accounts = {pool: Account(session_id, frozenset(names)) for pool, names in types.items()}
        self.told: dict[str, int] = {}

    def tell_waiting(self, counts: object) -> None:
        assert isinstance(counts, dict)
        self.told = counts


@pytest.fixture
def links() -> dict[str, ExecutorLink]:
    return {}


@pytest.fixture
def dispatcher(tasks: TaskRepository, redis_url: str, links: dict[str, ExecutorLink]) -> Dispatcher:
    return Dispatcher(tasks, links, Publisher(open_redis(redis_url)))


async def test_each_replica_hears_of_ready_tasks_of_its_own_types(
    tasks: TaskRepository, dispatcher: Dispatcher, links: dict[str, ExecutorLink], rows: Rows
) -> None:
    await rows.session()
    await rows.processing(1)
    await rows.queued(2, 3)
    await rows.queued(4, type="other")
    await rows.queued(5, delay_ms=60_000)
    await rows.queued(6, pool="io")
    await rows.queued(7, pool="gpu")
    links["a"] = both = ListeningLink(1, cpu={"noop", "other"}, io={"noop"})
    links["b"] = one = ListeningLink(2, cpu={"noop"})
    await WaitingCounts(tasks, links, dispatcher).run_once()
    assert both.told == {"cpu": 3, "io": 1}
    assert one.told == {"cpu": 2}


async def test_no_more_than_a_hundred_are_counted_of_a_pool(
    tasks: TaskRepository, dispatcher: Dispatcher, links: dict[str, ExecutorLink], rows: Rows
) -> None:
    await rows.queued(*range(1, 301))
    links["a"] = link = ListeningLink(1, cpu={"noop"})
    await WaitingCounts(tasks, links, dispatcher).run_once()
    assert link.told == {"cpu": 100}


async def test_a_pool_in_which_nothing_waits_costs_no_statement(
    tasks: TaskRepository,
    dispatcher: Dispatcher,
    links: dict[str, ExecutorLink],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    links["a"] = link = ListeningLink(1, cpu={"noop"})
    link.accounts["cpu"].grant(1)
    await dispatcher.run_once()
    assert dispatcher.nothing_waits("cpu")
    asked: list[set[str]] = []

    async def count_waiting(pools: set[str]) -> dict[tuple[str, str], int]:
        asked.append(pools)
        return {}

    monkeypatch.setattr(tasks, "count_waiting", count_waiting)
    await WaitingCounts(tasks, links, dispatcher).run_once()
    assert (link.told, asked) == ({"cpu": 0}, [])
    dispatcher.may_wait(["cpu"])
    await WaitingCounts(tasks, links, dispatcher).run_once()
    assert asked == [{"cpu"}]


async def test_counting_reads_no_more_of_a_long_queue(rows: Rows) -> None:
    await rows.connection.execute(
        b"INSERT INTO tasks (task_id, type, data, pool, status, priority, max_attempts, timeout_ms, run_at)"
        b" SELECT n, 'noop', '{}', 'cpu', 'queued', n %% 10, 3, 30000, now() FROM generate_series(1, 50000) AS n",
        (),
    )
    await rows.connection.execute(b"ANALYZE tasks")
    explain = b"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + QUERIES["count_waiting"]
    cursor = await rows.connection.execute(explain, {"pools": ["cpu", "io"]})
    [[[plan]]] = await cursor.fetchall()
    assert plan["Plan"]["Shared Hit Blocks"] + plan["Plan"]["Shared Read Blocks"] < 250


def test_a_stream_is_told_what_has_changed() -> None:
    link = ExecutorLink("127.0.0.1:1", manager=None)  # type: ignore[arg-type]  # it dials nobody

    def told(**counts: int) -> list[tuple[str, int]]:
        link.tell_waiting(counts)
        message: pb.DispatchRequest = link._out.compose({})
        return [(item.pool, item.count) for item in message.waiting]

    assert told(cpu=0, io=0) == []
    assert told(cpu=5, io=0) == [("cpu", 5)]
    assert told(cpu=5, io=3) == [("io", 3)]
    assert told(cpu=0, io=3) == [("cpu", 0)]
