"""A manager and a whole replica over a real stream: workers and result DB are real."""

import asyncio
import json
from pathlib import Path

import grpc
import pytest

from execution_service.service import ExecutionService
from headrace.v1 import execution_pb2, task_pb2
from tests.integration.execution.conftest import settings_for
from tests.integration.execution.manager import Manager
from tests.integration.execution.messages import assignment
from tests.support.waiting import wait_until


async def stored(manager: Manager, *keys: tuple[int, int]) -> dict[tuple[int, int], bytes]:
    wanted = [execution_pb2.AttemptKey(task_id=task_id, attempt=attempt) for task_id, attempt in keys]
    answer = await manager.stub.GetResults(execution_pb2.GetResultsRequest(keys=wanted), timeout=5)
    return {(item.task_id, item.attempt): item.result for item in answer.results}


async def test_tasks_run_and_their_results_are_stored_when_the_report_arrives(manager: Manager) -> None:
    await wait_until(lambda: manager.open("cpu") >= 2)
    await wait_until(lambda: manager.open("io") >= 1)
    manager.assign([assignment(1), assignment(2), assignment(3, type_name="nap_async", data={"seconds": 0.01})])
    await wait_until(lambda: len(manager.reports) == 3)
    assert {report.outcome for report in manager.reports} == {task_pb2.OUTCOME_COMPLETED}
    assert all(report.started and report.worker for report in manager.reports)
    assert await stored(manager, (1, 1), (2, 1), (3, 1), (4, 1)) == {
        (1, 1): b'{"value":2}',
        (2, 1): b'{"value":4}',
        (3, 1): b'{"value":2}',
    }
    assert manager.reported(1)[0].result == b'{"value":2}'
    await manager.stub.RemoveResults(execution_pb2.RemoveResultsRequest(task_ids=[1, 3]), timeout=5)
    assert list(await stored(manager, (1, 1), (2, 1), (3, 1))) == [(2, 1)]


async def test_hello_tells_the_types_and_pools(manager: Manager, service: ExecutionService) -> None:
    await wait_until(lambda: manager.hellos)
    hello = manager.hellos[0]
    assert (hello.replica, hello.address) == ("exec-1", service.replica.address)
    types = {task_type.name: task_type for task_type in hello.task_types}
    assert types["double"].pool == "cpu"
    assert types["nap_async"].pool == "io"
    assert json.loads(types["double"].data_schema)["type"] == "object"
    assert {pool.name: pool.slots for pool in hello.pools} == {"cpu": 2, "io": 8}


async def test_short_tasks_are_asked_for_in_hundreds_and_none_is_lost(
    manager: Manager, service: ExecutionService
) -> None:
    next_id, total, most = 1, 3_000, 0
    async with asyncio.timeout(30):
        while next_id <= total:
            await wait_until(lambda: manager.open("cpu") > 0)
            count = min(manager.open("cpu"), total - next_id + 1)
            most = max(most, count)
            manager.assign(assignment(task_id) for task_id in range(next_id, next_id + count))
            next_id += count
        await wait_until(lambda: len({report.task_id for report in manager.reports}) == total)
    assert most > 100
    assert {report.outcome for report in manager.reports} == {task_pb2.OUTCOME_COMPLETED}
    assert len(manager.reports) == total
    await wait_until(lambda: len(service.replica.table) == 0)


async def test_without_echoes_an_attempt_is_held_and_starts_with_the_next_one(
    manager: Manager, service: ExecutionService, tmp_path: Path
) -> None:
    trace = tmp_path / "trace"
    await wait_until(lambda: manager.open("cpu") > 0)
    manager.database_is_away = True
    await asyncio.sleep(2.6)  # until the last echo is too old to start anything by
    manager.assign([assignment(1, type_name="nap", data={"seconds": 0.01, "trace": str(trace)})])
    manager.ask((1, 1))
    await wait_until(lambda: manager.answers.get((1, 1)) == execution_pb2.Answer.STATE_HELD)
    assert not trace.exists()
    assert not manager.ended
    manager.database_is_away = False
    await wait_until(lambda: manager.reported(1))
    assert trace.read_text(encoding="utf-8") == "1 1\n"


async def test_reports_go_to_another_manager_when_the_first_one_vanishes(service: ExecutionService) -> None:
    async with Manager(service.replica.address, "first") as first:
        await wait_until(lambda: first.open("cpu") > 0)
        first.assign([assignment(1, type_name="nap", data={"seconds": 0.5})])
        first.ask((1, 1))
        await wait_until(lambda: first.answers)
    async with Manager(service.replica.address, "second") as second:
        await wait_until(lambda: second.reported(1))
        assert second.reported(1)[0].outcome == task_pb2.OUTCOME_COMPLETED
        await wait_until(lambda: len(service.replica.table) == 0)


async def test_a_silent_manager_is_cut_off_and_another_gets_its_demand(service: ExecutionService) -> None:
    async with Manager(service.replica.address, "silent") as silent:
        await wait_until(lambda: silent.open("cpu") == 2)
        silent.is_silent = True
        async with Manager(service.replica.address, "other") as other:
            await wait_until(lambda: silent.ended)
            await wait_until(lambda: other.open("cpu") == 2)


async def test_a_manager_that_does_not_read_is_cut_off(service: ExecutionService) -> None:
    questions = [(task_id, 1) for task_id in range(1, 50_000)]
    async with Manager(service.replica.address, "deaf") as deaf:
        await wait_until(lambda: deaf.open("cpu") == 2)
        deaf.reads.clear()
        for _ in range(20):
            deaf.ask(*questions)
        await wait_until(lambda: len(service.replica.streams) == 0, timeout=15)
        await wait_until(lambda: not any("dispatch" in task.get_name() for task in asyncio.all_tasks()))
        assert service.replica.demand.open("cpu") == 0


async def test_a_cancelled_attempt_ends_as_cancelled_with_a_receipt(manager: Manager) -> None:
    await wait_until(lambda: manager.open("cpu") == 2)
    manager.assign([assignment(1, type_name="nap", data={"seconds": 30})])
    manager.assign([assignment(2, type_name="nap_deaf", data={"seconds": 30})])
    await wait_until(lambda: len({item.task_id for item in manager.progress}) == 2)
    manager.cancel((1, 1), (2, 1))
    await wait_until(lambda: len(manager.reports) == 2, timeout=2)
    reports = {report.task_id: report for report in manager.reports}
    assert {report.outcome for report in manager.reports} == {task_pb2.OUTCOME_CANCELLED}
    assert {report.error.code for report in manager.reports} == {"cancelled"}
    receipts = {task_id: report.error.receipt for task_id, report in reports.items()}
    assert receipts[1].ended_by == task_pb2.CancelReceipt.ENDED_BY_HANDLER
    assert receipts[1].stopped_after_ms < 500
    assert receipts[2].ended_by == task_pb2.CancelReceipt.ENDED_BY_SIGTERM
    assert 500 <= receipts[2].stopped_after_ms < 1500
    assert all(receipt.processes_gone for receipt in receipts.values())
    assert "TaskCancelled" in reports[2].error.log_tail


async def test_a_worker_that_dies_is_reported_with_the_evidence(manager: Manager) -> None:
    await wait_until(lambda: manager.open("cpu") == 2)
    manager.assign([assignment(1, type_name="crash", data={"value": 7})])
    await wait_until(lambda: manager.reports)
    (report,) = manager.reports
    assert (report.outcome, report.error.exit_code) == (task_pb2.OUTCOME_WORKER_DIED, 7)
    assert report.error.peak_memory_bytes > 1024 * 1024
    assert report.started
    assert report.worker
    assert report.started_at.seconds <= report.executed_at.seconds
    assert report.started_at.seconds > 0
    assert report.error.log_tail == "about to crash\n"


async def test_a_soft_timeout_comes_with_the_assignment_and_a_later_retry_with_the_report(manager: Manager) -> None:
    await wait_until(lambda: manager.open("cpu") == 2)
    slow = assignment(1, type_name="nap_deaf", data={"seconds": 30})
    slow.soft_timeout_ms = 200
    manager.assign([slow, assignment(2, type_name="busy", data={"value": 90})])
    await wait_until(lambda: len(manager.reports) == 2)
    (timed_out,), (busy,) = manager.reported(1), manager.reported(2)
    assert (timed_out.outcome, timed_out.error.code) == (task_pb2.OUTCOME_FAILED, "soft_timeout")
    assert not timed_out.HasField("retry_after_ms")
    assert (busy.outcome, busy.error.code, busy.retry_after_ms) == (task_pb2.OUTCOME_FAILED, "busy", 90_000)


async def test_a_solitary_task_runs_when_all_else_has_ended_and_alone(manager: Manager, tmp_path: Path) -> None:
    await wait_until(lambda: manager.open("cpu") == 2)
    trace = str(tmp_path / "trace")
    alone = assignment(2, 3, type_name="nap", data={"seconds": 0.5, "trace": trace})
    alone.solitary = True
    manager.assign([assignment(1, type_name="nap", data={"seconds": 0.5, "trace": trace}), alone, assignment(3)])
    await wait_until(lambda: manager.open("cpu") <= 0 and manager.open("io") == 0)
    await wait_until(lambda: manager.reported(3))
    assert manager.reported(3)[0].outcome == task_pb2.OUTCOME_HANDED_BACK
    await wait_until(lambda: manager.reported(1))
    assert manager.open("cpu") <= 0
    await wait_until(lambda: manager.reported(2))
    first, second = manager.reported(1)[0], manager.reported(2)[0]
    assert (first.outcome, second.outcome) == (task_pb2.OUTCOME_COMPLETED, task_pb2.OUTCOME_COMPLETED)
    assert second.started_at.ToNanoseconds() > first.executed_at.ToNanoseconds()
    assert second.worker != first.worker
    await wait_until(lambda: manager.open("cpu") >= 2 and manager.open("io") >= 1)


async def test_after_its_session_was_ended_a_replica_works_in_a_new_one(manager: Manager, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    await wait_until(lambda: manager.open("cpu") > 0)
    ended = manager.session_id
    manager.assign([assignment(1, type_name="nap", data={"seconds": 60, "trace": str(trace)})])
    await wait_until(trace.exists)
    manager.end_session()
    await wait_until(lambda: manager.session_id != ended)
    manager.ask((1, 1))
    await wait_until(lambda: manager.answers.get((1, 1)) == execution_pb2.Answer.STATE_REFUSED)
    await wait_until(lambda: manager.open("cpu") > 0)
    manager.assign([assignment(1, 2, round_base=1)])
    await wait_until(lambda: manager.reported(1))
    assert [(report.attempt, report.outcome) for report in manager.reported(1)] == [(2, task_pb2.OUTCOME_COMPLETED)]


async def test_a_later_attempt_reports_the_result_of_an_earlier_one_without_running(manager: Manager) -> None:
    await wait_until(lambda: manager.open("cpu") > 0)
    manager.assign([assignment(1)])
    await wait_until(lambda: manager.reported(1))
    manager.assign([assignment(1, 2, data={"value": 1000})])
    await wait_until(lambda: len(manager.reported(1)) == 2)
    assert not manager.reported(1)[1].started
    assert await stored(manager, (1, 2)) == {(1, 2): b'{"value":2}'}


async def test_draining_finishes_or_gives_back_and_says_bye(postgres_dsn: str, tmp_path: Path) -> None:
    service = ExecutionService(settings_for(postgres_dsn, tmp_path))
    await service.start()
    async with Manager(service.replica.address) as manager:
        await wait_until(lambda: manager.open("cpu") == 2)
        manager.assign(
            assignment(task_id, type_name="nap", data={"seconds": seconds}) for task_id, seconds in ((1, 0.5), (2, 60))
        )
        await wait_until(lambda: len(manager.progress) == 2)
        await service.drain()
        await wait_until(lambda: manager.ended)
        outcomes = {report.task_id: report.outcome for report in manager.reports}
        assert outcomes == {1: task_pb2.OUTCOME_COMPLETED, 2: task_pb2.OUTCOME_HANDED_BACK}
        assert manager.said_bye


async def test_a_stream_must_begin_with_attach(service: ExecutionService, manager: Manager) -> None:
    call = manager.stub.Dispatch()
    await call.write(execution_pb2.DispatchRequest(claim_rounds=1))
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call.read()
    assert error.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert len(service.replica.streams) == 1


async def test_updates_of_what_runs_here_can_be_watched(manager: Manager) -> None:
    await wait_until(lambda: manager.open("cpu") > 0)
    watch = manager.stub.WatchTasks(execution_pb2.ExecutionServiceWatchTasksRequest(task_ids=[1]))
    seen: list[task_pb2.TaskUpdate] = []

    async def follow() -> None:
        async for message in watch:
            seen.extend(message.updates)

    following = asyncio.create_task(follow())
    await watch.wait_for_connection()
    manager.assign([assignment(1, type_name="nap", data={"seconds": 0.5}), assignment(2)])
    await wait_until(lambda: seen and seen[-1].status == task_pb2.TASK_STATUS_COMPLETED)
    watch.cancel()
    await asyncio.gather(following, return_exceptions=True)
    assert {update.task_id for update in seen} == {1}
    assert any(update.progress.fraction == 0.5 for update in seen)
