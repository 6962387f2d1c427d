"""`headrace.testing` in this process: what users test their own task types with."""

import asyncio
import signal
import subprocess
import sys
import threading
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError

import headrace.testing
from headrace.tasks import PermanentError, SoftTimeoutError, TaskContext, UnstorableResultError, definition_of, task
from headrace.testing import FakeContext, LogLine, Report, run_task, run_task_async


class Sacks(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    count: int = Field(ge=1)


class Load(BaseModel):
    kilograms: Decimal


class MillStoppedError(Exception):
    pass


@task("weigh")
def weigh(data: Sacks, context: TaskContext) -> Load:
    for sack in range(1, data.count + 1):
        if context.cancelled:
            raise MillStoppedError
        context.progress(sack / data.count, f"sack {sack}")
    context.log.info("weighed", sacks=data.count, type="rye")
    return Load(kilograms=data.count * Decimal("12.50"))


@task("grind")
async def grind(data: Sacks, context: TaskContext) -> int:
    await asyncio.sleep(0)
    context.progress(1)
    return data.count * context.attempt


@task("store")
def store(_: dict[str, Any], context: TaskContext) -> str:
    file = context.scratch / "flour"
    file.write_text("fine")
    return str(file)


@task("remaining", timeout=40)
def remaining(_: dict[str, Any], context: TaskContext) -> float:
    assert context.deadline is not None
    return context.deadline


def test_a_run_gives_the_result_as_clients_see_it_and_everything_that_was_said() -> None:
    run = run_task(weigh, {"count": 2})
    assert run.result == {"kilograms": "25.00"}
    assert run.value.kilograms == Decimal(25)
    assert run.progress == [Report(0.5, "sack 1"), Report(1.0, "sack 2")]
    assert run.logs == [LogLine("info", "weighed", {"sacks": 2, "type": "rye"})]


def test_async_handlers_run_too() -> None:
    run = run_task(grind, {"count": 4}, attempt=3)
    assert (run.result, run.value, run.progress) == (12, 12, [Report(1.0, "")])


async def test_on_a_running_event_loop_both_kinds_run() -> None:
    assert (await run_task_async(grind, {"count": 4})).value == 4
    assert (await run_task_async(weigh, {"count": 4})).value.kilograms == 50
    assert run_task(weigh, {"count": 1}).result == {"kilograms": "12.50"}
    with pytest.raises(RuntimeError, match=r"await run_task_async\(grind, "):
        run_task(grind, {"count": 4})


@pytest.mark.parametrize(
    ("data", "error"),
    [
        ({"count": "2"}, ValidationError),
        ({"count": 0}, ValidationError),
        ({"count": 1, "sort": "rye"}, ValidationError),
        ({}, ValidationError),
        ({"count": float("nan")}, ValueError),
        ({"count": Decimal(2)}, TypeError),
        ([1], TypeError),
    ],
)
def test_data_are_refused_that_would_not_come_from_a_client(data: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        run_task(weigh, data)


@pytest.mark.parametrize("value", [float("nan"), "a\0b", {"load": object()}])
def test_a_result_that_cannot_be_stored_fails_the_run(value: Any) -> None:
    @task("anything")
    def anything(_: dict[str, Any]) -> Any:
        return value

    with pytest.raises(UnstorableResultError):
        run_task(anything, {})


def test_errors_of_the_handler_come_through_as_they_are() -> None:
    error = PermanentError("no_grain", "There is nothing to grind.")

    @task("broken")
    def broken(_: dict[str, Any]) -> None:
        raise error

    with pytest.raises(PermanentError) as raised:
        run_task(broken, {})
    assert raised.value is error


def test_a_function_that_is_no_handler_is_refused() -> None:
    with pytest.raises(TypeError, match="not declared with @task"):
        run_task(len, {})


def test_a_handler_that_is_cancelled_sees_it() -> None:
    with pytest.raises(MillStoppedError):
        run_task(weigh, {"count": 1}, cancelled=True)
    looks = iter([False, False, True])
    with pytest.raises(MillStoppedError):
        run_task(weigh, {"count": 3}, cancelled=looks.__next__)
    assert list(looks) == []


async def test_cancelling_a_run_is_cancelling_its_async_handler() -> None:
    started = asyncio.Event()
    seen: list[str] = []

    @task("endless")
    async def endless(_: dict[str, Any]) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append("tidied up")
            raise

    running = asyncio.create_task(run_task_async(endless, {}))
    await started.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert seen == ["tidied up"]


def test_an_async_handler_is_ended_by_its_timeout() -> None:
    @task("endless")
    async def endless(_: dict[str, Any]) -> None:
        await asyncio.Event().wait()

    with pytest.raises(TimeoutError, match=r"endless took longer than its timeout of 0\.01 s"):
        run_task(endless, {}, timeout=0.01)


def test_a_timeout_within_the_handler_is_its_own() -> None:
    error = TimeoutError("the mill does not answer")

    @task("asks")
    async def asks(_: dict[str, Any]) -> None:
        raise error

    with pytest.raises(TimeoutError) as raised:
        run_task(asks, {})
    assert raised.value is error


def test_a_handler_that_took_too_long_is_found_when_it_returns() -> None:
    @task("slow", timeout=0.01)
    def slow(_: dict[str, Any]) -> None:
        threading.Event().wait(0.02)

    with pytest.raises(TimeoutError, match=r"slow took longer than its timeout of 0\.01 s"):
        run_task(slow, {})
    assert run_task(slow, {}, timeout=60).result is None


def test_a_soft_timeout_is_raised_in_the_handler() -> None:
    tidied: list[float] = []

    @task("slow", timeout=60, soft_timeout=0.02)
    def slow(data: dict[str, Any], context: TaskContext) -> str:
        try:
            threading.Event().wait(60)
        except SoftTimeoutError:
            tidied.append(context.seconds_left)
            if not data.get("save"):
                raise
        return "half"

    with pytest.raises(SoftTimeoutError, match=r"slow took longer than its soft timeout of 0\.02 s"):
        run_task(slow, {})
    assert tidied == [0]
    assert run_task(slow, {"save": True}).result == "half"
    with pytest.raises(SoftTimeoutError, match=r"0\.01 s"):
        run_task(slow, {}, soft_timeout=0.01)
    with pytest.raises(TimeoutError, match=r"0\.02 s"):
        run_task(short, {}, timeout=0.02)


@task("short", timeout=60, soft_timeout=0.03)
def short(_: dict[str, Any]) -> None:
    threading.Event().wait(0.05)


def test_a_timer_of_the_tests_own_goes_on_after_a_soft_timeout() -> None:
    rung: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda number, _: rung.append(number))
    try:
        signal.setitimer(signal.ITIMER_REAL, 60)
        with pytest.raises(SoftTimeoutError):
            run_task(short, {})
        assert 50 < signal.getitimer(signal.ITIMER_REAL)[0] < 60
        signal.raise_signal(signal.SIGALRM)
        assert rung == [signal.SIGALRM]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_a_soft_timeout_cancels_an_async_handler() -> None:
    @task("slow", timeout=60, soft_timeout=0.02)
    async def slow(data: dict[str, Any]) -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if not data.get("save"):
                raise
        return "half"

    with pytest.raises(SoftTimeoutError, match=r"slow took longer than its soft timeout of 0\.02 s"):
        run_task(slow, {})
    assert run_task(slow, {"save": True}).result == "half"


def test_the_deadline_is_the_types_own_or_that_of_the_run() -> None:
    assert run_task(remaining, {}, timeout=10).value + 25 < run_task(remaining, {}).value


def test_the_scratch_directory_is_removed_unless_it_was_given(tmp_path: Path) -> None:
    first, second = Path(run_task(store, {}).value), Path(run_task(store, {}).value)
    assert first != second
    assert not first.parent.exists()
    assert Path(run_task(store, {}, scratch=tmp_path).value).read_text() == "fine"


def test_the_scratch_directory_is_removed_after_a_failure_too() -> None:
    seen: list[Path] = []

    @task("fails")
    def fails(_: dict[str, Any], context: TaskContext) -> None:
        seen.append(context.scratch)
        raise MillStoppedError

    with pytest.raises(MillStoppedError):
        run_task(fails, {})
    assert not seen[0].exists()


def test_the_examples_of_a_type_can_be_run() -> None:
    @task("shown", examples=[{"count": 1}, {"count": 2}])
    def shown(data: Sacks) -> int:
        return data.count

    assert [run_task(shown, example).result for example in definition_of(shown).examples] == [1, 2]


def test_a_fake_context_serves_a_handler_that_is_called_directly() -> None:
    context = FakeContext(attempt=2, deadline=7.5)
    assert weigh(Sacks(count=1), context).kilograms == Decimal("12.5")
    assert context.reports == [(1.0, "sack 1")]
    assert [line.event for line in context.logs] == ["weighed"]
    assert (context.attempt, context.deadline) == (2, 7.5)
    context.attempt = 3
    assert asyncio.run(grind(Sacks(count=2), context)) == 6
    weigh(Sacks(count=1), context)
    assert [line.fields for line in context.logs] == [{"sacks": 1, "type": "rye"}] * 2
    context.cancel()
    with pytest.raises(MillStoppedError):
        weigh(Sacks(count=1), context)


def test_what_is_logged_is_what_a_worker_logs() -> None:
    context = FakeContext()
    context.log.debug("too_much")
    try:
        raise MillStoppedError("no water")
    except MillStoppedError:
        context.log.exception("stopped", gate=3)
    [line] = context.logs
    assert (line.level, line.event, line.fields["gate"]) == ("error", "stopped", 3)
    assert "MillStoppedError: no water" in line.fields["exception"]


def test_a_fake_context_keeps_its_scratch_directory_until_it_is_closed(tmp_path: Path) -> None:
    context = FakeContext()
    context.close()
    (context.scratch / "file").touch()
    assert context.scratch.is_dir()
    context.close()
    context.close()
    given = FakeContext(scratch=tmp_path)
    assert given.scratch == tmp_path
    given.close()
    assert tmp_path.is_dir()


def test_a_scratch_directory_goes_with_the_process() -> None:
    script = "from headrace.testing import FakeContext; context = FakeContext(); print(context.scratch)"
    path = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, text=True).stdout.strip()
    assert "headrace-scratch-" in path
    assert not Path(path).exists()


def test_running_a_task_needs_no_pytest_and_no_cluster() -> None:
    script = (
        "import sys, headrace.testing; from headrace.testing import run_task; "
        "print(sorted({'pytest', 'httpx', 'headrace.local'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout == b"[]\n"


def test_without_pytest_the_fixture_says_what_it_needs() -> None:
    script = "import sys; sys.modules['pytest'] = None; from headrace.testing import cluster"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False, text=True)
    assert done.returncode == 1
    assert done.stderr.strip().endswith("the fixture `cluster` needs pytest: pip install pytest")


def test_everything_that_is_promised_is_there() -> None:
    assert set(headrace.testing.__all__) <= set(dir(headrace.testing))
    for name in headrace.testing.__all__:
        assert getattr(headrace.testing, name) is not None
    with pytest.raises(AttributeError):
        _ = headrace.testing.no_such_name
