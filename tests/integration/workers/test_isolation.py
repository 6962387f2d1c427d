"""What an attempt may use, what it sees, and what it leaves to the next one. Ids T.. as in docs/tasks.md."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from execution_service.workers.environment import worker_environment
from execution_service.workers.outcomes import Finished, Outcome, PoolSize
from headrace.tasks import TaskModuleError
from tests.support.waiting import wait_until
from tests.support.worker_bench import Bench, attempt, running_bench


async def _see(bench: Bench, task_id: int) -> dict[str, Any]:
    seen: dict[str, Any] = json.loads((await bench.run(attempt(task_id, "see_process"))).result or b"")
    return seen


async def test_the_next_attempt_finds_the_process_as_it_was_t65(bench: Bench) -> None:
    before = await _see(bench, 1)
    assert (await bench.run(attempt(2, "change_process"))).outcome is Outcome.COMPLETED
    assert await _see(bench, 3) == before
    printed = await bench.run(attempt(4, "print_lines", {"lines": ["still there"]}))
    assert "still there\nfrom a program\nno end" in printed.log


async def test_short_handlers_in_a_row_do_not_affect_each_other_t65(bench: Bench) -> None:
    """Handed in together, they run in one go in one worker."""
    await bench.run(attempt(1, "see_process"))
    await bench.run(attempt(2, "change_process"))
    bench.submit(attempt(3, "see_process"), attempt(4, "change_process"), attempt(5, "see_process"))
    seen = [json.loads((await bench.outcome(number)).result or b"") for number in (3, 5)]
    assert seen[0] == seen[1]


async def test_what_a_handler_started_is_gone_before_its_outcome_t64(bench: Bench) -> None:
    finished = await bench.run(attempt(1, "leave_processes"))
    left = [pid for pid in json.loads(finished.result or b"") if psutil.pid_exists(pid)]
    assert left == []
    assert (await bench.run(attempt(2, "noop", {"n": 1}))).outcome is Outcome.COMPLETED


async def test_a_killed_worker_takes_detached_processes_along_t64(bench: Bench) -> None:
    bench.submit(attempt(1, "detach_and_wait", timeout=1))
    await wait_until(lambda: bench.progress)
    daemon = psutil.Process(int(bench.progress[0].message))
    finished = await bench.outcome(1)
    assert finished.error is not None
    assert finished.error.code == "timeout"
    await wait_until(lambda: not daemon.is_running() or daemon.status() == psutil.STATUS_ZOMBIE)


async def test_a_worker_with_threads_left_behind_is_replaced_and_nothing_is_run_twice_t64(bench: Bench) -> None:
    await bench.run(attempt(1, "leave_thread"))
    bench.submit(attempt(2, "leave_thread"), *(attempt(number, "see_process") for number in range(3, 8)))
    first = json.loads((await bench.outcome(2)).result or b"")
    for number in range(3, 8):
        finished = await bench.outcome(number)
        assert finished.outcome is Outcome.COMPLETED
        seen = json.loads(finished.result or b"")
        assert seen["pid"] != first
        assert "left-over" not in seen["threads"]


async def test_handlers_see_nothing_of_the_services_secrets_t67(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADRACE_RESULTS_DSN", "postgresql://secret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("MY_API_KEY", "given")
    monkeypatch.setenv("HEADRACE_WEATHER_URL", "http://127.0.0.1:1")
    environment = worker_environment(["MY_API_KEY"])
    async with running_bench(tmp_path, {"cpu": PoolSize(1)}, environment=environment) as bench:
        seen = await _see(bench, 1)
    assert {"MY_API_KEY", "PATH", "HEADRACE_WEATHER_URL"} <= set(seen["environment"])
    assert not {"HEADRACE_RESULTS_DSN", "AWS_SECRET_ACCESS_KEY"} & set(seen["environment"])
    assert seen["session"]
    assert seen["no_new_privileges"]


_MIB = 1024 * 1024


def _failed(code: str, exception: str = "") -> Callable[[Finished], bool]:
    def check(finished: Finished) -> bool:
        error = finished.error
        return (
            finished.outcome is Outcome.FAILED
            and error is not None
            and error.code == code
            and error.exception == exception
            and (error.peak_memory > 0) is (code in ("memory_limit", "cpu_limit"))
        )

    return check


def _completed(value: int) -> Callable[[Finished], bool]:
    return lambda finished: finished.outcome is Outcome.COMPLETED and json.loads(finished.result or b"") == value


@pytest.mark.parametrize(
    ("type_name", "data", "check"),
    [
        pytest.param("take_memory", {"mib": 64}, _completed(64 * _MIB), id="memory-within"),
        pytest.param("take_memory", {"mib": 512}, _failed("memory_limit", "MemoryError"), id="T66-memory-above"),
        pytest.param("burn_cpu", {}, _failed("cpu_limit"), id="cpu-above", marks=pytest.mark.alone),
        pytest.param("write_file", {"bytes": _MIB}, _completed(_MIB), id="file-within"),
        pytest.param("write_file", {"bytes": _MIB + 1}, _failed("handler_error", "OSError"), id="file-above"),
        pytest.param("open_many", {"files": 32}, _completed(32), id="descriptors-within"),
        pytest.param("open_many", {"files": 10_000}, _failed("handler_error", "OSError"), id="T66-descriptors-above"),
    ],
)
async def test_attempts_are_held_to_the_limits_of_their_type(
    bench: Bench, type_name: str, data: dict[str, int], check: Callable[[Finished], bool]
) -> None:
    finished = await bench.run(attempt(1, type_name, data))
    assert check(finished), finished
    # Whatever happened, the next attempt runs, with the limits of its own type.
    seen = await _see(bench, 2)
    assert seen["limits"] == {
        "RLIMIT_DATA": 1024 * _MIB,
        "RLIMIT_FSIZE": 1024 * _MIB,
        "RLIMIT_NOFILE": 256,
        "RLIMIT_CORE": 0,
    }


async def test_what_an_attempt_prints_and_logs_is_kept_with_it_t63(bench: Bench) -> None:
    await bench.run(attempt(1, "print_lines", {"lines": ["warm"]}))
    bench.submit(
        attempt(2, "print_lines", {"lines": ["one", "zwei"]}),
        attempt(3, "print_silently"),
        attempt(4, "print_lines", {"lines": ["three"]}),
        attempt(5, "print_much", {"kilobytes": 1000}),
    )
    first, silent, second, flood = [await bench.outcome(number) for number in (2, 3, 4, 5)]
    assert "one\nzwei\nfrom a program\nno end" in first.log
    assert "warning logged type='print_lines' answer=42" in first.log
    assert silent.log == ""
    assert "three\nfrom a program\nno end" in second.log
    assert "zwei" not in second.log
    assert len(flood.log) == 64 * 1024
    assert flood.log.endswith("y\n")


async def test_async_attempts_that_run_at_once_have_logs_of_their_own(bench: Bench) -> None:
    bench.submit(
        *(
            attempt(number, "print_lines_async", {"lines": [f"{number} a", f"{number} b"]}, pool="io")
            for number in range(1, 9)
        )
    )
    for number in range(1, 9):
        lines = (await bench.outcome(number)).log.splitlines()
        assert lines[0] == f"{number} a"
        assert {f"{number} b", "from a thread"} < set(lines)
        assert len(lines) == 4


async def test_an_async_attempt_that_prints_in_masses_keeps_the_end_of_it_t63(bench: Bench) -> None:
    finished = await bench.run(attempt(1, "print_much_async", {"lines": 20_000}, pool="io"))
    assert finished.outcome is Outcome.COMPLETED
    assert finished.log.splitlines()[-1] == "line 19999"
    assert finished.log.splitlines()[-5000:] == [f"line {number}" for number in range(15_000, 20_000)]


async def test_a_process_of_many_attempts_has_the_largest_limits_of_its_own_pool(bench: Bench) -> None:
    finished = await bench.run(attempt(1, "see_limits_async", pool="io"))
    # The defaults of the other types of the pool; descriptors for each of its 16 slots.
    assert json.loads(finished.result or b"") == [1024 * _MIB, 256 * 16]


async def test_a_failure_and_a_death_leave_their_traces_in_the_log_t62(bench: Bench) -> None:
    raised = await bench.run(attempt(1, "raise_any", {"what": "group"}))
    assert "ValueError: one" in raised.log
    assert "Traceback" in raised.log
    died = await bench.run(attempt(2, "print_and_die", {"line": "last words"}))
    assert died.outcome is Outcome.WORKER_DIED
    assert died.log.endswith("last words\n")


async def test_a_worker_deaf_to_sigterm_is_killed_t68(bench: Bench) -> None:
    bench.submit(attempt(1, "ignore_sigterm", {"seconds": 60}, timeout=60))
    pid = await bench.running(1)
    os.kill(pid, signal.SIGTERM)
    bench.pool.cancel(1, 1)
    finished = await bench.outcome(1, timeout=5)
    assert finished.outcome is Outcome.CANCELLED
    await wait_until(lambda: not psutil.pid_exists(pid))


async def test_modules_that_only_the_replica_can_load_are_told_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "needs_key_tasks.py").write_text(
        "import os\nfrom headrace import task\nKEY = os.environ['NEEDED_KEY']\n\n"
        "@task('keyed')\ndef keyed(data: dict[str, str]) -> str:\n    return KEY\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("NEEDED_KEY", "here alone")
    with pytest.raises(TaskModuleError, match=r"in a worker, the task module 'needs_key_tasks' cannot.*NEEDED_KEY"):
        async with running_bench(tmp_path / "scratch", {"cpu": PoolSize(2)}, ("needs_key_tasks",)):
            pass
    environment = worker_environment(["NEEDED_KEY"])
    async with running_bench(
        tmp_path / "scratch", {"cpu": PoolSize(1)}, ("needs_key_tasks",), environment=environment
    ) as bench:
        assert (await bench.run(attempt(1, "keyed"))).outcome is Outcome.COMPLETED
