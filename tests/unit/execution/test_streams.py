"""What waits for one manager goes out in few, bounded messages; what was heard of it decides what it is fit for."""

import asyncio

from execution_service.demand import Grant
from execution_service.rpc.streams import MESSAGE_BYTES, WRITE_SECONDS, ManagerStream
from headrace.v1 import execution_pb2, task_pb2
from tests.unit.execution.factories import report
from tests.unit.execution.world import ManualClock

CLOCK = ManualClock()


def open_stream() -> ManagerStream:
    return ManagerStream("m1", now=CLOCK.seconds)


async def take(stream: ManagerStream) -> execution_pb2.DispatchResponse:
    message = await stream.next(CLOCK.monotonic)
    assert message is not None
    return message


async def test_everything_that_gathered_goes_out_as_one_message() -> None:
    stream = open_stream()
    stream.heartbeat(7, 1, 0)
    stream.heartbeat(7, 2, 0)
    stream.demand(Grant(1, "cpu", 4, recall=False))
    stream.demand(Grant(1, "io", 64, recall=False))
    stream.reports([report(1), report(2)])
    stream.answers([execution_pb2.Answer(task_id=3)])
    stream.progress([execution_pb2.AttemptProgress(task_id=4, attempt=1, progress=task_pb2.Progress(n=1))])
    stream.progress([execution_pb2.AttemptProgress(task_id=4, attempt=1, progress=task_pb2.Progress(n=2))])
    message = await take(stream)
    assert message.heartbeat.number == 2
    assert {(grant.pool, grant.granted) for grant in message.demand} == {("cpu", 4), ("io", 64)}
    assert [item.task_id for item in message.reports] == [1, 2]
    assert len(message.answers) == 1
    assert [item.progress.n for item in message.progress] == [2], "only the latest progress counts"
    assert not message.HasField("hello")
    assert not stream.has_work


async def test_a_recall_that_was_not_sent_yet_is_not_lost_to_a_later_grant() -> None:
    stream = open_stream()
    stream.demand(Grant(1, "cpu", 4, recall=True))
    stream.demand(Grant(1, "cpu", 6, recall=False))
    (grant,) = (await take(stream)).demand
    assert (grant.granted, grant.recall) == (6, True)


async def test_messages_are_bounded_in_bytes() -> None:
    stream = open_stream()
    large = [task_pb2.Report(task_id=number, result=b"x" * 4096) for number in range(2500)]
    stream.reports(large)
    stream.bye()
    sizes = []
    reported = 0
    while stream.has_work:
        message = await take(stream)
        sizes.append(message.ByteSize())
        reported += len(message.reports)
        assert message.bye == (not stream.has_work), "bye comes last"
    assert reported == len(large)
    assert len(sizes) == 3
    assert max(sizes) < MESSAGE_BYTES + 5000
    assert await stream.next(CLOCK.monotonic) is None


async def test_the_writer_waits_until_there_is_something_to_say() -> None:
    stream = open_stream()
    waiting = asyncio.create_task(take(stream))
    await asyncio.sleep(0)
    assert not waiting.done()
    stream.heartbeat(7, 1, 0)
    assert (await waiting).heartbeat.number == 1


async def test_closing_a_stream_ends_its_writer_whatever_waits() -> None:
    stream = open_stream()
    stream.reports([report(1)])
    stream.close()
    assert await stream.next(CLOCK.monotonic) is None


async def test_a_manager_that_does_not_read_is_noticed() -> None:
    clock = ManualClock()
    stream = ManagerStream("m1", now=clock.seconds)
    stream.heartbeat(7, 1, 0)
    await stream.next(clock.monotonic)
    clock.seconds += WRITE_SECONDS
    assert stream.is_stuck(clock.seconds)
    stream.heartbeat(7, 2, 0)
    await stream.next(clock.monotonic)
    assert not stream.is_stuck(clock.seconds)


async def test_a_manager_is_fit_while_it_echoes_and_finishes_claim_rounds() -> None:
    stream = ManagerStream("m1", now=0.0)
    assert not stream.is_fit(0.0)
    stream.note_echo(1, now=0.0)
    assert stream.is_fit(1.9)
    assert not stream.is_fit(2.0), "its claim rounds stand still"
    stream.note_rounds(1, now=2.0)
    assert stream.is_fit(2.4)
    assert not stream.is_echoing(2.5)
    stream.note_echo(1, now=2.5)
    assert not stream.is_echoing(2.5), "the same number again says nothing new"
    stream.note_echo(2, now=2.5)
    assert stream.is_fit(2.5)
