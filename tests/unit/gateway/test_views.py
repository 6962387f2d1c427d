import msgspec
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from gateway.receipts import receipt_words
from gateway.views import listed_task_view, task_view, waiting_task
from headrace.v1.task_pb2 import (
    Attempt,
    Backoff,
    CancelReceipt,
    Outcome,
    Task,
    TaskError,
    TaskOptions,
    TaskStatus,
    TaskUpdate,
)
from servicekit.task_views import update_view


def test_results_and_data_are_passed_on_as_they_are() -> None:
    task = Task(task_id=1, status=TaskStatus.TASK_STATUS_COMPLETED, revision=3, data=b'{"a": 1.50}', result=b"[1e2]")
    assert b'"result":[1e2]' in msgspec.json.encode(task_view(task))
    assert b'"data":{"a": 1.50}' in msgspec.json.encode(task_view(task))


def test_what_is_absent_is_null() -> None:
    view = task_view(waiting_task(5))
    assert (view["id"], view["status"], view["revision"]) == (5, "queued", 0)
    absent = ("type", "result", "error", "data", "pool", "priority", "max_attempts", "finished_at", "replica", "worker")
    assert [view[name] for name in absent] == [None] * len(absent)


def test_priority_zero_of_a_stored_task_is_shown() -> None:
    assert task_view(Task(task_id=1, revision=1, priority=0))["priority"] == 0


def test_an_error_is_shown_with_what_is_known_of_it() -> None:
    error = TaskError(code="worker_died", message="killed", signal=9)
    view = listed_task_view(Task(task_id=1, status=TaskStatus.TASK_STATUS_FAILED, revision=4, error=error))
    assert view["error"] == {
        "code": "worker_died",
        "message": "killed",
        "exception": None,
        "signal": 9,
        "exit_code": None,
        "peak_memory_mib": None,
        "receipt": None,
    }
    assert "data" not in view
    assert "attempts" not in view


def test_the_evidence_of_a_death_is_shown_with_the_log_only_to_those_who_read_the_task() -> None:
    error = TaskError(code="worker_died", peak_memory_bytes=3 * 1024 * 1024 + 512 * 1024, log_tail="last words\n")
    task = Task(task_id=1, status=TaskStatus.TASK_STATUS_FAILED, revision=4, error=error)
    shown = task_view(task)["error"]
    assert (shown["peak_memory_mib"], shown["log_tail"]) == (3.5, "last words\n")
    update = update_view(TaskUpdate(task_id=1, status=task.status, error=error))
    for other in (listed_task_view(task)["error"], update["error"]):
        assert other["peak_memory_mib"] == 3.5
        assert "log_tail" not in other


@pytest.mark.parametrize("ended_by", CancelReceipt.EndedBy.values()[1:])
def test_a_cancelled_task_shows_its_receipt(ended_by: CancelReceipt.EndedBy.ValueType) -> None:
    receipt = CancelReceipt(ended_by=ended_by, stopped_after_ms=1500, processes_gone=True)
    task = Task(task_id=1, revision=4, error=TaskError(code="cancelled", receipt=receipt))
    word = CancelReceipt.EndedBy.Name(ended_by).removeprefix("ENDED_BY_").lower()
    assert task_view(task)["error"]["receipt"] == {
        "ended_by": word,
        "stopped_after": 1.5,
        "processes_gone": True,
    }
    assert receipt_words(receipt)


def test_a_receipt_in_words() -> None:
    killed = CancelReceipt(ended_by=CancelReceipt.ENDED_BY_SIGKILL, stopped_after_ms=1500)
    assert receipt_words(killed) == ": its worker was killed after 1.5 s"
    assert receipt_words(CancelReceipt(ended_by=CancelReceipt.ENDED_BY_NOT_STARTED)) == " before it was started"
    assert receipt_words(CancelReceipt()) == ""
    assert receipt_words(None) == ""


@pytest.mark.parametrize(
    ("outcome", "word"),
    [
        (Outcome.OUTCOME_UNSPECIFIED, None),
        (Outcome.OUTCOME_COMPLETED, "completed"),
        (Outcome.OUTCOME_FAILED, "failed"),
        (Outcome.OUTCOME_FAILED_FOR_GOOD, "failed"),
        (Outcome.OUTCOME_WORKER_DIED, "worker_died"),
        (Outcome.OUTCOME_CANCELLED, "cancelled"),
        (Outcome.OUTCOME_HANDED_BACK, "handed_back"),
        (Outcome.OUTCOME_REFUSED, "refused"),
        (Outcome.OUTCOME_REPLICA_LOST, "replica_lost"),
    ],
)
def test_every_outcome_of_an_attempt_has_a_word(outcome: Outcome.ValueType, word: str | None) -> None:
    attempt = Attempt(attempt=2, replica="execution-1", claimed_at=Timestamp(seconds=10), outcome=outcome)
    [shown] = task_view(Task(task_id=1, revision=2, attempts=[attempt]))["attempts"]
    assert shown == {
        "attempt": 2,
        "replica": "execution-1",
        "worker": None,
        "claimed_at": "1970-01-01T00:00:10Z",
        "started_at": None,
        "ended_at": None,
        "outcome": word,
        "error": None,
    }


def test_the_options_of_a_task_are_shown_with_what_they_leave_out() -> None:
    plain = task_view(Task(task_id=1, revision=1))
    assert (plain["soft_timeout"], plain["expires_at"]) == (None, None)
    assert plain["backoff"] == {"initial": 1, "factor": 2, "maximum": 300}
    options = TaskOptions(soft_timeout_ms=2500, backoff=Backoff(initial_ms=10, factor=1.5, max_ms=20))
    view = task_view(Task(task_id=1, revision=1, options=options, expires_at=Timestamp(seconds=5)))
    assert (view["soft_timeout"], view["expires_at"]) == (2.5, "1970-01-01T00:00:05Z")
    assert view["backoff"] == {"initial": 0.01, "factor": 1.5, "maximum": 0.02}
    assert task_view(waiting_task(5))["backoff"] is None
