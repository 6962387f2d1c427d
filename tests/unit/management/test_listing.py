import pytest

from headrace.v1.management_pb2 import ListTasksRequest
from headrace.v1.task_pb2 import TASK_STATUS_COMPLETED, TASK_STATUS_QUEUED
from management_service.domain.statuses import TaskStatus
from management_service.rpc.validation import listing
from management_service.storage.records import Listing
from servicekit.errors import InvalidArgument


def test_what_is_left_out_stands_for_everything() -> None:
    assert listing(ListTasksRequest()) == Listing(task_ids=[], statuses=[], type_names=[], limit=50)


def test_several_stand_instead_of_one_and_each_counts_once() -> None:
    one = listing(ListTasksRequest(status=TASK_STATUS_QUEUED, type="a", limit=7, after=9))
    assert one == Listing(task_ids=[], statuses=[TaskStatus.QUEUED], type_names=["a"], limit=7, after=9)
    several = ListTasksRequest(
        status=TASK_STATUS_QUEUED,
        statuses=[TASK_STATUS_COMPLETED, TASK_STATUS_QUEUED, TASK_STATUS_COMPLETED],
        type="a",
        types=["b", "c", "b"],
        task_ids=[3, 1, 3],
    )
    assert listing(several) == Listing(
        task_ids=[1, 3], statuses=[TaskStatus.COMPLETED, TaskStatus.QUEUED], type_names=["b", "c"], limit=50
    )


@pytest.mark.parametrize(
    ("request_", "fields"),
    [
        (ListTasksRequest(limit=201), ["/limit"]),
        (ListTasksRequest(limit=-1, after=-1), ["/limit", "/after"]),
        (ListTasksRequest(status=99), ["/status"]),  # type: ignore[arg-type]
        (ListTasksRequest(statuses=[TASK_STATUS_QUEUED, 0]), ["/statuses"]),  # type: ignore[list-item]
        (ListTasksRequest(task_ids=range(1, 1_002)), ["/task_ids"]),
        (ListTasksRequest(types=["t"] * 21), ["/types"]),
    ],
)
def test_what_cannot_be_listed_is_refused_by_its_field(request_: ListTasksRequest, fields: list[str]) -> None:
    with pytest.raises(InvalidArgument) as caught:
        listing(request_)
    assert [error.field for error in caught.value.fields] == fields
