"""Attempts are cancelled, abandoned, killed with their session, drained, and held back without a lease."""

import asyncio
import json
import time
from pathlib import Path

import pytest

from execution_service.workers.lease_page import boottime
from execution_service.workers.outcomes import Outcome
from tests.support.waiting import wait_until
from tests.support.worker_bench import SESSION, Bench, attempt, lines_of


@pytest.mark.alone
async def test_a_waiting_attempt_is_cancelled_at_once_and_never_starts(bench: Bench, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    bench.submit(attempt(1, "sleep_deaf", {"seconds": 2}), attempt(2, "append_line", {"path": str(trace)}))
    await bench.running(1)
    bench.pool.cancel(2, 1)
    done = await bench.outcome(2, timeout=1)
    assert (done.outcome, done.started) == (Outcome.CANCELLED, False)
    await bench.outcome(1)
    await bench.run(attempt(3, "noop"))
    assert lines_of(trace) == []


@pytest.mark.alone
async def test_an_attempt_prefetched_behind_a_long_one_is_cancelled_without_waiting_for_it(
    bench: Bench, tmp_path: Path
) -> None:
    trace = tmp_path / "trace"
    for i in range(1, 100):
        await bench.run(attempt(i, "append_line", {"path": "/dev/null"}))
    bench.submit(
        attempt(100, "append_line", {"path": str(trace), "seconds": 3}),
        attempt(101, "append_line", {"path": str(trace)}),
    )
    await bench.running(100)
    bench.pool.cancel(101, 1)
    done = await bench.outcome(101, timeout=1)
    assert (done.outcome, done.started) == (Outcome.CANCELLED, False)
    await bench.outcome(100)
    await bench.run(attempt(102, "noop"))
    assert [line[0] for line in lines_of(trace)] == ["100", "100"]


@pytest.mark.alone
@pytest.mark.parametrize("type_name", ["sleep_async", "swallow_cancel"])
async def test_an_async_handler_is_cancelled_and_its_neighbour_goes_on_t70(bench: Bench, type_name: str) -> None:
    data = {"seconds": 30} if type_name == "sleep_async" else {}
    bench.submit(attempt(1, type_name, data, pool="io"), attempt(2, "sleep_async", {"seconds": 1}, pool="io"))
    await bench.running(1)
    bench.pool.cancel(1, 1)
    assert (await bench.outcome(1, timeout=0.9)).outcome is Outcome.CANCELLED
    assert (await bench.outcome(2)).outcome is Outcome.COMPLETED


async def test_an_async_handler_that_does_not_listen_is_killed_and_its_neighbour_handed_back(bench: Bench) -> None:
    bench.submit(attempt(1, "deaf_async", pool="io"), attempt(2, "sleep_async", {"seconds": 30}, pool="io"))
    await bench.running(2)
    bench.pool.cancel(1, 1)
    assert (await bench.outcome(1)).outcome is Outcome.CANCELLED
    assert (await bench.outcome(2)).outcome is Outcome.HANDED_BACK


async def test_cancelling_what_is_not_there_does_nothing(bench: Bench) -> None:
    await bench.run(attempt(1, "noop"))
    bench.pool.cancel(1, 1)
    bench.pool.cancel(99, 1)
    assert (await bench.run(attempt(2, "noop"))).outcome is Outcome.COMPLETED
    assert len(bench.finished) == 2


async def test_nothing_is_reported_of_abandoned_attempts(bench: Bench) -> None:
    bench.submit(
        attempt(1, "sleep_deaf", {"seconds": 30}),
        attempt(2, "noop"),
        attempt(3, "sleep_async", {"seconds": 30}, pool="io"),
    )
    await bench.running(1)
    await bench.running(3)
    bench.pool.abandon([(1, 1), (2, 1), (3, 1), (99, 1)])
    assert (await bench.run(attempt(4, "noop"))).outcome is Outcome.COMPLETED
    assert set(bench.finished) == {(4, 1)}


async def test_an_ended_session_is_killed_and_only_what_had_finished_is_reported(bench: Bench, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    await bench.run(attempt(1, "noop"))
    bench.submit(
        attempt(2, "append_line", {"path": str(trace), "seconds": 5}),
        attempt(3, "append_line", {"path": str(trace)}),
        attempt(4, "append_line_async", {"path": str(trace), "seconds": 5}, pool="io"),
    )
    pids = {await bench.running(2), await bench.running(4)}
    await wait_until(lambda: len(lines_of(trace)) == 2)
    bench.pool.kill_session(SESSION)
    await wait_until(lambda: not pids & {worker.pid for worker in bench.pool.workers()})
    bench.renewing = False
    bench.lease.write(SESSION + 1, boottime())
    again = await bench.run(attempt(5, "noop", session_id=SESSION + 1))
    assert again.outcome is Outcome.COMPLETED
    assert set(bench.finished) == {(1, 1), (5, 1)}
    assert [line[2] for line in lines_of(trace)] == ["start", "start"]


@pytest.mark.parametrize("pool", ["cpu", "io"])
async def test_without_a_lease_nothing_starts_and_with_it_everything_does(
    bench: Bench, tmp_path: Path, pool: str
) -> None:
    trace = tmp_path / "trace"
    bench.renewing = False
    bench.lease.write(SESSION, boottime() - 2.5)
    handler = "append_line" if pool == "cpu" else "append_line_async"
    bench.submit(*(attempt(i, handler, {"path": str(trace)}, pool=pool) for i in (1, 2, 3)))
    bench.pool.cancel(2, 1)
    assert (await bench.outcome(2)).started is False
    assert lines_of(trace) == []
    bench.renewing = True
    for i in (1, 3):
        assert (await bench.outcome(i)).outcome is Outcome.COMPLETED


async def test_an_attempt_of_another_session_does_not_start(bench: Bench, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    bench.submit(attempt(1, "append_line", {"path": str(trace)}, session_id=SESSION - 1))
    await wait_until(bench.pool.workers)
    bench.pool.kill_session(SESSION - 1)
    assert (await bench.run(attempt(2, "noop"))).outcome is Outcome.COMPLETED
    assert lines_of(trace) == []


async def test_a_drain_gives_back_what_waits_and_lets_finish_what_runs(bench: Bench) -> None:
    bench.submit(
        attempt(1, "sleep_deaf", {"seconds": 1}),
        attempt(2, "sleep_deaf", {"seconds": 1}),
        attempt(3, "sleep_async", {"seconds": 1}, pool="io"),
        attempt(4, "noop", isolated=True),
    )
    await bench.running(1)
    await bench.running(3)
    began = time.monotonic()
    await bench.pool.drain(10)
    assert time.monotonic() - began < 5
    outcomes = {key[0]: (item.outcome, item.started) for key, item in bench.finished.items()}
    assert outcomes[1] == (Outcome.COMPLETED, True)
    assert outcomes[2] == (Outcome.HANDED_BACK, False)
    assert outcomes[3] == (Outcome.COMPLETED, True)
    assert outcomes[4][0] in (Outcome.COMPLETED, Outcome.HANDED_BACK)
    assert (await bench.run(attempt(5, "noop"))).outcome is Outcome.HANDED_BACK


async def test_what_outlives_the_grace_of_a_drain_is_killed_and_handed_back(bench: Bench) -> None:
    for i in range(1, 50):
        await bench.run(attempt(i, "sleep_for", {"seconds": 0}))
    bench.submit(
        attempt(100, "sleep_for", {"seconds": 30}),
        attempt(101, "sleep_for", {"seconds": 0}),
        attempt(102, "sleep_async", {"seconds": 30}, pool="io"),
    )
    await bench.running(100)
    await bench.running(102)
    await bench.pool.drain(0.2)
    outcomes = {i: (bench.finished[i, 1].outcome, bench.finished[i, 1].started) for i in (100, 101, 102)}
    assert outcomes == {
        100: (Outcome.HANDED_BACK, True),
        101: (Outcome.HANDED_BACK, False),
        102: (Outcome.HANDED_BACK, True),
    }


async def test_a_random_storm_leaves_every_attempt_with_exactly_one_outcome(bench: Bench) -> None:
    kinds = ("noop", "sleep_for", "crash", "fail", "noop_async", "sleep_async")
    data = {
        "sleep_for": {"seconds": 0.003},
        "sleep_async": {"seconds": 0.01},
        "crash": {"signal": 9},
        "fail": {},
        "noop": {},
        "noop_async": {},
    }
    items = []
    for i in range(1, 1001):
        kind = kinds[i % 2 * 4 + (i // 2) % 2] if i % 97 else "crash"
        items.append(attempt(i, kind, data[kind], pool="io" if kind.endswith("async") else "cpu"))
    for start in range(0, 1000, 50):
        bench.submit(*items[start : start + 50])
        for i in range(start, start + 50, 7):
            bench.pool.cancel(i, 1)
        await asyncio.sleep(0)
    for item in items:
        await bench.outcome(item.task_id, timeout=30)
    wrong = [f for f in bench.finished.values() if f.outcome is Outcome.WORKER_DIED and f.task_id % 97]
    assert not wrong
    assert json.loads(next(f.result or b"" for f in bench.finished.values() if f.result)) is not None
