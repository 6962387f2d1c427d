"""The pool does what it is for: it runs attempts and says how they ended."""

import asyncio
import json
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from execution_service.workers.outcomes import Outcome, PoolSize, WorkerState
from tests.support.waiting import wait_until
from tests.support.worker_bench import Bench, attempt, running_bench


async def test_a_handler_returns_its_result_as_json(bench: Bench) -> None:
    done = await bench.run(attempt(1, "noop", {"text": "häuser"}))
    assert (done.outcome, done.error, done.started) == (Outcome.COMPLETED, None, True)
    assert json.loads(done.result or b"") == {"text": "häuser"}
    assert done.started_at is not None
    assert done.executed_at is not None
    assert done.started_at <= done.executed_at
    assert done.worker_id in {worker.worker_id for worker in bench.pool.workers()}


@pytest.mark.alone
async def test_async_handlers_run_at_the_same_time(bench: Bench) -> None:
    started = asyncio.get_running_loop().time()
    bench.submit(*(attempt(i, "sleep_async", {"seconds": 0.5}, pool="io") for i in range(1, 17)))
    for i in range(1, 17):
        assert (await bench.outcome(i)).outcome is Outcome.COMPLETED
    assert asyncio.get_running_loop().time() - started < 2


@pytest.mark.alone
async def test_many_short_attempts_end_in_the_order_in_which_they_were_handed_in(bench: Bench) -> None:
    bench.submit(*(attempt(i, "noop", {"n": i}) for i in range(1, 5001)))
    await bench.outcome(5000)
    assert bench.order == list(range(1, 5001))
    assert (bench.pool.mean_seconds("noop") or 1) < 0.01


async def test_two_workers_share_the_work(tmp_path: Path) -> None:
    async with running_bench(tmp_path, {"cpu": PoolSize(2)}) as bench:
        bench.submit(attempt(1, "sleep_deaf", {"seconds": 0.5}), attempt(2, "sleep_deaf", {"seconds": 0.5}))
        first, second = await bench.outcome(1), await bench.outcome(2)
        assert first.worker_id != second.worker_id
        assert bench.pool.slots("cpu") == 2


async def test_a_long_attempt_does_not_hold_short_ones_that_were_prefetched_behind_it(tmp_path: Path) -> None:
    async with running_bench(tmp_path, {"cpu": PoolSize(2)}) as bench:
        for i in range(1, 200):
            await bench.run(attempt(i, "sleep_for", {"seconds": 0}))
        # The type is known as short now, so that the long one and those behind it go to the workers at once.
        bench.submit(attempt(500, "sleep_for", {"seconds": 20}))
        bench.submit(*(attempt(i, "sleep_for", {"seconds": 0}) for i in range(501, 701)))
        bench.submit(*(attempt(i, "noop") for i in range(701, 901)))
        for i in range(501, 901):
            assert (await bench.outcome(i, timeout=5)).outcome is Outcome.COMPLETED
        assert (500, 1) not in bench.finished


async def test_what_was_to_be_taken_back_from_behind_an_attempt_that_ends_just_then_runs(bench: Bench) -> None:
    for i in range(1, 200):
        await bench.run(attempt(i, "sleep_for", {"seconds": 0}))
    # Around the third scan the worker is told to let go what waits in it, and reads that when its handler has ended.
    for number, hundredths in enumerate(range(12, 24), start=10):
        first = number * 100
        bench.submit(attempt(first, "sleep_for", {"seconds": hundredths / 100}))
        bench.submit(*(attempt(first + i, "sleep_for", {"seconds": 0}) for i in range(1, 21)))
        outcomes = [(await bench.outcome(first + i)).outcome for i in range(21)]
        assert outcomes == [Outcome.COMPLETED] * 21


async def test_data_that_do_not_fit_the_model_fail_for_good_without_a_start(bench: Bench) -> None:
    done = await bench.run(attempt(1, "sleep_for", {"seconds": -1, "more": True}))
    assert (done.outcome, done.started) == (Outcome.FAILED_FOR_GOOD, False)
    assert done.error is not None
    assert done.error.code == "invalid_data"
    assert "/seconds" in done.error.message
    assert "/more" in done.error.message


@pytest.mark.parametrize("data", [b"", b"{", b"\xff", b"[" * 100_000])
async def test_data_that_are_no_json_fail_for_good(bench: Bench, data: bytes) -> None:
    done = await bench.run(attempt(1, "noop", data))
    assert done.outcome is Outcome.FAILED_FOR_GOOD
    assert done.error is not None
    assert done.error.code == "invalid_data"


async def test_an_unknown_type_fails_and_an_unknown_pool_is_handed_back(bench: Bench) -> None:
    done = await bench.run(attempt(1, "no_such_type"))
    assert done.outcome is Outcome.FAILED
    assert done.error is not None
    assert done.error.code == "unknown_type"
    assert (await bench.run(attempt(2, "noop", pool="gpu"))).outcome is Outcome.HANDED_BACK


async def test_failures_are_told_apart(bench: Bench) -> None:
    failed = await bench.run(attempt(1, "fail", {"message": "not now"}))
    assert failed.outcome is Outcome.FAILED
    assert failed.error is not None
    assert (failed.error.code, failed.error.message, failed.error.exception) == (
        "handler_error",
        "not now",
        "RuntimeError",
    )
    forever = await bench.run(attempt(2, "fail", {"permanent": True, "message": "never"}))
    assert forever.outcome is Outcome.FAILED_FOR_GOOD
    assert forever.error is not None
    assert (forever.error.code, forever.error.message) == ("not_today", "never")
    assert (await bench.run(attempt(3, "fail", {"times": 1}, number=2))).outcome is Outcome.COMPLETED


@pytest.mark.parametrize("handler", ["raise_any", "raise_any_async", "raise_any_thread"])
@pytest.mark.parametrize(
    ("what", "name"),
    [
        ("system_exit", "SystemExit"),
        ("keyboard_interrupt", "KeyboardInterrupt"),
        ("generator_exit", "GeneratorExit"),
        ("broken_text", "BrokenTextError"),
        ("large", "ValueError"),
        ("surrogate", "ValueError"),
        ("group", "ExceptionGroup"),
        ("stop_iteration", "StopIteration"),
        ("cancelled", "CancelledError"),
    ],
)
async def test_whatever_a_handler_raises_is_a_failure_and_the_worker_lives_t62(
    bench: Bench, handler: str, what: str, name: str
) -> None:
    pool = "cpu" if handler == "raise_any" else "io"
    before = {worker.pid for worker in bench.pool.workers()}
    done = await bench.run(attempt(1, handler, {"what": what}, pool=pool))
    assert done.outcome is Outcome.FAILED
    assert done.error is not None
    assert done.error.code == "handler_error"
    if (what, handler) != ("stop_iteration", "raise_any_async"):  # Python makes a RuntimeError of that one
        assert done.error.exception.endswith(name)
    assert len(done.error.message.encode()) <= 16 * 1024
    assert "\0" not in done.error.message
    assert (await bench.run(attempt(2, "noop"))).outcome is Outcome.COMPLETED
    assert {worker.pid for worker in bench.pool.workers()} == before


@pytest.mark.parametrize(
    "what",
    [
        pytest.param("nan", id="T58-nan"),
        pytest.param("infinity", id="T58-infinity"),
        pytest.param("bytes", id="T58-bytes-that-are-no-text"),
        pytest.param("object", id="T58-object"),
        pytest.param("coroutine", id="T58-coroutine"),
        pytest.param("nul", id="T59-nul"),
        pytest.param("surrogate", id="T59-surrogate"),
        pytest.param("large", id="T60-above-the-limit"),
        pytest.param("circular", id="T61-circular"),
        pytest.param("deep", id="T61-deep"),
        pytest.param("many_keys", id="T61-a-million-keys"),
    ],
)
async def test_what_cannot_be_stored_fails_for_good(bench: Bench, what: str) -> None:
    done = await bench.run(attempt(1, "return_any", {"what": what}))
    assert done.outcome is Outcome.FAILED_FOR_GOOD
    assert done.error is not None
    assert done.error.code == "unstorable_result"


@pytest.mark.parametrize(
    ("what", "stored"),
    [
        pytest.param("set", b"[7]", id="T58-set"),
        pytest.param("datetime", b'"2026-01-02T03:04:05Z"', id="T58-datetime"),
        pytest.param("decimal", b'"1.50"', id="T58-decimal"),
        pytest.param("text_bytes", b'"text"', id="T58-bytes-of-text"),
        pytest.param("generator", b"[0,1,2]", id="T58-generator"),
        pytest.param("empty", b'""', id="T60-empty"),
    ],
)
async def test_what_json_lacks_is_converted_by_the_rules_of_the_docs(bench: Bench, what: str, stored: bytes) -> None:
    done = await bench.run(attempt(1, "return_any", {"what": what}))
    assert (done.outcome, done.result) == (Outcome.COMPLETED, stored)


async def test_a_result_of_just_under_eight_mebibytes_arrives_t60(bench: Bench) -> None:
    done = await bench.run(attempt(1, "return_bytes", {"bytes": 8 * 1024 * 1024 - 2}))
    assert len(done.result or b"") == 8 * 1024 * 1024


async def test_data_of_eight_mebibytes_come_through(bench: Bench) -> None:
    data = {"text": "x" * (8 * 1024 * 1024 - 20)}
    done = await bench.run(attempt(1, "noop", data))
    assert json.loads(done.result or b"") == data


async def test_progress_is_coalesced_monotone_and_bounded_t69(bench: Bench) -> None:
    await bench.run(attempt(1, "many_progress", {"seconds": 1.5}))
    assert 3 <= len(bench.progress) <= 9
    assert [item.n for item in bench.progress] == list(range(1, len(bench.progress) + 1))
    fractions = [item.fraction for item in bench.progress]
    assert fractions == sorted(fractions)
    assert fractions[-1] <= 1
    assert all(len(item.message) <= 1000 for item in bench.progress)


async def test_the_latest_progress_is_seen_also_when_the_handler_falls_silent(bench: Bench) -> None:
    bench.submit(attempt(1, "last_progress", {"seconds": 30}))
    await wait_until(lambda: len(bench.progress) == 2, timeout=3)
    assert [(item.fraction, item.message) for item in bench.progress] == [(0.25, "first"), (0.5, "second ?")]


async def test_what_handlers_log_and_print_reaches_the_log_within_limits(bench: Bench) -> None:
    with capture_logs() as logs:
        await bench.run(attempt(1, "log_lines", {"lines": 3}))
        await bench.run(attempt(2, "print_much", {"kilobytes": 20_000}))
        await wait_until(lambda: sum(line["event"] == "handler_event" for line in logs) == 3)
    lines = [line for line in logs if line["event"] == "handler_event"]
    assert [(line["number"], line["task_id"], line["attempt"]) for line in lines] == [(0, 1, 1), (1, 1, 1), (2, 1, 1)]
    assert 1 <= sum(line["event"] == "worker_output" for line in logs) <= 500


async def test_a_scratch_directory_belongs_to_one_attempt_and_is_removed(bench: Bench, tmp_path: Path) -> None:
    assert (await bench.run(attempt(1, "use_scratch"))).outcome is Outcome.COMPLETED
    assert _leftovers(tmp_path) == []
    await bench.run(attempt(2, "use_scratch", {"die": True}))
    await wait_until(lambda: _leftovers(tmp_path) == [])


async def test_workers_are_added_and_removed(bench: Bench) -> None:
    added = bench.pool.add_worker("cpu")
    await wait_until(lambda: bench.pool.slots("cpu") == 2)
    bench.submit(attempt(1, "sleep_deaf", {"seconds": 1}), attempt(2, "sleep_deaf", {"seconds": 1}))
    await bench.running(1)
    assert bench.pool.remove_worker(added.worker_id)
    assert bench.pool.slots("cpu") == 1
    # What it holds may end; then it is gone and not replaced.
    assert (await bench.outcome(1)).outcome is Outcome.COMPLETED
    assert (await bench.outcome(2)).outcome is Outcome.COMPLETED
    await wait_until(lambda: len([w for w in bench.pool.workers() if w.pool == "cpu"]) == 1)


async def test_a_worker_removed_by_force_hands_back_what_it_runs(bench: Bench) -> None:
    bench.submit(attempt(1, "sleep_deaf", {"seconds": 30}))
    pid = await bench.running(1)
    worker = next(w for w in bench.pool.workers() if w.pid == pid)
    bench.pool.add_worker("cpu")
    assert bench.pool.remove_worker(worker.worker_id, force=True).state is WorkerState.ENDING
    done = await bench.outcome(1)
    assert (done.outcome, done.started) == (Outcome.HANDED_BACK, True)
    assert (await bench.run(attempt(2, "noop"))).outcome is Outcome.COMPLETED


def _leftovers(folder: Path) -> list[Path]:
    return list(folder.glob("scratch/pool-*/*/*"))
