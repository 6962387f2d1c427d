"""Streams between managers and replicas: opened and closed thousands of times, and not read.

What is measured is memory and open files of the process that must not grow, once it has seen the work before.
"""

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import grpc
import pytest

from execution_service.demand import PREFETCH_MAX
from headrace.v1 import execution_pb2 as pb
from headrace.v1.execution_pb2_grpc import ExecutionServiceStub
from servicekit.grpc_channel import open_channel
from tests.faults.harness.evidence import Footprint, drained
from tests.faults.harness.run import Run
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from headrace.v1.execution_pb2_grpc import ExecutionServiceAsyncStub

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(180)]

MIB = 2**20
CYCLES = 1_000
# Any one of them ends far sooner.
STREAM_SECONDS = 30.0
QUEUED = 10_000


async def test_f18_streams_that_come_and_go_leave_nothing_behind(run: Run) -> None:
    """A thousand cycles of each stream that a replica serves, half of them cancelled, after two hundred to warm up."""
    stack, replica = run.stack, run.stack["execution-0"]
    link = stack.link_to("execution-0")
    channel = open_channel(f"{link.host}:{link.port}")
    try:
        stub: ExecutionServiceAsyncStub = ExecutionServiceStub(channel)
        await _open_and_close(stub, 200)
        before = Footprint.of(replica.pid)
        began = time.monotonic()
        await _open_and_close(stub, CYCLES)
        took = time.monotonic() - began
    finally:
        await channel.close()

    def as_before() -> bool:
        now = Footprint.of(replica.pid)
        return now.files <= before.files and now.threads <= before.threads

    await wait_until(as_before)
    attached = [line for line in replica.log_since_start().splitlines() if "manager_attached" in line]
    assert len(attached) >= 200 + CYCLES
    grown = Footprint.of(replica.pid).rss - before.rss
    print(f"F18 cycles={CYCLES} in_s={took:.1f} grown_kib={grown // 1024} of_mib={before.rss // MIB}")  # noqa: T201
    # Five KiB for each stream kept would be seen.
    assert grown < 5 * 1024 * CYCLES
    await run.client.submit(run.tasks(20))
    await run.settle()


async def _open_and_close(stub: "ExecutionServiceAsyncStub", cycles: int) -> None:
    for number in range(cycles):
        await asyncio.gather(_dispatch(stub, f"passer-by-{number}", cancel=bool(number % 2)), _watch(stub, number + 1))


async def _dispatch(stub: "ExecutionServiceAsyncStub", manager_id: str, *, cancel: bool) -> None:
    stream = stub.Dispatch(timeout=STREAM_SECONDS)
    await stream.write(pb.DispatchRequest(attach=pb.Attach(manager_id=manager_id)))
    first = await stream.read()
    assert isinstance(first, pb.DispatchResponse)
    assert first.hello.session_id
    if cancel:
        stream.cancel()
        return
    await stream.done_writing()
    while await stream.read() is not grpc.aio.EOF:
        pass


async def _watch(stub: "ExecutionServiceAsyncStub", task_id: int) -> None:
    """A stream without an end of its own: it can only be cancelled."""
    stream = stub.WatchTasks(pb.ExecutionServiceWatchTasksRequest(task_ids=[task_id]), timeout=STREAM_SECONDS)
    await stream.initial_metadata()
    stream.cancel()


@pytest.mark.parametrize("how", ["deaf", "frozen"])
async def test_f19_a_replica_that_stops_reading_is_sent_no_more_than_it_asked_for(run: Run, how: str) -> None:
    """With 20 MiB of data that wait. `deaf`: its heartbeats go on, until it ends the stream on which it hears nothing.

    `frozen`: for six seconds.
    """
    stack, manager = run.stack, run.stack["management-0"]
    # One manager and one replica: whatever waits can only be for them.
    stack.kill("management-1", "execution-1")
    # The same work for a replica that reads is the measure.
    usual, _ = await _watch_submitting(run, manager.pid, until=lambda: True)
    await drained(stack)
    attached = _attached(run)
    if how == "deaf":
        stack.arm("replica.before_read", "hold", replica="execution-0")
        await stack.fired("replica.before_read")
    else:
        stack.freeze("execution-0")
    until = time.monotonic() + 6

    def reads_again() -> bool:
        return time.monotonic() > until or _attached(run) > attached

    highest, sent = await _watch_submitting(run, manager.pid, until=reads_again)
    stack.disarm()
    stack.thaw("execution-0")
    grown = highest - usual
    print(f"F19 {how} sent={sent} queued={QUEUED} grown_mib={grown / MIB:.1f} of_mib={usual // MIB}")  # noqa: T201
    assert 0 < sent <= stack.sizes.workers + PREFETCH_MAX
    assert grown < 16 * MIB
    await run.settle()


def _attached(run: Run) -> int:
    """How often a manager has opened a stream to the replica."""
    return run.stack["execution-0"].log_since_start().count("manager_attached")


async def _watch_submitting(run: Run, pid: int, *, until: Callable[[], bool]) -> tuple[int, int]:
    """Submit, and sample the memory of a process and what the replica was sent: the highest of each.

    Memory counts as long as tasks come in, what was sent until `until` says that the replica reads (again).
    """
    submitting = asyncio.create_task(_submit_noops(run, QUEUED))
    memory = sent = 0
    while not submitting.done() or not until():
        holds = len(await run.running_on("execution-0"))
        if not until():
            sent = max(sent, holds)
        memory = max(memory, Footprint.of(pid).rss)
        await asyncio.sleep(0.05)
    await submitting
    return memory, sent


async def _submit_noops(run: Run, count: int) -> list[int]:
    task_ids = []
    for _ in range(count // 1_000):
        task_ids += await run.client.submit([{"type": "noop", "data": {"text": "x" * 2_048}}] * 1_000)
    return task_ids
