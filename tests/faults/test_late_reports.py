"""Reports that come too late, twice, from the wrong one, or at the very moment at which a session ends."""

import asyncio
import random
import time

import pytest

from headrace.v1.task_pb2 import (
    OUTCOME_COMPLETED,
    OUTCOME_FAILED,
    VERDICT_ACCEPTED,
    VERDICT_STALE,
    VERDICT_UNKNOWN,
    Outcome,
    Report,
)
from management_service.storage.executors import ExecutorRepository
from management_service.storage.tasks import TaskRepository
from servicekit.postgres import Database
from tests.faults.harness.checker import Allowed
from tests.faults.harness.forger import Forger
from tests.faults.harness.run import Run
from tests.support.processes import has_ended
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(180)]

FROZEN_SECONDS = 8.0


@pytest.mark.quick
@pytest.mark.parametrize("until", ["started", "ended"])
async def test_f30_what_a_frozen_replica_stores_after_its_thaw_is_refused(run: Run, until: str) -> None:
    """It is frozen with finished attempts in hand, right before it stores them."""
    stack = run.stack
    long = await run.start_async_on("execution-0", seconds=30)
    stack.arm("results.before_insert", "stop execution-0")
    task_ids = await run.submit_until_fired("results.before_insert", 8, seconds=1)
    frozen = time.monotonic()
    lost = await run.running_on("execution-0")
    cut_off = {line.pid for line in run.effects.lines() if line.task_id in lost and line.task_id in long}
    again = sorted(lost.intersection(task_ids))
    assert again
    assert cut_off
    await wait_until(lambda: run.started_again() >= lost, timeout=20)
    reruns = run.seconds_to_rerun(frozen)
    if until == "ended":
        await run.client.finals(again)
    stack.thaw("execution-0")
    thawed = time.monotonic()
    await wait_until(lambda: run.logged("management", "report_without_effect", verdict=VERDICT_STALE), timeout=10)
    await wait_until(lambda: all(has_ended(pid) for pid in cut_off), timeout=10)
    print(f"F30-{until} workers_ended_s={time.monotonic() - thawed:.2f}")  # noqa: T201
    run.recovered(f"F30-{until}", reruns[-1], within=FROZEN_SECONDS)
    for task_id in long:
        await run.client.delete(task_id)
    await run.settle(Allowed(reruns=len(lost), statuses=("completed", "cancelled")))
    refused = await stack.query("SELECT task_id FROM results WHERE attempt = 1", results=True)
    assert lost.intersection(int(str(task_id)) for (task_id,) in refused), "nothing came late"


@pytest.mark.quick
async def test_f31_of_a_completion_and_the_end_of_its_session_one_wins(run: Run) -> None:
    """A thousand times, in rounds of fifty; the managers of the cluster join in with their own scans."""
    stack = run.stack
    rounds, size = 20, 50
    rng, end_seconds = random.Random(stack.seed), 0.1
    base = 8_000_000_000_000
    database = Database(stack.task_dsn, name="race", max_size=4)
    await database.open()
    tasks, executors = TaskRepository(database, rng=rng), ExecutorRepository(database)
    completed: set[int] = set()
    rescued: set[int] = set()
    try:
        for number in range(rounds):
            ids = range(base + number * size, base + (number + 1) * size)
            await _insert_running(run, ids)
            run.promise(ids)
            done, (moved, end_seconds) = await asyncio.gather(
                _complete(tasks, ids, pause=rng.uniform(0, end_seconds)), _end(executors, tasks, ids)
            )
            completed |= done
            rescued |= moved
    finally:
        await database.close()
    assert not completed & rescued
    settled = await run.settle()
    rows = await stack.query("SELECT task_id, result_attempt, replica_losses FROM tasks")
    # What the completion won kept its first attempt; all others were lost once and completed by a later one.
    assert {task_id for task_id, attempt, _ in rows if attempt == 1} == completed
    assert {(int(str(attempt)) > 1, losses) for _, attempt, losses in rows if attempt != 1} <= {(True, 1)}
    assert len(rows) == rounds * size
    assert completed
    assert len(completed) < len(rows)
    print(f"F31 completions_won={len(completed)} ends_won={len(rows) - len(completed)} reruns={settled.reruns}")  # noqa: T201


async def _insert_running(run: Run, ids: range) -> None:
    """Tasks that are processing, each under a session of its own, with their results stored already."""
    span = f"generate_series({ids.start}::bigint, {ids.stop - 1}::bigint) AS id"
    await run.stack.query(f"INSERT INTO results (task_id, attempt, result) SELECT id, 1, '1' FROM {span}", results=True)
    await run.stack.query(
        "WITH sessions AS (INSERT INTO executors (session_id, replica, address, types)"
        f" SELECT id, 'raced', '127.0.0.1:1', '{{}}' FROM {span})"
        " INSERT INTO tasks (task_id, type, pool, status, priority, attempt, max_attempts, timeout_ms, session_id,"
        " run_at, claimed_at, data)"
        f" SELECT id, 'noop', 'cpu', 'processing', 4, 1, 3, 30000, id, now(), now(), '{{}}' FROM {span}"
    )


async def _complete(tasks: TaskRepository, ids: range, *, pause: float) -> set[int]:
    await asyncio.sleep(pause)  # where in the other's batch the two meet
    reports = [Report(task_id=id_, attempt=1, outcome=OUTCOME_COMPLETED, started=True) for id_ in ids]
    done: set[int] = set()
    for start in range(0, len(reports), 10):
        done |= {item.task_id for item in await tasks.complete(reports[start : start + 10])}
    return done


async def _end(executors: ExecutorRepository, tasks: TaskRepository, ids: range) -> tuple[set[int], float]:
    """End the sessions one by one, and take their tasks back; return those, and how long it took."""
    began, moved = time.monotonic(), set()
    for number, id_ in enumerate(ids, 1):
        await executors.end_session(id_, beat=0)
        if number % 10 == 0:
            moved |= {change.task_id for change in await tasks.rescue()}
    return moved, time.monotonic() - began


@pytest.mark.quick
async def test_f32_wrong_reports_are_refused_by_name_and_change_nothing(run: Run) -> None:
    """A forged replica reports what it never ran.

    A report names no session: an attempt is given to one session alone, so its number says whose it is.
    """
    stack = run.stack
    [failing] = await run.client.submit([{"type": "fail", "data": {"times": 1}}])
    await run.client.finals([failing])
    [done] = await run.client.submit(run.tasks(1))
    await run.client.finals([done])
    [running] = await run.start_tasks(1, seconds=6)
    before = await _rows(run)
    async with Forger(stack) as forger:
        wrong = [
            (_report(running, 2), VERDICT_STALE),
            (_report(running, 7, outcome=OUTCOME_FAILED), VERDICT_STALE),
            (_report(done, 2), VERDICT_STALE),
            (_report(done, 1, outcome=OUTCOME_FAILED), VERDICT_ACCEPTED),
            # Out of order: of the attempt before the one that completed it.
            (_report(failing, 1), VERDICT_STALE),
            (_report(failing, 1, outcome=OUTCOME_FAILED), VERDICT_STALE),
            # Twice: what was accepted is accepted again.
            (_report(done, 1), VERDICT_ACCEPTED),
            (_report(done, 1), VERDICT_ACCEPTED),
            (_report(999_999_999_999, 1), VERDICT_UNKNOWN),
            (_report(0, 0), VERDICT_UNKNOWN),
            (_report(-1, -1), VERDICT_UNKNOWN),
        ]
        for report, expected in wrong:
            assert await forger.report(report) == expected, report
            assert await _rows(run) == before, report
        await forger.leave()
    await run.settle(Allowed(charged=1))


def _report(task_id: int, attempt: int, *, outcome: Outcome.ValueType = OUTCOME_COMPLETED) -> Report:
    return Report(task_id=task_id, attempt=attempt, outcome=outcome, started=True)


async def _rows(run: Run) -> list[tuple[object, ...]]:
    return await run.stack.query(
        "SELECT task_id, status::text, attempt, revision, result_attempt, failures, starts FROM tasks ORDER BY 1"
    )
