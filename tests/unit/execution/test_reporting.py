"""Reports are kept, and sent again, until their verdicts."""

from execution_service.reporting import VERDICT_SECONDS, ReportBook
from headrace.v1 import task_pb2
from tests.unit.execution.factories import report


def ids(assigned: tuple[int, list[task_pb2.Report]] | None) -> tuple[int, list[int]]:
    assert assigned is not None
    return assigned[0], [item.task_id for item in assigned[1]]


def test_reports_wait_while_no_stream_is_open() -> None:
    book = ReportBook()
    book.add([report(1), report(2)])
    assert book.assign([], 0.0) is None
    assert ids(book.assign([5], 0.0)) == (5, [1, 2])
    assert book.assign([5], 0.0) is None, "nothing is sent twice by itself"
    assert len(book) == 2


def test_reports_of_a_stream_that_ended_are_sent_on_another() -> None:
    book = ReportBook()
    book.add([report(1), report(2), report(3)])
    assert ids(book.assign([5], 0.0)) == (5, [1, 2, 3])
    assert book.settle((2, 1))
    book.remove_stream(5)
    assert ids(book.assign([6], 1.0)) == (6, [1, 3])


def test_reports_without_a_verdict_go_to_another_stream_in_time() -> None:
    book = ReportBook()
    book.add([report(1)])
    first, _ = ids(book.assign([5, 6], 0.0))
    assert book.take_back_late(VERDICT_SECONDS - 0.1, streams=[5, 6]) == 0
    assert book.take_back_late(VERDICT_SECONDS, streams=[5, 6]) == 1
    second, sent = ids(book.assign([5, 6], VERDICT_SECONDS))
    assert sent == [1]
    assert second != first


def test_the_stream_with_the_fewest_unanswered_reports_is_chosen() -> None:
    book = ReportBook()
    book.add([report(1), report(2)])
    first, _ = ids(book.assign([5, 6], 0.0))
    book.add([report(3)])
    second, _ = ids(book.assign([5, 6], 0.0))
    assert {first, second} == {5, 6}
    book.settle((1, 1))
    book.settle((2, 1))
    book.add([report(4)])
    assert ids(book.assign([5, 6], 0.0))[0] == first


def test_a_verdict_releases_a_report_once() -> None:
    book = ReportBook()
    book.add([report(1)])
    assert book.settle((1, 1))
    assert not book.settle((1, 1))
    assert not book.settle((1, 2))
    assert book.assign([5], 0.0) is None
    assert len(book) == 0
