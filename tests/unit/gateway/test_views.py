import msgspec
from google.protobuf.timestamp_pb2 import Timestamp

from gateway.views import STATUSES, listed_task_view, snapshot_event, task_view, waiting_task
from headrace.v1.task_pb2 import Task, TaskError, TaskStatus


def test_every_status_has_a_name() -> None:
    assert len(STATUSES) == len(TaskStatus.items()) - 1
    assert STATUSES["completed"] == TaskStatus.TASK_STATUS_COMPLETED


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
    }
    assert "data" not in view


def test_a_snapshot_tells_the_latest_time() -> None:
    task = Task(task_id=1, created_at=Timestamp(seconds=10), started_at=Timestamp(seconds=10, nanos=500_000_000))
    task.run_at.FromSeconds(99)
    assert msgspec.json.decode(snapshot_event(task))["data"]["at"] == "1970-01-01T00:00:10.500Z"
