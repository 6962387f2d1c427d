"""Attempts are asked to come to an end when their soft timeout has passed; the hard one stands behind it."""

import json
import random
import signal
import time
from pathlib import Path

import pytest

from execution_service.workers.outcomes import Finished, Outcome
from tests.support.worker_bench import Bench, attempt

pytestmark = pytest.mark.alone


@pytest.mark.parametrize(
    "type_name", ["sleep_deaf", "read_nothing", "match_for_ever", "expect_errors", "tidy_up", "yield_for_ever"]
)
async def test_a_handler_is_interrupted_and_its_worker_goes_on(bench: Bench, type_name: str, tmp_path: Path) -> None:
    before = {worker.pid for worker in bench.pool.workers()}
    trace = tmp_path / "trace"
    data = {"sleep_deaf": {"seconds": 60}, "tidy_up": {"path": str(trace)}}.get(type_name)
    began = time.monotonic()
    done = await bench.run(attempt(1, type_name, data, soft_timeout=0.3))
    assert 0.25 < time.monotonic() - began < 2
    assert (done.outcome, done.started, _code(done)) == (Outcome.FAILED, True, "soft_timeout")
    assert done.error is not None
    assert "soft timeout of 0.3 s" in done.error.message
    assert "Traceback" in done.log
    if type_name == "tidy_up":
        assert trace.read_text() == "SoftTimeoutError True False"
    assert (await bench.run(attempt(2, "noop"))).outcome is Outcome.COMPLETED
    assert {worker.pid for worker in bench.pool.workers()} == before


async def test_a_handler_that_returns_in_spite_of_it_completes(bench: Bench, tmp_path: Path) -> None:
    data = {"path": str(tmp_path / "trace"), "return": True}
    for task_id, (type_name, pool) in enumerate({"tidy_up": "cpu", "tidy_up_async": "io"}.items()):
        done = await bench.run(attempt(task_id, type_name, data, pool=pool, soft_timeout=0.2))
        assert (done.outcome, done.result) == (Outcome.COMPLETED, b'"tidied up"')


async def test_code_that_cannot_be_interrupted_is_killed_at_the_timeout(bench: Bench) -> None:
    began_at = time.time()
    done = await bench.run(attempt(1, "spin", soft_timeout=0.2, timeout=0.8))
    assert (done.outcome, _code(done)) == (Outcome.FAILED, "timeout")
    assert done.error is not None
    assert done.error.peak_memory > 1024 * 1024
    assert done.started_at is not None
    assert done.executed_at is not None
    assert began_at - 1 < done.started_at < done.executed_at - 0.7
    assert done.worker_id


async def test_an_async_handler_is_cancelled_may_clean_up_and_its_neighbour_goes_on(
    bench: Bench, tmp_path: Path
) -> None:
    trace = tmp_path / "trace"
    bench.submit(
        attempt(1, "tidy_up_async", {"path": str(trace)}, pool="io", soft_timeout=0.2),
        attempt(2, "sleep_async", {"seconds": 0.6}, pool="io"),
        attempt(3, "tidy_up_async", {"path": "/dev/null", "fail": True}, pool="io", soft_timeout=0.2),
        attempt(4, "deaf_async", pool="io", soft_timeout=0.1, timeout=0.3),
        attempt(5, "tidy_up_alone", {"path": str(tmp_path / "alone")}, soft_timeout=0.2),
    )
    done = await bench.outcome(1)
    assert (done.outcome, _code(done)) == (Outcome.FAILED, "soft_timeout")
    assert trace.read_text() == "True False"
    assert _code(await bench.outcome(3)) == "handler_error"
    assert _code(await bench.outcome(5)) == "soft_timeout"
    assert (tmp_path / "alone").read_text() == "cancelled"
    assert (await bench.outcome(2)).outcome is Outcome.COMPLETED
    assert _code(await bench.outcome(4)) == "timeout"


async def test_a_handler_in_a_thread_sees_that_its_soft_timeout_has_passed(bench: Bench) -> None:
    began = time.monotonic()
    done = await bench.run(attempt(1, "look_at_the_clock", pool="io", soft_timeout=0.2))
    assert (done.outcome, done.result) == (Outcome.COMPLETED, b"false")
    assert 0.2 < time.monotonic() - began < 2


async def test_a_soft_timeout_never_reaches_the_next_attempt(bench: Bench) -> None:
    """Handlers that end at the very moment of their soft timeout, with others between them."""
    worker = next(worker for worker in bench.pool.workers() if worker.pool == "cpu")
    chance = random.Random(5)
    soft, others = range(0, 600, 2), range(1, 600, 2)
    items = [
        attempt(i, "sleep_deaf", {"seconds": 0.003 + chance.uniform(-0.0005, 0.0005)}, soft_timeout=0.003)
        if i in soft
        else attempt(i, "noop")
        for i in range(600)
    ]
    bench.submit(*items)
    ends = {i: _end(await bench.outcome(i)) for i in range(600)}
    assert {ends[i] for i in others} == {"completed"}
    assert {ends[i] for i in soft} == {"completed", "soft_timeout"}
    assert worker.pid in {each.pid for each in bench.pool.workers()}


async def test_a_handler_is_not_interrupted_in_the_middle_of_what_it_tells_its_worker(bench: Bench) -> None:
    pids = {worker.pid for worker in bench.pool.workers()}
    for i in range(20):
        done = await bench.run(attempt(i, "talk_all_the_time", soft_timeout=0.05 + i / 1000))
        assert _end(done) == "soft_timeout"
    assert {worker.pid for worker in bench.pool.workers()} == pids


async def test_a_handler_may_ask_for_a_later_retry(bench: Bench) -> None:
    done = await bench.run(attempt(1, "ask_for_later", {"seconds": 90}))
    assert (done.outcome, _code(done), done.retry_after) == (Outcome.FAILED, "busy", 90)
    assert (await bench.run(attempt(2, "fail"))).retry_after is None


async def test_processes_that_a_handler_forks_end_by_sigterm(bench: Bench) -> None:
    done = await bench.run(attempt(1, "end_a_fork"))
    assert json.loads(done.result or b"null") == [-signal.SIGTERM] * 20


def _code(done: Finished) -> str:
    return done.error.code if done.error is not None else ""


def _end(done: Finished) -> str:
    return _code(done) or done.outcome.name.lower()
