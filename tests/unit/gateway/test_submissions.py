import asyncio
from collections.abc import Sequence

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from gateway.backlog import Backlog
from gateway.ids import TaskIds
from gateway.management import Management
from gateway.redis_gate import RedisFacts, RedisGate
from gateway.stream import ENTRY_BYTES_MAX, SubmissionStream, entries_of
from gateway.submissions import FLUSH_TASKS_MAX, Accepted, Submissions, number
from headrace.v1.task_pb2 import Submission, SubmissionBatch
from servicekit.errors import AlreadyExists, Overloaded, Unavailable
from tests.support.fake_management import DirectCalls, FakeManagement
from tests.support.waiting import wait_until


class RecordingStream(SubmissionStream):
    """Keeps what is appended; waits for `gate`, and breaks when told to."""

    def __init__(self) -> None:
        self.flushes: list[list[int]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.error: Exception | None = None

    async def append(self, submissions: Sequence[Submission]) -> None:
        self.flushes.append([submission.task_id for submission in submissions])
        await self.gate.wait()
        if self.error is not None:
            raise self.error


class Rig:
    def __init__(self) -> None:
        self.management = FakeManagement()
        client = Management(DirectCalls(self.management))
        self.gate = RedisGate("redis://127.0.0.1:1/0")
        self.gate.available = True
        self.gate.facts = RedisFacts(durable=True, roomy=True)
        self.backlog = Backlog(self.gate, tasks_max=1000, bytes_max=10_000)
        self.stream = RecordingStream()
        self.submissions = Submissions(
            ids=TaskIds(client), gate=self.gate, stream=self.stream, backlog=self.backlog, management=client
        )


@pytest.fixture
async def rig() -> Rig:
    return Rig()


def tasks(count: int, *, data: bytes = b"{}") -> list[Submission]:
    return [Submission(type="noop", data=data, pool="cpu") for _ in range(count)]


async def test_a_submission_is_answered_with_its_ids_and_its_store(rig: Rig) -> None:
    assert await rig.submissions.submit(tasks(3)) == Accepted([1, 2, 3], "redis-aof")
    assert rig.stream.flushes == [[1, 2, 3]]


async def test_what_arrives_during_a_flush_is_the_next_flush_with_ids_in_a_row(rig: Rig) -> None:
    rig.stream.gate.clear()
    first = asyncio.create_task(rig.submissions.submit(tasks(2)))
    await wait_until(lambda: rig.stream.flushes)
    others = [asyncio.create_task(rig.submissions.submit(tasks(count))) for count in (1, 3, 2)]
    await asyncio.sleep(0)
    rig.stream.gate.set()
    accepted = await asyncio.gather(first, *others)
    assert rig.stream.flushes == [[1, 2], [3, 4, 5, 6, 7, 8]]
    assert [each.task_ids for each in accepted] == [[1, 2], [3], [4, 5, 6], [7, 8]]


async def test_a_flush_is_bounded_by_count_and_keeps_requests_whole(rig: Rig) -> None:
    rig.stream.gate.clear()
    waiting = [asyncio.create_task(rig.submissions.submit(tasks(1000))) for _ in range(8)]
    await wait_until(lambda: rig.stream.flushes)
    rig.stream.gate.set()
    await asyncio.gather(*waiting)
    assert max(map(len, rig.stream.flushes)) <= FLUSH_TASKS_MAX
    assert all(len(flush) % 1000 == 0 for flush in rig.stream.flushes)
    assert [task_id for flush in rig.stream.flushes for task_id in flush] == list(range(1, 8001))


async def test_a_lost_answer_of_redis_stores_the_same_ids_over_grpc(rig: Rig) -> None:
    rig.stream.error = TimeoutError("no answer")
    assert await rig.submissions.submit(tasks(2)) == Accepted([1, 2], "postgres")
    assert rig.stream.flushes == [[1, 2]]
    assert sorted(rig.management.rows) == [1, 2]


async def test_the_breaker_leaves_redis_alone_after_a_failure(rig: Rig) -> None:
    rig.stream.error = RedisConnectionError("refused")
    await rig.submissions.submit(tasks(1))
    await rig.submissions.submit(tasks(1))
    assert len(rig.stream.flushes) == 1
    rig.gate.available, rig.stream.error = True, None
    assert (await rig.submissions.submit(tasks(1))).durability == "redis-aof"


async def test_without_any_store_nothing_is_accepted(rig: Rig) -> None:
    rig.stream.error = RedisConnectionError("refused")
    rig.management.failures["SubmitTasks"] = Unavailable("away", code="database_unavailable")
    with pytest.raises(Unavailable) as caught:
        await rig.submissions.submit(tasks(1))
    assert caught.value.code == "not_accepted"
    assert caught.value.retry_after is not None
    assert rig.submissions.counts == {"redis-aof": 0, "redis-memory": 0, "postgres": 0}


async def test_without_ids_nothing_is_sent_anywhere(rig: Rig) -> None:
    rig.management.failures["ReserveTaskIds"] = Unavailable("away")
    with pytest.raises(Unavailable):
        await rig.submissions.submit(tasks(1))
    assert rig.stream.flushes == []
    assert rig.management.submitted == []


async def test_a_redis_that_may_forget_is_named_as_such(rig: Rig) -> None:
    rig.gate.facts = RedisFacts(durable=False)
    assert (await rig.submissions.submit(tasks(1))).durability == "redis-memory"


async def test_a_full_backlog_takes_no_more(rig: Rig) -> None:
    rig.backlog.note(1000, 10)
    with pytest.raises(Overloaded) as caught:
        await rig.submissions.submit(tasks(1))
    assert (caught.value.code, caught.value.http_status) == ("backlog_full", 503)
    assert rig.stream.flushes == []
    rig.backlog.note(999, 10)
    assert (await rig.submissions.submit(tasks(1))).task_ids == [1]


async def test_a_key_goes_over_grpc_and_its_repeat_gets_the_same_id(rig: Rig) -> None:
    def keyed(fingerprint: bytes) -> list[Submission]:
        return [Submission(type="noop", data=b"{}", idempotency_key="k", fingerprint=fingerprint)]

    assert await rig.submissions.submit_keyed(keyed(b"a")) == Accepted([1], "postgres")
    assert await rig.submissions.submit_keyed(keyed(b"a")) == Accepted([1], "postgres", replayed=True)
    with pytest.raises(AlreadyExists) as caught:
        await rig.submissions.submit_keyed(keyed(b"b"))
    assert (caught.value.code, caught.value.http_status) == ("idempotency_conflict", 422)
    assert rig.stream.flushes == []


async def test_a_stopped_gateway_finishes_what_it_took_and_takes_no_more(rig: Rig) -> None:
    rig.stream.gate.clear()
    taken = asyncio.create_task(rig.submissions.submit(tasks(1)))
    await wait_until(lambda: rig.stream.flushes)
    closing = asyncio.create_task(rig.submissions.close())
    await asyncio.sleep(0)
    with pytest.raises(Unavailable):
        await rig.submissions.submit(tasks(1))
    rig.stream.gate.set()
    await closing
    assert (await taken).task_ids == [1]


def test_a_flush_is_one_entry_with_its_first_and_last_id() -> None:
    submissions = tasks(3)
    number(submissions, 10)
    [(first, last, entry)] = entries_of(submissions)
    assert (first, last) == (10, 12)
    assert [each.task_id for each in SubmissionBatch.FromString(entry).submissions] == [10, 11, 12]


def test_a_large_request_is_split_into_bounded_entries_without_gaps() -> None:
    submissions = tasks(3, data=b'{"a":"' + b"x" * (ENTRY_BYTES_MAX // 2) + b'"}')
    submissions += tasks(2)
    number(submissions, 1)
    assert [(first, last) for first, last, _ in entries_of(submissions)] == [(1, 1), (2, 2), (3, 5)]
