"""Logs of attempts are stored in order, wait for the result DB within bounds, and hold nothing up."""

import pytest

from execution_service import logs
from execution_service.logs import LogWriter
from execution_service.workers.outcomes import Finished, Outcome
from servicekit.errors import Unavailable
from tests.unit.execution.world import MemoryResults


def finished(task_id: int, log: str) -> Finished:
    return Finished(task_id, 1, Outcome.FAILED, None, None, True, "w1", 0.0, 1.0, log)


async def test_logs_wait_for_the_result_db() -> None:
    results = MemoryResults()
    writer = LogWriter(results)
    results.away = True
    for task_id in range(1, 101):
        writer.add(finished(task_id, "text"))
    with pytest.raises(Unavailable):
        await writer.run_once()
    assert len(writer) == 100
    results.away = False
    await writer.run_once()
    assert [log.task_id for log in results.logs] == list(range(1, 101))
    assert len(writer) == 0


async def test_the_oldest_are_dropped_for_new_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "WAITING_MAX", 10)
    results = MemoryResults()
    writer = LogWriter(results)
    for task_id in range(1, 5):
        writer.add(finished(task_id, "1234"))
    await writer.run_once()
    assert [log.task_id for log in results.logs] == [3, 4]
