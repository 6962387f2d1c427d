"""A cancel comes true within 2 s, whatever the handler does, and says what ended the attempt and what is left of it."""

import asyncio
import os
import random
import signal
import time
from pathlib import Path

import psutil
import pytest

from execution_service.workers.outcomes import CancelReceipt, EndedBy, Finished, Outcome, PoolSize
from tests.support.waiting import wait_until
from tests.support.worker_bench import Bench, attempt, running_bench

pytestmark = pytest.mark.alone

# The promise is 2 s; a scan of the pool and a busy machine are in it.
LONGEST_SECONDS = 2.0


@pytest.mark.parametrize(
    ("type_name", "data", "ended_by", "earliest", "worker_lives"),
    [
        ("sleep_for", {"seconds": 60}, EndedBy.HANDLER, 0.0, True),
        ("sleep_deaf", {"seconds": 60}, EndedBy.SIGTERM, 0.5, True),
        ("read_nothing", {}, EndedBy.SIGTERM, 0.5, True),
        ("match_for_ever", {}, EndedBy.SIGTERM, 0.5, True),
        ("expect_errors", {}, EndedBy.SIGTERM, 0.5, True),
        ("default_sigterm", {}, EndedBy.SIGTERM, 0.5, False),
        ("ignore_sigterm", {"seconds": 60}, EndedBy.SIGKILL, 1.5, False),
        ("swallow_everything", {}, EndedBy.SIGKILL, 1.5, False),
        ("spin", {}, EndedBy.SIGKILL, 1.5, False),
        ("stop_self", {}, EndedBy.SIGKILL, 1.5, False),
    ],
)
async def test_each_handler_is_ended_by_the_mildest_means_that_works(
    bench: Bench, type_name: str, data: dict[str, float], ended_by: EndedBy, earliest: float, worker_lives: bool
) -> None:
    bench.submit(attempt(1, type_name, data))
    pid = await bench.running(1)
    if type_name == "default_sigterm":
        await wait_until(lambda: bench.progress)
    began = time.monotonic()
    bench.pool.cancel(1, 1)
    bench.pool.cancel(1, 1)
    done = await bench.outcome(1)
    seconds = time.monotonic() - began
    receipt = _receipt(done)
    assert (done.outcome, done.started, receipt.ended_by) == (Outcome.CANCELLED, True, ended_by)
    assert receipt.processes_gone
    assert earliest <= receipt.stopped_after <= seconds < LONGEST_SECONDS
    assert done.started_at is not None
    assert done.worker_id
    assert (pid in {worker.pid for worker in bench.pool.workers()}) is worker_lives
    if ended_by is EndedBy.SIGKILL:
        assert not psutil.pid_exists(pid)
        assert done.error is not None
        assert done.error.peak_memory > 1024 * 1024
    assert (await bench.run(attempt(2, "noop"))).outcome is Outcome.COMPLETED


async def test_a_handler_may_clean_up_on_a_cancel(bench: Bench, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    for i, kind in enumerate(("raise", "return")):
        bench.submit(attempt(i, "tidy_up", {"path": str(trace), "return": kind == "return"}))
        await bench.running(i)
        bench.pool.cancel(i, 1)
        done = await bench.outcome(i)
        assert (done.outcome, _receipt(done).ended_by) == (Outcome.CANCELLED, EndedBy.SIGTERM)
        assert trace.read_text() == "TaskCancelled False True"
        assert "waiting" in done.log


async def test_an_async_handler_is_cancelled_also_where_it_has_a_process_to_itself(
    bench: Bench, tmp_path: Path
) -> None:
    trace = tmp_path / "trace"
    bench.submit(attempt(1, "tidy_up_alone", {"path": str(trace)}))
    await bench.running(1)
    bench.pool.cancel(1, 1)
    done = await bench.outcome(1, timeout=LONGEST_SECONDS)
    receipt = _receipt(done)
    assert (done.outcome, receipt.ended_by) == (Outcome.CANCELLED, EndedBy.HANDLER)
    assert receipt.stopped_after < 0.5
    assert trace.read_text() == "cancelled"


async def test_in_a_shared_worker_an_attempt_is_asked_and_then_its_worker_killed(bench: Bench) -> None:
    bench.submit(
        attempt(1, "sleep_async", {"seconds": 60}, pool="io"),
        attempt(2, "deaf_async", pool="io"),
        attempt(3, "sleep_async", {"seconds": 60}, pool="io"),
    )
    await bench.running(3)
    bench.pool.cancel(1, 1)
    asked = _receipt(await bench.outcome(1))
    assert (asked.ended_by, asked.processes_gone) == (EndedBy.HANDLER, True)
    assert asked.stopped_after < 0.5
    began = time.monotonic()
    bench.pool.cancel(2, 1)
    killed, neighbour = await bench.outcome(2), await bench.outcome(3)
    assert time.monotonic() - began < LONGEST_SECONDS
    assert (_receipt(killed).ended_by, _receipt(killed).processes_gone) == (EndedBy.SIGKILL, True)
    assert (neighbour.outcome, neighbour.started) == (Outcome.HANDED_BACK, True)
    assert neighbour.error is not None
    assert neighbour.error.code == "handed_back"


async def test_an_attempt_that_was_never_started_says_so(bench: Bench) -> None:
    bench.submit(attempt(1, "sleep_deaf", {"seconds": 1}), attempt(2, "noop"))
    await bench.running(1)
    bench.pool.cancel(2, 1)
    receipt = _receipt(await bench.outcome(2, timeout=1))
    assert receipt == CancelReceipt(EndedBy.NOT_STARTED, 0.0, processes_gone=True)


@pytest.mark.parametrize(("end", "ended_by"), [(True, EndedBy.SIGTERM), (False, EndedBy.SIGKILL)])
async def test_the_whole_family_of_an_attempt_is_gone_when_its_receipt_says_so(
    bench: Bench, end: bool, ended_by: EndedBy
) -> None:
    bench.submit(attempt(1, "have_a_family", {"end": end}))
    await wait_until(lambda: bench.progress)
    family = [psutil.Process(int(pid)) for pid in bench.progress[0].message.split()]
    assert len(family) == 3
    bench.pool.cancel(1, 1)
    done = await bench.outcome(1, timeout=LONGEST_SECONDS)
    assert (_receipt(done).ended_by, _receipt(done).processes_gone) == (ended_by, True)
    assert [process for process in family if _runs(process)] == []


async def test_a_worker_that_dies_before_it_takes_note_leaves_no_doubt_about_what_is_not_known(bench: Bench) -> None:
    bench.submit(attempt(1, "sleep_deaf", {"seconds": 60}))
    pid = await bench.running(1)
    bench.pool.cancel(1, 1)
    os.kill(pid, signal.SIGKILL)
    receipt = _receipt(await bench.outcome(1))
    assert (receipt.ended_by, receipt.processes_gone) == (EndedBy.ITS_END, False)


async def test_workers_outlive_a_sigterm_that_is_not_for_an_attempt_of_theirs(bench: Bench) -> None:
    bench.submit(
        attempt(1, "wait_for_program", {"seconds": 0.5}), attempt(2, "sleep_async", {"seconds": 0.5}, pool="io")
    )
    pids = {await bench.running(1), await bench.running(2)}
    for pid in pids:
        os.kill(pid, signal.SIGTERM)
    for i in (1, 2):
        assert (await bench.outcome(i)).outcome is Outcome.COMPLETED
    for pid in pids:
        os.kill(pid, signal.SIGTERM)
    assert (await bench.run(attempt(3, "noop"))).outcome is Outcome.COMPLETED
    assert (await bench.run(attempt(4, "noop_async", pool="io"))).outcome is Outcome.COMPLETED
    assert {worker.pid for worker in bench.pool.workers()} == pids


async def test_cancels_that_race_with_the_end_leave_one_outcome_each_and_hit_no_neighbour(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")  # noqa: T201
    chance = random.Random(seed)
    async with running_bench(tmp_path, {"cpu": PoolSize(2), "io": PoolSize(1, 8)}) as bench:
        raced, spared = range(0, 600, 2), range(1, 600, 2)
        for i in range(600):
            seconds = {"seconds": chance.uniform(0.0005, 0.004)}
            on_loop = chance.random() < 0.3
            kind, pool = ("sleep_async", "io") if on_loop else ("sleep_for", "cpu")
            bench.submit(attempt(i, kind, seconds, pool=pool))
            if i in raced:
                asyncio.get_running_loop().call_later(chance.uniform(0, 0.02), bench.pool.cancel, i, 1)
            await asyncio.sleep(0.003)
        for i in range(600):
            await bench.outcome(i)
        # Each came once: the bench does not take a second one.
        assert {bench.finished[i, 1].outcome for i in spared} == {Outcome.COMPLETED}
        assert {bench.finished[i, 1].outcome for i in raced} == {Outcome.COMPLETED, Outcome.CANCELLED}
        for i in raced:
            assert (bench.finished[i, 1].outcome is Outcome.CANCELLED) is (bench.finished[i, 1].error is not None)


async def test_a_sigterm_that_races_with_the_end_hits_no_neighbour(tmp_path: Path) -> None:
    """Handlers end at about the time of their SIGTERM; what runs next would show it in a program that it runs."""
    chance = random.Random(11)
    async with running_bench(tmp_path, {"cpu": PoolSize(4)}) as bench:
        for i in range(0, 80, 2):
            # Deaf to being asked: it ends on SIGTERM or by itself.
            bench.submit(attempt(i, "sleep_deaf", {"seconds": 0.5 + chance.uniform(0, 0.08)}))
            bench.submit(attempt(i + 1, "wait_for_program", {"seconds": 0.05}))
        cancelled = set()
        while len(bench.finished) < 80:
            for worker in bench.pool.workers():
                for running in worker.running:
                    if running.task_id % 2 == 0 and running.task_id not in cancelled:
                        cancelled.add(running.task_id)
                        bench.pool.cancel(running.task_id, running.attempt)
            await asyncio.sleep(0.01)
        ends = {i: bench.finished[i, 1].outcome for i in range(80)}
        assert {ends[i] for i in range(1, 80, 2)} == {Outcome.COMPLETED}
        by = {_receipt(bench.finished[i, 1]).ended_by for i in range(0, 80, 2)}
        assert by == {EndedBy.HANDLER, EndedBy.SIGTERM}


def _receipt(done: Finished) -> CancelReceipt:
    assert done.error is not None, done
    assert done.error.receipt is not None, done
    return done.error.receipt


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
