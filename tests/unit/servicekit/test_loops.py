"""Background loops: they repeat, wake up, survive errors without flooding the log, and stop."""

import asyncio

import pytest
import structlog

from servicekit import loops
from servicekit.errors import Unavailable
from servicekit.loops import BackgroundLoop
from tests.support.waiting import wait_until


class Work:
    def __init__(self) -> None:
        self.runs = 0
        self.error: Exception | None = None

    async def run_once(self) -> None:
        self.runs += 1
        if self.error:
            raise self.error


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Work:
    monkeypatch.setattr(loops, "_BACK_OFF_SECONDS_MIN", 0.001)
    monkeypatch.setattr(loops, "_BACK_OFF_SECONDS_MAX", 0.005)
    return Work()


async def test_a_loop_repeats_its_work(work: Work) -> None:
    loop = BackgroundLoop("test", work.run_once, interval=0.001)
    loop.start()
    await wait_until(lambda: work.runs > 3)
    await loop.stop()
    runs = work.runs
    await asyncio.sleep(0.01)
    assert work.runs == runs


async def test_a_wake_up_cuts_the_pause_short(work: Work) -> None:
    loop = BackgroundLoop("test", work.run_once, interval=3600)
    loop.start()
    await wait_until(lambda: work.runs == 1)
    loop.wake()
    await wait_until(lambda: work.runs == 2)
    await loop.stop()


async def test_a_wake_up_during_a_run_leads_to_another_run() -> None:
    runs = 0
    gate = asyncio.Event()

    async def run_once() -> None:
        nonlocal runs
        runs += 1
        await gate.wait()

    loop = BackgroundLoop("test", run_once, interval=3600)
    loop.start()
    await wait_until(lambda: runs == 1)
    loop.wake()
    loop.wake()
    gate.set()
    await wait_until(lambda: runs == 2)
    await loop.stop()
    assert runs == 2


async def test_errors_are_logged_once_and_the_loop_recovers(work: Work) -> None:
    loop = BackgroundLoop("test", work.run_once, interval=0.001)
    work.error = Unavailable("the database is away", code="database_unavailable")
    with structlog.testing.capture_logs() as logs:
        loop.start()
        await wait_until(lambda: work.runs > 5)
        assert loop.last_success is None
        work.error = None
        await wait_until(lambda: loop.last_success is not None)
        await loop.stop()
    assert [log["event"] for log in logs] == ["loop_failed", "loop_recovered"]
    assert logs[0]["code"] == "database_unavailable"


async def test_an_unexpected_error_is_logged_with_its_traceback(work: Work) -> None:
    loop = BackgroundLoop("test", work.run_once, interval=0.001)
    work.error = KeyError("x")
    with structlog.testing.capture_logs() as logs:
        loop.start()
        await wait_until(lambda: work.runs > 1)
        await loop.stop()
    assert logs[0]["exc_info"] is work.error


async def test_wake_ups_do_not_shorten_the_pause_after_an_error(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loops, "_BACK_OFF_SECONDS_MIN", 3600.0)
    monkeypatch.setattr(loops, "_BACK_OFF_SECONDS_MAX", 3600.0)
    loop = BackgroundLoop("test", work.run_once, interval=0.001)
    work.error = Unavailable("away")
    loop.start()
    await wait_until(lambda: work.runs == 1)
    loop.wake()
    await asyncio.sleep(0.01)
    assert work.runs == 1
    await loop.stop()


async def test_stopping_cancels_a_run_that_does_not_end() -> None:
    cancelled = asyncio.Event()

    async def run_once() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    loop = BackgroundLoop("test", run_once, interval=1)
    loop.start()
    await asyncio.sleep(0)
    await loop.stop(grace=0.01)
    assert cancelled.is_set()


async def test_starting_and_stopping_twice_is_safe(work: Work) -> None:
    loop = BackgroundLoop("test", work.run_once, interval=3600)
    await loop.stop()
    loop.start()
    loop.start()
    await wait_until(lambda: work.runs == 1)
    await loop.stop()
    await loop.stop()
    loop.start()
    await wait_until(lambda: work.runs == 2)
    await loop.stop()


async def test_a_loop_that_does_not_succeed_says_so(work: Work) -> None:
    loop = BackgroundLoop("intake", work.run_once, interval=3600)
    assert loop.problem(within=1) == "intake has not succeeded yet"
    loop.start()
    await wait_until(lambda: loop.last_success is not None)
    assert loop.problem(within=60) is None
    assert "intake has not succeeded for" in str(loop.problem(within=0))
    await loop.stop()
