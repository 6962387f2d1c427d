import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from headrace.v1.task_pb2 import Progress, Task, TaskError, TaskStatus, TaskUpdate
from servicekit.task_views import RESULT_BYTES_MAX, STATUSES, update_of_task, update_view

COMPLETED = TaskStatus.TASK_STATUS_COMPLETED


def test_every_status_has_a_name() -> None:
    assert len(STATUSES) == len(TaskStatus.items()) - 1
    assert STATUSES["completed"] == COMPLETED


def test_the_present_state_tells_when_the_task_changed_last() -> None:
    task = Task(task_id=1, created_at=Timestamp(seconds=10), started_at=Timestamp(seconds=10, nanos=500_000_000))
    task.run_at.FromSeconds(99)
    assert update_view(update_of_task(task))["at"] == "1970-01-01T00:00:10.500Z"
    assert update_view(update_of_task(Task(task_id=1)))["at"] is None


@pytest.mark.parametrize(("size", "rides_along"), [(RESULT_BYTES_MAX, True), (RESULT_BYTES_MAX + 1, False)])
def test_a_large_result_is_referred_to(size: int, rides_along: bool) -> None:
    result = b'"' + b"x" * (size - 2) + b'"'
    view = update_view(update_of_task(Task(task_id=5, status=COMPLETED, revision=3, result=result)))
    assert (view["result"] is not None) == rides_along
    assert view["result_url"] == (None if rides_along else "/api/tasks/5")


def test_an_update_of_an_unfinished_or_failed_task_refers_to_no_result() -> None:
    failed = TaskUpdate(task_id=5, status=TaskStatus.TASK_STATUS_FAILED, error=TaskError(code="timeout"))
    running = TaskUpdate(task_id=5, status=TaskStatus.TASK_STATUS_PROCESSING, progress=Progress(n=1, fraction=0.5))
    assert update_view(failed)["result_url"] is None
    assert update_view(failed)["error"]["code"] == "timeout"
    assert update_view(running)["result_url"] is None
    assert update_view(running)["progress"] == {"n": 1, "fraction": 0.5, "message": None}
